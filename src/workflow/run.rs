//! Does the work of a checked workflow, node by node. A node's outputs are kept as long as another
//! node waits for them: what a LoRA made of a model leaves the device with its last use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::check::{Source, Step};
use super::files::Files;
use super::graph::{Graph, Node};
use super::models::Found;
use super::nodes::Function;
use super::save::Notes;
use super::text::Moment;
use super::value::{Arguments, Value};
use crate::pipeline::{self, Autoencoder, DiffusionModel, Limits, ModelOptions, Studio, TextEncoders};
use crate::{Error, ErrorKind, Result};

/// What a run may be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How models are opened.
    pub model: ModelOptions,
    /// What the work may take.
    pub limits: Limits,
    /// The time, for names of files.
    pub now: Moment,
}

/// What a run tells.
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
    /// What a model tells while it works.
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

/// A whole checkpoint on the device.
#[derive(Clone)]
pub(super) struct Whole {
    pub diffusion: DiffusionModel,
    pub text: TextEncoders,
    pub vae: Autoencoder,
}

/// What nodes work with.
pub(super) struct Work<'a> {
    pub studio: Arc<Studio>,
    pub options: &'a Options,
    pub files: Files<'a>,
    /// Checkpoints that were loaded already.
    pub loaded: HashMap<Found, Whole>,
    /// What pictures tell of the workflow.
    pub notes: Notes<'a>,
    pub saved: Vec<Saved>,
    pub observe: &'a mut dyn FnMut(Event<'_>),
    pub cancel: &'a AtomicBool,
}

impl Work<'_> {
    /// Refuses `bytes` that are more than a node may keep.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`].
    pub fn room(&self, what: &str, counts: &[usize]) -> Result<()> {
        room(what, counts)
    }

    /// Tells that a file was written.
    pub fn tell_saved(&mut self, node: &Node, kind: SavedKind, (index, path): (usize, PathBuf)) {
        let saved = Saved { node: node.id.clone(), kind, index, path };
        (self.observe)(Event::Saved(&saved));
        self.saved.push(saved);
    }
}

/// Refuses f32 values of so many by so many that are more than a node may keep.
///
/// # Errors
/// [`ErrorKind::Memory`].
pub(super) fn room(what: &str, counts: &[usize]) -> Result<()> {
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

/// Does all steps.
///
/// # Errors
/// Those of the nodes, each with its node's name; [`ErrorKind::Cancelled`].
pub(super) fn run(graph: &Graph, steps: &[Step], work: &mut Work<'_>) -> Result<()> {
    let mut waiting = uses(steps);
    let mut done: HashMap<usize, Vec<Value>> = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        if work.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let node = &graph.nodes()[step.node];
        let (number, total) = (i + 1, steps.len());
        let title = node.title.as_deref();
        (work.observe)(Event::Node { id: &node.id, class: &node.class, title, number, total });
        let arguments = arguments(node, step, &done);
        let outputs = arguments.and_then(|arguments| match step.class.run {
            Function::Plain(run) => run(&arguments),
            Function::Working(run) => run(work, &arguments),
        });
        let outputs = outputs.map_err(|e| named(node, e))?;
        if outputs.len() != step.class.outputs.len() {
            return Err(Error::internal(format!("{} gave {} outputs", step.class.name, outputs.len())));
        }
        if waiting.contains_key(&step.node) {
            done.insert(step.node, outputs);
        }
        for (_, source) in &step.inputs {
            let Source::Output(at, _) = source else { continue };
            if let Some(count) = waiting.get_mut(at) {
                *count -= 1;
                if *count == 0 {
                    done.remove(at);
                }
            }
        }
    }
    Ok(())
}

/// How many inputs wait for each node.
fn uses(steps: &[Step]) -> HashMap<usize, usize> {
    let mut uses = HashMap::new();
    for (_, source) in steps.iter().flat_map(|step| &step.inputs) {
        if let Source::Output(at, _) = source {
            *uses.entry(*at).or_default() += 1;
        }
    }
    uses
}

fn arguments<'a>(node: &'a Node, step: &Step, done: &HashMap<usize, Vec<Value>>) -> Result<Arguments<'a>> {
    let value = |(name, source): &(&'static str, Source)| {
        let value = match source {
            Source::Value(value) => value.clone(),
            Source::Output(at, output) => {
                let value = done.get(at).and_then(|outputs| outputs.get(*output));
                let value = value.ok_or_else(|| Error::internal("a node's output is gone"))?;
                let slot = step.class.input(name).ok_or_else(|| Error::internal("an input of no class"))?;
                value.clone().fits(slot)?
            }
        };
        Ok((*name, value))
    };
    Ok(Arguments { node, class: step.class, values: step.inputs.iter().map(value).collect::<Result<_>>()? })
}

/// `error` with the node in which it came about.
pub(super) fn named(node: &Node, error: Error) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    Error::new(error.kind(), node.to_string()).cause(error)
}
