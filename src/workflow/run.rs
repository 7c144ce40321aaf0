//! Does the work of a checked workflow, node by node. A node's outputs are kept as long as another
//! node waits for them: what a LoRA made of a model leaves the device with its last use.

pub(super) mod context;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use context::{Event, RunContext};

use super::check::{InputSource, PlanStep};
use super::graph::{Graph, Node};
use super::nodes::Function;
use super::value::{Arguments, Value};
use crate::{Error, Result};

/// Does all steps.
///
/// # Errors
/// Those of the nodes, each with its node's name; [`ErrorKind::Cancelled`].
pub(super) fn run(graph: &Graph, steps: &[PlanStep], work: &mut RunContext<'_>) -> Result<()> {
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
        let outputs = outputs.map_err(|e| node.wrap(e))?;
        if outputs.len() != step.class.spec.outputs.len() {
            return Err(Error::internal(format!("{} gave {} outputs", step.class.spec.name, outputs.len())));
        }
        if waiting.contains_key(&step.node) {
            done.insert(step.node, outputs);
        }
        for (_, source) in &step.inputs {
            let InputSource::Output(at, _) = source else { continue };
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
fn uses(steps: &[PlanStep]) -> HashMap<usize, usize> {
    let mut uses = HashMap::new();
    for (_, source) in steps.iter().flat_map(|step| &step.inputs) {
        if let InputSource::Output(at, _) = source {
            *uses.entry(*at).or_default() += 1;
        }
    }
    uses
}

fn arguments<'a>(
    node: &'a Node,
    step: &PlanStep,
    done: &HashMap<usize, Vec<Value>>,
) -> Result<Arguments<'a>> {
    let value = |(name, source): &(&'static str, InputSource)| {
        let value = match source {
            InputSource::Value(value) => value.clone(),
            InputSource::Output(at, output) => {
                let value = done.get(at).and_then(|outputs| outputs.get(*output));
                let value = value.ok_or_else(|| Error::internal("a node's output is gone"))?;
                let slot =
                    step.class.spec.input(name).ok_or_else(|| Error::internal("an input of no class"))?;
                value.clone().fits(slot)?
            }
        };
        Ok((*name, value))
    };
    Ok(Arguments {
        node,
        class: &step.class.spec,
        values: step.inputs.iter().map(value).collect::<Result<_>>()?,
    })
}
