//! Pointers that C passes, looked at before they are used.

use std::ffi::{CStr, c_char};

use sagittal::{Error, Result};

/// The text at `text`, None for NULL; `name` is the argument's.
///
/// # Safety
/// `text` is NULL or points to bytes that end with a zero and stay as they are for `'a`.
pub unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's own condition.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map(Some).map_err(|e| {
        Error::usage(format!("the argument {name} is not text"))
            .expected("UTF-8")
            .found(format!("{:?}", bytes.to_string_lossy()))
            .cause(e)
    })
}

/// What `pointer` points to; NULL is an error.
///
/// # Safety
/// `pointer` is NULL or points to a `T` that lives, and that nobody changes, for `'a`.
pub unsafe fn needed<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: by this function's own condition.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// The place `pointer` for a result, emptied: whoever frees it after an error frees nothing. NULL is
/// an error.
///
/// # Safety
/// `pointer` is NULL or a place for a `T` that nobody else uses for `'a`; it need not hold one yet.
pub unsafe fn place<'a, T>(name: &str, pointer: *mut T, empty: T) -> Result<&'a mut T> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's own condition; what was there is overwritten without being read.
    unsafe {
        pointer.write(empty);
        Ok(&mut *pointer)
    }
}

fn null(name: &str) -> Error {
    Error::usage(format!("the argument {name} is NULL")).expected("a pointer to something")
}
