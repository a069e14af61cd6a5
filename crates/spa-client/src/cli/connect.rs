//! `connect`: ssh's ProxyCommand. Standard output is the data channel, so nothing else is printed there.

use std::net::TcpStream;
use std::process::ExitCode;

use spa_proto::{Endpoint, Protocol, Requests};

use super::args::ConnectArgs;
use super::failure::{Failure, USAGE, io_failure};
use super::say::Say;
use super::{block_on, relay};
use crate::config::Config;
use crate::error::Error;
use crate::knocker::Knocker;

pub(super) fn run(args: ConnectArgs, config: &Config, say: Say) -> Result<ExitCode, Failure> {
    let endpoint = Endpoint::new(Protocol::Tcp, args.port.get())
        .ok_or_else(|| Failure::new(USAGE, "a port is from 1 to 65535"))?;
    let host = config.host_for(&args.host, endpoint)?;
    let mut knocker = Knocker::new(host.clone(), args.path.options())?;
    let requests = Requests::new([host.request_for(endpoint)]).ok_or(Error::RequestCount)?;
    let say = say.only_if_asked();
    let stream = block_on(async {
        say.report(&knocker.open(requests, None).await?);
        let stream = knocker.reach(endpoint, args.timeout).await?;
        stream.into_std().map_err(io_failure("cannot take the connection over"))
    })??;
    stream.set_nonblocking(false).map_err(io_failure("cannot take the connection over"))?;
    if let Ok(peer) = stream.peer_addr() {
        say.progress(&format!("connected to {peer}"));
    }
    if args.fdpass {
        pass(&stream)?
    } else {
        relay::relay(&stream).map_err(io_failure("the connection broke"))?
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(unix)]
fn pass(stream: &TcpStream) -> Result<(), Failure> {
    super::fdpass::pass(stream).map_err(|error| {
        io_failure("cannot hand the connection over")(error)
            .hint("--fdpass is for ssh with \"ProxyUseFdpass yes\", which gives a socket as standard output")
    })
}

#[cfg(not(unix))]
fn pass(_: &TcpStream) -> Result<(), Failure> {
    Err(Failure::new(USAGE, "--fdpass needs a Unix system"))
}
