//! A model for C, and the generation itself.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sagittal::image::parameters::{Origin, parameters};
use sagittal::{CancelToken, Checkpoint, Error, Model, ModelOptions, Progress, embedded};

use crate::argument;
use crate::device::SagittalDevice;
use crate::failure::{SagittalStatus, quietly, report};
use crate::pictures::{PicturesOutput, SagittalPictures};
use crate::progress::{SagittalProgress, report_to};
use crate::request::{SagittalRequest, usual};

/// A model on a device. Weights are uploaded when they are first needed.
pub struct SagittalModel {
    pub(crate) model: Model,
    pub(crate) embedded: bool,
    /// Its name in a PNG's settings.
    name: String,
    /// The generations that are running, by number.
    running: Mutex<Vec<(u64, CancelToken)>>,
}

impl SagittalModel {
    fn running(&self) -> MutexGuard<'_, Vec<(u64, CancelToken)>> {
        // The list is consistent even if a panic happened while it was locked.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generation in the list of running ones, until it is dropped.
struct Running<'a> {
    model: &'a SagittalModel,
    number: u64,
    cancel: CancelToken,
}

impl<'a> Running<'a> {
    fn begin(model: &'a SagittalModel) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (number, cancel) = (NEXT.fetch_add(1, Ordering::Relaxed), CancelToken::new());
        model.running().push((number, cancel.clone()));
        Self { model, number, cancel }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.model.running().retain(|(number, _)| *number != self.number);
    }
}

/// Opens a model on a device: a .safetensors file or a folder in the diffusers layout; NULL is the
/// small model inside the library (256×256 pictures of emoji).
///
/// # Safety
/// `device` is NULL or a device that is not freed yet; `path` is NULL or a zero-terminated text;
/// `model` is NULL or points to a pointer to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_model_open(
    device: *const SagittalDevice,
    path: *const c_char,
    model: *mut *mut SagittalModel,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (model, device, path) = unsafe {
            let model = argument::place("model", model, ptr::null_mut())?;
            (model, argument::needed("device", device)?, argument::text("path", path)?)
        };
        let checkpoint = match path {
            Some(path) => Checkpoint::open(path)?,
            None => embedded::checkpoint()?,
        };
        // As the command line names them: the file's name, without folder and extension.
        let name = match path {
            Some(_) => checkpoint.file().file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            None => "tiny-emoji".to_owned(),
        };
        let opened = Model::new(device.gpu.clone(), checkpoint, ModelOptions::default())?;
        let opened =
            SagittalModel { model: opened, embedded: path.is_none(), name, running: Mutex::default() };
        *model = Box::into_raw(Box::new(opened));
        Ok(())
    })
}

/// Frees a model.
///
/// # Safety
/// `model` is NULL or came from sagittal_model_open(), and nothing uses it from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_model_free(model: *mut SagittalModel) {
    if !model.is_null() {
        // SAFETY: by this function's own condition.
        quietly(|| drop(unsafe { Box::from_raw(model) }));
    }
}

/// Makes pictures, and returns when they are done. `progress` may be NULL; it is called with `user`,
/// which the library does not use itself, and stops the work by returning anything but 0. After
/// SAGITTAL_STATUS_CANCELLED, as after every error, the model can be used again.
///
/// # Safety
/// `model` is NULL or a model that is not freed yet; `request` is NULL or a request whose texts are
/// NULL or zero-terminated; `progress` may be called with `user`; `pictures` is NULL or points to
/// pictures initialized with SAGITTAL_PICTURES_INIT (earlier ones are overwritten: free them first).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_generate(
    model: *const SagittalModel,
    request: *const SagittalRequest,
    progress: SagittalProgress,
    user: *mut c_void,
    pictures: *mut SagittalPictures,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (pictures, model, request) = unsafe {
            let pictures = PicturesOutput::new(pictures)?;
            let model = argument::needed("model", model)?;
            (pictures, model, argument::versioned("request", request, usual(Some(model)))?.read()?)
        };
        let running = Running::begin(model);
        let cancel = &running.cancel;
        let on_event = |event: Progress| {
            // SAFETY: by this function's own condition. Once cancelled, nothing more is reported.
            if !cancel.is_cancelled() && !unsafe { report_to(progress, user, &event) } {
                cancel.cancel();
            }
        };
        let made = model.model.run(&request).on_event(on_event).cancel(cancel).generate()?;
        // Cancel may have been asked for after the last work on the device.
        if cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let origin = Origin { model: &model.name, ..Origin::default() };
        let settings = (0..made.pictures.len()).map(|i| parameters(&request, &origin, i)).collect();
        pictures.fill(SagittalPictures::new(made.pictures, settings)?)
    })
}

/// Stops the generations that are running on `model`, from any thread: their sagittal_generate()
/// returns SAGITTAL_STATUS_CANCELLED within one submission to the device. Later ones are not affected.
///
/// # Safety
/// `model` is NULL or a model that is not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_cancel(model: *const SagittalModel) {
    // SAFETY: by this function's own condition.
    let Some(model) = (unsafe { model.as_ref() }) else { return };
    quietly(|| model.running().iter().for_each(|(_, cancel)| cancel.cancel()));
}
