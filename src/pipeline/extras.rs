//! What is added to a model after it was opened: LoRAs and a folder of embeddings.

use super::Model;
use crate::Result;
use crate::folder::Folder;
use crate::lora::{LoraUse, Part, Patches};
use crate::text::embedding::Learned;
use crate::text::{Embeddings, Tokens, prompt, tokenizer};

impl Model {
    /// Adds these LoRAs to the model, in place of those that were added before; none takes all away.
    /// Weights on the device are dropped where something changes, and are brought over again, with
    /// W + weight · alpha/rank · up · down, when they are next needed.
    ///
    /// # Errors
    /// As [`Patches::new`]; the model stays as it was.
    pub fn set_loras(&mut self, uses: &[LoraUse]) -> Result<()> {
        let patches = Patches::new(&self.config, &self.checkpoint, uses)?;
        for sentence in patches.left_out() {
            log::warn!("{sentence}");
        }
        let texts = (0..self.config.text.len()).map(Part::Text);
        for part in texts.chain([Part::Unet]).filter(|part| !patches.same(&self.patches, *part)) {
            self.parts.forget(part.into());
        }
        self.patches = patches;
        Ok(())
    }

    /// What the LoRAs do to the model.
    pub fn patches(&self) -> &Patches {
        &self.patches
    }

    /// Takes the vectors of `embedding:name` in prompts from files in this folder; None leaves such
    /// words out. See [`text::embedding`](crate::text::embedding) for the files.
    pub fn set_embedding_folder(&mut self, folder: Option<Folder>) {
        self.embeddings = folder;
    }

    /// The tokens of a prompt for the first text encoder: how many chunks it takes.
    pub(super) fn tokens(&self, text: &str) -> Result<Tokens> {
        let learned = self.embeddings.as_ref().zip(self.config.text.first());
        let learned = learned.map(|(folder, config)| Learned::new(folder, config));
        let embeddings = learned.as_ref().map_or(Embeddings::Named, |l| Embeddings::Found(l));
        prompt::chunks_with(&self.tokenizer, text, tokenizer::END, embeddings)
    }
}
