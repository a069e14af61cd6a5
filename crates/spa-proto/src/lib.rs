//! The packet of single-packet authorization, version 1: keys, envelope, Noise message, payload.
#![forbid(unsafe_code)]

mod endpoint;

pub use endpoint::{Endpoint, EndpointError, Protocol};
