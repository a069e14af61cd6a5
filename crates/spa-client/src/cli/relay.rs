//! Copies both ways between a connection and standard input and output. Either side may end its half first.
//!
//! Two threads with blocking calls: standard input and output may be anything, also what an event loop cannot watch.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

/// Bytes copied at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// Copies until both halves have ended, or the connection broke.
pub(super) fn relay(stream: &TcpStream) -> io::Result<()> {
    let (input, output) = standard()?;
    let outgoing = stream.try_clone()?;
    let sender = std::thread::spawn(move || {
        // Input that fails is input that ends. A connection that fails shows in the other half.
        let _ = copy(input, &outgoing);
        let _ = outgoing.shutdown(Shutdown::Write);
    });
    match copy(stream, &output) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()), // our reader has gone
        Err(error) => return Err(error),
    }
    drop(output);
    if end_output()? {
        let _ = sender.join();
    }
    Ok(())
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Standard input and output without std's buffers, which would hold back what has no line end.
#[cfg(unix)]
fn standard() -> io::Result<(File, File)> {
    use std::os::fd::AsFd as _;
    let (input, output) =
        (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
    Ok((input.into(), output.into()))
}

#[cfg(windows)]
fn standard() -> io::Result<(File, File)> {
    use std::os::windows::io::AsHandle as _;
    let (input, output) = (io::stdin(), io::stdout());
    Ok((input.as_handle().try_clone_to_owned()?.into(), output.as_handle().try_clone_to_owned()?.into()))
}

/// Ends standard output, so that its reader sees the server's end of file while we still send. Whether it could.
#[cfg(unix)]
fn end_output() -> io::Result<bool> {
    // Where standard input is the same socket, closing one of the two ends nothing. Not a socket: not needed.
    let _ = rustix::net::shutdown(io::stdout(), rustix::net::Shutdown::Write);
    let nothing = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(true)
}

/// Elsewhere only our exit ends it, so the server's end of file ends the whole.
#[cfg(not(unix))]
fn end_output() -> io::Result<bool> {
    Ok(false)
}
