//! A device for C.

use std::ffi::{CString, c_char};
use std::ptr;

use sagittal::Gpu;
use sagittal::gpu::OpenOptions;

use crate::failure::{SagittalStatus, quietly, report};
use crate::{argument, failure};

/// A GPU, or a driver that runs on the CPU.
pub struct SagittalDevice {
    pub(crate) gpu: Gpu,
    name: CString,
}

/// Opens a device. `choice` is its number or a part of its name, as `sagittal devices` lists them;
/// NULL is the first that is not a CPU, or the first if there is none.
///
/// # Safety
/// `choice` is NULL or a zero-terminated text; `device` is NULL or points to a pointer to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_device_open(
    choice: *const c_char,
    device: *mut *mut SagittalDevice,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let (device, choice) = unsafe {
            (argument::place("device", device, ptr::null_mut())?, argument::text("choice", choice)?)
        };
        let gpu = Gpu::open_with(&OpenOptions { adapter: choice, ..Default::default() })?;
        let name = failure::c_text(&gpu.device().adapter_info().name);
        *device = Box::into_raw(Box::new(SagittalDevice { gpu, name }));
        Ok(())
    })
}

/// The device's name as its driver gives it, valid until the device is freed; NULL for NULL.
///
/// # Safety
/// `device` is NULL or came from sagittal_device_open() and is not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_device_name(device: *const SagittalDevice) -> *const c_char {
    // SAFETY: by this function's own condition.
    unsafe { device.as_ref() }.map_or(ptr::null(), |device| device.name.as_ptr())
}

/// Frees a device. Models that were opened on it stay valid: they keep what they need.
///
/// # Safety
/// `device` is NULL or came from sagittal_device_open(), and nothing uses it from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_device_free(device: *mut SagittalDevice) {
    if !device.is_null() {
        // SAFETY: by this function's own condition.
        quietly(|| drop(unsafe { Box::from_raw(device) }));
    }
}
