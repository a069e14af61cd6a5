//! Kills spa-server at every moment and compares what stands in the kernel with what may and must stand.

mod faults;
pub mod kernel;
pub mod model;
pub mod options;
mod phases;
mod random;
pub mod report;
pub mod rounds;
mod table;
mod watch;
