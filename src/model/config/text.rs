//! Text encoders, in either of the two layouts that checkpoints use.

use super::unet::expect;
use crate::checkpoint::{Checkpoint, TEXT_ACTIVATION, TEXT_FOLDERS, TEXT_HEADS};
use crate::{Remedy, Resource, Result};

/// One of the three CLIP text encoders that Stable Diffusion uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    /// OpenAI's CLIP ViT-L/14, in the layout of `transformers`: separate q, k and v.
    L,
    /// OpenCLIP ViT-H/14, in OpenCLIP's layout: q, k and v in one `in_proj_weight`.
    H,
    /// OpenCLIP ViT-bigG/14, in OpenCLIP's layout.
    G,
}

/// The nonlinearity in the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x · sigmoid(1.702 x), of OpenAI's CLIP.
    QuickGelu,
    /// x · Φ(x), of OpenCLIP.
    Gelu,
}

/// A text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Which one; decides the layout of its tensors.
    pub tower: Tower,
    /// Prefix of its tensors, with the last dot.
    pub prefix: String,
    /// Width of a token.
    pub width: usize,
    /// Attention heads, of 64 channels each (one if the width is less than 64), unless the file tells
    /// otherwise.
    pub heads: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Layers behind these that the network was trained with and the file leaves out, because
    /// nobody reads them. Clip skip counts them.
    pub absent: usize,
    /// Width inside the MLPs.
    pub mlp_width: usize,
    /// Tokens in a sequence (77).
    pub positions: usize,
    /// Number of token embeddings (49,408).
    pub vocab: usize,
    /// The nonlinearity in the MLPs.
    pub activation: Activation,
    /// Columns of `text_projection`, applied to the pooled token, if there is one.
    pub projection: Option<usize>,
}

/// Byte pairs of CLIP's tokenizer; an encoder may know more tokens.
const VOCABULARY: usize = 49_408;
/// Tokens that a prompt is cut or padded to.
const SEQUENCE: usize = 77;

/// Width and layers of OpenCLIP ViT-H/14. SD 2 reads the last but one, so files in the diffusers
/// layout end there.
const VIT_H: (usize, usize) = (1024, 24);

/// Where encoders live, most particular prefix first.
const PLACES: &[(&str, Tower)] = &[
    ("cond_stage_model.transformer.text_model.", Tower::L),
    // Some early SD1 files lack one level.
    ("cond_stage_model.transformer.", Tower::L),
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

impl Tower {
    fn layout(self) -> Layout {
        match self {
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
}

impl TextConfig {
    /// Finds all text encoders of a checkpoint, in the order of their outputs.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is none, or one has missing or
    /// misshapen tensors.
    pub fn infer_all(model: &Checkpoint) -> Result<Vec<Self>> {
        let present =
            |&&(prefix, tower): &&(&str, Tower)| model.has(&format!("{prefix}{}", tower.layout().tokens));
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
                .expected(format!("{}{}", PLACES[0].0, Tower::L.layout().tokens))
                .hint("pass a full checkpoint (UNet, VAE and text encoder in one file)")
                .remedy(Remedy::Pass(Resource::TextEncoder)));
        }
        found
            .iter()
            .zip(TEXT_FOLDERS)
            .map(|(&(p, tower), folder)| Self::infer(model, p, tower, folder))
            .collect()
    }

    fn infer(model: &Checkpoint, prefix: &str, tower: Tower, folder: &str) -> Result<Self> {
        let layout = tower.layout();
        let [vocab, width] = model.dims(&format!("{prefix}{}", layout.tokens))?;
        at_least(model, "tokens", VOCABULARY, vocab, &format!("{prefix}{}", layout.tokens))?;
        let name = format!("{prefix}{}", layout.positions);
        let [positions, position_width] = model.dims(&name)?;
        expect(model, "columns, as the token embedding", width, position_width, &name)?;
        at_least(model, "positions", SEQUENCE, positions, &name)?;
        let layers = model.count(&format!("{prefix}{}", layout.layers))?;
        let name = format!("{prefix}{}0.{}", layout.layers, layout.mlp);
        let [mlp_width, mlp_input] = model.dims(&name)?;
        expect(model, "columns, as the token embedding", width, mlp_input, &name)?;
        let told = |key: &str| model.metadata().get(&format!("{folder}{key}")).map(String::as_str);
        let heads = told(TEXT_HEADS).and_then(|n| n.parse().ok()).unwrap_or(width / 64).max(1);
        expect(model, "values per token left over by the heads", 0, width % heads, prefix)?;
        let name = format!("{prefix}text_projection");
        let projection = match model.has(&name) {
            true => Some(model.dims::<2>(&name)?[1]),
            false => None,
        };
        let activation = match told(TEXT_ACTIVATION) {
            Some("quick_gelu") => Activation::QuickGelu,
            Some("gelu") => Activation::Gelu,
            None if tower == Tower::L => Activation::QuickGelu,
            None => Activation::Gelu,
            Some(other) => {
                return Err(model
                    .fault("the text encoder has an unknown nonlinearity")
                    .at(format!("{folder}{TEXT_ACTIVATION}"))
                    .expected("quick_gelu or gelu")
                    .found(other.chars().take(80).collect::<String>()));
            }
        };
        let absent = usize::from(tower == Tower::H && (width, layers + 1) == VIT_H);
        let prefix = prefix.to_owned();
        Ok(Self {
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
        })
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
