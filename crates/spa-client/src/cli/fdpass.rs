//! Hands a connection to ssh over standard output, as its `ProxyUseFdpass` expects: one byte with the descriptor
//! in an SCM_RIGHTS control message (unix(7)).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(super) fn pass(stream: &TcpStream) -> io::Result<()> {
    let descriptors = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for one descriptor"));
    }
    // A control message travels with at least one byte of data.
    sendmsg(io::stdout().as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}
