//! The text encoders of a checkpoint, in either of the two layouts that checkpoints use.

use super::extra_tensors::{check_areas, check_text};
use super::unet::expect;
use crate::checkpoint::{
    Checkpoint, EncoderPlace, FoundEncoder, OF_ENCODER, TEXT_ACTIVATION, TEXT_HEADS, TEXT_LAYERS,
};
use crate::families::{Family, Tower, Variant};
use crate::model::config::{Activation, TextConfig, UnetConfig};
use crate::text::CHUNK;
use crate::{Error, Remedy, Resource, Result};

/// Byte pairs of CLIP's tokenizer; an encoder may know more tokens.
const VOCABULARY: usize = 49_408;

/// Width and layers of OpenCLIP ViT-H/14. SD 2 reads the last but one, so files in the diffusers
/// layout end there.
const VIT_H: (usize, usize) = (1024, 24);

/// Where encoders are once a file is open, in the order of their outputs.
const PLACES: &[(&str, Tower)] = &[
    ("cond_stage_model.transformer.text_model.", Tower::L),
    ("cond_stage_model.model.", Tower::H),
    ("conditioner.embedders.0.transformer.text_model.", Tower::L),
    ("conditioner.embedders.0.model.", Tower::G),
    ("conditioner.embedders.1.model.", Tower::G),
];

/// Names of the tensors that show the sizes.
struct Layout {
    tokens: &'static str,
    positions: &'static str,
    layers: &'static str,
    mlp: &'static str,
}

fn layout(tower: Tower) -> Layout {
    match tower {
        Tower::L => Layout {
            tokens: "embeddings.token_embedding.weight",
            positions: "embeddings.position_embedding.weight",
            layers: "encoder.layers.",
            mlp: "mlp.fc1.weight",
        },
        Tower::H | Tower::G => Layout {
            tokens: "token_embedding.weight",
            positions: "positional_embedding",
            layers: "transformer.resblocks.",
            mlp: "mlp.c_fc.weight",
        },
    }
}

impl TextConfig {
    /// Finds the text encoders that a UNet reads, in the order of their outputs.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if one is missing or of another kind, naming what to
    /// pass, or has missing or misshapen tensors.
    pub(super) fn infer_beside(
        model: &Checkpoint,
        family: Family,
        variant: Variant,
        unet: &UnetConfig,
    ) -> Result<Vec<Self>> {
        let slots = EncoderPlace::beside(family, variant, unet.context_dim, unet.adm_in_channels);
        let seen = model.encoders();
        let at = |prefix: &str| seen.iter().any(|seen| seen.prefix == prefix);
        if let Some(slot) = slots.iter().find(|slot| !at(slot.prefix)) {
            return Err(without(model, family, slot, &slots, &seen));
        }
        for other in seen.iter().filter(|seen| slots.iter().all(|slot| slot.prefix != seen.prefix)) {
            model.warn(format_args!(
                "a text encoder that the UNet does not read is left out: {}",
                other.describe()
            ));
        }
        check_areas(model, &slots, &seen)?;
        let tower = |slot: &EncoderPlace| {
            let place = PLACES.iter().find(|(prefix, _)| *prefix == slot.prefix);
            place.map(|(_, tower)| *tower).ok_or_else(|| Error::internal("a place that is not listed"))
        };
        slots.iter().map(|slot| Self::infer(model, slot.prefix, tower(slot)?)).collect()
    }

    /// Finds the text encoders of a checkpoint without a UNet, which are where a family has them: see
    /// [`Checkpoint::text_encoders`].
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is none, or one has missing or
    /// misshapen tensors.
    pub fn infer_all(model: &Checkpoint) -> Result<Vec<Self>> {
        let present =
            |&&(prefix, tower): &&(&str, Tower)| model.has(&format!("{prefix}{}", layout(tower).tokens));
        let found: Vec<(&str, Tower)> = PLACES.iter().filter(present).copied().collect();
        let area = |prefix: &str| prefix.starts_with("conditioner.");
        if found.windows(2).any(|pair| !area(pair[0].0) || !area(pair[1].0)) || found.len() > 2 {
            let prefixes: Vec<&str> = found.iter().map(|(prefix, _)| *prefix).collect();
            return Err(model
                .fault("the file has text encoders of several families")
                .expected("that of SD 1, that of SD 2, or the two of SDXL")
                .found(prefixes.join(" and "))
                .hint("the file was put together from different models: use an unmodified checkpoint"));
        }
        if found.is_empty() {
            return Err(model
                .fault("the file has no text encoder")
                .expected(format!("{}{}", PLACES[0].0, layout(Tower::L).tokens))
                .hint("pass a full checkpoint (UNet, VAE and text encoder in one file)")
                .remedy(Remedy::Pass(Resource::TextEncoder)));
        }
        found.iter().map(|&(prefix, tower)| Self::infer(model, prefix, tower)).collect()
    }

    fn infer(model: &Checkpoint, prefix: &str, tower: Tower) -> Result<Self> {
        let layout = layout(tower);
        let [vocab, width] = model.dims(&format!("{prefix}{}", layout.tokens))?;
        at_least(model, "tokens", VOCABULARY, vocab, &format!("{prefix}{}", layout.tokens))?;
        let name = format!("{prefix}{}", layout.positions);
        let [positions, position_width] = model.dims(&name)?;
        expect(model, "columns, as the token embedding", width, position_width, &name)?;
        at_least(model, "positions", CHUNK, positions, &name)?;
        if positions > CHUNK {
            let what = format!(
                "the text encoder has {positions} positions: the first {CHUNK} are used, and longer \
                 prompts go through it in parts of {CHUNK} tokens ({})",
                model.stored_name(&name)
            );
            model.warn_of(model.file_of(&name), what);
        }
        let setting =
            |key: &str| model.metadata().get(&format!("{OF_ENCODER}{prefix}{key}")).map(String::as_str);
        let there = model.count(&format!("{prefix}{}", layout.layers))?;
        let layers = setting(TEXT_LAYERS).and_then(|n| n.parse().ok()).unwrap_or(there);
        if layers == 0 || layers > there {
            return Err(model
                .fault("the text encoder has another number of layers than its settings say")
                .at(format!("{prefix}{}*", layout.layers))
                .expected(layers.to_string())
                .found(there.to_string())
                .hint("the file is incomplete: fetch it again"));
        }
        let name = format!("{prefix}{}0.{}", layout.layers, layout.mlp);
        let [mlp_width, mlp_input] = model.dims(&name)?;
        expect(model, "columns, as the token embedding", width, mlp_input, &name)?;
        let heads = setting(TEXT_HEADS).and_then(|n| n.parse().ok()).unwrap_or(width / 64).max(1);
        expect(model, "values per token left over by the heads", 0, width % heads, prefix)?;
        let name = format!("{prefix}text_projection");
        let projection = match model.has(&name) {
            true => Some(model.dims::<2>(&name)?[1]),
            false => None,
        };
        let activation = match setting(TEXT_ACTIVATION) {
            Some("quick_gelu") => Activation::QuickGelu,
            Some("gelu") => Activation::Gelu,
            None if tower == Tower::L => Activation::QuickGelu,
            None => Activation::Gelu,
            Some(other) => {
                return Err(model
                    .fault("the text encoder has an unknown nonlinearity")
                    .at(format!("{prefix}{TEXT_ACTIVATION}"))
                    .expected("quick_gelu or gelu")
                    .found(other.chars().take(80).collect::<String>()));
            }
        };
        let absent = usize::from(tower == Tower::H && (width, layers + 1) == VIT_H);
        let prefix = prefix.to_owned();
        let config = Self {
            tower,
            prefix,
            width,
            heads,
            layers,
            absent,
            mlp_width,
            positions,
            vocab,
            activation,
            projection,
        };
        check_text(model, &config)?;
        Ok(config)
    }
}

/// The error for a UNet whose text encoder in `slot` is missing.
fn without(
    model: &Checkpoint,
    family: Family,
    slot: &EncoderPlace,
    slots: &[EncoderPlace],
    seen: &[FoundEncoder],
) -> Error {
    let wanted = format!("{}, {} values a token", slot.what, slot.width);
    let there = |slot: &&EncoderPlace| seen.iter().any(|seen| seen.prefix == slot.prefix);
    let foreign: Vec<String> = seen
        .iter()
        .filter(|s| slots.iter().all(|slot| slot.prefix != s.prefix))
        .map(FoundEncoder::describe)
        .collect();
    let has: Vec<&str> = slots.iter().filter(there).map(|slot| slot.what).collect();
    match (has.as_slice(), foreign.is_empty()) {
        ([], true) => model
            .fault("the file has no text encoder")
            .expected(wanted)
            .remedy(Remedy::Pass(Resource::TextEncoder))
            .hint("pass a full checkpoint (UNet, VAE and text encoder in one file)"),
        ([], false) => model
            .fault("text encoder and UNet do not fit")
            .expected(format!("{wanted}, for the UNet looks like {family}"))
            .found(foreign.join(" and "))
            .remedy(Remedy::Pass(Resource::TextEncoder)),
        (has, _) => {
            let found = [has.iter().map(|h| (*h).to_owned()).collect(), foreign].concat();
            model
                .fault(format!("one of the two text encoders of {family} is missing"))
                .expected(wanted)
                .found(found.join(" and "))
                .remedy(Remedy::Pass(Resource::TextEncoder))
        }
    }
}

fn at_least(model: &Checkpoint, what: &str, least: usize, found: usize, at: &str) -> Result<()> {
    if found >= least {
        return Ok(());
    }
    Err(model
        .fault("the text encoder does not fit CLIP's tokenizer")
        .at(at)
        .expected(format!("at least {least} {what}"))
        .found(found.to_string())
        .hint("pass a checkpoint with a CLIP text encoder"))
}
