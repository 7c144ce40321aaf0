//! The subcommands, a file each.

pub mod bench;
pub mod devices;
pub mod generate;
pub mod grid;
pub mod inspect;
pub mod run;
pub mod verify;
