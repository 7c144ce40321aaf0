//! The program, from its flags to its files and exit codes.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod extras;
mod generate;
mod grid;
mod inspect;
mod models;
mod readme;
mod repeat;
mod start;
mod watch;
