//! ComfyUI's workflows: read, checked completely, and run by this crate's own calls.
//!
//! ```text
//! Workflow::open    API JSON, UI JSON or a PNG with either  →  nodes and links
//! Workflow::check   names, types, ranges, files             →  steps in order, or an error that
//!                                                              names the node and what to do
//! Ready::run        node by node on a device                →  pictures and latents in files
//! ```
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use sagittal::pipeline::DeviceContext;
//! use sagittal::workflow::{Options, Folders, Workflow};
//! # fn main() -> sagittal::Result<()> {
//! let workflow = Workflow::open("workflow.json")?;
//! let folders = Folders::new("models", "input", "output");
//! let options = Options::default();
//! let ready = workflow.check(&folders, &options)?;
//! let device_context = DeviceContext::new(sagittal::Gpu::open(None)?)?;
//! let saved = ready.run(device_context, &mut |_| {}, &AtomicBool::new(false))?;
//! # Ok(()) }
//! ```

mod check;
mod dry_run;
mod dynamic_prompt;
mod extra_paths;
mod files;
mod folders;
mod graph;
mod json;
mod local_time;
mod metadata;
mod model_folders;
mod nodes;
mod older_versions;
mod output_folder;
mod picture_settings;
mod prefix;
mod read;
mod run;
pub mod spec;
mod ui_format;
mod value;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::Value as Json;

use check::{PlanStep, RunPlan};
use dry_run::known::DryRunContext;
use files::Files;
pub use folders::Folders;
pub use graph::{Graph, Input, Node};
pub use local_time::LocalTime;
use metadata::Metadata;
pub use model_folders::ModelFolders;
pub use nodes::{class, classes};
use run::context::RunContext;
pub use run::context::{Event, Options, Saved, SavedKind};
use spec::Kind;
use value::Value;

use crate::pipeline::DeviceContext;
use crate::{Error, Remedy, Result};

/// A workflow as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    file: PathBuf,
    graph: Graph,
    /// The UI format, if it was that.
    ui: Option<Json>,
}

/// A workflow that can be run.
pub struct Ready<'a> {
    workflow: &'a Workflow,
    steps: Vec<PlanStep>,
    unneeded: Vec<usize>,
    files: Files<'a>,
    options: &'a Options,
}

impl Workflow {
    /// Reads ComfyUI's API format, its UI format, or a PNG that carries one of them.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) if the file cannot be read or is no workflow.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path, &read::bytes(path)?)
    }

    /// The same for bytes that are in memory; `name` is the file's name in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn parse(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let file = name.as_ref().to_owned();
        let source = read::parse(bytes).map_err(|e| e.file(&file))?;
        Ok(Self { file, graph: source.graph, ui: source.ui })
    }

    /// Nodes and links, those that only exist on the screen left out.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The file, or the name given for it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Sets an input by hand: `assignment` is `NODE.INPUT=VALUE`, where the node is called by its id, or
    /// by its title or class if only one has it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no such node or input, or the value does not fit it.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let wrong = |what: &str| Error::usage(what.to_owned()).at(assignment);
        let (place, value) = assignment
            .split_once('=')
            .ok_or_else(|| wrong("there is no value").expected("NODE.INPUT=VALUE"))?;
        let (name, input) = place.rsplit_once('.').ok_or_else(|| {
            let example = format!("KSampler.{assignment}");
            wrong("there is no node before the input")
                .expected(format!("NODE.INPUT=VALUE, such as {example}"))
        })?;
        let at = self.named(name).map_err(|e| e.at(assignment))?;
        let node = &self.graph.nodes()[at];
        let class = class(&node.class)
            .ok_or_else(|| wrong("a node that does not run here").found(node.to_string()))?;
        let names = || class.widgets().map(|w| w.name).collect::<Vec<_>>().join(", ");
        let slot = class.widgets().find(|slot| slot.name == input).ok_or_else(|| {
            wrong("no such input of this node").expected(format!("one of {}", names())).found(input)
        })?;
        // The text is what a person typed: JSON has no say in it but for its type.
        let json = match slot.kind {
            Kind::Int { .. } | Kind::Float { .. } | Kind::Bool { .. } => {
                serde_json::from_str(value.trim()).unwrap_or_else(|_| value.into())
            }
            _ => Json::from(value),
        };
        Value::written(slot, &json)
            .map_err(|e| Error::usage("the value does not fit its input").at(assignment).cause(e))?;
        let id = node.id.clone();
        if let Some(ui) = &mut self.ui
            && !ui_format::set_widget(ui, &id, class, input, &json)
        {
            // A picture whose UI format has another value than was run would mislead.
            self.ui = None;
        }
        if let Some(node) = self.graph.nodes_mut().get_mut(at) {
            node.set(input, Input::Value(json));
        }
        Ok(())
    }

    /// The one node that is called `name`.
    fn named(&self, name: &str) -> Result<usize> {
        if let Some(at) = self.graph.position(name) {
            return Ok(at);
        }
        let nodes = self.graph.nodes();
        let called = |by: &dyn Fn(&Node) -> bool| -> Vec<usize> {
            (0..nodes.len()).filter(|at| by(&nodes[*at])).collect()
        };
        let mut found = called(&|n| n.title.as_deref() == Some(name));
        if found.is_empty() {
            found = called(&|n| n.class == name);
        }
        match found.as_slice() {
            [at] => Ok(*at),
            [] => {
                let names = nodes
                    .iter()
                    .flat_map(|n| [Some(n.id.as_str()), n.title.as_deref(), Some(n.class.as_str())]);
                let near = crate::sampler::names::nearest_to(name, names.flatten());
                let error =
                    Error::usage("no such node in the workflow").file(&self.file).found(format!("{name:?}"));
                Err(match near.is_empty() {
                    true => error.hint("write its id, its title or its class"),
                    false => error.remedy(Remedy::DidYouMean(near.into_iter().map(str::to_owned).collect())),
                })
            }
            several => {
                let named: Vec<String> = several.iter().take(8).map(|at| nodes[*at].to_string()).collect();
                Err(Error::usage(format!("several nodes have the title or class {name:?}"))
                    .file(&self.file)
                    .found(named.join("; "))
                    .hint(format!("write the id of one of them, such as {}", nodes[several[0]].id)))
            }
        }
    }

    /// Checks everything before anything runs: classes of nodes, inputs, links and their types, ranges,
    /// circles, names and kinds of files, where files would be written, and memory.
    ///
    /// # Errors
    /// `File`, `Model`, `Usage` or `Memory` of [`ErrorKind`](crate::ErrorKind), naming the node and what to do.
    pub fn check<'a>(&'a self, folders: &'a Folders, options: &'a Options) -> Result<Ready<'a>> {
        let plan = check::plan(&self.graph, &options.now).map_err(|e| e.file(&self.file))?;
        let RunPlan { steps, unneeded } = plan;
        output_folder::usable(&folders.output)?;
        let mut files = Files::new(folders);
        for step in &steps {
            let node = &self.graph.nodes()[step.node];
            check_step(step, node, &mut files).map_err(|e| node.wrap(e).file(&self.file))?;
        }
        let mut context = DryRunContext { files: &mut files, options, device_context: None };
        dry_run::check(&self.graph, &steps, &mut context).map_err(|e| e.file(&self.file))?;
        Ok(Ready { workflow: self, steps, unneeded, files, options })
    }
}

/// Checks what a step reads, makes and writes, as far as that is written in the workflow.
fn check_step(step: &PlanStep, node: &Node, files: &mut Files<'_>) -> Result<()> {
    let written = step.written(node);
    for slot in step.class.spec.inputs {
        if let Kind::File(kind) = slot.kind
            && let Ok(name) = written.text(slot.name)
        {
            files.look(kind, name)?;
        }
        if let Kind::Int { step, .. } = slot.kind
            && let Ok(number) = written.int(slot.name)
            && number % step != 0
        {
            let used = number - number % step;
            log::warn!("{node}: its {} {number} counts as {used}, the multiple of {step} below", slot.name);
        }
    }
    step.class.hooks.check.map_or(Ok(()), |check| check(&written, files))
}

impl Ready<'_> {
    /// The number of samplers.
    pub fn samplers(&self) -> usize {
        self.steps.iter().filter(|step| step.class.hooks.sampling.is_some()).count()
    }

    /// The nodes in the order in which they run.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.steps.iter().map(|step| &self.workflow.graph.nodes()[step.node])
    }

    /// The nodes that do not run, as nothing that is saved needs them.
    pub fn resting(&self) -> impl Iterator<Item = &Node> {
        self.unneeded.iter().map(|at| &self.workflow.graph.nodes()[*at])
    }

    /// Whether every network fits the memory of `device_context`, in the limit that the options set. Nothing is loaded and
    /// nothing runs. [`run`](Self::run) checks it first.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) of the node that needs the most, with how much would do for all.
    pub fn check_memory(&mut self, device_context: &Arc<DeviceContext>) -> Result<()> {
        let Ready { workflow, steps, files, options, .. } = self;
        let mut context = DryRunContext { files, options, device_context: Some(device_context) };
        dry_run::check(&workflow.graph, steps, &mut context).map_err(|e| e.file(&workflow.file))
    }

    /// Runs the workflow on `device_context`. `observe` is called with nodes, progress and files; setting `cancel`
    /// ends the work within one submission to the device. What was saved by then stays.
    ///
    /// # Errors
    /// Those of the nodes, with the node's name; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled);
    /// [`ErrorKind::File`](crate::ErrorKind::File) if a file cannot be written, which leaves no part of it behind.
    pub fn run(
        mut self,
        device_context: Arc<DeviceContext>,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Vec<Saved>> {
        self.check_memory(&device_context)?;
        let Ready { workflow, steps, files, options, .. } = self;
        output_folder::made(&files.folders().output)?;
        // A workflow that was read from the API format is laid out anew, so that ComfyUI has something to show.
        let laid_out = || ui_format::laid_out(&workflow.graph);
        let ui = workflow.ui.as_ref().map_or_else(|| Cow::Owned(laid_out()), Cow::Borrowed);
        let saving = steps.iter().filter(|step| step.class.spec.is_output);
        let settings = picture_settings::derive::settings(
            &workflow.graph,
            saving.map(|step| &workflow.graph.nodes()[step.node]),
        );
        let metadata = Metadata::new(&workflow.graph.to_api(), &ui, settings);
        let mut work = RunContext {
            device_context,
            options,
            files,
            loaded: Default::default(),
            metadata,
            saved: Vec::new(),
            observe,
            cancel,
        };
        run::run(&workflow.graph, &steps, &mut work)?;
        Ok(work.saved)
    }
}
