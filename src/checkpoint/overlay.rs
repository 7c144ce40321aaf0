//! Parts from files of their own that replace those of a checkpoint: the VAE, the text encoders.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use super::diffusers_settings::{LATENT_SCALE, OF_ENCODER};
use super::encoders::{self, EncoderPlace, FoundEncoder, Naming, WIDTHS};
use super::key_maps::{UNET, VAE};
use super::named_tensors::Checkpoint;
use super::other_models::{refuse_quantised, seems};
use super::tensor::Tensor;
use crate::{Error, Result};

impl Checkpoint {
    /// This checkpoint with the VAE of another: a file of a VAE alone (`encoder.*` and `decoder.*`,
    /// with or without `first_stage_model.`, or in the diffusers layout), a diffusers folder, or any
    /// full checkpoint. Whether it fits is seen when the network is inferred.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if `vae` holds none.
    pub fn with_vae(mut self, vae: Checkpoint) -> Result<Self> {
        refuse_quantised(&vae)?;
        if !vae.has(&format!("{VAE}decoder.conv_in.weight")) {
            return Err(vae.without("a VAE", "encoder.conv_in and decoder.conv_in"));
        }
        // The settings of a VAE go with it.
        self.metadata.remove(LATENT_SCALE);
        if let Some(scale) = vae.metadata.get(LATENT_SCALE) {
            self.metadata.insert(LATENT_SCALE.into(), scale.clone());
        }
        self.tensors.retain(|t| !t.name.starts_with(VAE));
        let part = vae.tensors.iter().filter(|t| t.name.starts_with(VAE)).cloned().collect();
        self.absorb(vae, part)
    }

    /// This checkpoint with the text encoders of another: a file of an encoder alone (`text_model.*`
    /// as `transformers` writes it, `transformer.resblocks.*` as OpenCLIP does), or any full
    /// checkpoint. For SDXL call it twice, in any order: their widths show which is which.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if `text` holds none, if its width is not what
    /// this checkpoint's UNet reads, or if there is no UNet yet.
    pub fn with_text_encoder(mut self, text: Checkpoint) -> Result<Self> {
        refuse_quantised(&text)?;
        let slots = self.slots()?.ok_or_else(|| {
            self.without("a UNet", &format!("{UNET}input_blocks"))
                .hint("open the checkpoint, or the file of the UNet, first and add text encoders to it")
        })?;
        let seen = text.encoders();
        if seen.is_empty() {
            return Err(text.without_encoder());
        }
        // A whole model of another family may hold one that fits beside one that does not.
        let fits = |s: &FoundEncoder| slots.iter().any(|slot| slot.width == s.width);
        match seen.iter().find(|s| !fits(s)) {
            Some(other) if !seen.iter().any(fits) => return Err(text.other_width(other, &slots)),
            Some(other) => text.warn(format_args!(
                "the text encoder of {} values a token at {} is not one of this model's, and is left out",
                other.width, other.prefix
            )),
            None => {}
        }
        let mut part: Vec<Tensor> = Vec::new();
        for (seen, slot) in encoders::assign(&seen, &slots) {
            if self.overlaid.contains(&slot.area) {
                return Err(text
                    .fault("two text encoders for one place")
                    .at(format!("{}, {} values a token", slot.what, slot.width))
                    .expected("one file for each text encoder of the family")
                    .hint("leave one out"));
            }
            self.overlaid.push(slot.area);
            self.tensors.retain(|t| !t.name.starts_with(slot.area));
            self.metadata.retain(|key, _| !key.starts_with(&format!("{OF_ENCODER}{}", slot.area)));
            part.extend(text.encoder(seen, slot)?);
            self.metadata.extend(text.settings_for(seen, slot));
        }
        self.absorb(text, part)
    }

    /// The text encoders of `files`, without any other network: the one of SD 1 or SD 2, or SDXL's two in
    /// any order. Naming and sizes show which is which, as there is no UNet beside them.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is none, or not as many as a family has.
    pub fn text_encoders(files: Vec<Checkpoint>) -> Result<Self> {
        let mut found: Vec<(usize, FoundEncoder)> = Vec::new();
        for (i, file) in files.iter().enumerate() {
            refuse_quantised(file)?;
            let seen = file.encoders();
            if seen.is_empty() {
                return Err(file.without_encoder());
            }
            found.extend(seen.into_iter().map(|seen| (i, seen)));
        }
        let slots = match found.as_slice() {
            [(_, one)] => vec![alone(one)],
            [(_, a), (_, b)] => {
                // The second has the projection; where both or none has one, it is the wider.
                let swapped = if a.projected == b.projected { a.width > b.width } else { a.projected };
                match swapped {
                    false => EncoderPlace::sdxl(a.width, b.width).into(),
                    true => EncoderPlace::sdxl(b.width, a.width).into_iter().rev().collect(),
                }
            }
            _ => {
                let file = files.first().ok_or_else(|| Error::usage("no files of text encoders"))?;
                return Err(file
                    .fault("text encoders of no family")
                    .expected("the one of SD 1 or SD 2, or the two of SDXL")
                    .found(found.len().to_string()));
            }
        };
        let file = |i: usize| files.get(i).ok_or_else(|| Error::internal("a text encoder of no file"));
        let part = |((i, seen), slot): (&(usize, FoundEncoder), &EncoderPlace)| {
            Ok((*i, file(*i)?.encoder(seen, slot)?))
        };
        let parts: Vec<(usize, Vec<Tensor>)> = found.iter().zip(&slots).map(part).collect::<Result<_>>()?;
        let of = |wanted: usize| -> Vec<Tensor> {
            parts.iter().filter(|(i, _)| *i == wanted).flat_map(|(_, tensors)| tensors.clone()).collect()
        };
        let mut settings = std::collections::BTreeMap::new();
        for ((i, seen), slot) in found.iter().zip(&slots) {
            settings.extend(file(*i)?.settings_for(seen, slot));
        }
        let mut files = files.into_iter();
        let first = files.next().ok_or_else(|| Error::usage("no files of text encoders"))?;
        let mut whole = first;
        whole.tensors = of(0);
        whole.metadata.retain(|key, _| !key.starts_with(OF_ENCODER));
        whole.metadata.extend(settings);
        for (other, i) in files.zip(1..) {
            whole = whole.absorb(other, of(i))?;
        }
        whole.indexed()
    }

    fn other_width(&self, seen: &FoundEncoder, slots: &[EncoderPlace]) -> Error {
        let wanted: Vec<String> = slots.iter().map(|s| format!("{} ({})", s.width, s.what)).collect();
        self.fault("the text encoder does not fit the UNet")
            .expected(format!("tokens of {} values", wanted.join(" or ")))
            .found(seen.describe())
            .hint("pass the text encoder of the UNet's family")
    }

    fn without_encoder(&self) -> Error {
        self.without("a text encoder", "text_model.embeddings or transformer.resblocks")
    }

    /// The error for a file that lacks what it was passed for.
    fn without(&self, what: &str, signs: &str) -> Error {
        let first: Vec<&str> = self.names().take(3).collect();
        let found = match seems(self) {
            Some(kind) => kind.to_owned(),
            None => format!("{} tensors such as {}", self.tensors.len(), first.join(", ")),
        };
        self.fault(format!("the file holds no {}", what.trim_start_matches("a ")))
            .expected(format!("tensors such as {signs}"))
            .found(found)
            .hint(format!("pass a file that holds {what}"))
    }

    /// All tensors of this checkpoint and of `other`.
    pub(super) fn joined(self, mut other: Checkpoint) -> Result<Self> {
        let all = std::mem::take(&mut other.tensors);
        self.absorb(other, all)
    }

    /// Takes `part`, tensors of `other`, and the files that hold them.
    fn absorb(mut self, other: Checkpoint, part: Vec<Tensor>) -> Result<Self> {
        let moved = self.stores.len();
        self.stores.extend(other.stores);
        self.tensors.extend(part.into_iter().map(|t| t.moved(moved)));
        self.indexed()
    }
}

/// The place of an encoder without another beside it: by its width if that is a published one, else by
/// its names.
fn alone(one: &FoundEncoder) -> EncoderPlace {
    let [l, h, g] = WIDTHS;
    match one.width {
        width if width == g => EncoderPlace::refiner(width),
        width if width != l && (width == h || one.naming == Naming::OpenClip) => EncoderPlace::sd2(width),
        width => EncoderPlace::sd1(width),
    }
}
