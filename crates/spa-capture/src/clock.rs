//! Whether somebody keeps this machine's clock right.

use std::io;

use crate::sys;

/// Whether the kernel's clock is disciplined by a time service (`STA_UNSYNC` is off, adjtimex(2)). Needs no privilege.
///
/// # Errors
/// Where the system call is not allowed.
pub fn clock_is_synchronized() -> io::Result<bool> {
    Ok(sys::clock_status()? & libc::STA_UNSYNC == 0)
}
