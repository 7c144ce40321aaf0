//! Kinds of picture files, by their first bytes, whatever their names.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

/// How every PNG begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A kind of picture file that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
    WebP,
}

impl Format {
    /// What kind of picture a file with these first bytes is.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => bytes.starts_with(PNG).then_some(Self::Png),
        }
    }
}
