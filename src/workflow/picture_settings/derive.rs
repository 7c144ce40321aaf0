//! A saved picture's settings, derived from the workflow before it where they can say all of it: a picture
//! decoded from a sampler's latent, with prompts of plain text.

use std::collections::HashMap;

use super::{Contribution, PictureSettings, WrittenNode, stem};
use crate::families::LATENT_CHANNELS;
use crate::pipeline::{Request, Start};
use crate::workflow::graph::{Graph, Input, Node};
use crate::workflow::nodes::{self, NodeClass};
use crate::{Latent, Size, VaeLatent};

/// Nodes that a walk goes through at most.
const MOST_NODES: usize = 64;

/// The settings of the pictures that each of these nodes saves, by its id; those that settings cannot describe are
/// left out.
pub(crate) fn settings<'a>(
    graph: &'a Graph,
    saving: impl Iterator<Item = &'a Node>,
) -> HashMap<String, PictureSettings> {
    let upstream = Upstream { graph };
    saving.filter_map(|node| Some((node.id.clone(), upstream.settings(node)?))).collect()
}

/// The graph as it is walked from its end.
struct Upstream<'a> {
    graph: &'a Graph,
}

impl<'a> Upstream<'a> {
    /// The settings of the pictures that a node saves.
    fn settings(&self, saving: &'a Node) -> Option<PictureSettings> {
        let mut picture = self.behind(saving, "images")?;
        while let Some((_, Contribution::PictureOf(input))) = self.contribution(picture) {
            picture = self.behind(picture, input)?;
        }
        let sampler = self.behind(picture, "samples")?;
        let (sampler_settings, Contribution::Sampler(set)) = self.contribution(sampler)? else { return None };
        // The size is that of the picture at hand.
        let mut request = Request {
            negative: vec![self.prompt(sampler, "negative")?],
            ..Request::new(self.prompt(sampler, "positive")?, Size::default())
        };
        set(&sampler_settings, &mut request)?;
        match self.contribution(self.behind(sampler, "latent_image")?) {
            Some((latent, Contribution::EmptyLatent(set))) => set(&latent, &mut request)?,
            // The settings say no more than that there was one.
            _ => request.start = Some(Start::Latent(VaeLatent::new(Latent::zeros(1, LATENT_CHANNELS, 1, 1)))),
        }
        let model = self.model(sampler, &mut request)?;
        request.clip_skip = self.clip_skip(sampler);
        Some(PictureSettings { request, model })
    }

    /// What a node contributes, and its values; None where settings have nothing for its class.
    fn contribution(&self, node: &'a Node) -> Option<(WrittenNode<'a>, Contribution)> {
        let NodeClass { spec, hooks, .. } = nodes::find(&node.class)?;
        Some((WrittenNode { graph: self.graph, node, class: spec }, hooks.settings?))
    }

    /// The node that an input comes from.
    fn behind(&self, node: &Node, input: &str) -> Option<&'a Node> {
        match node.input(input)? {
            Input::Link { node, .. } => self.graph.find(node),
            Input::Value(_) => None,
        }
    }

    /// The text of a side; several that are combined are joined as A1111 joins them.
    fn prompt(&self, sampler: &Node, side: &str) -> Option<String> {
        let mut waiting = vec![self.behind(sampler, side)?];
        let mut texts = Vec::new();
        while let Some(node) = waiting.pop() {
            match self.contribution(node)? {
                (written, Contribution::Prompt { text }) => texts.push(written.text(text)?),
                (_, Contribution::Prompts([first, second])) if texts.len() + waiting.len() < MOST_NODES => {
                    waiting.push(self.behind(node, second)?);
                    waiting.push(self.behind(node, first)?);
                }
                _ => return None,
            }
        }
        Some(texts.join(" AND "))
    }

    /// The model's name; what is on top of it goes into `request`.
    fn model(&self, sampler: &Node, request: &mut Request) -> Option<String> {
        let mut node = self.behind(sampler, "model")?;
        for _ in 0..MOST_NODES {
            match self.contribution(node)? {
                (written, Contribution::OnModel(set)) => set(&written, request)?,
                (written, Contribution::ModelFile { name }) => {
                    return Some(stem(&written.text(name)?).to_owned());
                }
                _ => return None,
            }
            node = self.behind(node, "model")?;
        }
        None
    }

    /// The clip skip of the positive prompt.
    fn clip_skip(&self, sampler: &Node) -> Option<usize> {
        let mut node = self.behind(sampler, "positive").and_then(|text| self.behind(text, "clip"))?;
        for _ in 0..MOST_NODES {
            if let Some((written, Contribution::ClipSkip(skip))) = self.contribution(node) {
                return skip(&written);
            }
            node = self.behind(node, "clip")?;
        }
        None
    }
}
