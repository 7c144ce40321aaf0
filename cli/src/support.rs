//! What several commands share.

pub mod args;
pub mod device;
pub mod flags;
pub mod from_picture;
pub mod init_image;
pub mod interrupt;
pub mod loras;
pub mod notes;
pub mod origin;
pub mod output;
pub mod progress;
pub mod remedy;
pub mod terminal;
pub mod value;
