//! Netlink, as much as conntrack, nf_tables and sock_diag need: build a request, send it, read every answer with its bounds
//! checked. See netlink(7) and `linux/netlink.h`. Headers are in the machine's byte order; so are sizes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getsockname, recv, send,
    socket_with, sockopt,
};

/// This is a request.
pub const REQUEST: u16 = 0x1;
/// Answer with an acknowledgement.
pub const ACK: u16 = 0x4;
/// List everything.
pub const DUMP: u16 = 0x300;
/// Create.
pub const CREATE: u16 = 0x400;
/// Create; fails if it exists.
pub const CREATE_NEW: u16 = CREATE | 0x200;
/// Behind those that are there.
pub const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The first type that is not netlink's own.
const NLMSG_MIN_TYPE: u16 = 16;
/// The answer was built while the table changed and may be incomplete.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NFNL_MSG_BATCH_BEGIN` and `_END`, `linux/netfilter/nfnetlink.h`.
const BATCH_BEGIN: u16 = NLMSG_MIN_TYPE;
const BATCH_END: u16 = NLMSG_MIN_TYPE + 1;
const HEADER: usize = 16;
/// The attribute has attributes in it.
const NESTED: u16 = 0x8000;
/// Without the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;
/// The kernel's dumps come in pieces of at most this many bytes.
const BUFFER: usize = 64 << 10;
/// How long the kernel may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A request under construction.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request of this type; [`REQUEST`] is added to the flags.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    /// Appends a fixed header of the subsystem.
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start);
        self
    }

    /// Appends an attribute made of those that `inner` appends.
    pub fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NESTED);
        self = inner(self);
        self.close(start);
        self
    }

    fn acknowledge(&mut self) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACK;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// What follows the netlink header, to be compared with what the kernel answers.
    pub fn payload(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// Requests are built from few values of fixed size, in lists of bounded length, so none nears 64 KiB.
    fn close(&mut self, start: usize) {
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A netlink socket that talks to the kernel alone.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    /// What the kernel's answers are read into, empty meanwhile: to clear it for each would cost more than to ask.
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one for a protocol of `rustix::net::netlink`; none is rtnetlink, whose number is 0.
    pub fn open(protocol: impl Into<Option<Protocol>>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol.into())?;
        // Connected to port 0, the kernel, nobody else's messages are queued.
        connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_LIMIT))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends the request and hands each answer's payload to `each`, until the acknowledgement or the end of the dump.
    ///
    /// # Errors
    /// What the kernel answered; `InvalidData` for a malformed answer; `Interrupted` if the table changed during a
    /// dump.
    pub fn request(&mut self, request: Request, each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.request_with(request, each, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn request_with(
        &mut self,
        request: Request,
        mut each: impl FnMut(&[u8]),
        buffer: &mut [u8],
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut interrupted = false;
        loop {
            let mut rest = self.receive(buffer)?;
            while !rest.is_empty() {
                let (message, after) = Message::take(rest).ok_or_else(malformed)?;
                rest = after;
                if message.sequence != self.sequence {
                    continue; // the end of an earlier request that failed half way
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        message.code()?;
                        return if interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
                    }
                    0..NLMSG_MIN_TYPE => {}
                    _ => each(message.payload),
                }
            }
        }
    }

    /// Sends the requests to a subsystem of nfnetlink as one transaction: all are carried out, or none. Not
    /// `committed`, it is only tried, and nothing is carried out.
    ///
    /// # Errors
    /// What the kernel answered first, and to which of the requests; `None` if to the transaction as a whole.
    pub fn batch(
        &mut self,
        subsystem: u16,
        requests: Vec<Request>,
        committed: bool,
    ) -> Result<(), (Option<usize>, io::Error)> {
        let frame = |kind| Request::new(kind, 0).fixed(&[&[0, 0][..], &subsystem.to_be_bytes()].concat());
        let begin = self.sequence.wrapping_add(1);
        let count = requests.len() as u32;
        let last = begin.wrapping_add(count);
        self.sequence = last;
        let mut bytes = frame(BATCH_BEGIN).finish(begin);
        for (number, mut request) in (1_u32..).zip(requests) {
            if number == count {
                request.acknowledge();
            }
            bytes.extend(request.finish(begin.wrapping_add(number)));
        }
        if committed {
            bytes.extend(frame(BATCH_END).finish(last));
        }
        let whole = |error: io::Error| (None, error);
        send(&self.fd, &bytes, SendFlags::empty()).map_err(|errno| whole(errno.into()))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.acknowledged(begin, count, &mut buffer);
        self.buffer = buffer;
        result
    }

    /// Waits for the answers to a transaction of `count` requests that began with this number.
    fn acknowledged(
        &self,
        begin: u32,
        count: u32,
        buffer: &mut [u8],
    ) -> Result<(), (Option<usize>, io::Error)> {
        let whole = |error: io::Error| (None, error);
        let mut refusal = None;
        loop {
            let mut rest = self.receive(buffer).map_err(whole)?;
            while !rest.is_empty() {
                let (message, after) = Message::take(rest).ok_or_else(|| whole(malformed()))?;
                rest = after;
                let number = message.sequence.wrapping_sub(begin);
                if message.kind != NLMSG_ERROR || number > count {
                    continue; // an answer to something earlier
                }
                // Refused as a whole, or after all had been looked at: nothing need follow.
                let code = message.code().map_err(|error| ((number > 0).then(|| number as usize - 1), error));
                if number == 0 {
                    return code;
                }
                refusal = refusal.or(code.err());
                if number == count {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Lets the kernel take longer transactions, as far as it allows us.
    pub fn widen(&self, bytes: usize) {
        // Without the right to force it, as in a container, up to net.core.wmem_max; whatever comes is enough for most.
        let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, bytes)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, bytes));
    }

    /// What the kernel knows this socket by.
    pub fn port(&self) -> io::Result<u32> {
        Ok(SocketAddrNetlink::try_from(getsockname(&self.fd)?)?.pid())
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, length)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
        };
        buffer.get(..length).ok_or_else(malformed)
    }
}

/// The error for an answer that breaks its own lengths.
pub fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message, and what comes after it.
    fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let payload = bytes.get(HEADER..length)?;
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((Self { kind: half(4)?, flags: half(6)?, sequence, payload }, after))
    }

    /// What an error message or the end of a dump says: 0 is success.
    fn code(&self) -> io::Result<()> {
        match self.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            Some(code) if code < 0 => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
            None if self.kind == NLMSG_ERROR => Err(malformed()),
            _ => Ok(()),
        }
    }
}

/// The type (without flags) and value of the first attribute, and what comes after it.
fn take_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, _) = bytes.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
    let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(4..length)?, after))
}

/// The value of the first attribute of this type, if the attributes are well formed up to there.
pub fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (kind, value, after) = take_attribute(bytes)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = after;
    }
}

/// All attributes, or `None` if they are not well formed.
pub fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (kind, value, after) = take_attribute(bytes)?;
        found.push((kind, value));
        bytes = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_as_it_was_built() {
        let bytes = Request::new(0x100, ACK)
            .fixed(&[2, 0, 0, 0])
            .nest(1, |inner| inner.attribute(3, &[9]).attribute(4, &[1, 2, 3, 4]))
            .attribute(7, &[5, 6])
            .finish(42);
        let (message, rest) = Message::take(&bytes).expect("one message");
        assert!(rest.is_empty());
        assert_eq!((message.kind, message.flags, message.sequence), (0x100, REQUEST | ACK, 42));
        let attributes = &message.payload[4..];
        let nest = find(attributes, 1).expect("the nest");
        assert_eq!(find(nest, 3), Some(&[9][..]));
        assert_eq!(find(nest, 4), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(nest, 7), None);
        assert_eq!(find(attributes, 7), Some(&[5, 6][..]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), wanted in 0..8_u16) {
            let _ = find(&bytes, wanted);
            let _ = attributes(&bytes);
            if let Some((message, rest)) = Message::take(&bytes) {
                prop_assert!(rest.len() + message.payload.len() < bytes.len());
            }
        }
    }
}
