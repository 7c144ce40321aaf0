//! Errors for C: a status for the program, a text for users.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sagittal::{Error, ErrorKind, Remedy, Result};

/// Outcome of a call.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagittalStatus {
    /// Success.
    Ok = 0,
    /// An argument or a setting is invalid or outside its range.
    Usage = 1,
    /// A file is missing, unreadable, damaged or of the wrong kind.
    File = 2,
    /// A file is valid, but its contents fit no supported model.
    Model = 3,
    /// The adapter, the device or a shader failed.
    Device = 4,
    /// The work exceeds the memory or the limits of the device.
    Memory = 5,
    /// A result contains NaN or infinity.
    NonFinite = 6,
    /// The progress callback or sagittal_cancel() asked to stop.
    Cancelled = 7,
    /// A bug in sagittal: please report it.
    Internal = 8,
}

impl From<ErrorKind> for SagittalStatus {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::File => Self::File,
            ErrorKind::Model => Self::Model,
            ErrorKind::Device => Self::Device,
            ErrorKind::Memory => Self::Memory,
            ErrorKind::NonFinite => Self::NonFinite,
            ErrorKind::Cancelled => Self::Cancelled,
            // A kind that this crate does not know yet is still an error.
            _ => Self::Internal,
        }
    }
}

thread_local! {
    static LAST: RefCell<(SagittalStatus, CString)> =
        RefCell::new((SagittalStatus::Ok, CString::default()));
}

/// Runs the body of a function that C calls, and catches panics.
pub fn report(body: impl FnOnce() -> Result<()>) -> SagittalStatus {
    // State that a panic left inconsistent is behind locks that are poisoned then, or is dropped.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        Err(Error::internal(text))
    });
    let (status, text) = match outcome {
        Ok(()) => (SagittalStatus::Ok, String::new()),
        Err(e) => (e.kind().into(), e.worded(&words)),
    };
    // It fails only while the thread ends, when its last error cannot be read any more.
    let _ = LAST.try_with(|last| last.replace((status, c_text(&text))));
    status
}

/// A remedy in terms of this interface.
fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::TurnOff(["SAG"]) => "set sag_scale to 0".into(),
        Remedy::Overwrite => "set replace to true".into(),
        other => other.to_string(),
    }
}

/// `text` for C, where a zero ends it.
pub fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// The same for a function without a status: panics are caught, but not reported.
pub fn quietly(body: impl FnOnce()) {
    // A destructor may panic; it cannot be reported.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

/// The error of the last call of this thread that returned a SagittalStatus: what was expected, what
/// was found, where, and what to do, in UTF-8. "" if it succeeded. The text is valid until the
/// thread's next such call.
#[unsafe(no_mangle)]
pub extern "C" fn sagittal_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().1.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The status of the last call of this thread that returned one.
#[unsafe(no_mangle)]
pub extern "C" fn sagittal_last_status() -> SagittalStatus {
    LAST.try_with(|last| last.borrow().0).unwrap_or(SagittalStatus::Ok)
}
