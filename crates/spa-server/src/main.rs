//! `spa-server`.

fn main() -> std::process::ExitCode {
    spa_server::main()
}
