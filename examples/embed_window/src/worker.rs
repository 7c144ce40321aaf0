//! The thread that computes: it receives requests, and sends reports.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use sagittal::{
    CancelToken, Checkpoint, ErrorKind, Gpu, Model, ModelOptions, Picture, Progress, Request, embedded,
};

/// A report of the thread.
pub enum News {
    /// The model is open; its pictures have this side.
    Ready(usize),
    Doing(&'static str),
    Step {
        step: usize,
        total: usize,
        preview: Picture,
    },
    Made(Picture),
    Cancelled,
    Failed(String),
}

struct Job {
    request: Request,
    cancel: CancelToken,
}

/// The thread, as the window sees it.
pub struct Worker {
    jobs: Sender<Job>,
    news: Receiver<News>,
    cancel: CancelToken,
}

impl Worker {
    /// Starts the thread; `wake` is called there after each report.
    pub fn start(gpu: Gpu, model: Option<PathBuf>, wake: impl Fn() + Send + 'static) -> Self {
        let (jobs, todo) = channel::<Job>();
        let (tell, news) = channel();
        thread::spawn(move || {
            let tell = |news| {
                // It fails only after the window was closed, when there is no further job.
                let _ = tell.send(news);
                wake();
            };
            match open(gpu, model) {
                Err(e) => tell(News::Failed(e.to_string())),
                Ok(model) => {
                    tell(News::Ready(model.config().native_side()));
                    todo.into_iter().for_each(|job| tell(draw(&model, &job, &tell)));
                }
            }
        });
        Self { jobs, news, cancel: CancelToken::new() }
    }

    /// Starts a request; an earlier one is cancelled.
    pub fn generate(&mut self, request: Request) {
        self.cancel();
        self.cancel = CancelToken::new();
        // A thread that has ended has reported why.
        let _ = self.jobs.send(Job { request, cancel: self.cancel.clone() });
    }

    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Reports since the last call.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }
}

fn open(gpu: Gpu, model: Option<PathBuf>) -> sagittal::Result<Model> {
    let checkpoint = match model {
        Some(path) => Checkpoint::open(path)?,
        None => embedded::checkpoint()?,
    };
    Model::new(gpu, checkpoint, ModelOptions::default())
}

fn draw(model: &Model, job: &Job, tell: &dyn Fn(News)) -> News {
    let on_event = |event| match event {
        Progress::Loading { part } => tell(News::Doing(part)),
        Progress::Encoding => tell(News::Doing("encoding the prompt")),
        Progress::Sampling { step, total, preview: Some(preview), .. } => {
            tell(News::Step { step, total, preview });
        }
        Progress::Decoding { .. } => tell(News::Doing("decoding the picture")),
        _ => {}
    };
    match model.run(&job.request).preview_every(1).on_event(on_event).cancel(&job.cancel).generate() {
        // The button may have been pressed after the last work on the device.
        Ok(_) if job.cancel.is_cancelled() => News::Cancelled,
        Ok(mut made) => News::Made(made.pictures.swap_remove(0)),
        Err(e) if e.kind() == ErrorKind::Cancelled => News::Cancelled,
        Err(e) => News::Failed(e.to_string()),
    }
}
