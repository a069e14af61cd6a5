//! Several captures of one port that share its datagrams, each of which goes to one of them (`PACKET_FANOUT`): so that
//! several threads read, each from a ring of its own.
//!
//! The kernel draws the capture at random for each packet (`PACKET_FANOUT_RND`), so a flood fills all rings alike: no
//! sender can keep one ring full and with it shut out those whose packets come there. By hash, every flow has a ring of
//! its own, and one flow fills that ring while the others stand empty; by processor, all is in one ring where the card
//! has one queue; in turn, all processors write to one counter for each packet that the host receives, of whatever kind.

use std::os::fd::AsFd as _;

use crate::{Capture, CaptureError, sys};

/// A group of captures that share datagrams: empty at first, see [`Capture::join`].
#[derive(Debug, Default)]
pub struct Fanout(Option<u16>);

impl Capture {
    /// Shares the datagrams with all that joined before, for good. All are of one family. What comes between the
    /// opening and this, some microseconds, comes to this capture and to one of the others as well.
    ///
    /// # Errors
    /// [`CaptureError::Fanout`]: kernels before 4.12 do not give groups a number.
    pub fn join(&self, fanout: &mut Fanout) -> Result<(), CaptureError> {
        let joined = match fanout.0 {
            Some(group) => sys::join_fanout(self.as_fd(), group).map(|()| group),
            None => sys::new_fanout(self.as_fd()),
        };
        fanout.0 = Some(joined.map_err(CaptureError::Fanout)?);
        Ok(())
    }
}
