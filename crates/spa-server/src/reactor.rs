//! Descriptors that tokio waits for.

use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Has tokio watch a descriptor that `inner` owns.
///
/// # Errors
/// As `epoll_ctl(2)`.
#[expect(
    deprecated,
    reason = "its successor is unsafe for a promise that AsFd already makes: the descriptor stays open"
)]
pub fn register<T: AsRawFd + AsFd>(inner: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}
