//! Where the modules of LoRA files are in a model: a map from every name that a module is known by
//! to the tensor that holds its weight, made from the model's own list of tensors.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::HashMap;

use super::networks::{Networks, TargetNetwork};
use super::weight_change::Leaf;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::key_maps::{text, unet};
use crate::families::Tower;
use crate::model::config::{TextConfig, UNET};

/// A weight, or a third of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The tensor.
    pub tensor: String,
    /// The network that it is in.
    pub part: TargetNetwork,
    /// Which third of its rows, where queries, keys and values are one tensor.
    pub third: Option<usize>,
    /// Whether the tensor is `[inputs, outputs]`, the other way round than all others.
    pub transposed: bool,
}

impl Target {
    /// The tensor of a leaf of this module.
    pub fn tensor_of(&self, leaf: Leaf) -> String {
        match (leaf, self.tensor.strip_suffix("weight")) {
            (Leaf::Bias, Some(module)) => format!("{module}bias"),
            _ => self.tensor.clone(),
        }
    }
}

/// The prefixes of module names, written with `_` for `.`, by the network that the module is in: kohya,
/// LyCORIS, PEFT, diffusers, ComfyUI, OneTrainer (`unet.`, `clip_l.`). A module without any of these is the UNet's,
/// or the text encoder's where the model has one alone.
const PREFIXES: [(NamedNetwork, &[&str]); 3] = [
    (
        NamedNetwork::Unet,
        &["lora_unet_", "unet_", "lycoris_unet_", "lycoris_", "model_diffusion_model_", "diffusion_model_"],
    ),
    (
        NamedNetwork::First,
        &[
            "lora_te_",
            "lora_te1_",
            "lycoris_te_",
            "lycoris_te1_",
            "text_encoder_",
            "lycoris_text_encoder_",
            "te_",
            "te1_",
            "clip_l_",
            "clip_l_transformer_",
            "text_encoders_clip_l_transformer_",
            "text_encoders_clip_l_",
        ],
    ),
    (
        NamedNetwork::Second,
        &[
            "lora_te2_",
            "lycoris_te2_",
            "text_encoder_2_",
            "lycoris_text_encoder_2_",
            "te2_",
            "clip_g_",
            "clip_g_transformer_",
            "text_encoders_clip_g_transformer_",
            "text_encoders_clip_g_",
        ],
    ),
];

/// How the one text encoder of SD 2 is called beside the first's names.
const ONLY_H: [&str; 4] =
    ["clip_h_", "clip_h_transformer_", "text_encoders_clip_h_transformer_", "text_encoders_clip_h_"];

/// The network that a module's name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedNetwork {
    Unet,
    First,
    Second,
}

impl NamedNetwork {
    /// The network of a model that has it.
    pub fn part(self) -> TargetNetwork {
        match self {
            Self::Unet => TargetNetwork::Unet,
            Self::First => TargetNetwork::Text(0),
            Self::Second => TargetNetwork::Text(1),
        }
    }
}

impl std::fmt::Display for NamedNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unet => "the UNet",
            Self::First => "the first text encoder",
            Self::Second => "the second text encoder",
        })
    }
}

/// The network that `module` is of, by what its name begins with; the longest beginning counts.
pub(super) fn network_of(module: &str) -> Option<NamedNetwork> {
    let plain = plain(module);
    let begins = |(place, prefixes): &(NamedNetwork, &'static [&'static str])| {
        let longest =
            prefixes.iter().filter(|prefix| plain.starts_with(**prefix)).map(|prefix| prefix.len()).max();
        longest.map(|length| (length, *place))
    };
    PREFIXES.iter().filter_map(begins).max_by_key(|(length, _)| *length).map(|(_, place)| place)
}

fn prefixes(place: NamedNetwork) -> &'static [&'static str] {
    PREFIXES.iter().find(|(of, _)| *of == place).map_or(&[], |(_, prefixes)| prefixes)
}

/// A module's name with `_` for `.`, without what wrappers put into it: PEFT's model, compiled modules, attention
/// processors, the layer that an adapter wraps.
fn plain(module: &str) -> String {
    let module = module.replace(".processor.", ".").replace('.', "_");
    let mut plain = module.replace("base_model_model_", "").replace("_orig_mod_", "");
    // Older diffusers named the layers of text encoders as it names those of the UNet.
    if let Some((before, layer)) = plain.rsplit_once("_self_attn_to_") {
        let layer = if layer == "out_0" { "out" } else { layer };
        plain = format!("{before}_self_attn_{layer}_proj");
    }
    if let Some(shorter) = plain.strip_suffix("_base_layer") {
        plain = shorter.to_owned();
    }
    // Older diffusers named the list of output layers, not the layer in it.
    if plain.ends_with("_to_out") {
        plain.push_str("_0");
    }
    plain
}

/// The names of a model's weights as LoRA files have them, all written with `_` for `.`: kohya's
/// names are diffusers' or the original ones in that form.
pub(super) struct ModuleNames(HashMap<String, Target>);

impl ModuleNames {
    pub fn new(networks: &Networks<'_>) -> Self {
        let Networks { model, text, .. } = *networks;
        let mut names = ModuleNames(HashMap::new());
        if networks.unet {
            names.add_unet(model);
        }
        for (i, encoder) in text.iter().enumerate() {
            names.add_text(i, encoder, model, text.len() == 1);
        }
        names
    }

    /// The weight that a LoRA calls `module`.
    pub fn find(&self, module: &str) -> Option<&Target> {
        self.0.get(&plain(module))
    }

    fn add<'p>(&mut self, prefixes: impl Iterator<Item = &'p str>, name: &str, target: &Target) {
        for prefix in prefixes {
            self.0.insert(format!("{prefix}{}", name.replace('.', "_")), target.clone());
        }
    }

    /// Every weight of the UNet under its original name and under diffusers'.
    fn add_unet(&mut self, model: &Checkpoint) {
        let layout = unet::from_original(|name| model.has(&format!("{UNET}{name}")));
        let before = || prefixes(NamedNetwork::Unet).iter().copied().chain([""]);
        for (tensor, name) in weights(model, UNET) {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            let target =
                Target { tensor: tensor.into(), part: TargetNetwork::Unet, third: None, transposed: false };
            self.add(before(), module, &target);
            if let Some(module) = layout.diffusers(name).as_deref().and_then(|n| n.strip_suffix(".weight")) {
                self.add(before(), module, &target);
            }
        }
    }

    /// The weights in the layers of text encoder `i`, and its projection, under their names in
    /// transformers.
    fn add_text(&mut self, i: usize, config: &TextConfig, model: &Checkpoint, only: bool) {
        let mut before = prefixes(if i == 0 { NamedNetwork::First } else { NamedNetwork::Second }).to_vec();
        // A bare name shows nothing where there are two encoders.
        if only {
            before.extend(ONLY_H.iter().chain(&[""]));
        }
        let before = || before.iter().copied();
        let (part, prefix) = (TargetNetwork::Text(i), &config.prefix);
        for (tensor, name) in weights(model, prefix) {
            let names = match config.tower {
                Tower::L => vec![name.to_owned()],
                Tower::H | Tower::G => text::transformers(name).unwrap_or_default(),
            };
            let packed = names.len() > 1;
            let layers = |name: &&String| {
                ["encoder.layers.", "final_layer_norm.", "embeddings."]
                    .iter()
                    .any(|start| name.starts_with(start))
            };
            for (n, name) in names.iter().enumerate().filter(|(_, name)| layers(name)) {
                let Some(module) = name.strip_suffix(".weight") else { continue };
                let third = packed.then_some(n);
                let target = Target { tensor: tensor.into(), part, third, transposed: false };
                self.add(before(), &format!("text_model.{module}"), &target);
                // transformers 5 has no `text_model` between the encoder and its layers.
                self.add(before().filter(|prefix| !prefix.is_empty()), module, &target);
            }
        }
        let (original, name) = text::PROJECTION;
        let target = Target { tensor: format!("{prefix}{original}"), part, third: None, transposed: true };
        if config.projection.is_some() {
            self.add(before(), name.trim_end_matches(".weight"), &target);
        }
    }
}

/// Names of the weights below `prefix`, with and without it.
fn weights<'a>(model: &'a Checkpoint, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    model.names_under(prefix).filter_map(move |name| Some((name, name.strip_prefix(prefix)?)))
}
