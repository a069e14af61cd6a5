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
    /// Why that address mode, for people.
    pub reason: &'static str,
    /// Length of the datagram's payload, in bytes.
    pub length: usize,
    /// Its counter: Unix time in nanoseconds.
    pub counter: u64,
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
    /// What its packets ask for, and why that.
    address: Address,
    reason: &'static str,
}

/// A connected UDP socket and its local address.
struct Route(UdpSocket, IpAddr);

impl Route {
    /// Connecting a UDP socket sends nothing: it chooses the route, and so the local address.
    fn to(to: SocketAddr) -> io::Result<Self> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        let from = socket.local_addr()?.ip().to_canonical();
        Ok(Self(socket, from))
    }
}

/// The local address on the route to `to`. Sends nothing.
///
/// # Errors
/// Those of the sockets, such as a network that is unreachable.
pub fn local_address(to: SocketAddr) -> io::Result<IpAddr> {
    Route::to(to).map(|Route(_, from)| from)
}

impl Knocker {
    /// Reads the host's keys.
    ///
    /// # Errors
    /// Those of [`read_key_file`](crate::read_key_file), [`Error::UselessKeys`] and [`Error::NoResolver`].
    pub fn new(host: Host, options: Options) -> Result<Self, Error> {
        if options.source.unwrap_or(host.source) == Source::Resolve && host.resolver.is_none() {
            return Err(Error::NoResolver { host: host.name });
        }
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
            match self.path(to).await {
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

    /// Chooses the route, and whose access to ask for over it.
    async fn path(&self, to: SocketAddr) -> io::Result<Path> {
        let Route(socket, from) = Route::to(to)?;
        let source = self.source();
        let address = match (source.address(from), &self.host.resolver) {
            (Some(address), _) => address,
            (None, Some(resolver)) => Address::Bound(resolver.ask(from).await?),
            (None, None) => return Err(io::Error::other("no resolver to ask")), // new() has seen to it
        };
        Ok(Path { to, from, socket, address, reason: source.reason(from) })
    }

    fn source(&self) -> Source {
        self.options.source.unwrap_or(self.host.source)
    }

    /// Sends the current knock in fresh packets: new counter, nonce, ephemeral key and size for each.
    pub(crate) fn send(&mut self) -> Result<Report, Error> {
        let mut report = Report { sent: Vec::new(), failed: Vec::new(), state_trouble: None };
        let Some(current) = &mut self.current else { return Ok(report) };
        for Path { to, from, socket, address, reason } in &current.paths {
            let (address, counter) = (*address, self.counter.next()?);
            let knock = Knock { action: current.action.clone(), address, counter };
            let packet = self.sealer.seal(&knock, &randomness()?);
            // What an earlier packet met would otherwise be reported instead of sending this one.
            current.unprotected |= is_refusal(socket);
            match socket.send(&packet) {
                Ok(length) => {
                    report.sent.push(Sent { to: *to, from: *from, address, reason, length, counter });
                }
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

    /// Whether every packet asked for the address that the server sees, whatever that is.
    pub(crate) fn is_observed(&self) -> bool {
        let observed = |path: &Path| path.address == Address::Observed;
        self.current.as_ref().is_some_and(|current| current.paths.iter().all(observed))
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
