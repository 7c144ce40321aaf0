//! What a run would refuse, reported before it begins: nodes whose inputs are known by now are run, and of the
//! others what later nodes check is followed — the guidance of a model, what text encoders are, when prompts
//! count, sizes. On a device it is also known whether each network fits the memory.

pub(super) mod known;
mod memory;
mod rehearse;
pub(super) mod sizes;

use std::collections::HashMap;

use known::{DryRunContext, Known, KnownInputs};

use super::check::{InputSource, PlanStep};
use super::graph::Graph;
use super::nodes::{Function, NodeClass};
use super::run::context::Options;
use crate::{ErrorKind, Result};

/// Checks all steps; on a device the memory that they take too, which is reported last: then it is the
/// network that needs the most of it.
///
/// # Errors
/// Those of the nodes, each with its node's name.
pub(super) fn check(graph: &Graph, steps: &[PlanStep], context: &mut DryRunContext<'_, '_>) -> Result<()> {
    let mut done: HashMap<usize, Vec<Known>> = HashMap::new();
    let mut largest = memory::Largest::default();
    for step in steps {
        let node = &graph.nodes()[step.node];
        let known = |source: &InputSource| match source {
            InputSource::Value(value) => Known::Value(value.clone()),
            InputSource::Output(at, output) => {
                done.get(at).and_then(|outputs| outputs.get(*output)).cloned().unwrap_or(Known::Type)
            }
        };
        let inputs = step.inputs.iter().map(|(name, source)| (*name, known(source))).collect();
        let inputs = KnownInputs::new(node, &step.class.spec, inputs);
        let outputs = match outputs(step.class, &inputs, context) {
            // What comes about in the run is not known yet.
            Err(e) if e.kind() == ErrorKind::Internal => Vec::new(),
            outputs => outputs.map_err(|e| node.wrap(e))?,
        };
        if !context.checks_everything()
            && let Err(e) = fits(step.class, &inputs, context.options)
        {
            largest.add(node, e);
        }
        done.insert(step.node, outputs);
    }
    largest.refused()
}

/// What is known of a node's outputs.
fn outputs(
    class: &NodeClass,
    inputs: &KnownInputs<'_>,
    context: &mut DryRunContext<'_, '_>,
) -> Result<Vec<Known>> {
    let hooks = &class.hooks;
    if context.checks_everything()
        && let Some(warn) = hooks.warn
    {
        warn(&inputs.args);
    }
    if let Function::Plain(run) = class.run
        && inputs.args.values.len() == inputs.inputs.len()
    {
        return Ok(run(&inputs.args)?.into_iter().map(Known::Value).collect());
    }
    if context.checks_everything()
        && let Some(sampling) = hooks.sampling
        && let Some(sampling) = sampling(inputs)?
    {
        rehearse::check(&sampling)?;
    }
    let found = hooks.dry_run.map_or(Ok(Vec::new()), |dry_run| dry_run(inputs, context))?;
    let outputs = class.spec.outputs.len();
    Ok(found.into_iter().chain(std::iter::repeat(Known::Type)).take(outputs).collect())
}

/// Whether a node's networks fit the device's memory, as far as they and the sizes are known.
fn fits(class: &NodeClass, inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    let fits = match (class.hooks.memory, class.hooks.sampling.map(|sampling| sampling(inputs))) {
        (Some(memory), _) => memory(inputs, options),
        (None, Some(Ok(Some(sampling)))) => memory::sampled(&sampling, options),
        _ => Ok(()),
    };
    match fits {
        Err(e) if e.kind() != ErrorKind::Memory => Ok(()),
        fits => fits,
    }
}
