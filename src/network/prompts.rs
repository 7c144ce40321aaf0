//! The tensors of each prompt that stay on the device, computed when a row first needs them.

use std::sync::Arc;

use crate::engine::KeptTensors;
use crate::guidance::Entry;
use crate::guidance::entry::PromptAddress;
use crate::{Error, Result};

/// Keys and values by prompt, with its extra conditioning vector.
#[derive(Default)]
pub struct Prompts(Vec<Known>);

/// A prompt is identified by the address of its values, which is unique as long as they are not dropped.
struct Known {
    address: PromptAddress,
    context: Arc<Vec<f32>>,
    _vector: Option<Arc<Vec<f32>>>,
    kept: KeptTensors,
}

impl Prompts {
    /// The tensors of the prompt of `entry`.
    pub fn find(&self, entry: &Entry) -> Option<&KeptTensors> {
        self.0.iter().find(|known| known.address == entry.prompt()).map(|known| &known.kept)
    }

    /// The tensors of the entry of each row.
    pub fn of<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Result<Vec<&KeptTensors>> {
        entries.map(|e| self.find(e).ok_or_else(|| Error::internal("a prompt was not read"))).collect()
    }

    /// Adds the tensors of the prompt of `entry`.
    pub fn add(&mut self, entry: &Entry, kept: KeptTensors) {
        let (context, vector) = (entry.context.clone(), entry.vector.clone());
        self.0.push(Known { address: entry.prompt(), context, _vector: vector, kept });
    }

    /// Drops the tensors of prompts that no entry refers to.
    pub fn drop_unused(&mut self) {
        self.0.retain(|known| Arc::strong_count(&known.context) > 1);
    }
}
