//! Pictures: 8-bit RGB, to and from the network's -1..1, and PNG files.

#[cfg(feature = "pictures")]
mod convert;
mod exif;
mod format;
pub(crate) mod infotext;
pub(crate) mod lettering;
mod mask;
pub mod overlay;
pub mod parameters;
mod picture;
pub mod png;
pub(crate) mod preview;
#[cfg(feature = "pictures")]
pub mod read;
pub mod resize;
pub(crate) mod settings;
pub(crate) mod sheet;
pub(crate) mod texts;

pub(crate) use format::Format;
pub use mask::Mask;
pub use picture::Picture;
pub(crate) use picture::check_finite;
