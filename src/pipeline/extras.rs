//! Additions to an open model: LoRAs and a folder of embeddings.

use std::sync::Arc;

use super::model::Model;
use crate::Result;
use crate::folder::Folder;
use crate::lora::{LoraUse, Patches, TargetNetwork};

impl Model {
    /// Adds these LoRAs to the model, in place of those that were added before; an empty list removes all.
    /// Weights on the device that change are dropped, and are uploaded again, with
    /// W + weight · alpha/rank · up · down, when they are next needed.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if a LoRA fits no layer of the model; the model stays as it was.
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

    /// The changes of the LoRAs to the model.
    #[doc(hidden)]
    pub fn patches(&self) -> &Patches {
        &self.patches
    }

    /// Warns of embeddings that a prompt names and that do not exist, as a run does.
    ///
    /// # Errors
    /// Those of embeddings that cannot be used.
    #[doc(hidden)]
    pub fn look_for_embeddings(&self, prompt: &str) -> Result<()> {
        self.text.look_for_embeddings(prompt)
    }

    /// Takes the vectors of `embedding:name` in prompts from files in this folder; with None such
    /// words are ignored. Only `.safetensors` files are read.
    pub fn set_embedding_folder(&mut self, folder: Option<Folder>) {
        self.text.set_embedding_folders(folder.into_iter().collect());
    }
}
