//! Progress of a run: a bar on the terminal, JSON events on stdout, or both.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use sagittal::Progress;
use serde_json::json;

use crate::support::terminal;

const STYLE: &str = "{msg:<24} {bar:30} {pos:>3}/{len} {speed} ETA {eta}";

/// The progress of a run of several batches.
pub struct Reporter {
    bar: ProgressBar,
    json: bool,
    /// Rows of a step, if they are known beforehand.
    rows: Option<usize>,
    batch: usize,
    batches: usize,
    last: Instant,
    /// Steps done and the time they took, over all batches.
    steps: usize,
    sampling: Duration,
}

impl Reporter {
    /// For `batches` batches of `steps` steps with `rows` rows each. The bar is hidden if stderr is not a terminal.
    pub fn new(json: bool, steps: usize, batches: usize, rows: Option<usize>) -> Self {
        let bar = ProgressBar::new(steps as u64);
        // A template that does not parse leaves the plain bar.
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            let speed = |s: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = w.write_str(&speed(s.per_sec()));
            };
            bar.set_style(style.with_key("speed", speed));
        }
        let (last, sampling) = (Instant::now(), Duration::ZERO);
        Self { bar, json, rows, batch: 0, batches, last, steps: 0, sampling }
    }

    /// Begins batch `batch`, from 0.
    pub fn begin(&mut self, batch: usize) {
        self.batch = batch;
        self.bar.reset();
    }

    /// Shows `event`.
    pub fn observe(&mut self, event: &Progress) {
        match event {
            Progress::Encoding => self.note("encoding the prompt", "encoding", json!({})),
            Progress::EncodingPicture => self.note("encoding the picture", "encoding_picture", json!({})),
            Progress::Loading { part } => {
                self.note(&format!("loading the {part}"), "loading", json!({ "part": part }))
            }
            Progress::Sampling { step: 0, .. } => {
                // The work before the first step must not count in the speed.
                self.bar.reset();
                self.bar.set_message(self.sampling_message());
                self.last = Instant::now();
            }
            Progress::Sampling { step, total, sigma, .. } => self.step(*step, *total, *sigma),
            Progress::Tiles { part, tiles, side } => {
                self.say(&format!("the VAE {part} works in {tiles} tiles of {side}×{side} latent cells"));
                let rest = json!({ "part": part, "tiles": tiles, "side": side });
                self.note(&format!("{part} in tiles"), "tiles", rest);
            }
            Progress::Decoding { picture, total } => {
                let message = format!("decoding picture {} of {total}", picture + 1);
                self.note(&message, "decoding", json!({ "picture": picture + 1, "pictures": total }));
            }
            Progress::DecodingAgain { picture } => {
                let message = format!("picture {} overflowed f16: decoding it again in f32", picture + 1);
                self.note(&message, "decoding_again", json!({ "picture": picture + 1 }));
            }
            _ => (),
        }
    }

    /// The rows show whether SAG is on: with it there are more.
    fn sampling_message(&self) -> String {
        let rows = match self.rows {
            None => String::new(),
            Some(rows) => format!(", {} per step", terminal::count(rows, "row")),
        };
        match self.batches {
            1 => format!("sampling{rows}"),
            n => format!("batch {}/{n}{rows}", self.batch + 1),
        }
    }

    /// A step is done. Its time is measured here, since the library uses no clock.
    fn step(&mut self, step: usize, total: usize, sigma: f32) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        self.steps += 1;
        self.sampling += took;
        self.bar.set_length(total as u64);
        self.bar.set_position(step as u64);
        if self.json {
            let mut rest = json!({
                "batch": self.batch + 1, "step": step, "steps": total, "sigma": terminal::decimal(sigma),
            });
            if let Some(rows) = self.rows {
                rest["rows"] = json!(rows);
            }
            rest["seconds"] = json!(took.as_secs_f64());
            terminal::event("step", rest);
        }
    }

    /// Work without steps.
    fn note(&self, message: &str, name: &str, mut rest: serde_json::Value) {
        self.bar.set_message(message.to_owned());
        if self.json {
            rest["batch"] = json!(self.batch + 1);
            terminal::event(name, rest);
        }
    }

    /// Shows what is being done.
    pub fn message(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| terminal::say(line));
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Steps per second over all batches.
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.sampling.as_secs_f64().max(1e-9)
    }
}

/// Steps per second, or seconds per step if that is below 1.
pub fn speed(per_second: f64) -> String {
    match per_second {
        s if !s.is_finite() || s <= 0.0 => "  -.-- it/s".into(),
        s if s < 1.0 => format!("{:>6.2} s/it", 1.0 / s),
        s => format!("{s:>6.2} it/s"),
    }
}
