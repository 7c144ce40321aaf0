//! Text encoders wherever a file keeps them, brought to where the family of its UNet has them.
//!
//! An encoder is known by its table of tokens, whatever the prefix of that name is:
//! `cond_stage_model.`, `conditioner.embedders.0.`, `text_encoders.clip_l.`, `te1.` or nothing at all.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, HashSet};

use super::diffusers_settings::OF_ENCODER;
use super::key_maps::{UNET, VAE, text};
use super::named_tensors::Checkpoint;
use super::tensor::Tensor;
use crate::families::{self, Family, SDXL_SIZES, Variant};
use crate::{Error, Result};

/// How a text encoder names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// As `transformers`: queries, keys and values apart.
    Transformers,
    /// As OpenCLIP and OpenAI: packed.
    OpenClip,
}

/// Widths of a token of OpenAI's encoder, OpenCLIP-H and OpenCLIP-bigG, which show which one it is, whatever
/// the names.
pub(crate) const WIDTHS: [usize; 3] = [768, 1024, 1280];

/// What the table of tokens is called.
const TOKENS: [(&str, Naming); 2] = [
    ("embeddings.token_embedding.weight", Naming::Transformers),
    ("token_embedding.weight", Naming::OpenClip),
];

/// An encoder as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundEncoder {
    /// The prefix of its names, with the last dot.
    pub prefix: String,
    pub(super) naming: Naming,
    /// Width of a token.
    pub width: usize,
    /// Whether it is of a kind that has a projection for the pooled vector.
    pub(super) projected: bool,
}

/// Where a family keeps an encoder in the original layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderPlace {
    /// All that an encoder in this place may have, its own prefix included.
    pub area: &'static str,
    pub prefix: &'static str,
    pub(super) naming: Naming,
    /// Width of a token.
    pub width: usize,
    pub what: &'static str,
}

/// An area, and the encoder's prefix in it.
type AreaAndPrefix = (&'static str, &'static str);

const SD1: AreaAndPrefix = ("cond_stage_model.", "cond_stage_model.transformer.text_model.");
const SD2: AreaAndPrefix = ("cond_stage_model.", "cond_stage_model.model.");
const SDXL_L: AreaAndPrefix = ("conditioner.embedders.0.", "conditioner.embedders.0.transformer.text_model.");
const SDXL_G: AreaAndPrefix = ("conditioner.embedders.1.", "conditioner.embedders.1.model.");
const REFINER: AreaAndPrefix = ("conditioner.embedders.0.", "conditioner.embedders.0.model.");

impl EncoderPlace {
    /// A place for OpenAI's encoder.
    fn clip_l((area, prefix): AreaAndPrefix, width: usize, what: &'static str) -> Self {
        Self { area, prefix, naming: Naming::Transformers, width, what }
    }

    /// A place for one of OpenCLIP's.
    fn open((area, prefix): AreaAndPrefix, width: usize, what: &'static str) -> Self {
        Self { area, prefix, naming: Naming::OpenClip, width, what }
    }

    pub(super) fn sd1(width: usize) -> Self {
        Self::clip_l(SD1, width, "CLIP-L of SD 1")
    }

    pub(super) fn sd2(width: usize) -> Self {
        Self::open(SD2, width, "OpenCLIP-H of SD 2")
    }

    /// SDXL's first and second.
    pub(super) fn sdxl(first: usize, second: usize) -> [Self; 2] {
        [Self::clip_l(SDXL_L, first, "CLIP-L of SDXL"), Self::open(SDXL_G, second, "OpenCLIP-bigG of SDXL")]
    }

    pub(super) fn refiner(width: usize) -> Self {
        Self::open(REFINER, width, "OpenCLIP-bigG of SDXL's refiner")
    }

    /// The places beside a UNet that reads tokens of `context` values and a vector of `vector`.
    pub(crate) fn beside(
        family: Family,
        variant: Variant,
        context: usize,
        vector: Option<usize>,
    ) -> Vec<Self> {
        match family {
            Family::Sd1 => vec![Self::sd1(context)],
            Family::Sd2 => vec![Self::sd2(context)],
            Family::Sdxl if variant == Variant::Refiner => vec![Self::refiner(context)],
            // SDXL's UNet reads both encoders side by side, and the pooled vector of the second.
            Family::Sdxl => {
                let pooled = vector.unwrap_or(0).saturating_sub(SDXL_SIZES);
                Self::sdxl(context.saturating_sub(pooled), pooled).into()
            }
        }
    }
}

impl FoundEncoder {
    /// In words.
    pub(crate) fn describe(&self) -> String {
        let kind = if self.naming == Naming::OpenClip { "OpenCLIP" } else { "transformers" };
        let at = if self.prefix.is_empty() { "token_embedding" } else { &self.prefix };
        format!("{} values a token at {at} ({kind}'s names)", self.width)
    }

    /// What follows the encoder's prefix in `name`, if it is one of the network's tensors.
    fn own<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = name.strip_prefix(&self.prefix)?;
        let known = match self.naming {
            Naming::Transformers => text::open_clip(rest).is_some(),
            Naming::OpenClip => text::transformers(rest).is_some(),
        };
        known.then_some(rest)
    }

    /// The name of a setting of this encoder, if `key` of a file's metadata is one. The prefix of one encoder may
    /// begin with that of another.
    fn setting<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(OF_ENCODER)?.strip_prefix(&self.prefix).filter(|setting| !setting.contains('.'))
    }

    /// Whether `name` is none of the network's tensors, but lies inside it.
    fn foreign<'n>(&self, name: &'n str) -> Option<&'n str> {
        const MODULES: [&str; 7] = [
            "embeddings.",
            "encoder.",
            "final_layer_norm.",
            "transformer.",
            "token_embedding.",
            "ln_final.",
            "attn_mask",
        ];
        let rest = name.strip_prefix(&self.prefix)?;
        let inside = !self.prefix.is_empty() || MODULES.iter().any(|module| rest.starts_with(module));
        (inside && self.own(name).is_none()).then_some(rest)
    }
}

/// Which encoder goes where. Where two fit one place, the one that is there already keeps it, else the first.
pub(super) fn assign<'s>(
    seen: &'s [FoundEncoder],
    slots: &'s [EncoderPlace],
) -> Vec<(&'s FoundEncoder, &'s EncoderPlace)> {
    let mut taken: Vec<(&FoundEncoder, usize)> = Vec::new();
    for encoder in seen {
        let Some(slot) = choose(slots, encoder.width, encoder.projected) else { continue };
        let there =
            |encoder: &FoundEncoder| slots.get(slot).is_some_and(|slot| encoder.prefix == slot.prefix);
        match taken.iter_mut().find(|(_, at)| *at == slot) {
            None => taken.push((encoder, slot)),
            Some((before, _)) if there(encoder) && !there(before) => *before = encoder,
            Some(_) => {}
        }
    }
    taken.into_iter().filter_map(|(encoder, slot)| Some((encoder, slots.get(slot)?))).collect()
}

/// The place for an encoder of `width`. Where both of SDXL's have one width, as in no published
/// model, `second` decides: the one with a projection is the second.
pub(super) fn choose(slots: &[EncoderPlace], width: usize, second: bool) -> Option<usize> {
    let mut fitting = slots.iter().enumerate().filter(|(_, slot)| slot.width == width).map(|(i, _)| i);
    let first = fitting.next()?;
    if second { fitting.next().or(Some(first)) } else { Some(first) }
}

impl Checkpoint {
    /// The text encoders of the file, in its order.
    pub(crate) fn encoders(&self) -> Vec<FoundEncoder> {
        let seen = |tensor: &Tensor| {
            let (prefix, naming) = TOKENS.iter().find_map(|(tokens, naming)| {
                let prefix = tensor.name.strip_suffix(tokens)?;
                (prefix.is_empty() || prefix.ends_with('.')).then_some((prefix, *naming))
            })?;
            let [_, width] = tensor.info.shape[..] else { return None };
            if width == 0 || prefix.starts_with(UNET) || prefix.starts_with(VAE) {
                return None;
            }
            let mut seen = FoundEncoder { prefix: prefix.to_owned(), naming, width, projected: true };
            seen.projected = naming == Naming::OpenClip || self.find_projection(&seen).is_some();
            Some(seen)
        };
        self.tensors.iter().filter_map(seen).collect()
    }

    /// The places for text encoders beside this checkpoint's UNet; None if there is none that reads any.
    pub(super) fn slots(&self) -> Result<Option<Vec<EncoderPlace>>> {
        let context = self.names_under(UNET).find(|name| name.ends_with(".attn2.to_k.weight"));
        let Some([_, context]) = context.map(|name| self.dims::<2>(name)).transpose()? else {
            return Ok(None);
        };
        let proj = self.names_under(UNET).find(|name| name.ends_with(".proj_in.weight"));
        let linear = proj.and_then(|name| self.tensor(name)).is_some_and(|info| info.shape.len() == 2);
        let label = format!("{UNET}label_emb.0.0.weight");
        let vector = self.has(&label).then(|| self.dims::<2>(&label)).transpose()?.map(|[_, v]| v);
        let (family, variant) = families::of_unet(linear, context, vector);
        Ok(Some(EncoderPlace::beside(family, variant, context, vector)))
    }

    /// Brings the text encoders beside a UNet to where its family has them, under the names that they
    /// have there. Those that do not fit stay where they are.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) for an encoder with parts of odd shapes.
    pub(super) fn settled(mut self) -> Result<Self> {
        // What is wrong with the UNet is reported when it is inferred.
        let Ok(Some(slots)) = self.slots() else { return Ok(self) };
        let seen = self.encoders();
        let moves: Vec<(&FoundEncoder, &EncoderPlace)> = assign(&seen, &slots)
            .into_iter()
            .filter(|(seen, slot)| seen.prefix != slot.prefix || self.has_linear_projection(seen))
            .collect();
        if moves.is_empty() {
            return Ok(self);
        }
        let mut moved = Vec::new();
        let mut gone = HashSet::new();
        for (seen, slot) in &moves {
            moved.extend(self.encoder(seen, slot)?);
            gone.extend(self.tensors_of(seen, slot));
        }
        self.tensors.retain(|t| !gone.contains(&t.name));
        for (seen, slot) in moves {
            let settings = self.settings_for(seen, slot);
            self.metadata.retain(|key, _| seen.setting(key).is_none());
            self.metadata.extend(settings);
        }
        self.tensors.extend(moved);
        self.indexed()
    }

    /// Names of all that [`encoder`](Self::encoder) takes along.
    fn tensors_of(&self, seen: &FoundEncoder, slot: &EncoderPlace) -> Vec<String> {
        let inside = self.tensors.iter().filter(|t| t.name.starts_with(&seen.prefix));
        let inside = inside.filter(|t| seen.own(&t.name).is_some() || seen.foreign(&t.name).is_some());
        let projection = self.find_projection(seen).map(|(t, _)| t.name.clone());
        let projection = projection.filter(|_| slot.naming == Naming::OpenClip);
        inside.map(|t| t.name.clone()).chain(projection).collect()
    }

    /// The tensors of an encoder as `slot` needs them. What lies inside it and belongs to no layer
    /// comes along under its own name, and is reported later.
    pub(super) fn encoder(&self, seen: &FoundEncoder, slot: &EncoderPlace) -> Result<Vec<Tensor>> {
        let under = || self.tensors.iter().filter_map(|t| Some((t, seen.own(&t.name)?)));
        let to = |name: &str| format!("{}{name}", slot.prefix);
        let mut out = Vec::new();
        match (seen.naming, slot.naming) {
            (Naming::Transformers, Naming::Transformers) | (Naming::OpenClip, Naming::OpenClip) => {
                out.extend(under().map(|(t, name)| t.clone().renamed(to(name))));
            }
            (Naming::OpenClip, Naming::Transformers) => {
                for (tensor, name) in under() {
                    let names = text::transformers(name).unwrap_or_default();
                    for (i, new) in names.iter().enumerate() {
                        let part =
                            tensor.part(i, names.len()).ok_or_else(|| self.unpackable(&tensor.name))?;
                        out.push(part.renamed(to(new)));
                    }
                }
            }
            (Naming::Transformers, Naming::OpenClip) => out = self.packed(seen, slot)?,
        }
        if slot.naming == Naming::OpenClip {
            out.extend(self.projection(seen)?.map(|t| t.renamed(to(text::PROJECTION.0))));
        }
        let taken: HashSet<String> = out.iter().map(|t| t.name.clone()).collect();
        let projection = self.find_projection(seen).map(|(t, _)| &t.name);
        let others = self.tensors.iter().filter(|t| Some(&t.name) != projection);
        let others = others.filter_map(|t| Some(t.clone().renamed(to(seen.foreign(&t.name)?))));
        out.extend(others.filter(|t| !taken.contains(&t.name)));
        Ok(out)
    }

    /// An encoder of `transformers` in OpenCLIP's layout, without the projection.
    fn packed(&self, seen: &FoundEncoder, slot: &EncoderPlace) -> Result<Vec<Tensor>> {
        let mut out = Vec::new();
        let mut apart: BTreeMap<String, [Option<Tensor>; text::PARTS]> = BTreeMap::new();
        for tensor in &self.tensors {
            let Some(place) = tensor.name.strip_prefix(&seen.prefix).and_then(text::open_clip) else {
                continue;
            };
            let name = format!("{}{}", slot.prefix, place.name);
            match place.part {
                None => out.push(tensor.clone().renamed(name)),
                Some(part) => {
                    if let Some(slot) = apart.entry(name).or_default().get_mut(part) {
                        *slot = Some(tensor.clone());
                    }
                }
            }
        }
        for (name, parts) in apart {
            let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
            let whole = parts.and_then(|parts| Tensor::stacked(&name, parts));
            out.push(whole.ok_or_else(|| self.unpackable(&name))?);
        }
        Ok(out)
    }

    /// The projection of an encoder, and whether it is a linear layer's weight, which is transposed
    /// beside OpenCLIP's `x · W`. It lies beside or inside `text_model`; ComfyUI once saved it
    /// untransposed, under OpenCLIP's name.
    fn find_projection(&self, seen: &FoundEncoder) -> Option<(&Tensor, bool)> {
        let beside = seen.prefix.strip_suffix("text_model.").unwrap_or(&seen.prefix);
        [beside, &seen.prefix].into_iter().find_map(|at| {
            let find = |name: &str| self.get(&format!("{at}{name}"));
            let linear = find(text::PROJECTION.1).map(|t| (t, true));
            linear.or_else(|| find(text::PROJECTION.0).map(|t| (t, false)))
        })
    }

    fn has_linear_projection(&self, seen: &FoundEncoder) -> bool {
        seen.naming == Naming::OpenClip && self.find_projection(seen).is_some_and(|(_, linear)| linear)
    }

    /// The projection as OpenCLIP has it, `[width, columns]`.
    fn projection(&self, seen: &FoundEncoder) -> Result<Option<Tensor>> {
        let Some((tensor, linear)) = self.find_projection(seen) else { return Ok(None) };
        let [rows, columns] = tensor.info.shape[..] else {
            return Err(self.fault("a tensor is no matrix").at(&tensor.name));
        };
        // Where it is not square its shape decides, whatever the name says.
        let transposed = if rows == columns { linear } else { columns == seen.width };
        let tensor = tensor.clone();
        let name = tensor.name.clone();
        match transposed {
            false => Ok(Some(tensor)),
            true => tensor.transposed().map(Some).ok_or_else(|| self.fault("a tensor is no matrix").at(name)),
        }
    }

    fn unpackable(&self, name: &str) -> Error {
        self.fault("queries, keys and values do not make up one tensor")
            .at(name)
            .expected("three of one shape")
            .hint("the file of the text encoder is damaged: fetch it again")
    }

    /// The settings of the encoder `seen` of this file, for its new place.
    pub(super) fn settings_for(&self, seen: &FoundEncoder, slot: &EncoderPlace) -> Vec<(String, String)> {
        let moved = |(key, value): (&String, &String)| {
            Some((format!("{OF_ENCODER}{}{}", slot.prefix, seen.setting(key)?), value.clone()))
        };
        self.metadata.iter().filter_map(moved).collect()
    }
}
