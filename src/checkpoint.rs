//! Checkpoints: opened, validated, and read tensor by tensor as `f32`.
//!
//! Opening looks at the header only, so it takes milliseconds for any size of file. Weights are
//! decoded when a builder asks for them, with the shape it expects: a tensor that is missing,
//! misshapen or not finite is an error that names it, never a wrong picture.

mod diffusers_settings;
pub(crate) mod digest;
pub(crate) mod dtype;
mod encoders;
mod folder;
mod header;
pub(crate) mod key_maps;
mod layout;
mod manifest;
mod named_tensors;
mod open;
mod other_formats;
mod other_models;
mod overlay;
mod safetensors;
mod shards;

mod synthetic;
mod tensor;
mod weight_file;

#[doc(hidden)]
pub use self::header::TensorInfo;
#[doc(hidden)]
pub use self::manifest::Manifest;
pub use self::named_tensors::Checkpoint;
pub use ::safetensors::Dtype;
pub(crate) use diffusers_settings::{
    BETAS, MOST_TIMESTEPS, OF_ENCODER, PREDICTION, TEXT_ACTIVATION, TEXT_HEADS, TEXT_LAYERS, UNET_HEADS,
    ZERO_SNR,
};
#[cfg(feature = "workflow")]
pub(crate) use encoders::WIDTHS;
pub(crate) use encoders::{EncoderPlace, FoundEncoder};
pub(crate) use other_models::refuse_foreign;
