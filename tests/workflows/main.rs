//! `sagittal run` and what workflow files hold.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod any_argument;
mod cli;
mod files;
mod foreseen;
mod formats;
mod golden;
mod malformed;
mod nodes;
mod older;
mod pictures;
