//! Sends knocks to one host: every address that it resolves to, a packet of its own for each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use spa_proto::{Action, Address, Knock, Requests, Sealer};

use crate::address::Source;
use crate::config::Host;
use crate::counter::Counter;
use crate::error::Error;
use crate::paths;
use crate::random::randomness;
use crate::resolve::{Family, resolve};
use crate::secret_file::read_key_file;

/// How to knock, where it differs from the host's entry or from the usual.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Instead of the entry's source.
    pub source: Option<Source>,
    /// Which of the host's addresses.
    pub family: Family,
    /// Directory for the counters, instead of [`default_state`](crate::default_state).
    pub state: Option<PathBuf>,
}

/// One packet that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The server's address and SPA port.
    pub to: SocketAddr,
    /// The local address that it left from.
    pub from: IpAddr,
    /// Whose access it asked for.
    pub address: Address,
}

/// What became of one knock. At least one packet was sent.
#[derive(Debug)]
pub struct Report {
    /// The packets sent.
    pub sent: Vec<Sent>,
    /// The addresses that no packet could be sent to, and why.
    pub failed: Vec<(SocketAddr, io::Error)>,
    /// Why the counter could not be kept over runs; told once.
    pub state_trouble: Option<io::Error>,
}

/// Knocks at one host. See the [crate]'s example.
pub struct Knocker {
    host: Host,
    options: Options,
    sealer: Sealer,
    counter: Counter,
    /// The last knock that opens, to be sent again while its answer is awaited.
    pub(crate) current: Option<Current>,
}

pub(crate) struct Current {
    action: Action,
    paths: Vec<Path>,
    /// An ICMP error came back from the SPA port.
    pub(crate) unprotected: bool,
}

/// A socket towards one of the server's addresses.
struct Path {
    to: SocketAddr,
    from: IpAddr,
    socket: UdpSocket,
}

impl Path {
    /// Connecting a UDP socket sends nothing: it chooses the route, and so the local address.
    fn new(to: SocketAddr) -> io::Result<Self> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(Self { to, from: socket.local_addr()?.ip().to_canonical(), socket })
    }
}

/// The local address on the route to `to`. Sends nothing.
///
/// # Errors
/// Those of the sockets, such as a network that is unreachable.
pub fn local_address(to: SocketAddr) -> io::Result<IpAddr> {
    Path::new(to).map(|path| path.from)
}

impl Knocker {
    /// Reads the host's keys.
    ///
    /// # Errors
    /// Those of [`read_key_file`](crate::read_key_file), and [`Error::UselessKeys`].
    pub fn new(host: Host, options: Options) -> Result<Self, Error> {
        let keys = read_key_file(&host.key_file)?;
        let useless = || Error::UselessKeys { host: host.name.clone() };
        let cloak = keys.cloaks.first().ok_or_else(useless)?; // the newest
        let sealer = Sealer::new(&keys.secret, &keys.psk, cloak, &host.server_key).ok_or_else(useless)?;
        let state = options.state.clone().or_else(paths::default_state);
        let counter = Counter::new(state.as_deref(), &keys.secret.public_key());
        Ok(Self { host, options, sealer, counter, current: None })
    }

    /// The host that is knocked at.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How far the clock is behind the last packet, where it is.
    pub fn clock_behind(&self) -> Option<Duration> {
        self.counter.ahead()
    }

    /// Asks the server to open everything in `requests`, or nothing; for `time` (whole seconds; `None` is the
    /// server's default). Whether it did cannot be seen before something answers: [`Self::wait`].
    ///
    /// # Errors
    /// [`Error::RequestCount`], [`Error::Resolve`], [`Error::NotSent`], [`Error::Clock`], [`Error::Random`].
    pub async fn open(&mut self, requests: Requests, time: Option<Duration>) -> Result<Report, Error> {
        if requests.as_slice().is_empty() {
            return Err(Error::RequestCount);
        }
        let seconds = time.map_or(0, |time| time.as_secs().try_into().unwrap_or(u32::MAX));
        self.start(Action::Open { requests, seconds }).await
    }

    /// Asks the server to close this client's own grants for `requests`; for no requests, all of them.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn close(&mut self, requests: Requests) -> Result<Report, Error> {
        let report = self.start(Action::Close { requests }).await;
        self.current = None;
        report
    }

    /// Looks up the addresses anew, since this machine or the server may have moved, and sends.
    async fn start(&mut self, action: Action) -> Result<Report, Error> {
        let mut failed = Vec::new();
        let mut paths = Vec::new();
        for to in resolve(&self.host.address, self.host.port, self.options.family).await? {
            match Path::new(to) {
                Ok(path) => paths.push(path),
                Err(error) => failed.push((to, error)),
            }
        }
        self.current = Some(Current { action, paths, unprotected: false });
        let mut report = self.send()?;
        failed.append(&mut report.failed);
        report.failed = failed;
        if report.sent.is_empty() { Err(Error::NotSent { failed: report.failed }) } else { Ok(report) }
    }

    /// Sends the current knock in fresh packets: new counter, nonce, ephemeral key and size for each.
    pub(crate) fn send(&mut self) -> Result<Report, Error> {
        let mut report = Report { sent: Vec::new(), failed: Vec::new(), state_trouble: None };
        let source = self.options.source.unwrap_or(self.host.source);
        let Some(current) = &mut self.current else { return Ok(report) };
        for Path { to, from, socket } in &current.paths {
            let address = source.address(*from);
            let knock = Knock { action: current.action.clone(), address, counter: self.counter.next()? };
            let packet = self.sealer.seal(&knock, &randomness()?);
            // What an earlier packet met would otherwise be reported instead of sending this one.
            current.unprotected |= is_refusal(socket);
            match socket.send(&packet) {
                Ok(_) => report.sent.push(Sent { to: *to, from: *from, address }),
                Err(error) => report.failed.push((*to, error)),
            }
        }
        report.state_trouble = self.counter.take_trouble();
        Ok(report)
    }

    /// Whether the server's host sent an ICMP error for the SPA port.
    pub(crate) fn is_unprotected(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.unprotected || current.paths.iter().any(|path| is_refusal(&path.socket))
        })
    }

    /// The addresses knocked at, with another port.
    pub(crate) fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        let paths = self.current.as_ref().map_or(&[][..], |current| &current.paths);
        let with_port = |path: &Path| {
            let mut address = path.to; // keeps an IPv6 scope
            address.set_port(port);
            address
        };
        paths.iter().map(with_port).collect()
    }
}

/// Takes the socket's pending error and tells whether it is "port unreachable".
fn is_refusal(socket: &UdpSocket) -> bool {
    let error = socket.take_error().ok().flatten();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
