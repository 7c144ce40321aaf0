//! A model for C, and the generation itself.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagittal::image::parameters::{Origin, parameters};
use sagittal::{Checkpoint, Error, Model, ModelOptions, embedded};

use crate::argument;
use crate::device::SagittalDevice;
use crate::failure::{SagittalStatus, quietly, report};
use crate::pictures::SagittalPictures;
use crate::progress::{SagittalProgress, tell};
use crate::request::SagittalRequest;

/// A model on a device. Weights are brought over when they are first needed.
pub struct SagittalModel {
    pub(crate) model: Model,
    pub(crate) embedded: bool,
    /// What a PNG calls it.
    name: String,
    /// The cancel flags of the generations that run now.
    running: Mutex<Vec<Arc<AtomicBool>>>,
}

impl SagittalModel {
    fn running(&self) -> MutexGuard<'_, Vec<Arc<AtomicBool>>> {
        // A list of flags is whole whatever happened while it was locked.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generation in the list of those that run, until it is dropped.
struct Running<'a>(&'a SagittalModel, Arc<AtomicBool>);

impl<'a> Running<'a> {
    fn begin(model: &'a SagittalModel) -> Self {
        let cancel = Arc::new(AtomicBool::new(false));
        model.running().push(cancel.clone());
        Self(model, cancel)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running().retain(|flag| !Arc::ptr_eq(flag, &self.1));
    }
}

/// Opens a model on a device: a .safetensors file or a folder in the diffusers layout; NULL is the
/// small model inside the library (256×256 pictures of emoji).
///
/// # Safety
/// `device` is NULL or a device that is not freed yet; `path` is NULL or a text that ends with a
/// zero; `model` is NULL or a place for a pointer.
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
        // As the command line names them: without folders, and without what is said by `embedded`.
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

/// Gives a model back.
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

/// Makes pictures, and returns when they are done. `progress` may be NULL; it hears of the work with
/// `user`, which the library does not look at, and stops it by returning anything but 0. After
/// SAGITTAL_STATUS_CANCELLED, as after every error, the model is as usable as before.
///
/// # Safety
/// `model` is NULL or a model that is not freed yet; `request` is NULL or a request whose texts are
/// NULL or end with a zero; `progress` may be called with `user`; `pictures` is NULL or a place for
/// pictures (what it holds is overwritten, so free earlier ones first).
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
            let pictures = argument::place("pictures", pictures, SagittalPictures::none())?;
            (pictures, argument::needed("model", model)?, argument::needed("request", request)?.read()?)
        };
        let running = Running::begin(model);
        let cancel = &running.1;
        let made = model.model.generate(
            &request,
            &mut |event| {
                // SAFETY: by this function's own condition. Once cancelled, nothing more is told.
                if !cancel.load(Ordering::Relaxed) && !unsafe { tell(progress, user, &event) } {
                    cancel.store(true, Ordering::Relaxed);
                }
            },
            cancel,
        )?;
        // The wish to stop may have come after the last work on the device.
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let origin = Origin { model: &model.name, ..Origin::default() };
        let settings = (0..made.pictures.len()).map(|i| parameters(&request, &origin, i)).collect();
        *pictures = SagittalPictures::new(made.pictures, settings)?;
        Ok(())
    })
}

/// Stops the generations that run on `model` now, from any thread: their sagittal_generate() returns
/// SAGITTAL_STATUS_CANCELLED within one submission to the device. Later ones are not touched.
///
/// # Safety
/// `model` is NULL or a model that is not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_cancel(model: *const SagittalModel) {
    // SAFETY: by this function's own condition.
    let Some(model) = (unsafe { model.as_ref() }) else { return };
    quietly(|| model.running().iter().for_each(|cancel| cancel.store(true, Ordering::Relaxed)));
}
