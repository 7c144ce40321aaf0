//! Parts in files of their own, laid over a checkpoint: the VAE, the text encoders.

use std::collections::BTreeMap;

use super::Checkpoint;
use super::layout::{UNET, VAE};
use super::names::text;
use super::tensor::Tensor;
use crate::{Error, Result};

/// How a text encoder names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// As `transformers`: queries, keys and values apart.
    Transformers,
    /// As OpenCLIP: packed.
    OpenClip,
}

/// Where files keep text encoders, the most particular prefix first.
const PLACES: &[(&str, Naming)] = &[
    ("cond_stage_model.transformer.text_model.", Naming::Transformers),
    ("cond_stage_model.transformer.", Naming::Transformers),
    ("cond_stage_model.model.", Naming::OpenClip),
    ("conditioner.embedders.0.transformer.text_model.", Naming::Transformers),
    ("conditioner.embedders.0.model.", Naming::OpenClip),
    ("conditioner.embedders.1.model.", Naming::OpenClip),
    // Files of an encoder alone, as transformers, ComfyUI and OpenCLIP write them.
    ("text_model.", Naming::Transformers),
    ("transformer.text_model.", Naming::Transformers),
    ("clip_l.transformer.text_model.", Naming::Transformers),
    ("clip_g.transformer.text_model.", Naming::Transformers),
    ("clip_h.transformer.text_model.", Naming::Transformers),
    ("text_encoders.clip_l.transformer.text_model.", Naming::Transformers),
    ("text_encoders.clip_g.transformer.text_model.", Naming::Transformers),
    ("", Naming::OpenClip),
];

/// An encoder as a file has it.
struct Seen {
    /// Which of several files.
    file: usize,
    prefix: &'static str,
    naming: Naming,
    /// Width of a token.
    width: usize,
    /// Whether it has a projection for the pooled vector, or is of a kind that has one.
    projected: bool,
}

/// Where a family keeps an encoder in the original layout.
struct Slot {
    /// All that an encoder in this place may have, its own prefix included.
    area: &'static str,
    prefix: &'static str,
    naming: Naming,
    /// Width of a token.
    width: usize,
    what: &'static str,
}

const SD1: (&str, &str) = ("cond_stage_model.", "cond_stage_model.transformer.text_model.");
const SD2: (&str, &str) = ("cond_stage_model.", "cond_stage_model.model.");
const SDXL_L: (&str, &str) = ("conditioner.embedders.0.", "conditioner.embedders.0.transformer.text_model.");
const SDXL_G: (&str, &str) = ("conditioner.embedders.1.", "conditioner.embedders.1.model.");
const REFINER: (&str, &str) = ("conditioner.embedders.0.", "conditioner.embedders.0.model.");

/// Width of a token of OpenCLIP-H, which is in transformers' naming too.
const OPEN_CLIP_H: usize = 1024;

/// The numbers of SDXL's vector that are no pooled text: six sizes of 256 each.
const SDXL_SIZES: usize = 6 * 256;

impl Checkpoint {
    /// This checkpoint with the VAE of another: a file of a VAE alone (`encoder.*` and `decoder.*`,
    /// with or without `first_stage_model.`, or in the diffusers layout), a diffusers folder, or any
    /// full checkpoint. Whether it fits is seen when the network is inferred.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if `vae` holds none.
    pub fn with_vae(mut self, vae: Checkpoint) -> Result<Self> {
        super::family::refuse_quantised(&vae)?;
        if !vae.has(&format!("{VAE}decoder.conv_in.weight")) {
            return Err(vae.without("a VAE", "encoder.conv_in and decoder.conv_in"));
        }
        self.metadata.remove(super::LATENT_SCALE);
        self.tensors.retain(|t| !t.name.starts_with(VAE));
        let part = vae.tensors.iter().filter(|t| t.name.starts_with(VAE)).cloned().collect();
        self.absorb(vae, part)
    }

    /// This checkpoint with the text encoders of another: a file of an encoder alone (`text_model.*`
    /// as `transformers` writes it, `transformer.resblocks.*` as OpenCLIP does), or any full
    /// checkpoint. For SDXL call it twice, in any order: the encoders are told apart by their width.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if `text` holds none, if its width is not what
    /// this checkpoint's UNet reads, or if there is no UNet yet.
    pub fn with_text_encoder(mut self, text: Checkpoint) -> Result<Self> {
        super::family::refuse_quantised(&text)?;
        let slots = self.slots()?;
        let mut part = Vec::new();
        let (mut found, mut taken) = (false, Vec::new());
        for &(prefix, naming) in PLACES {
            let Some(width) = text.encoder_width(prefix, naming) else { continue };
            found = true;
            let second = naming == Naming::OpenClip || text.projection(prefix)?.is_some();
            let slot = choose(&slots, width, second)
                .ok_or_else(|| text.other_width(prefix, naming, &slots, width))?;
            if self.overlaid.contains(&slot.area) {
                return Err(text
                    .fault("two text encoders for one place")
                    .at(format!("{}, {} values a token", slot.what, slot.width))
                    .expected("one file for each text encoder of the family")
                    .hint("leave one out"));
            }
            taken.push(slot.area);
            self.tensors.retain(|t| !t.name.starts_with(slot.area));
            part.retain(|t: &Tensor| !t.name.starts_with(slot.area));
            part.extend(text.encoder(prefix, naming, slot)?);
        }
        if !found {
            return Err(text.without("a text encoder", "text_model.embeddings or transformer.resblocks"));
        }
        self.forget_text_settings();
        self.overlaid.extend(taken);
        self.absorb(text, part)
    }

    /// The text encoders of `files`, without any other network: the one of SD 1 or SD 2, or SDXL's two in
    /// any order. Which one is which is told by naming and sizes, as nothing stands beside them.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is none, or not as many as a family has.
    pub fn text_encoders(files: Vec<Checkpoint>) -> Result<Self> {
        let mut found: Vec<Seen> = Vec::new();
        for (i, file) in files.iter().enumerate() {
            super::family::refuse_quantised(file)?;
            let before = found.len();
            for &(prefix, naming) in PLACES {
                let Some(width) = file.encoder_width(prefix, naming) else { continue };
                let projected = naming == Naming::OpenClip || file.projection(prefix)?.is_some();
                found.push(Seen { file: i, prefix, naming, width, projected });
            }
            if found.len() == before {
                return Err(file.without("a text encoder", "text_model.embeddings or transformer.resblocks"));
            }
        }
        let slot = |(area, prefix), naming, width, what| Slot { area, prefix, naming, width, what };
        let clip_l = |place, of: &Seen| slot(place, Naming::Transformers, of.width, "CLIP-L");
        let open = |place, of: &Seen, what| slot(place, Naming::OpenClip, of.width, what);
        let slots = match found.as_slice() {
            [one] if one.naming == Naming::OpenClip || one.width == OPEN_CLIP_H => {
                vec![open(SD2, one, "OpenCLIP-H of SD 2")]
            }
            [one] => vec![clip_l(SD1, one)],
            [a, b] => {
                // The second has the projection; where both or none has one, it is the wider.
                let swapped = if a.projected == b.projected { a.width > b.width } else { a.projected };
                let place = |of: &Seen, second: bool| match second {
                    true => open(SDXL_G, of, "OpenCLIP-bigG of SDXL"),
                    false => clip_l(SDXL_L, of),
                };
                vec![place(a, swapped), place(b, !swapped)]
            }
            _ => {
                let file = files.first().ok_or_else(|| Error::usage("no files of text encoders"))?;
                return Err(file
                    .fault("text encoders of no family")
                    .expected("the one of SD 1 or SD 2, or the two of SDXL")
                    .found(found.len().to_string()));
            }
        };
        let part = |(seen, slot): (&Seen, &Slot)| {
            Ok((seen.file, files[seen.file].encoder(seen.prefix, seen.naming, slot)?))
        };
        let parts: Vec<(usize, Vec<Tensor>)> = found.iter().zip(&slots).map(part).collect::<Result<_>>()?;
        let of = |wanted: usize| -> Vec<Tensor> {
            parts.iter().filter(|(i, _)| *i == wanted).flat_map(|(_, tensors)| tensors.clone()).collect()
        };
        let mut files = files.into_iter();
        let first = files.next().ok_or_else(|| Error::usage("no files of text encoders"))?;
        let mut whole = Self { tensors: of(0), ..first };
        whole.forget_text_settings();
        for (other, i) in files.zip(1..) {
            whole = whole.absorb(other, of(i))?;
        }
        whole.indexed()
    }

    /// The places for text encoders beside this checkpoint's UNet.
    fn slots(&self) -> Result<Vec<Slot>> {
        let context = self.names_under(UNET).find(|name| name.ends_with(".attn2.to_k.weight"));
        let Some([_, context]) = context.map(|name| self.dims::<2>(name)).transpose()? else {
            return Err(self
                .without("a UNet", &format!("{UNET}input_blocks"))
                .hint("open the checkpoint, or the file of the UNet, first and add text encoders to it"));
        };
        let proj = self.names_under(UNET).find(|name| name.ends_with(".proj_in.weight"));
        let linear = proj.and_then(|name| self.tensor(name)).is_some_and(|info| info.shape.len() == 2);
        let label = format!("{UNET}label_emb.0.0.weight");
        let slot = |(area, prefix), naming, width, what| Slot { area, prefix, naming, width, what };
        let (clip_l, open) = (Naming::Transformers, Naming::OpenClip);
        if !linear {
            return Ok(vec![slot(SD1, clip_l, context, "CLIP-L of SD 1")]);
        }
        if !self.has(&label) {
            return Ok(vec![slot(SD2, open, context, "OpenCLIP-H of SD 2")]);
        }
        // SDXL's UNet reads both encoders side by side, and the pooled vector of the second.
        let [_, vector] = self.dims::<2>(&label)?;
        let pooled = vector.saturating_sub(SDXL_SIZES);
        Ok(vec![
            slot(SDXL_G, open, pooled, "OpenCLIP-bigG of SDXL"),
            slot(SDXL_L, clip_l, context.saturating_sub(pooled), "CLIP-L of SDXL"),
            slot(REFINER, open, context, "OpenCLIP-bigG of SDXL's refiner"),
        ])
    }

    /// Width of a token of the encoder at `prefix`, if there is one.
    fn encoder_width(&self, prefix: &str, naming: Naming) -> Option<usize> {
        let tokens = match naming {
            Naming::Transformers => "embeddings.token_embedding.weight",
            Naming::OpenClip => "token_embedding.weight",
        };
        match self.tensor(&format!("{prefix}{tokens}"))?.shape[..] {
            [_, width] if width > 0 => Some(width),
            _ => None,
        }
    }

    /// The tensors of the encoder at `prefix`, as `slot` wants them. Others than the network's
    /// (`position_ids`, `logit_scale`, a vision model) are left behind.
    fn encoder(&self, prefix: &str, naming: Naming, slot: &Slot) -> Result<Vec<Tensor>> {
        let own = |name: &str| self.get(&format!("{prefix}{name}")).cloned();
        let under = || self.tensors.iter().filter_map(|t| Some((t, t.name.strip_prefix(prefix)?)));
        let to = |name: &str| format!("{}{name}", slot.prefix);
        let mut out = Vec::new();
        match (naming, slot.naming) {
            (Naming::Transformers, Naming::Transformers) => {
                let known = under().filter(|(_, name)| text::open_clip(name).is_some());
                out.extend(known.map(|(t, name)| t.clone().renamed(to(name))));
            }
            (Naming::OpenClip, Naming::OpenClip) => {
                let known = under().filter(|(_, name)| text::transformers(name).is_some());
                out.extend(known.map(|(t, name)| t.clone().renamed(to(name))));
                out.extend(own(text::PROJECTION.0).map(|t| t.renamed(to(text::PROJECTION.0))));
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
            (Naming::Transformers, Naming::OpenClip) => {
                out = self.packed(prefix, slot)?;
                out.extend(self.projection(prefix)?.map(|t| t.renamed(to(text::PROJECTION.0))));
            }
        }
        Ok(out)
    }

    /// An encoder of `transformers` in OpenCLIP's layout, without the projection.
    fn packed(&self, prefix: &str, slot: &Slot) -> Result<Vec<Tensor>> {
        let mut out = Vec::new();
        let mut apart: BTreeMap<String, [Option<Tensor>; text::PARTS]> = BTreeMap::new();
        for tensor in &self.tensors {
            let Some(place) = tensor.name.strip_prefix(prefix).and_then(text::open_clip) else { continue };
            let name = format!("{}{}", slot.prefix, place.name);
            match place.part {
                None => out.push(tensor.clone().renamed(name)),
                Some(part) => apart.entry(name).or_default()[part] = Some(tensor.clone()),
            }
        }
        for (name, parts) in apart {
            let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
            let whole = parts.and_then(|parts| Tensor::stacked(&name, parts));
            out.push(whole.ok_or_else(|| self.unpackable(&name))?);
        }
        Ok(out)
    }

    /// The projection of an encoder of `transformers`, as OpenCLIP has it. It stands beside
    /// `text_model`; ComfyUI once saved it untransposed, under OpenCLIP's name.
    fn projection(&self, prefix: &str) -> Result<Option<Tensor>> {
        let beside = prefix.strip_suffix("text_model.").unwrap_or(prefix);
        let find = |name: &str| self.get(&format!("{beside}{name}")).cloned();
        match find(text::PROJECTION.1) {
            None => Ok(find(text::PROJECTION.0)),
            Some(tensor) => {
                let name = tensor.name.clone();
                tensor.transposed().map(Some).ok_or_else(|| self.fault("a tensor is no matrix").at(name))
            }
        }
    }

    fn unpackable(&self, name: &str) -> Error {
        self.fault("queries, keys and values do not make up one tensor")
            .at(name)
            .expected("three of one shape")
            .hint("the file of the text encoder is damaged: fetch it again")
    }

    fn other_width(&self, prefix: &str, naming: Naming, slots: &[Slot], width: usize) -> Error {
        // The refiner's comes last; nobody who meets this error has one.
        let wanted: Vec<String> = slots.iter().take(2).map(|s| format!("{} ({})", s.width, s.what)).collect();
        let kind = if naming == Naming::OpenClip { "OpenCLIP" } else { "transformers" };
        self.fault("the text encoder does not fit the UNet")
            .at(format!("{prefix}*, as {kind} names it"))
            .expected(format!("tokens of {} values", wanted.join(" or ")))
            .found(width.to_string())
            .hint("pass the text encoder of the UNet's family")
    }

    /// The error for a file that lacks what it was passed for.
    fn without(&self, what: &str, signs: &str) -> Error {
        let first: Vec<&str> = self.names().take(3).collect();
        self.fault(format!("the file holds no {}", what.trim_start_matches("a ")))
            .expected(format!("tensors such as {signs}"))
            .found(format!("{} tensors such as {}", first.len().max(self.tensors.len()), first.join(", ")))
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

/// The place for an encoder of `width`. Where both of SDXL's have one width, as in no published
/// model, `second` decides: the one with a projection is the second.
fn choose(slots: &[Slot], width: usize, second: bool) -> Option<&Slot> {
    let mut fitting = slots.iter().filter(|slot| slot.width == width);
    let first = fitting.next()?;
    if second { Some(first) } else { fitting.next().or(Some(first)) }
}
