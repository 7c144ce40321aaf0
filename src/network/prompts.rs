//! What the network keeps on the device of each prompt, made when a row first asks for it.

use std::sync::Arc;

use crate::engine::KeptTensors;
use crate::guidance::Entry;
use crate::guidance::entry::PromptAddress;
use crate::{Error, Result};

/// Keys and values by prompt, with its extra conditioning vector.
#[derive(Default)]
pub struct Prompts(Vec<Known>);

/// A prompt is known by where its values lie, which is so as long as they are kept here.
struct Known {
    address: PromptAddress,
    context: Arc<Vec<f32>>,
    _vector: Option<Arc<Vec<f32>>>,
    kept: KeptTensors,
}

impl Prompts {
    /// What is kept for the prompt of `entry`.
    pub fn find(&self, entry: &Entry) -> Option<&KeptTensors> {
        self.0.iter().find(|known| known.address == entry.prompt()).map(|known| &known.kept)
    }

    /// Those of each row's entry.
    pub fn of<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Result<Vec<&KeptTensors>> {
        entries.map(|e| self.find(e).ok_or_else(|| Error::internal("an unread prompt"))).collect()
    }

    /// Keeps `kept` for the prompt of `entry`.
    pub fn add(&mut self, entry: &Entry, kept: KeptTensors) {
        let (context, vector) = (entry.context.clone(), entry.vector.clone());
        self.0.push(Known { address: entry.prompt(), context, _vector: vector, kept });
    }

    /// Drops what no entry can ask for again.
    pub fn drop_unused(&mut self) {
        self.0.retain(|known| Arc::strong_count(&known.context) > 1);
    }
}
