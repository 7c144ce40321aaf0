//! What nodes run with, and what a run reports.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::pipeline::{self, Autoencoder, DeviceContext, DiffusionModel, Limits, ModelOptions, TextEncoders};
use crate::workflow::files::Files;
use crate::workflow::graph::Node;
use crate::workflow::local_time::LocalTime;
use crate::workflow::metadata::Metadata;
use crate::workflow::model_folders::ModelLocation;
use crate::{Error, ErrorKind, Result};

/// Settings of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How models are opened.
    pub model: ModelOptions,
    /// What the work may take.
    pub limits: Limits,
    /// The time, for names of files.
    pub now: LocalTime,
}

/// What a run reports.
#[non_exhaustive]
pub enum Event<'a> {
    /// A node begins.
    Node {
        /// Its id.
        id: &'a str,
        /// What it does.
        class: &'a str,
        /// What a person called it.
        title: Option<&'a str>,
        /// From 1.
        number: usize,
        /// How many nodes there are to do.
        total: usize,
    },
    /// What a model reports while it works.
    Work(pipeline::Progress),
    /// A file was written.
    Saved(&'a Saved),
}

/// A file that a run wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The id of the node that wrote it.
    pub node: String,
    /// What it is.
    pub kind: SavedKind,
    /// Which picture of the node's batch it holds, from 0; latents are in one file together.
    pub index: usize,
    /// Where it is.
    pub path: PathBuf,
}

/// Kinds of files that a run writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedKind {
    /// SaveImage's.
    Picture,
    /// PreviewImage's.
    Preview,
    /// SaveLatent's.
    Latent,
}

/// Values that a node may keep, bytes: 64 pictures of 2048×2048. More would only end in a process that
/// the system kills.
const MOST_BYTES: u64 = 4 << 30;

/// All networks of a checkpoint on the device.
#[derive(Clone)]
pub(crate) struct LoadedCheckpoint {
    pub diffusion: DiffusionModel,
    pub text: TextEncoders,
    pub vae: Autoencoder,
}

/// What nodes work with.
pub(crate) struct RunContext<'a> {
    pub device_context: Arc<DeviceContext>,
    pub options: &'a Options,
    pub files: Files<'a>,
    /// Checkpoints that were loaded already.
    pub loaded: HashMap<ModelLocation, LoadedCheckpoint>,
    /// What saved files contain of the workflow.
    pub metadata: Metadata,
    pub saved: Vec<Saved>,
    pub observe: &'a mut dyn FnMut(Event<'_>),
    pub cancel: &'a AtomicBool,
}

impl RunContext<'_> {
    /// Refuses `bytes` that are more than a node may keep.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`].
    pub fn room(&self, what: &str, counts: &[usize]) -> Result<()> {
        room(what, counts)
    }

    /// Reports that a file was written.
    pub fn report_saved(&mut self, node: &Node, kind: SavedKind, (index, path): (usize, PathBuf)) {
        let saved = Saved { node: node.id.clone(), kind, index, path };
        (self.observe)(Event::Saved(&saved));
        self.saved.push(saved);
    }
}

/// Refuses f32 values of so many by so many that are more than a node may keep.
///
/// # Errors
/// [`ErrorKind::Memory`].
pub(crate) fn room(what: &str, counts: &[usize]) -> Result<()> {
    let values = counts.iter().try_fold(4u64, |n, count| n.checked_mul(*count as u64));
    if values.is_some_and(|bytes| bytes <= MOST_BYTES) {
        return Ok(());
    }
    let found = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
    Err(Error::new(ErrorKind::Memory, format!("{what} would not fit the memory"))
        .expected(format!("at most {} MiB of values", MOST_BYTES >> 20))
        .found(format!("{found} values"))
        .hint("make the picture or the batch smaller"))
}
