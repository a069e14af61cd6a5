//! The daemon's end of the control socket: for root, or whoever runs the daemon, and nobody else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::control::{Request, Response, socket_path};
use crate::error::{Exit, Failure, Outcome};

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 4_096;
/// A request comes whole within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request and where its answer goes.
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// For the answer.
    pub reply: oneshot::Sender<Response>,
}

/// The listening socket. Whoever connects waits until it is served.
pub struct ControlSocket(UnixListener);

/// The socket's file, which goes with this. To be dropped while the lock of the state directory is held, lest it be the
/// next daemon's file that goes.
pub struct SocketFile(PathBuf);

impl ControlSocket {
    /// Listens in the state directory, which is the daemon's alone. A socket that a crash left is replaced: the lock
    /// on that directory is ours. To be called before any client is read: who then changes one finds a daemon, which
    /// hears of it when it serves.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn bind(state_dir: &Path) -> Outcome<(Self, SocketFile)> {
        let path = socket_path(state_dir);
        let failed = |error: std::io::Error| {
            Failure::new(Exit::CannotCreate, format_args!("cannot listen on {}: {error}", path.display()))
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok((Self(listener), SocketFile(path)))
    }

    /// Takes requests, one connection after the other. A connection that says nothing holds up the next for
    /// [`REQUEST_TIMEOUT`] at most, and only root can make one.
    pub async fn serve(self, orders: mpsc::Sender<Order>) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = answer(stream, &orders).await {
                        tracing::warn!(%error, "control socket");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await; // out of descriptors: let some go
                }
            }
            if orders.is_closed() {
                return;
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // it may be gone already
    }
}

async fn answer(stream: UnixStream, orders: &mpsc::Sender<Order>) -> std::io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other(format!("uid {peer} was refused")));
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    if line.is_empty() {
        return Ok(()); // somebody asked whether we are here
    }
    let response = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, response) = oneshot::channel();
            let gone = |_| std::io::Error::other("the daemon is stopping");
            orders.send(Order { request, reply }).await.map_err(|_| gone(()))?;
            response.await.map_err(|_| gone(()))?
        }
        Err(error) => Response::error(&Failure::new(Exit::Usage, format_args!("malformed request: {error}"))),
    };
    let mut bytes = serde_json::to_vec(&response)?;
    bytes.push(b'\n');
    writer.write_all(&bytes).await
}
