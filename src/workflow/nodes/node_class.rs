//! A class of nodes that runs here: its declaration, its function, and what else the workflow needs to know of it.

use crate::Result;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs, KnownSampling};
use crate::workflow::files::Files;
use crate::workflow::picture_settings::Contribution;
use crate::workflow::run::context::{Options, RunContext};
use crate::workflow::spec::Class;
use crate::workflow::value::{Arguments, Value};

/// A class of nodes.
pub(crate) struct NodeClass {
    pub spec: Class,
    /// Does the node's work.
    pub run: Function,
    pub hooks: Hooks,
}

/// What does a node's work: its outputs from its inputs.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    /// From its inputs alone: where they are known by then, the dry run does it too.
    Plain(fn(&Arguments<'_>) -> Result<Vec<Value>>),
    /// With a device, files or the clock.
    Working(fn(&mut RunContext<'_>, &Arguments<'_>) -> Result<Vec<Value>>),
}

/// Finds out what is known of a node's outputs before a run.
type DryRun = fn(&KnownInputs<'_>, &mut DryRunContext<'_, '_>) -> Result<Vec<Known>>;

/// Finds out what a sampler would run; None where that is not known before.
type FindSampling = fn(&KnownInputs<'_>) -> Result<Option<KnownSampling>>;

/// What a class knows of itself beside its work, each where it has something to say.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Checks what the node reads, makes or writes, as far as its inputs are written in the workflow: others are not
    /// among the arguments.
    pub check: Option<fn(&Arguments<'_>, &mut Files<'_>) -> Result<()>>,
    /// Warns once, before a run, about the inputs that are known by then.
    pub warn: Option<fn(&Arguments<'_>)>,
    /// What is known of the outputs before a run. Not called where all inputs of a plain function are known.
    pub dry_run: Option<DryRun>,
    /// What a sampler would run, as far as it is known before. Samplers alone have it.
    pub sampling: Option<FindSampling>,
    /// Whether the networks that the node runs fit the device's memory; of samplers [`KnownSampling`] says it.
    pub memory: Option<fn(&KnownInputs<'_>, &Options) -> Result<()>>,
    /// What it contributes to A1111's settings of a picture.
    pub settings: Option<Contribution>,
}

impl Hooks {
    /// A class that only does its work.
    pub const NONE: Self =
        Self { check: None, warn: None, dry_run: None, sampling: None, memory: None, settings: None };
}
