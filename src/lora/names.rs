//! Where the modules of LoRA files are in a model: a map from every name that a module is known by
//! to the tensor that holds its weight, made from the model's own list of tensors.

use std::collections::HashMap;

use super::patches::Part;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::diffusers_names::{CLIP_LAYER, Level, QKV, UNET_ENDS, unet_blocks};
use crate::model::ModelConfig;
use crate::model::config::{TextConfig, Tower, UNET, UnetConfig};

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
    pub fn new(config: &ModelConfig, model: &Checkpoint) -> Self {
        let mut names = Names(HashMap::new());
        names.add_unet(&config.unet, model);
        for (i, text) in config.text.iter().enumerate() {
            names.add_text(i, text, model, config.text.len() == 1);
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
    fn add_unet(&mut self, config: &UnetConfig, model: &Checkpoint) {
        let blocks = unet_blocks(&levels(config));
        for (tensor, module) in modules(model, UNET) {
            let end = || UNET_ENDS.iter().find(|(o, _)| *o == module).map(|(_, d)| (*d).to_owned());
            let diffusers = blocks.iter().find_map(|b| b.diffusers_name(module)).or_else(end);
            let target = Target { tensor: tensor.into(), part: Part::Unet, third: None, transposed: false };
            self.add(&UNET_NAMES, module, &target);
            if let Some(diffusers) = diffusers {
                self.add(&UNET_NAMES, &diffusers, &target);
            }
        }
    }

    /// Every weight of text encoder `i` under its name in transformers.
    fn add_text(&mut self, i: usize, config: &TextConfig, model: &Checkpoint, only: bool) {
        let mut prefixes = TEXT_NAMES[i.min(1)].to_vec();
        // A bare name tells nothing where there are two encoders.
        if only {
            prefixes.push("");
        }
        let mut add = |module: &str, tensor: &str, third, transposed| {
            let target = Target { tensor: tensor.into(), part: Part::Text(i), third, transposed };
            self.add(&prefixes, module, &target);
        };
        for (tensor, module) in modules(model, &config.prefix) {
            match config.tower {
                Tower::L => add(&format!("text_model.{module}"), tensor, None, false),
                Tower::H | Tower::G => {
                    if let Some(name) = clip_layer(module) {
                        add(&name, tensor, None, false);
                    }
                }
            }
        }
        if config.tower == Tower::L {
            return;
        }
        for layer in 0..config.layers {
            let tensor = format!("{}transformer.resblocks.{layer}.attn.in_proj_weight", config.prefix);
            for (third, name) in QKV.iter().enumerate() {
                add(&format!("text_model.encoder.layers.{layer}.{name}"), &tensor, Some(third), false);
            }
        }
        add("text_projection", &format!("{}text_projection", config.prefix), None, true);
    }
}

/// Names of the weights below `prefix` that are matrices or kernels, whole and as modules.
fn modules<'a>(model: &'a Checkpoint, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let matrix = move |name: &&str| model.tensor(name).is_some_and(|t| t.shape.len() >= 2);
    let module = move |name: &'a str| Some((name, name.strip_prefix(prefix)?.strip_suffix(".weight")?));
    model.names_under(prefix).filter(matrix).filter_map(module)
}

/// `transformer.resblocks.3.mlp.c_fc` → `text_model.encoder.layers.3.mlp.fc1`.
fn clip_layer(module: &str) -> Option<String> {
    let (layer, part) = module.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let (_, name) = CLIP_LAYER.iter().find(|(original, _)| *original == part)?;
    Some(format!("text_model.encoder.layers.{layer}.{name}"))
}

/// The levels of a UNet, from full resolution down.
fn levels(config: &UnetConfig) -> Vec<Level> {
    let mut outputs = config.output_blocks.iter().rev();
    let level = |&res_blocks: &usize| {
        // Reversed, a level begins with its last block.
        let up_attention = outputs.clone().next().is_some_and(|b| b.transformer_depth > 0);
        outputs.by_ref().take(res_blocks + 1).for_each(drop);
        Level { res_blocks, up_attention }
    };
    config.num_res_blocks().iter().map(level).collect()
}
