//! Finished pictures in C's hands.

use std::ffi::c_char;
use std::path::Path;
use std::ptr;

use sagittal::image::{parameters, png};
use sagittal::{Error, Picture, Result};

use crate::argument;
use crate::failure::{SagittalStatus, quietly, report};

/// Pictures of one size.
#[repr(C)]
#[derive(Debug)]
pub struct SagittalPictures {
    /// `count` pictures one after the other, each `height` rows of `width` pixels of three bytes: red,
    /// green, blue.
    pub rgb: *const u8,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Number of pictures.
    pub count: usize,
    /// The library's; leave it alone.
    pub owner: *mut SagittalOwner,
}

/// What the library keeps for SagittalPictures.
pub struct SagittalOwner {
    rgb: Vec<u8>,
    /// A picture's settings as a PNG tells them; none for a preview.
    settings: Vec<String>,
}

impl SagittalPictures {
    /// No pictures, which may be freed as well.
    pub(crate) fn none() -> Self {
        Self { rgb: ptr::null(), width: 0, height: 0, count: 0, owner: ptr::null_mut() }
    }

    /// `pictures`, all of one size, with their settings.
    pub(crate) fn new(pictures: Vec<Picture>, settings: Vec<String>) -> Result<Self> {
        let first = pictures.first().ok_or_else(|| Error::internal("a run without pictures"))?;
        let (width, height, count) = (first.width, first.height, pictures.len());
        let rgb: Vec<u8> = pictures.into_iter().flat_map(|p| p.rgb).collect();
        let owner = Box::new(SagittalOwner { rgb, settings });
        Ok(Self { rgb: owner.rgb.as_ptr(), width, height, count, owner: Box::into_raw(owner) })
    }
}

/// Writes a picture, counted from 0, as a PNG, with the settings it was made by as A1111 writes them:
/// whole or not at all. An existing file is left alone unless `replace` is true.
///
/// # Safety
/// `pictures` is NULL or came from the library and is not freed yet; `path` is NULL or a text that
/// ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_write_png(
    pictures: *const SagittalPictures,
    index: usize,
    path: *const c_char,
    replace: bool,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (pictures, path) =
            unsafe { (argument::needed("pictures", pictures)?, argument::text("path", path)?) };
        let path = path.ok_or_else(|| Error::usage("the argument path is NULL").expected("a file name"))?;
        let all = pictures.width.saturating_mul(pictures.height).saturating_mul(3);
        // SAFETY: by this function's own condition: what is not NULL has not been freed.
        let owner = unsafe { pictures.owner.as_ref() };
        let found = owner.and_then(|owner| Some((owner, owner.rgb.chunks_exact(all.max(1)).nth(index)?)));
        let Some((owner, rgb)) = found else {
            return Err(Error::usage("no such picture")
                .expected(format!("a number below {}", pictures.count))
                .found(index.to_string()));
        };
        let picture = Picture { width: pictures.width, height: pictures.height, rgb: rgb.to_vec() };
        let texts: Vec<_> =
            owner.settings.get(index).map(|s| (parameters::KEYWORD, s.as_str())).into_iter().collect();
        png::write(Path::new(path), &png::encode(&picture, &texts)?, replace)
    })
}

/// Frees pictures and empties the struct, so that freeing it again does nothing.
///
/// # Safety
/// `pictures` is NULL or came from the library, and nothing uses its bytes from now on. Of copies of
/// the struct only one may be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_pictures_free(pictures: *mut SagittalPictures) {
    // SAFETY: by this function's own condition.
    let Some(pictures) = (unsafe { pictures.as_mut() }) else { return };
    let owner = std::mem::replace(pictures, SagittalPictures::none()).owner;
    if !owner.is_null() {
        // SAFETY: `new` made it from a box, and its pointer is forgotten now.
        quietly(|| drop(unsafe { Box::from_raw(owner) }));
    }
}
