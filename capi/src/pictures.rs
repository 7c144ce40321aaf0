//! Finished pictures, as C receives them.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::ptr;

use sagittal::image::{parameters, png};
use sagittal::{Error, Picture, Result};

use crate::argument;
use crate::failure::{SagittalStatus, quietly, report};

/// Pictures of one size.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SagittalPictures {
    /// Size of the struct in bytes: initialize it with SAGITTAL_PICTURES_INIT.
    pub struct_size: usize,
    /// `count` pictures one after the other, each `height` rows of `width` pixels of three bytes: red,
    /// green, blue.
    pub rgb: *const u8,
    /// Width of each picture in pixels.
    pub width: usize,
    /// Height of each picture in pixels.
    pub height: usize,
    /// Number of pictures.
    pub count: usize,
    /// Internal; do not change it.
    pub owner: *mut SagittalOwner,
}

// SAFETY: it is `repr(C)`, and its first field is a `usize`.
unsafe impl argument::Versioned for SagittalPictures {
    const NAME: &'static str = "SagittalPictures";
    const LEAST: usize = offset_of!(Self, owner) + size_of::<*mut SagittalOwner>();
}

/// A caller's struct for pictures to write to.
pub(crate) struct PicturesOutput(*mut SagittalPictures, usize);

impl PicturesOutput {
    /// The struct at `pictures`, emptied, so that freeing it after an error does nothing.
    ///
    /// # Safety
    /// `pictures` is NULL or points to a struct with its size set, which is not used elsewhere meanwhile.
    pub(crate) unsafe fn new(pictures: *mut SagittalPictures) -> Result<Self> {
        // SAFETY: by this function's own condition.
        let size = unsafe { argument::size_of_versioned("pictures", pictures) }?;
        let place = Self(pictures, size);
        place.fill(SagittalPictures::none()).map(|()| place)
    }

    /// Writes `made` there.
    pub(crate) fn fill(&self, made: SagittalPictures) -> Result<()> {
        // SAFETY: by the condition of `new`.
        unsafe { argument::write_versioned("pictures", self.0, self.1, made) }
    }
}

/// Data that the library keeps for SagittalPictures.
pub struct SagittalOwner {
    rgb: Vec<u8>,
    /// Settings of each picture as stored in a PNG; none for a preview.
    settings: Vec<String>,
}

impl SagittalPictures {
    /// No pictures, which may also be freed.
    pub(crate) fn none() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            rgb: ptr::null(),
            width: 0,
            height: 0,
            count: 0,
            owner: ptr::null_mut(),
        }
    }

    /// `pictures`, all of one size, with their settings.
    pub(crate) fn new(pictures: Vec<Picture>, settings: Vec<String>) -> Result<Self> {
        let first = pictures.first().ok_or_else(|| Error::internal("a run without pictures"))?;
        let (width, height, count) = (first.width, first.height, pictures.len());
        let rgb: Vec<u8> = pictures.into_iter().flat_map(|p| p.rgb).collect();
        let owner = Box::new(SagittalOwner { rgb, settings });
        let rgb = owner.rgb.as_ptr();
        Ok(Self { struct_size: size_of::<Self>(), rgb, width, height, count, owner: Box::into_raw(owner) })
    }
}

/// Writes picture `index`, from 0, as a PNG with its settings in A1111's format, atomically. An
/// existing file is an error unless `replace` is true.
///
/// # Safety
/// `pictures` is NULL or came from the library and is not freed yet; `path` is NULL or a
/// zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_write_png(
    pictures: *const SagittalPictures,
    index: usize,
    path: *const c_char,
    replace: bool,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (pictures, path) = unsafe {
            let pictures = argument::versioned("pictures", pictures, SagittalPictures::none())?;
            (pictures, argument::text("path", path)?)
        };
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
    let Ok(held) = (unsafe { argument::versioned("pictures", pictures, SagittalPictures::none()) }) else {
        return;
    };
    let owner = held.owner;
    // SAFETY: likewise; its size has just been read.
    let _ = unsafe {
        argument::write_versioned("pictures", pictures, held.struct_size, SagittalPictures::none())
    };
    if !owner.is_null() {
        // SAFETY: `new` made it from a box, and its pointer is forgotten now.
        quietly(|| drop(unsafe { Box::from_raw(owner) }));
    }
}
