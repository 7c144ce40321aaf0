//! From a prompt to a picture: text, schedules, noise, samplers, guidance, complete runs.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../common/mod.rs"]
mod common;

mod any_argument;
mod borders;
mod device_step;
mod embed;
mod end_to_end;
mod golden;
mod guidance;
mod misuse;
mod noise;
mod own_terms;
mod previews;
mod prompts;
mod requests;
mod samplers;
mod schedules;
mod serde;
mod tokens;
