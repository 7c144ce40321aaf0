//! The program, from its flags to its files and exit codes.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod borrowed;
mod events;
mod extras;
mod flags;
mod generate;
mod grid;
mod inspect;
mod models;
mod programs;
mod readme;
mod repeat;
mod start;
mod watch;
