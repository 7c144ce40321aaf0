//! The one error type. It says what went wrong, where, what was expected, what was found and
//! what to do; [`Error::kind`] and the other getters are for programs, the text is for people.

mod remedy;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

pub use remedy::{Remedy, Resource};

/// What an [`Error`] is about. The exit code of the command line follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value the caller gave is outside what is allowed.
    Usage,
    /// A file is missing, unreadable, damaged or not what it should be.
    File,
    /// A file is sound, but its contents fit no network known here.
    Model,
    /// The adapter, the device or a shader failed.
    Device,
    /// The work does not fit the memory or the limits of the device.
    Memory,
    /// A result holds NaN or infinity.
    NonFinite,
    /// The caller asked to stop.
    Cancelled,
    /// A fault in sagittal itself: please report it.
    Internal,
}

/// One word, as the events of the command line have it: `usage`, `non_finite`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usage => "usage",
            Self::File => "file",
            Self::Model => "model",
            Self::Device => "device",
            Self::Memory => "memory",
            Self::NonFinite => "non_finite",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        })
    }
}

/// Why an operation failed. It is built where the fault is found:
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
    remedies: Vec<Remedy>,
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
            remedies: Vec::new(),
            source: None,
        }))
    }

    /// A value outside what is allowed; see [`ErrorKind::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A broken invariant of this crate; see [`ErrorKind::Internal`].
    #[doc(hidden)]
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what).hint("this is a fault in sagittal: please report it")
    }

    /// The caller's cancel flag was set.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// An input/output error on `file`. A link that leads to nothing is reported as such: the system
    /// calls missing what people see in the folder.
    pub fn io(file: impl AsRef<Path>, what: impl Into<String>, source: std::io::Error) -> Self {
        let file = file.as_ref();
        let gone = source.kind() == std::io::ErrorKind::NotFound && file.is_symlink();
        let target = gone.then(|| std::fs::read_link(file).ok()).flatten();
        let what = what.into();
        match target {
            Some(target) => Self::new(ErrorKind::File, format!("{what}, a link to nowhere"))
                .file(file)
                .found(format!("nothing at {}", target.display()))
                .cause(source)
                .hint("put the file there, or make the link anew"),
            None => {
                let missing = source.kind() == std::io::ErrorKind::NotFound;
                let error = Self::new(ErrorKind::File, what).file(file).cause(source);
                if missing { error.hint("check the path") } else { error }
            }
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

    /// What the user can do about it, in words that name no flag or function of a program. Several are choices.
    pub fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.remedy(Remedy::Advice(hint.into()))
    }

    /// What the user can do about it. Several are choices.
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.0.remedies.push(remedy);
        self
    }

    /// The same error where other remedies apply.
    pub(crate) fn without_remedies(mut self) -> Self {
        self.0.remedies.clear();
        self
    }

    /// The error underneath. Its text is a part of `Display`, so [`source`](std::error::Error::source) does not return
    /// it again.
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What this error is about.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// A short statement of the fault.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The file this is about, if any: the error's own, or else that of the error underneath. The same holds for the
    /// place, for what was expected and found, and for the remedies.
    pub fn path(&self) -> Option<&Path> {
        self.first(|e| e.file.as_deref())
    }

    /// The place inside, if any: a tensor, a setting, a step.
    pub fn place(&self) -> Option<&str> {
        self.first(|e| e.at.as_deref())
    }

    /// What would have been right, if it is known.
    pub fn wanted(&self) -> Option<&str> {
        self.first(|e| e.expected.as_deref())
    }

    /// What was there instead, if it is known.
    pub fn got(&self) -> Option<&str> {
        self.first(|e| e.found.as_deref())
    }

    /// What can be done about it, the best first; several are choices.
    pub fn remedies(&self) -> &[Remedy] {
        self.first(|e| (!e.remedies.is_empty()).then_some(&*e.remedies)).unwrap_or_default()
    }

    /// A member of the outermost error that has it.
    fn first<'e, T>(&'e self, of: impl Fn(&'e Inner) -> Option<T>) -> Option<T> {
        let below = |e: &'e Self| e.0.source.as_ref()?.downcast_ref::<Self>();
        std::iter::successors(Some(self), |e| below(e)).find_map(|e| of(&e.0))
    }

    /// The full text with remedies in a program's own words; `Display` is this with [`Remedy`]'s words.
    pub fn worded(&self, words: &dyn Fn(&Remedy) -> String) -> String {
        let e = &*self.0;
        let mut text = e.file.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display()));
        text.push_str(&e.what);
        if let Some(at) = &e.at {
            text.push_str(&format!(" ({at})"));
        }
        // Instead of what was expected, which may be a long list, a suggestion.
        let (names, others): (Vec<&Remedy>, Vec<&Remedy>) =
            e.remedies.iter().partition(|remedy| matches!(remedy, Remedy::DidYouMean(_)));
        for suggestion in &names {
            text.push_str(&format!(", {}", words(suggestion)));
        }
        match (e.expected.as_ref().filter(|_| names.is_empty()), &e.found) {
            (Some(x), Some(y)) => text.push_str(&format!(": expected {x}, found {y}")),
            (Some(x), None) => text.push_str(&format!(": expected {x}")),
            (None, Some(y)) => text.push_str(&format!(": found {y}")),
            (None, None) => {}
        }
        // The cause belongs to the sentence: most callers print only the outermost text.
        if let Some(source) = &e.source {
            let cause = source.downcast_ref::<Error>();
            text.push_str(": ");
            text.push_str(&cause.map_or_else(|| source.to_string(), |cause| cause.worded(words)));
        }
        if !others.is_empty() {
            let remedies: Vec<String> = others.into_iter().map(words).collect();
            text.push_str("; ");
            text.push_str(&remedies.join(", or "));
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.worded(&Remedy::to_string))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}
