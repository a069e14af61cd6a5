//! The command `spa-client`; everything is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    spa_client::cli::main()
}
