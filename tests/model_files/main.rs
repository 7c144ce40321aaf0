//! Files of models, LoRAs and embeddings: what is read, what is refused.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../common/mod.rs"]
mod common;

mod any_argument;
mod checkpoint;
mod embeddings;
mod encoders;
mod extra_tensors;
mod formats;
mod headers;
mod key_maps;
mod lora;
mod malformed_models;
mod malformed_parts;
mod metadata;
mod model_config;

mod weights;
