//! Runs of a request: with progress, previews and cancel, here or in a thread of their own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::cancel::CancelToken;
use super::model::Model;
use super::progress::Progress;
use super::request::{Generated, Request};
use crate::image::Picture;
use crate::{Error, Result};

/// A run that is being set up by [`Model::run`]. [`start`](Self::start) starts it in a thread of its own,
/// [`generate`](Self::generate) does it here.
#[must_use = "nothing runs before `start` or `generate`"]
pub struct Generation<'a, F = fn(Progress)> {
    model: &'a Model,
    request: Request,
    on_event: F,
    cancel: CancelToken,
}

impl Model {
    /// Sets up a run of `request`: see [`Generation`].
    ///
    /// ```no_run
    /// # fn main() -> sagittal::Result<()> {
    /// # let model: sagittal::Model = unimplemented!();
    /// use sagittal::{Progress, Request, Size};
    ///
    /// let request = Request::new("a lighthouse in a storm", Size::square(512));
    /// let handle = model
    ///     .run(&request)
    ///     .on_event(|event| {
    ///         if let Progress::Sampling { step, total, .. } = event {
    ///             println!("step {step} of {total}");
    ///         }
    ///     })
    ///     .start()?;
    /// let made = handle.join()?;
    /// # Ok(()) }
    /// ```
    pub fn run(&self, request: &Request) -> Generation<'_> {
        Generation { model: self, request: request.clone(), on_event: |_| {}, cancel: CancelToken::new() }
    }
}

impl<'a, F: FnMut(Progress)> Generation<'a, F> {
    /// Calls `on_event` with each event, in the thread of the run, which waits meanwhile.
    pub fn on_event<G: FnMut(Progress)>(self, on_event: G) -> Generation<'a, G> {
        let Self { model, request, cancel, .. } = self;
        Generation { model, request, on_event, cancel }
    }

    /// Stops the run when `token` is cancelled.
    pub fn cancel(self, token: &CancelToken) -> Self {
        Self { cancel: token.clone(), ..self }
    }

    /// Makes a preview every so many steps, as [`Request::preview_every`] does; 0 for none.
    pub fn preview_every(mut self, steps: usize) -> Self {
        self.request.preview_every = steps;
        self
    }

    /// Does the run in this thread.
    ///
    /// # Errors
    /// As [`Model::generate`].
    pub fn generate(mut self) -> Result<Generated> {
        self.model.generate_with(&self.request, &mut self.on_event, self.cancel.flag())
    }

    /// Starts the run in a thread of its own. It works on a copy of the model, which shares its weights.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the system gives no thread. Errors of the run itself
    /// come from [`Handle::join`].
    pub fn start(self) -> Result<Handle>
    where
        F: Send + 'static,
    {
        let Self { model, request, mut on_event, cancel } = self;
        let model = model.clone();
        let latest = Arc::new(Mutex::new(Latest::default()));
        let (shared, token) = (latest.clone(), cancel.clone());
        let run = move || {
            let mut observe = |event: Progress| {
                lock(&shared).keep(&event);
                on_event(event);
            };
            model.generate_with(&request, &mut observe, token.flag())
        };
        let thread = thread::Builder::new().name("sagittal".into()).spawn(run);
        let thread = thread.map_err(|e| Error::internal("no thread for the run").cause(e))?;
        Ok(Handle { thread: Some(thread), cancel, latest })
    }
}

/// A run in a thread of its own. Dropping the handle cancels the run and does not wait for its thread. When a window
/// closes, call [`cancel`](Self::cancel), then [`join`](Self::join): it returns within one submission to the device, with
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
#[derive(Debug)]
pub struct Handle {
    /// None once it is joined.
    thread: Option<JoinHandle<Result<Generated>>>,
    cancel: CancelToken,
    latest: Arc<Mutex<Latest>>,
}

/// The latest report of a run.
#[derive(Debug, Default)]
struct Latest {
    progress: Option<Progress>,
    preview: Option<Picture>,
}

impl Latest {
    fn keep(&mut self, event: &Progress) {
        match event {
            // An evaluation is large, and its step is reported anyway.
            Progress::Evaluated { .. } => return,
            Progress::Sampling { preview: Some(preview), .. } => self.preview = Some(preview.clone()),
            _ => (),
        }
        self.progress = Some(event.clone());
    }
}

fn lock(latest: &Mutex<Latest>) -> MutexGuard<'_, Latest> {
    // It is consistent even if another thread has panicked.
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Waits for the pictures.
    ///
    /// # Errors
    /// As [`Model::generate`]; [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the function that was given to
    /// [`on_event`](Generation::on_event) has panicked.
    pub fn join(mut self) -> Result<Generated> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(made)) => made,
            _ => Err(Error::usage("the function that receives the events of a run has panicked")),
        }
    }

    /// Asks the run to stop; it ends within one submission to the device.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether [`join`](Self::join) would return at once.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The latest event other than an evaluation.
    pub fn progress(&self) -> Option<Progress> {
        lock(&self.latest).progress.clone()
    }

    /// The latest preview, of one pixel per latent cell (an eighth of the picture's sides), if [`Generation::preview_every`] or [`Request::preview_every`] is set.
    pub fn preview(&self) -> Option<Picture> {
        lock(&self.latest).preview.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.cancel.cancel();
        }
    }
}
