//! The capture socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::batch::Batch;
use crate::interfaces::{Selection, Verdict};
use crate::ring::{self, Ring};
use crate::slot::Frame;
use crate::{CaptureError, Family, Interfaces, filter, packet, sys};

/// Most packets that one [`Capture::receive`] takes.
pub const BATCH: usize = 64;

/// Receive buffer asked for where there is no ring, in bytes of the kernel's accounting (about 1 to 2 kB a packet). Without CAP_NET_ADMIN the
/// kernel grants no more than net.core.rmem_max. Overflow policy: the kernel drops the newest and counts it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A datagram to the port, as captured. Nothing in it is authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where its header says that it came from. An IPv6 address has no scope id here: see `interface`.
    pub source: SocketAddr,
    /// The address it was sent to, which may not be one of this host: see [`crate::local_addresses`].
    pub destination: IpAddr,
    /// Index of the interface that it came in on.
    pub interface: u32,
    /// [`crate::MIN_DATAGRAM`] to [`crate::MAX_DATAGRAM`] bytes.
    pub payload: &'a [u8],
}

/// What one [`Capture::receive`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Datagrams given to the callback.
    pub accepted: usize,
    /// Packets that came through the filter and broke a rule all the same. Expected to stay 0.
    pub refused: usize,
    /// Datagrams of interfaces that do not count.
    pub elsewhere: usize,
    /// One of them came from an interface not seen since the last [`Capture::set_interfaces`]: resolve the names
    /// again.
    pub stale: bool,
}

impl Received {
    /// Whether the batch was full, so that more may be queued: receive again before waiting for the descriptor. (A reader
    /// that took over a full ring from another is not told of the rest until a new packet comes.)
    #[must_use]
    pub fn more(&self) -> bool {
        self.accepted + self.refused + self.elsewhere == BATCH
    }

    /// Counts a packet, and gives it to `each` if it counts. `None` breaks a rule.
    fn count(
        &mut self,
        selection: &mut Selection,
        datagram: Option<Datagram<'_>>,
        each: &mut dyn FnMut(Datagram<'_>),
    ) {
        let Some(datagram) = datagram else {
            self.refused += 1;
            return;
        };
        match selection.judge(datagram.interface) {
            Verdict::Wanted => {
                self.accepted += 1;
                each(datagram);
            }
            verdict => {
                self.elsewhere += 1;
                self.stale |= verdict == Verdict::RefusedFirst;
            }
        }
    }
}

/// How packets come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Through memory shared with the kernel, `TPACKET_V2`.
    Ring,
    /// By `recvmmsg`: where the kernel refuses the ring.
    Calls,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Calls => "recvmmsg",
        })
    }
}

/// Where packets are taken from.
enum Source {
    Ring(Ring),
    Calls(Batch),
}

/// One packet socket, for the datagrams to one port over one family.
pub struct Capture {
    // Before the descriptor, so that the ring is gone when the socket closes.
    source: Source,
    fd: OwnedFd,
    family: Family,
    port: u16,
    selection: Selection,
    ring_refused: Option<io::Error>,
    drops: u64,
}

impl Capture {
    /// Opens the tap for UDP `port`, with a ring; where the kernel refuses that, without ([`Capture::method`] tells).
    /// Non-blocking, closed on exec. Wants `CAP_NET_RAW`.
    ///
    /// # Errors
    /// [`CaptureError::NotPermitted`] without the capability, [`CaptureError::NotSupported`] where packet sockets do not
    /// exist, else [`CaptureError::Setup`] or [`CaptureError::Lookup`].
    pub fn open(family: Family, port: u16, interfaces: &Interfaces) -> Result<Self, CaptureError> {
        match Self::open_with(Method::Ring, family, port, interfaces) {
            Err(CaptureError::Ring(refused)) => {
                // A new socket: this one might have half of a ring.
                let capture = Self::open_with(Method::Calls, family, port, interfaces)?;
                Ok(Self { ring_refused: Some(refused), ..capture })
            }
            opened => opened,
        }
    }

    /// As [`Capture::open`], with the method given and no other.
    ///
    /// # Errors
    /// Also [`CaptureError::Ring`].
    pub fn open_with(
        method: Method,
        family: Family,
        port: u16,
        interfaces: &Interfaces,
    ) -> Result<Self, CaptureError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 receives nothing, until the bind below.
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None);
        let owned = socket.map_err(|error| refused(family, error))?;
        let fd = owned.as_fd();
        sys::attach_filter(fd, &filter::program(family, port)).map_err(step("attach the filter"))?;
        sys::lock_filter(fd).map_err(step("lock the filter"))?;
        ignore_outgoing(fd).map_err(step("leave out the outgoing packets"))?;
        let source = match method {
            Method::Ring => {
                ring::make(fd).map_err(CaptureError::Ring)?;
                Source::Ring(Ring::map(fd).map_err(CaptureError::Ring)?)
            }
            Method::Calls => {
                enlarge_buffer(fd).map_err(step("set the receive buffer"))?;
                Source::Calls(Batch::new())
            }
        };
        sys::bind(fd, family.ethertype()).map_err(step("set the protocol"))?;
        Ok(Self::new(owned, source, family, port, interfaces.resolve()?))
    }

    /// Takes over a socket that another process opened with [`Capture::open`] for the same family and port.
    ///
    /// `interfaces` is what [`Interfaces::resolve`] gave that process. Everything that keeps the socket harmless is
    /// checked: it is a packet socket without link headers, bound to the family on all interfaces, and its filter
    /// is the one of [`filter::program`] and locked. A ring is mapped; only one process may read it at a time.
    ///
    /// # Errors
    /// [`CaptureError::Foreign`] if a check fails, [`CaptureError::Setup`] if one cannot be made, [`CaptureError::Ring`]
    /// if its ring cannot be mapped.
    pub fn from_fd(
        owned: OwnedFd,
        family: Family,
        port: u16,
        interfaces: Option<Vec<u32>>,
    ) -> Result<Self, CaptureError> {
        let fd = owned.as_fd();
        let kind = sockopt::socket_type(fd).map_err(|error| step("read the type")(error.into()))?;
        let bound = sys::bound_to(fd).map_err(step("read the protocol"))?;
        let wrong = if bound.is_none() || kind != SocketType::DGRAM {
            Some("it is not AF_PACKET with SOCK_DGRAM")
        } else if bound != Some((family.ethertype(), 0)) {
            Some("it is bound to another protocol, or to one interface")
        } else if !sys::is_filter_locked(fd).map_err(step("read the lock of the filter"))? {
            Some("its filter is not locked")
        } else if sys::filter(fd).map_err(step("read the filter"))? != filter::program(family, port) {
            Some("its filter is another one")
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(CaptureError::Foreign { what });
        }
        let source = match sys::ring_version(fd).map_err(step("read the version of the ring"))? {
            sys::RING_VERSION => Source::Ring(Ring::map(fd).map_err(CaptureError::Ring)?),
            _ => Source::Calls(Batch::new()),
        };
        Ok(Self::new(owned, source, family, port, interfaces))
    }

    fn new(fd: OwnedFd, source: Source, family: Family, port: u16, interfaces: Option<Vec<u32>>) -> Self {
        let selection = Selection::new(interfaces);
        Self { source, fd, family, port, selection, ring_refused: None, drops: 0 }
    }

    /// Gives the socket up, to be passed to another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The family it captures.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// How its packets come.
    #[must_use]
    pub fn method(&self) -> Method {
        match self.source {
            Source::Ring(_) => Method::Ring,
            Source::Calls(_) => Method::Calls,
        }
    }

    /// Why [`Capture::open`] made do without a ring.
    #[must_use]
    pub fn ring_refused(&self) -> Option<&io::Error> {
        self.ring_refused.as_ref()
    }

    /// Counts only datagrams of the interfaces with these indexes from now on, or of all; see [`Interfaces::resolve`].
    pub fn set_interfaces(&mut self, interfaces: Option<Vec<u32>>) {
        self.selection = Selection::new(interfaces);
    }

    /// Receives what is queued, at most [`BATCH`] packets, without waiting, and calls `each` for every datagram.
    ///
    /// The payload is valid during the call only. Nothing is allocated, and with a ring no system call is made.
    ///
    /// # Errors
    /// [`CaptureError::Receive`].
    pub fn receive(&mut self, each: &mut dyn FnMut(Datagram<'_>)) -> Result<Received, CaptureError> {
        let Self { source, fd, family, port, selection, .. } = self;
        let mut received = Received::default();
        let mut take = |frame: Option<Frame<'_>>| {
            let datagram = frame.and_then(|frame| datagram(*family, *port, &frame));
            received.count(selection, datagram, each);
        };
        match source {
            Source::Ring(ring) => {
                ring.take(BATCH, take);
            }
            Source::Calls(batch) => {
                batch.receive(fd.as_fd()).map_err(CaptureError::Receive)?;
                batch.frames().for_each(|frame| take(Some(frame)));
            }
        }
        Ok(received)
    }

    /// Packets lost so far because the ring or the receive buffer was full, since this value was made.
    ///
    /// The kernel counts per socket and starts anew at each reading, so only one process may ask.
    ///
    /// # Errors
    /// [`CaptureError::Receive`].
    pub fn drops(&mut self) -> Result<u64, CaptureError> {
        let new = sys::take_drops(self.fd.as_fd()).map_err(CaptureError::Receive)?;
        self.drops += u64::from(new);
        Ok(self.drops)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("fd", &self.fd)
            .field("family", &self.family)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Checks again all that the filter checked.
fn datagram<'a>(family: Family, port: u16, frame: &Frame<'a>) -> Option<Datagram<'a>> {
    if frame.protocol != family.ethertype() || frame.packet_type != libc::PACKET_HOST {
        return None;
    }
    let packet = packet::parse(family, frame.bytes).ok()?;
    (packet.destination.port() == port).then_some(Datagram {
        source: packet.source,
        destination: packet.destination.ip(),
        interface: frame.interface,
        payload: packet.payload,
    })
}

fn refused(family: Family, error: rustix::io::Errno) -> CaptureError {
    let source = io::Error::from(error);
    match error {
        rustix::io::Errno::PERM | rustix::io::Errno::ACCESS => CaptureError::NotPermitted { family, source },
        rustix::io::Errno::AFNOSUPPORT => CaptureError::NotSupported { source },
        _ => CaptureError::Setup { step: "make the descriptor", source },
    }
}

fn step(step: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Setup { step, source }
}

/// Kernels before 4.20 do not know the option; the filter refuses outgoing packets there as everywhere.
fn ignore_outgoing(fd: BorrowedFd<'_>) -> io::Result<()> {
    match sys::ignore_outgoing(fd) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        other => other,
    }
}

/// Beyond net.core.rmem_max where permitted, else up to it.
fn enlarge_buffer(fd: BorrowedFd<'_>) -> io::Result<()> {
    match sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER) {
        Err(rustix::io::Errno::PERM) => Ok(sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER)?),
        other => Ok(other?),
    }
}
