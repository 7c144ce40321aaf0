//! sagittal for C: what `include/sagittal.h` declares. The header is generated from the comments
//! here, which are therefore written for C programmers.
//!
//! Every function that can fail goes through `failure::report`: it catches panics, keeps the
//! error for `sagittal_last_error`, and turns its kind into a [`Status`](SagittalStatus).
#![warn(missing_docs)]

mod argument;
mod device;
mod failure;
mod model;
mod pictures;
mod progress;
mod request;

pub use device::{SagittalDevice, sagittal_device_free, sagittal_device_name, sagittal_device_open};
pub use failure::{SagittalStatus, sagittal_last_error, sagittal_last_status};
pub use model::{
    SagittalModel, sagittal_cancel, sagittal_generate, sagittal_model_free, sagittal_model_open,
};
pub use pictures::{SagittalPictures, sagittal_pictures_free, sagittal_write_png};
pub use progress::{SagittalEvent, SagittalPhase, SagittalProgress, sagittal_event_preview};
pub use request::{SagittalRequest, sagittal_request_init};

use std::ffi::c_char;

/// The library's version, such as "0.2.0". Use the header of the same version.
#[unsafe(no_mangle)]
pub extern "C" fn sagittal_version() -> *const c_char {
    const { concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast() }
}
