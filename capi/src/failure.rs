//! Errors on their way to C: a status for the program, a text for people.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sagittal::{Error, ErrorKind, Remedy, Result};

/// What became of a call.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagittalStatus {
    /// It did what it should.
    Ok = 0,
    /// An argument or a setting is outside what is allowed.
    Usage = 1,
    /// A file is missing, unreadable, damaged or not what it should be.
    File = 2,
    /// A file is sound, but its contents fit no network known here.
    Model = 3,
    /// The adapter, the device or a shader failed.
    Device = 4,
    /// The work does not fit the memory or the limits of the device.
    Memory = 5,
    /// A result holds NaN or infinity.
    NonFinite = 6,
    /// The progress callback or sagittal_cancel() asked to stop.
    Cancelled = 7,
    /// A fault in sagittal itself: please report it.
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

/// Runs the inside of a function that C calls. No panic leaves it.
pub fn report(inside: impl FnOnce() -> Result<()>) -> SagittalStatus {
    // What a panic left half done is inside of objects whose locks are then poisoned, or dropped.
    let outcome = catch_unwind(AssertUnwindSafe(inside)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        Err(Error::internal(text))
    });
    let (status, text) = match outcome {
        Ok(()) => (SagittalStatus::Ok, String::new()),
        Err(e) => (e.kind().into(), e.worded(&words)),
    };
    // A thread that ends has nobody left to ask for its last error.
    let _ = LAST.try_with(|last| last.replace((status, c_text(&text))));
    status
}

/// A remedy in the words of this interface, where it has any of its own.
fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::TurnOff(["SAG"]) => "set sag_scale to 0".into(),
        Remedy::Overwrite => "let replace be true".into(),
        other => other.to_string(),
    }
}

/// `text` for C, where a zero ends it.
pub fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// The same for a function that gives no status: errors are not told, but do not get out either.
pub fn quietly(inside: impl FnOnce()) {
    // Dropping what panics while it is dropped may panic again; there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(inside));
}

/// What went wrong in the last call of this thread that returned a SagittalStatus: what was
/// expected, what was found, where, and what to do, in UTF-8. "" if it succeeded. The text is valid
/// until the thread's next such call.
#[unsafe(no_mangle)]
pub extern "C" fn sagittal_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().1.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The status that the last call of this thread that returns one has returned.
#[unsafe(no_mangle)]
pub extern "C" fn sagittal_last_status() -> SagittalStatus {
    LAST.try_with(|last| last.borrow().0).unwrap_or(SagittalStatus::Ok)
}
