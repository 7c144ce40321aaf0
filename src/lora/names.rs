//! Where the modules of LoRA files are in a model: a map from every name that a module is known by
//! to the tensor that holds its weight, made from the model's own list of tensors.

use std::collections::HashMap;

use super::patches::{Networks, Part};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::names::{text, unet};
use crate::model::config::{TextConfig, Tower, UNET};

/// A weight, or a third of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The tensor.
    pub tensor: String,
    /// The network that it is in.
    pub part: Part,
    /// Which third of its rows, where queries, keys and values are one tensor.
    pub third: Option<usize>,
    /// Whether the tensor is `[inputs, outputs]`, the other way round than all others.
    pub transposed: bool,
}

/// What kohya, LyCORIS, PEFT, diffusers and ComfyUI put before the name of a UNet module.
const UNET_NAMES: [&str; 6] =
    ["lora_unet_", "unet_", "lycoris_", "model_diffusion_model_", "diffusion_model_", ""];
/// The same for the first and the second text encoder.
const TEXT_NAMES: [&[&str]; 2] =
    [&["lora_te_", "lora_te1_", "text_encoder_"], &["lora_te2_", "text_encoder_2_"]];

/// The names of a model's weights as LoRA files have them, all written with `_` for `.`: kohya's
/// names are diffusers' or the original ones in that form.
pub(super) struct Names(HashMap<String, Target>);

impl Names {
    pub fn new(networks: &Networks<'_>) -> Self {
        let Networks { model, text, .. } = *networks;
        let mut names = Names(HashMap::new());
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
        let module = module.strip_prefix("base_model.model.").unwrap_or(module);
        let mut plain = module.replace(".processor.", ".").replace('.', "_");
        // Older diffusers named the list of output layers, not the layer in it.
        if plain.ends_with("_to_out") {
            plain.push_str("_0");
        }
        self.0.get(&plain)
    }

    fn add(&mut self, prefixes: &[&str], name: &str, target: &Target) {
        for prefix in prefixes {
            self.0.insert(format!("{prefix}{}", name.replace('.', "_")), target.clone());
        }
    }

    /// Every weight of the UNet under its original name and under diffusers'.
    fn add_unet(&mut self, model: &Checkpoint) {
        let layout = unet::from_original(|name| model.has(&format!("{UNET}{name}")));
        for (tensor, name) in matrices(model, UNET) {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            let target = Target { tensor: tensor.into(), part: Part::Unet, third: None, transposed: false };
            self.add(&UNET_NAMES, module, &target);
            if let Some(module) = layout.diffusers(name).as_deref().and_then(|n| n.strip_suffix(".weight")) {
                self.add(&UNET_NAMES, module, &target);
            }
        }
    }

    /// The weights in the layers of text encoder `i`, and its projection, under their names in
    /// transformers.
    fn add_text(&mut self, i: usize, config: &TextConfig, model: &Checkpoint, only: bool) {
        let mut prefixes = TEXT_NAMES[i.min(1)].to_vec();
        // A bare name tells nothing where there are two encoders.
        if only {
            prefixes.push("");
        }
        let (part, prefix) = (Part::Text(i), &config.prefix);
        for (tensor, name) in matrices(model, prefix) {
            let names = match config.tower {
                Tower::L => vec![name.to_owned()],
                Tower::H | Tower::G => text::transformers(name).unwrap_or_default(),
            };
            let packed = names.len() > 1;
            // The tables of token and position vectors are read by rows, and not patched.
            for (n, name) in names.iter().enumerate().filter(|(_, name)| name.starts_with("encoder.layers."))
            {
                let Some(module) = name.strip_suffix(".weight") else { continue };
                let third = packed.then_some(n);
                let target = Target { tensor: tensor.into(), part, third, transposed: false };
                self.add(&prefixes, &format!("text_model.{module}"), &target);
            }
        }
        let (original, name) = text::PROJECTION;
        let target = Target { tensor: format!("{prefix}{original}"), part, third: None, transposed: true };
        if config.projection.is_some() {
            self.add(&prefixes, name.trim_end_matches(".weight"), &target);
        }
    }
}

/// Names of the matrices and kernels below `prefix`, with and without it.
fn matrices<'a>(model: &'a Checkpoint, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let matrix = move |name: &&str| model.tensor(name).is_some_and(|t| t.shape.len() >= 2);
    model.names_under(prefix).filter(matrix).map(move |name| (name, &name[prefix.len()..]))
}
