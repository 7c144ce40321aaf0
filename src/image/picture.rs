//! An 8-bit RGB picture, to and from the network's -1..1.

use crate::{Error, ErrorKind, Remedy, Result, Size};

/// An 8-bit RGB picture. With the feature `pictures` it converts to and from the crate `image`:
/// `image::RgbImage::try_from(picture)?`, `Picture::from(rgb_image)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// From the VAE's values `[height, width, 3]`: 255 · clamp((v + 1) / 2, 0, 1), truncated as
    /// ComfyUI does.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the number of values is not that of the pixels; [`ErrorKind::NonFinite`] if a value is
    /// NaN or infinite: it would be a black pixel.
    pub fn from_decoded(size: Size, values: &[f32]) -> Result<Self> {
        let Size { width, height } = size;
        if bytes_of(width, height) != Some(values.len()) {
            return Err(Error::usage("the values do not fit the picture")
                .expected(format!("{width}x{height} pixels of 3 values"))
                .found(format!("{} values", values.len())));
        }
        check_finite(width, values)?;
        let byte = |v: &f32| (255.0 * ((v + 1.0) / 2.0).clamp(0.0, 1.0)) as u8;
        Ok(Self { width, height, rgb: values.iter().map(byte).collect() })
    }

    /// Checks that there are pixels, and three bytes for each.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub fn check(&self) -> Result<()> {
        let Self { width, height, rgb } = self;
        match bytes_of(*width, *height) {
            Some(0) => Err(Error::usage("a picture without pixels").found(format!("{width}x{height}"))),
            Some(bytes) if bytes == rgb.len() => Ok(()),
            _ => Err(Error::usage("a picture's bytes do not fit its size")
                .expected(format!("{width}x{height} pixels of 3 bytes"))
                .found(format!("{} bytes", rgb.len()))),
        }
    }

    /// To the VAE's values in -1..1, `[height, width, 3]`.
    pub fn to_values(&self) -> Vec<f32> {
        self.rgb.iter().map(|v| f32::from(*v) / 255.0 * 2.0 - 1.0).collect()
    }
}

/// Checks the VAE's values of a picture, `[height, width, 3]`, for what would be a black pixel.
///
/// # Errors
/// [`ErrorKind::NonFinite`] for NaN or infinity, naming the pixel.
pub(crate) fn check_finite(width: usize, values: &[f32]) -> Result<()> {
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    Err(Error::new(ErrorKind::NonFinite, "the decoded picture is not finite")
        .at(format!("pixel {}, {}", at / 3 % width, at / 3 / width))
        .found(values[at].to_string())
        .remedy(Remedy::DecodeInF32)
        .hint("lower the CFG scale"))
}

/// Bytes of a picture of that size, if they can be counted.
pub(super) fn bytes_of(width: usize, height: usize) -> Option<usize> {
    width.checked_mul(height)?.checked_mul(3)
}

/// Room for a picture of that size.
///
/// # Errors
/// [`ErrorKind::Usage`] if it has no pixels, or there is not the memory for them.
pub(super) fn room_for(width: usize, height: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    let bytes = bytes_of(width, height).filter(|bytes| *bytes > 0);
    match bytes.map(|bytes| room.try_reserve_exact(bytes)) {
        Some(Ok(())) => Ok(room),
        _ => Err(Error::usage("there is no picture of that size").found(format!("{width}x{height} pixels"))),
    }
}
