//! What hostile people send: packets made with some of the keys, junk, and files that are not what they should be.

mod files;
mod forge;
mod gate;
mod junk;
