//! The program, from its flags to its files and exit codes.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../program.rs"]
mod program;
#[path = "../schema.rs"]
mod schema;

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
mod tuning;
mod watch;
