//! What the network keeps on the device of each prompt, made when a row first asks for it.

use std::sync::Arc;

use super::UnetNetwork;
use crate::engine::Kept;
use crate::guidance::{Entry, Row};
use crate::{Error, Result};

/// Keys and values by prompt.
#[derive(Default)]
pub struct Prompts(Vec<(Arc<Vec<f32>>, Kept)>);

impl Prompts {
    /// Those of `entry`: a prompt is known by its address, at which it lies as long as it is kept here.
    fn find(&self, entry: &Entry) -> Option<&Kept> {
        self.0.iter().find(|(context, _)| Arc::ptr_eq(context, &entry.context)).map(|(_, kept)| kept)
    }

    /// Those of each of `rows`.
    pub fn of(&self, rows: &[&Row<'_>]) -> Result<Vec<&Kept>> {
        let of = |row: &&Row<'_>| self.find(row.entry).ok_or_else(|| Error::internal("an unread prompt"));
        rows.iter().map(of).collect()
    }
}

impl UnetNetwork<'_> {
    /// Makes what is missing for `rows`, and drops what nobody can ask for again.
    pub(super) fn read_prompts(&mut self, rows: &[Row<'_>]) -> Result<()> {
        self.prompts.0.retain(|(context, _)| Arc::strong_count(context) > 1);
        for row in rows {
            if self.prompts.find(row.entry).is_none() {
                let kept = self.read_prompt(row.entry)?;
                self.prompts.0.push((row.entry.context.clone(), kept));
            }
        }
        Ok(())
    }

    fn read_prompt(&mut self, entry: &Entry) -> Result<Kept> {
        let plan = self.unet.planner.conditioning(entry.tokens)?;
        let arena = self.arena_for(&plan)?;
        let (engine, weights) = (self.unet.engine, self.unet.weights);
        let prepared = engine.prepare(plan, weights, &arena)?;
        let inputs = [("context", entry.context.as_slice())];
        engine.run_and_keep(&prepared, (weights, &self.unet.source), &inputs, self.cancel)
    }
}
