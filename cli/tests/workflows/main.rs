//! `sagittal run`.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../program.rs"]
mod program;
#[path = "../schema.rs"]
mod schema;

mod cli;
mod dry_run;
mod malformed;
mod older;
