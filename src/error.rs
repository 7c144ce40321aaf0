//! The one error type. It says what went wrong, where, what was expected, what was found and
//! what to do; [`Error::kind`] is for programs, the text is for people.

use std::fmt;
use std::path::{Path, PathBuf};

/// What an [`Error`] is about; the command line turns it into the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value the caller gave is outside what is allowed (exit code 2).
    Usage,
    /// A file is missing, unreadable, damaged or not what it should be (exit code 3).
    File,
    /// A file is sound, but its contents fit no network known here (exit code 3).
    Model,
    /// The adapter, the device or a shader failed (exit code 4).
    Device,
    /// The work does not fit the memory or the limits of the device (exit code 4).
    Memory,
    /// A result holds NaN or infinity (exit code 4).
    NonFinite,
    /// The caller asked to stop (exit code 130).
    Cancelled,
    /// A fault in sagittal itself: please report it (exit code 4).
    Internal,
}

/// Why an operation failed. Built up by the place that knows:
///
/// ```
/// use sagittal::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::File, "not a model file")
///     .file("cat.png")
///     .expected("a .safetensors file")
///     .found("a PNG picture")
///     .hint("pass the checkpoint, not a picture made with it");
/// assert_eq!(e.kind(), ErrorKind::File);
/// assert_eq!(
///     e.to_string(),
///     "cat.png: not a model file: expected a .safetensors file, found a PNG picture; \
///      pass the checkpoint, not a picture made with it"
/// );
/// ```
#[derive(thiserror::Error)]
pub struct Error(Box<Inner>);

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

struct Inner {
    kind: ErrorKind,
    what: String,
    file: Option<PathBuf>,
    at: Option<String>,
    expected: Option<String>,
    found: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` is a short statement of the fault.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            what: what.into(),
            file: None,
            at: None,
            expected: None,
            found: None,
            hint: None,
            source: None,
        }))
    }

    /// A value outside what is allowed; see [`ErrorKind::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A broken invariant of this crate; see [`ErrorKind::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what).hint("this is a fault in sagittal: please report it")
    }

    /// The caller's cancel flag was set.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// An input/output error on `file`. A link that leads to nothing is told as such: the system calls the file
    /// that people see in the folder missing.
    pub fn io(file: impl AsRef<Path>, what: impl Into<String>, source: std::io::Error) -> Self {
        let file = file.as_ref();
        let gone = source.kind() == std::io::ErrorKind::NotFound && file.is_symlink();
        let target = gone.then(|| std::fs::read_link(file).ok()).flatten();
        let error = Self::new(ErrorKind::File, what).file(file).cause(source);
        match target {
            Some(target) => error
                .at("a link to nowhere")
                .found(format!("nothing at {}", target.display()))
                .hint("put the file there, or make the link anew"),
            None => error,
        }
    }

    /// The file this is about.
    pub fn file(mut self, file: impl AsRef<Path>) -> Self {
        self.0.file = Some(file.as_ref().to_path_buf());
        self
    }

    /// The place inside: a tensor path, an option, a step.
    pub fn at(mut self, at: impl Into<String>) -> Self {
        self.0.at = Some(at.into());
        self
    }

    /// What would have been right.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// What was there instead.
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.0.found = Some(found.into());
        self
    }

    /// What the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error underneath.
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What this error is about.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file this is about, if any.
    pub fn path(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        if let Some(file) = &e.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(&e.what)?;
        if let Some(at) = &e.at {
            write!(f, " ({at})")?;
        }
        match (&e.expected, &e.found) {
            (Some(x), Some(y)) => write!(f, ": expected {x}, found {y}")?,
            (Some(x), None) => write!(f, ": expected {x}")?,
            (None, Some(y)) => write!(f, ": found {y}")?,
            (None, None) => {}
        }
        // The cause belongs to the sentence: most callers print only the outermost text.
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &e.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}
