//! Pointers that C passes, checked before they are used.

use std::ffi::{CStr, c_char};
use std::mem::{self, MaybeUninit};
use std::ptr;

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
/// `pointer` is NULL or points to a `T` that is valid and not changed for `'a`.
pub unsafe fn needed<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: by this function's own condition.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Where to write a result: `pointer`, after writing `empty` there, so that freeing it after an error does nothing.
/// NULL is an error.
///
/// # Safety
/// `pointer` is NULL or valid for writes of a `T` and not used elsewhere for `'a`; it need not be initialized.
pub unsafe fn place<'a, T>(name: &str, pointer: *mut T, empty: T) -> Result<&'a mut T> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's own condition; the old contents are overwritten without being read.
    unsafe {
        pointer.write(empty);
        Ok(&mut *pointer)
    }
}

/// A struct that begins with its own size in bytes, as the calling program was compiled with it. Fields may be added
/// at its end: a program that was compiled earlier has a shorter struct, whose missing fields have default values.
///
/// # Safety
/// The type is `repr(C)`, its first field is a `usize`, it may be copied, and `LEAST` is at least the size of that field.
pub unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Size of the shortest struct that is accepted, bytes.
    const LEAST: usize;
}

/// The struct that `pointer` points to; fields beyond its size are those of `usual`.
///
/// # Safety
/// `pointer` is NULL or points to a `T` of the size in its first field.
pub unsafe fn versioned<T: Versioned>(name: &str, pointer: *const T, usual: T) -> Result<T> {
    let size = unsafe { size_of_versioned(name, pointer) }?;
    let mut read = MaybeUninit::new(usual);
    let known = size.min(mem::size_of::<T>());
    // SAFETY: both sides have `known` bytes; the rest is that of `usual`.
    unsafe {
        ptr::copy_nonoverlapping(pointer.cast::<u8>(), read.as_mut_ptr().cast(), known);
        let beyond = std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known);
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(Error::usage(format!("{} has fields that this library does not know", T::NAME))
                .expected(format!("{} bytes, and zeros beyond", mem::size_of::<T>()))
                .found(format!("{size} bytes"))
                .hint("use the header and the library of the same version"));
        }
        Ok(read.assume_init())
    }
}

/// Writes `value` to the struct at `pointer`, at most `size` bytes, and keeps its size.
///
/// # Safety
/// `pointer` is NULL or valid for writes of `size` bytes, and not used elsewhere.
pub unsafe fn write_versioned<T: Versioned>(
    name: &str,
    pointer: *mut T,
    size: usize,
    value: T,
) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    check_size::<T>(size)?;
    let known = size.min(mem::size_of::<T>());
    let target = pointer.cast::<u8>();
    // SAFETY: by this function's own condition.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(&value).cast::<u8>(), target, known);
        ptr::write_bytes(target.add(known), 0, size - known);
        target.cast::<usize>().write_unaligned(size);
    }
    Ok(())
}

/// The size that the struct at `pointer` says it has.
///
/// # Safety
/// As [`versioned`].
pub unsafe fn size_of_versioned<T: Versioned>(name: &str, pointer: *const T) -> Result<usize> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's own condition; the size is the first field.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    check_size::<T>(size).map(|()| size)
}

fn check_size<T: Versioned>(size: usize) -> Result<()> {
    // More than a page is not a struct of a later version, but an uninitialized field.
    if (T::LEAST..=4096).contains(&size) {
        return Ok(());
    }
    Err(Error::usage(format!("the size of {} is not set", T::NAME))
        .expected(format!("sizeof({}) in its field struct_size, at least {}", T::NAME, T::LEAST))
        .found(size.to_string()))
}

fn null(name: &str) -> Error {
    Error::usage(format!("the argument {name} is NULL")).expected("a pointer to something")
}
