//! One end of the link.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use spa_capture::Family;
use zeroize::Zeroizing;

use super::codec::{Bytes, CAPTURE, MESSAGE_LENGTH, Malformed};
use super::{FromVerifier, FromWarden};

/// A connected socket.
pub struct Link(OwnedFd);

/// Two connected ends: the warden's, which does not block, and the verifier's, which does.
///
/// # Errors
/// As `socketpair(2)`.
pub fn pair() -> std::io::Result<(Link, OwnedFd)> {
    let (warden, verifier) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&warden, true)?;
    Ok((Link(warden), verifier))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Link {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

impl Link {
    /// Takes over the end that the warden passed.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message to the verifier, with its descriptor where it has one.
    ///
    /// # Errors
    /// As `sendmsg(2)`; `WouldBlock` where the queue is full.
    pub fn send_to_verifier(&self, message: &FromWarden) -> std::io::Result<()> {
        let bytes = message.encode();
        let fds = match message {
            FromWarden::Capture { fd, .. } => vec![fd.as_fd()],
            _ => Vec::new(),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(&*bytes)], &mut control, SendFlags::NOSIGNAL)?;
        debug_assert_eq!(sent, MESSAGE_LENGTH);
        Ok(())
    }

    /// Sends a message to the warden; waits where the queue is full.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send_to_warden(&self, message: &FromVerifier) -> std::io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.0, &*message.encode(), SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives a message of the verifier; `None` where the verifier is gone.
    ///
    /// # Errors
    /// As `recv(2)`, and [`Malformed`] as `InvalidData`.
    pub fn receive_from_verifier(&self) -> std::io::Result<Option<FromVerifier>> {
        let mut bytes: Bytes = Zeroizing::new([0; MESSAGE_LENGTH]);
        let (_, length) = match rustix::net::recv(&self.0, &mut *bytes, RecvFlags::TRUNC) {
            Err(Errno::CONNRESET) => return Ok(None),
            received => received?,
        };
        match length {
            0 => Ok(None),
            MESSAGE_LENGTH => FromVerifier::decode(&*bytes).map(Some).map_err(invalid),
            _ => Err(invalid(Malformed)),
        }
    }

    /// Receives a message of the warden without waiting; `None` where the warden is gone.
    ///
    /// # Errors
    /// As `recvmsg(2)`; `WouldBlock` where there is none; [`Malformed`] as `InvalidData`.
    pub fn receive_from_warden(&self) -> std::io::Result<Option<FromWarden>> {
        let mut bytes: Bytes = Zeroizing::new([0; MESSAGE_LENGTH]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut *bytes)], &mut control, flags)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.bytes != MESSAGE_LENGTH {
            return Err(invalid(Malformed));
        }
        if bytes[0] != CAPTURE {
            return FromWarden::decode(&*bytes).map(Some).map_err(invalid);
        }
        let family = if bytes[1] == 0 { Family::V4 } else { Family::V6 };
        let (port, thread) = (u16::from_be_bytes([bytes[2], bytes[3]]), bytes[4]);
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.map(|fd| Some(FromWarden::Capture { family, port, thread, fd })).ok_or_else(|| invalid(Malformed))
    }
}

fn invalid(error: Malformed) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_arrives_with_its_socket_and_thread() {
        let (warden, verifier) = pair().unwrap();
        let verifier = Link::new(verifier);
        for (family, thread) in [(Family::V4, 0), (Family::V6, 15)] {
            let fd = std::fs::File::open("/dev/null").unwrap().into();
            warden.send_to_verifier(&FromWarden::Capture { family, port: 62_201, thread, fd }).unwrap();
            let Some(FromWarden::Capture { family: of, port, thread: to, .. }) =
                verifier.receive_from_warden().unwrap()
            else {
                panic!("another message");
            };
            assert_eq!((of, port, to), (family, 62_201, thread));
        }
    }
}
