//! What is added to a model after it was opened: LoRAs and a folder of embeddings.

use std::sync::Arc;

use super::model::Model;
use crate::Result;
use crate::folder::Folder;
use crate::lora::{LoraUse, Patches, TargetNetwork};

impl Model {
    /// Adds these LoRAs to the model, in place of those that were added before; none takes all away.
    /// Weights on the device are dropped where something changes, and are brought over again, with
    /// W + weight · alpha/rank · up · down, when they are next needed.
    ///
    /// # Errors
    /// As [`Patches::new`]; the model stays as it was.
    pub fn set_loras(&mut self, uses: &[LoraUse]) -> Result<()> {
        let patches = Arc::new(Patches::new(&self.config, &self.checkpoint, uses)?);
        for sentence in patches.left_out() {
            log::warn!("{sentence}");
        }
        if !patches.same(&self.patches, TargetNetwork::Unet) {
            self.diffusion = self.diffusion.with_patches(patches.clone());
        }
        let mut texts = (0..self.config.text.len()).map(TargetNetwork::Text);
        if texts.any(|part| !patches.same(&self.patches, part)) {
            self.text = self.text.with_patches(patches.clone());
        }
        self.patches = patches;
        Ok(())
    }

    /// What the LoRAs do to the model.
    #[doc(hidden)]
    pub fn patches(&self) -> &Patches {
        &self.patches
    }

    /// Warns of the embeddings that a prompt names and that are not there: a dry run's part of what a run tells.
    ///
    /// # Errors
    /// Those of embeddings that cannot be used.
    #[doc(hidden)]
    pub fn look_for_embeddings(&self, prompt: &str) -> Result<()> {
        self.text.look_for_embeddings(prompt)
    }

    /// Takes the vectors of `embedding:name` in prompts from files in this folder; None leaves such
    /// words out. Only `.safetensors` files are read.
    pub fn set_embedding_folder(&mut self, folder: Option<Folder>) {
        self.text.set_embedding_folders(folder.into_iter().collect());
    }
}
