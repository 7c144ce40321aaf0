//! `sagittal run`.

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../program.rs"]
mod program;
#[path = "../schema.rs"]
mod schema;

mod cli;
mod foreseen;
mod malformed;
mod older;
