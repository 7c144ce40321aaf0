//! Workflows: what their files hold, and what their nodes do.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod any_argument;
mod files;
mod formats;
mod golden;
mod nodes;
mod pictures;
