//! What can go wrong while capturing.

use std::{fmt, io};

use crate::{Family, MAX_INTERFACES};

/// Why a capture could not be set up or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum CaptureError {
    /// The kernel refused a packet socket: the process has no `CAP_NET_RAW` (EPERM, or EACCES from a sandbox).
    NotPermitted {
        /// The family of the socket.
        family: Family,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Packet sockets do not exist here (EAFNOSUPPORT): not in this kernel, or fenced off by the service manager.
    NotSupported {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step of the set-up failed.
    Setup {
        /// The step, as "attach the filter".
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refuses the ring, or to map it (ENOMEM, EINVAL): [`crate::Capture::open`] then makes do without.
    Ring(io::Error),
    /// The kernel does not spread packets over several sockets (`PACKET_FANOUT`).
    Fanout(io::Error),
    /// A socket handed over by another process is not a capture socket as [`crate::Capture::open`] makes them.
    Foreign {
        /// What is wrong, as "its filter is not locked".
        what: &'static str,
    },
    /// Receiving failed.
    Receive(io::Error),
    /// The name of an interface is empty, longer than 15 bytes, or has a character that no interface name has.
    InterfaceName(String),
    /// The list of interfaces is empty or has more than [`MAX_INTERFACES`] names; the value is its length.
    InterfaceCount(usize),
    /// Interfaces or their addresses could not be looked up.
    Lookup(io::Error),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted { family, .. } => write!(
                f,
                "may not open a packet socket for {family}: the capability CAP_NET_RAW is missing; \
                 start as root, or with AmbientCapabilities=CAP_NET_RAW in the systemd unit"
            ),
            Self::NotSupported { .. } => write!(
                f,
                "packet sockets are not available: the kernel lacks CONFIG_PACKET, \
                 or RestrictAddressFamilies= in the systemd unit lacks AF_PACKET"
            ),
            Self::Setup { step, .. } => write!(f, "cannot {step} of the packet socket"),
            Self::Ring(_) => f.write_str("cannot set up the ring of the packet socket"),
            Self::Fanout(error) => write!(
                f,
                "the kernel does not spread packets over several sockets ({error}): Linux 4.12 and later do; \
                 with capture-threads = 1 one is enough"
            ),
            Self::Foreign { what } => write!(f, "the socket handed over is not a capture socket: {what}"),
            Self::Receive(_) => f.write_str("cannot receive from the packet socket"),
            Self::InterfaceName(name) => write!(
                f,
                "{name:?} cannot be the name of a network interface: 1 to 15 bytes, no space, slash or colon"
            ),
            Self::InterfaceCount(0) => {
                f.write_str("the list of interfaces is empty: nothing would be captured")
            }
            Self::InterfaceCount(count) => {
                write!(f, "{count} interfaces are listed; at most {MAX_INTERFACES} are possible")
            }
            Self::Lookup(_) => f.write_str("cannot look up the network interfaces"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotPermitted { source, .. }
            | Self::NotSupported { source }
            | Self::Setup { source, .. } => Some(source),
            Self::Ring(source) | Self::Fanout(source) | Self::Receive(source) | Self::Lookup(source) => {
                Some(source)
            }
            Self::Foreign { .. } | Self::InterfaceName(_) | Self::InterfaceCount(_) => None,
        }
    }
}
