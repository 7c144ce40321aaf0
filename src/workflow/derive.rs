//! A saved picture's settings as A1111 writes them, where the workflow before it is one that they can
//! tell: a picture decoded from a sampler's latent, with prompts of plain text.

use super::catalogue;
use super::graph::{Graph, Input, Node};
use super::value::Value;
use crate::Size;
use crate::families::LATENT_CHANNELS;
use crate::guidance::{Guidance, Perturbed, Sag};
use crate::image::parameters::{self, Origin};
use crate::pipeline::{Request, Schedule, Start};
use crate::sampler::Sampler;
use crate::{Latent, Result};

/// The settings of picture `number` of the batch that node `id` saves; None where there is more to
/// tell than they can.
pub(super) fn parameters(graph: &Graph, id: &str, size: (usize, usize), number: usize) -> Option<String> {
    let seen = Seen { graph };
    let saved = graph.find(id)?;
    let mut picture = seen.behind(saved, "images")?;
    while matches!(picture.class.as_str(), "ImageScale" | "ImageScaleBy") {
        picture = seen.behind(picture, "image")?;
    }
    let sampler = seen.behind(picture, "samples").filter(|n| n.class == "KSampler")?;
    let latent = seen.behind(sampler, "latent_image")?;
    let (width, height) = size;
    let mut request = Request {
        seed: seen.whole(sampler, "seed")?,
        guidance: Guidance::new(seen.number(sampler, "cfg")? as f32),
        solver: seen.text(sampler, "sampler_name")?.parse::<Sampler>().ok()?.into(),
        schedule: Schedule {
            scheduler: seen.text(sampler, "scheduler")?.parse().ok()?,
            steps: seen.whole(sampler, "steps")? as usize,
            denoise: seen.number(sampler, "denoise")?,
        },
        negative: vec![seen.prompt(sampler, "negative")?],
        ..Request::new(seen.prompt(sampler, "positive")?, Size::new(width, height))
    };
    if latent.class == "EmptyLatentImage" {
        request.batch = seen.whole(latent, "batch_size")? as usize;
    } else {
        // Only that there was one is told.
        request.start = Some(Start::Latent(Latent::zeros(1, LATENT_CHANNELS, 1, 1)));
    }
    let model = seen.model(sampler, &mut request)?;
    request.clip_skip = seen.clip_skip(sampler);
    let origin = Origin { model: &model, ..Origin::default() };
    Some(parameters::parameters(&request, &origin, number))
}

/// The graph as it is looked at from behind.
struct Seen<'a> {
    graph: &'a Graph,
}

impl<'a> Seen<'a> {
    /// The node that an input comes from.
    fn behind(&self, node: &Node, input: &str) -> Option<&'a Node> {
        match node.input(input)? {
            Input::Link { node, .. } => self.graph.find(node),
            Input::Value(_) => None,
        }
    }

    /// The value of a widget, through a primitive if it must be.
    fn value(&self, node: &Node, input: &str) -> Option<Value> {
        let slot = catalogue::find(&node.class)?.input(input)?;
        let json = match node.input(input) {
            Some(Input::Value(json)) => json.clone(),
            Some(Input::Link { node, .. }) => match self.graph.find(node)?.input("value")? {
                Input::Value(json) => json.clone(),
                Input::Link { .. } => return None,
            },
            None => slot.default()?,
        };
        let written: Result<Value> = Value::written(slot, &json);
        written.ok()
    }

    fn whole(&self, node: &Node, input: &str) -> Option<u64> {
        match self.value(node, input)? {
            Value::Int(value) => value.try_into().ok(),
            _ => None,
        }
    }

    fn number(&self, node: &Node, input: &str) -> Option<f64> {
        match self.value(node, input)? {
            Value::Float(value) => Some(value),
            _ => None,
        }
    }

    fn text(&self, node: &Node, input: &str) -> Option<String> {
        match self.value(node, input)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a side; several that are combined are joined as A1111 joins them.
    fn prompt(&self, sampler: &Node, side: &str) -> Option<String> {
        let mut waiting = vec![self.behind(sampler, side)?];
        let mut texts = Vec::new();
        while let Some(node) = waiting.pop() {
            match node.class.as_str() {
                "CLIPTextEncode" => texts.push(self.text(node, "text")?),
                "ConditioningCombine" if texts.len() + waiting.len() < 64 => {
                    waiting.push(self.behind(node, "conditioning_2")?);
                    waiting.push(self.behind(node, "conditioning_1")?);
                }
                _ => return None,
            }
        }
        Some(texts.join(" AND "))
    }

    /// The model's name; what lies over it goes into `request`.
    fn model(&self, sampler: &Node, request: &mut Request) -> Option<String> {
        let mut node = self.behind(sampler, "model")?;
        for _ in 0..64 {
            match node.class.as_str() {
                "SelfAttentionGuidance" => {
                    request.guidance.set_sag(Sag {
                        scale: self.number(node, "scale")? as f32,
                        blur_sigma: self.number(node, "blur_sigma")? as f32,
                        ..Sag::default()
                    });
                }
                "PerturbedAttentionGuidance" => {
                    let pag = Perturbed::pag(self.number(node, "scale")? as f32);
                    request.guidance.terms.push(pag.into());
                }
                "LoraLoader" | "LoraLoaderModelOnly" => {
                    let (name, weight) =
                        (self.text(node, "lora_name")?, self.number(node, "strength_model")?);
                    request.prompt.push_str(&format!(" <lora:{}:{weight}>", stem(&name)));
                }
                "CheckpointLoaderSimple" => return Some(stem(&self.text(node, "ckpt_name")?).to_owned()),
                "UNETLoader" => return Some(stem(&self.text(node, "unet_name")?).to_owned()),
                _ => return None,
            }
            node = self.behind(node, "model")?;
        }
        None
    }

    /// The clip skip of the positive prompt.
    fn clip_skip(&self, sampler: &Node) -> Option<usize> {
        let mut node = self.behind(sampler, "positive").and_then(|text| self.behind(text, "clip"))?;
        for _ in 0..64 {
            if node.class == "CLIPSetLastLayer" {
                return match self.value(node, "stop_at_clip_layer")? {
                    Value::Int(layer) => usize::try_from(-layer).ok(),
                    _ => None,
                };
            }
            node = self.behind(node, "clip")?;
        }
        None
    }
}

/// A file's name without its folders and extension.
fn stem(name: &str) -> &str {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}
