//! The client of single-packet authorization: it knocks at a server, waits for the port, and connects.
//!
//! This library is for programs that want to reach a port which only a knock opens; the command `spa-client` is made of
//! it. Turn its default feature `cli` off, which is that command and nothing else.
//!
//! A [`Host`] is an entry of `client.toml` (see [`Config`]), or built by hand; a [`Knocker`] sends its knocks:
//! [`Knocker::open`] asks and returns at once, [`Knocker::wait`] sees whether the ports answer, and
//! [`Knocker::connect`] does both and gives the connection.
//!
//! ```no_run
//! # async fn example() -> Result<(), spa_client::Error> {
//! use std::time::Duration;
//! use spa_client::{Config, Knocker, Options};
//!
//! let config = Config::load("/home/alice/.config/spa/client.toml".as_ref())?;
//! let host = config.host(Some("bastion"))?;
//! let ssh = host.request("ssh")?;
//! let endpoints = host.endpoints(&ssh).to_vec();
//!
//! let mut knocker = Knocker::new(host.clone(), Options::default())?;
//! knocker.open(host.requests(&["ssh"])?, Some(Duration::from_secs(60))).await?;
//! for answer in knocker.wait(&endpoints, Duration::from_secs(5)).await? {
//!     println!("{} is open at {}", answer.endpoint, answer.address);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/knock.rs` is a whole program. [`Error::hint`] says what a user can try.
//!
//! A server never answers a knock. What can be seen from here is that the port answers, and nothing else; a port
//! that does not may be closed, or open with nobody behind it. Futures here want a tokio runtime with I/O and time.
#![forbid(unsafe_code)]

mod address;
#[cfg(feature = "cli")]
pub mod cli;
mod config;
mod config_error;
mod counter;
pub mod duration;
mod error;
mod external;
mod knocker;
mod paths;
mod race;
mod random;
mod resolve;
mod secret_file;
mod suggest;
mod wait;

pub use address::{Source, SourceError, is_global};
pub use config::{Config, Host, is_host_name};
pub use config_error::ConfigError;
pub use error::Error;
pub use external::{Resolver, ResolverError};
pub use knocker::{Knocker, Options, Report, Sent, local_address};
pub use paths::{default_config, default_state};
pub use random::generate_key;
pub use resolve::Family;
pub use secret_file::{Exposure, read_key_file};
pub use wait::Answer;

// What the interface above is made of.
pub use spa_proto::{
    Address, ClientKeyFile, Endpoint, Protocol, PublicKey, Request, Requests, SecretKey, ServiceName,
};
