//! Another program that knocks: opens a service of a host of `client.toml`, waits for it, and talks to it.
//!
//! ```sh
//! cargo run -p spa-client --no-default-features --example knock -- bastion ssh
//! ```

use std::process::ExitCode;
use std::time::Duration;

use spa_client::{Config, Error, Knocker, Options, Protocol, default_config};
use tokio::io::AsyncReadExt as _;

/// How long the host may take to let us in.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, service] = words.as_slice() else {
        eprintln!("usage: knock HOST SERVICE");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let knocked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(knock(host, service)).map_err(|error| match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        })
    });
    match knocked {
        Ok(greeting) => {
            println!("{greeting}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("knock: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the service says first, as sshd does.
async fn knock(host: &str, service: &str) -> Result<String, Error> {
    let path = default_config().unwrap_or_default();
    let config = Config::load(&path)?;
    let host = config.host(Some(host))?;
    // The server knows its services by name; the entry says on which ports they are.
    let request = host.request(service)?;
    let tcp = host.endpoints(&request).iter().copied().find(|endpoint| endpoint.protocol() == Protocol::Tcp);
    let mut knocker = Knocker::new(host.clone(), Options::default())?;
    let report = knocker.open(host.requests(&[service])?, Some(Duration::from_secs(30))).await?;
    for sent in &report.sent {
        eprintln!("knocked at {} from {}", sent.to, sent.from);
    }
    let Some(endpoint) = tcp else { return Ok("sent; only TCP can be seen to be open".to_owned()) };
    let mut stream = knocker.reach(endpoint, PATIENCE).await?;
    let mut greeting = [0; 256];
    // Some services wait for us to speak first.
    let length = match tokio::time::timeout(PATIENCE, stream.read(&mut greeting)).await {
        Ok(Ok(length)) => length,
        _ => 0,
    };
    Ok(String::from_utf8_lossy(&greeting[..length]).trim_end().to_owned())
}
