//! Workflows: what their files hold, and what their nodes do.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod any_argument;
mod files;
mod formats;
mod golden;
mod nodes;
mod pictures;
