//! Pictures to and from the crate `image`, with the feature `pictures`.

use image::{DynamicImage, RgbImage};

use super::Picture;
use crate::{Error, Result};

impl From<RgbImage> for Picture {
    fn from(image: RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, rgb: image.into_raw() }
    }
}

impl From<DynamicImage> for Picture {
    /// Colours with more than 8 bits are rounded; transparency is dropped.
    fn from(image: DynamicImage) -> Self {
        image.into_rgb8().into()
    }
}

impl TryFrom<Picture> for RgbImage {
    type Error = Error;

    /// # Errors
    /// As [`Picture::check`]; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a side that 32 bits do not hold.
    fn try_from(picture: Picture) -> Result<Self> {
        picture.check()?;
        let Picture { width, height, rgb } = picture;
        let sides = (u32::try_from(width), u32::try_from(height));
        let image = match sides {
            (Ok(width), Ok(height)) => Self::from_raw(width, height, rgb),
            _ => None,
        };
        image
            .ok_or_else(|| Error::usage("the picture is too large").found(format!("{width}x{height} pixels")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_the_crate_image_come_and_go_unchanged() {
        let picture = Picture { width: 3, height: 2, rgb: (0..18).collect() };
        let image = RgbImage::try_from(picture.clone()).unwrap();
        assert_eq!((image.width(), image.height()), (3, 2));
        assert_eq!(image.get_pixel(2, 1).0, [15, 16, 17]);
        assert_eq!(Picture::from(image.clone()), picture);
        assert_eq!(Picture::from(DynamicImage::from(image)), picture);
        let error = RgbImage::try_from(Picture { width: 3, height: 3, rgb: vec![0; 18] }).unwrap_err();
        assert!(error.to_string().contains("do not fit"), "{error}");
    }
}
