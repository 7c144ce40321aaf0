//! Shaders, kernels, plans and the engine that runs them.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../common/mod.rs"]
mod common;

mod any_argument;
mod checks;
mod engine;
mod guidance_kernels;
mod kernels;
mod kernels_sizes;
mod latent_kernels;
mod operations;
mod pipeline_cache;
mod plan;
mod shader_text;
mod shaders;
mod split;
mod trust;
mod uses;
