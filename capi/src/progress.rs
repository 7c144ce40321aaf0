//! Progress, as C receives it while a picture is made.

use std::ffi::{c_int, c_void};
use std::ptr;

use sagittal::{Error, Picture, Progress};

use crate::argument;
use crate::failure::{SagittalStatus, report};
use crate::pictures::{PicturesOutput, SagittalPictures};

/// What is being done.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagittalPhase {
    /// Weights are uploaded to the device.
    Loading = 0,
    /// Prompts go through the text encoder.
    Encoding = 1,
    /// A step of the sampling is done: `step` of `total`, from 1; 0 is before the first.
    Sampling = 2,
    /// A picture goes through the VAE: `step` of `total`, from 1.
    Decoding = 3,
}

/// An event of a generation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SagittalEvent {
    /// Size of the struct in the library, bytes; fields may be added at its end.
    pub struct_size: usize,
    /// What is being done.
    pub phase: SagittalPhase,
    /// Steps or pictures done, in phases that count them.
    pub step: u32,
    /// Number of steps or pictures; 0 in phases that do not count them.
    pub total: u32,
    /// Noise level of a sampling step.
    pub sigma: f32,
    /// For sagittal_event_preview(); NULL if there is no preview.
    pub preview: *const c_void,
}

/// Called on the thread of sagittal_generate(), with that call's `user`. Anything but 0 cancels. It
/// must return: neither longjmp nor an exception may leave it.
pub type SagittalProgress =
    Option<unsafe extern "C" fn(user: *mut c_void, event: *const SagittalEvent) -> c_int>;

/// Converts an event of the library and passes it to the callback, if C has such an event. Returns whether to
/// continue.
///
/// # Safety
/// `callback` may be called with `user`.
pub(crate) unsafe fn report_to(callback: SagittalProgress, user: *mut c_void, event: &Progress) -> bool {
    let Some(callback) = callback else { return true };
    let plain = |phase, step: usize, total: usize| SagittalEvent {
        struct_size: size_of::<SagittalEvent>(),
        phase,
        step: step as u32,
        total: total as u32,
        sigma: 0.0,
        preview: ptr::null(),
    };
    let event = match event {
        Progress::Loading { .. } => plain(SagittalPhase::Loading, 0, 0),
        Progress::Encoding => plain(SagittalPhase::Encoding, 0, 0),
        Progress::Sampling { step, total, sigma, preview } => SagittalEvent {
            sigma: *sigma,
            preview: preview.as_ref().map_or(ptr::null(), |picture| ptr::from_ref(picture).cast()),
            ..plain(SagittalPhase::Sampling, *step, *total)
        },
        Progress::Decoding { picture, total } => plain(SagittalPhase::Decoding, picture + 1, *total),
        _ => return true,
    };
    // SAFETY: by this function's own condition; the event outlives the call.
    unsafe { callback(user, &event) == 0 }
}

/// A small picture of what a step predicts, one pixel per latent cell (8×8 pixels of the result), for
/// the first picture of the request, if preview_every is set in it. To be called in the progress
/// callback, with its event.
///
/// # Safety
/// `event` is NULL or the event of the progress callback, which has not returned yet; `pictures` is
/// NULL or points to pictures initialized with SAGITTAL_PICTURES_INIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_event_preview(
    event: *const SagittalEvent,
    pictures: *mut SagittalPictures,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (pictures, event) =
            unsafe { (PicturesOutput::new(pictures)?, argument::needed("event", event)?) };
        if event.preview.is_null() {
            return Err(Error::usage("the event has no preview")
                .expected("one of the phase of sampling, and preview_every above 0 in the request"));
        }
        // SAFETY: `report_to` made the pointer from such a reference, which lives while the callback runs.
        let preview = unsafe { &*event.preview.cast::<Picture>() };
        pictures.fill(SagittalPictures::new(vec![preview.clone()], Vec::new())?)
    })
}
