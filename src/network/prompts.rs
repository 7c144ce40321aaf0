//! What the network keeps on the device of each prompt, made when a row first asks for it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Calls;
use crate::engine::{Kept, Prepared, Run};
use crate::guidance::Entry;
use crate::guidance::entry::PromptAddress;
use crate::model::unet::VECTOR;
use crate::{Error, Result};

/// Keys and values by prompt, with its extra conditioning vector.
#[derive(Default)]
pub struct Prompts(Vec<Known>);

/// A prompt is known by where its values lie, which is so as long as they are kept here.
struct Known {
    address: PromptAddress,
    context: Arc<Vec<f32>>,
    _vector: Option<Arc<Vec<f32>>>,
    kept: Kept,
}

impl Prompts {
    fn find(&self, entry: &Entry) -> Option<&Kept> {
        self.0.iter().find(|known| known.address == entry.prompt()).map(|known| &known.kept)
    }

    /// Those of each row's entry.
    pub fn of<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Result<Vec<&Kept>> {
        entries.map(|e| self.find(e).ok_or_else(|| Error::internal("an unread prompt"))).collect()
    }
}

impl Calls<'_> {
    /// Sees that reading the prompts of `entries` needs no larger arena than there is.
    pub(super) fn make_room_for_prompts(&mut self, entries: &[&Entry]) -> Result<()> {
        for entry in entries {
            if self.prompts.find(entry).is_none() {
                let plan = self.unet.planner.conditioning(entry.tokens)?;
                self.arena_for(&plan)?;
            }
        }
        Ok(())
    }

    /// Makes what is missing for rows of `entries`, by `keep`, and drops what nobody can ask for again.
    pub(super) fn read_prompts<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e Entry>,
        cancel: &AtomicBool,
        keep: &mut dyn FnMut(&Prepared, &Run<'_>) -> Result<Kept>,
    ) -> Result<()> {
        self.prompts.0.retain(|known| Arc::strong_count(&known.context) > 1);
        for entry in entries {
            if self.prompts.find(entry).is_none() {
                let plan = self.unet.planner.conditioning(entry.tokens)?;
                let arena = self.arena_for(&plan)?;
                let prepared = self.unet.engine.prepare(plan, self.unet.weights, &arena)?;
                let mut inputs = vec![("context", entry.context.as_slice())];
                inputs.extend(entry.vector.as_ref().map(|v| (VECTOR, v.as_slice())));
                let run = Run::new(&inputs, cancel).in_turn(self.unet.weights, &self.unet.source);
                let kept = keep(&prepared, &run)?;
                let (context, vector) = (entry.context.clone(), entry.vector.clone());
                self.prompts.0.push(Known { address: entry.prompt(), context, _vector: vector, kept });
            }
        }
        Ok(())
    }
}
