//! What diffusers and transformers call the tensors of the original single-file layout.
//!
//! One table a network: [`unet`], [`vae`], [`text`]. A row pairs a module of the original layout
//! with its counterpart; numbers in braces are filled in for the network at hand, because the
//! layouts count blocks differently. The tables were drawn up from the networks' module trees
//! (latent-diffusion, diffusers, transformers, OpenCLIP).
#![warn(clippy::indexing_slicing, clippy::string_slice)]

pub mod text;
pub mod unet;
pub mod vae;

use std::collections::HashMap;

/// Prefix of the UNet in the original layout.
pub const UNET: &str = "model.diffusion_model.";
/// Prefix of the VAE in the original layout.
pub const VAE: &str = "first_stage_model.";

/// Tensors of a module in either layout, where they differ: original, diffusers. Where a name has
/// several rows the first is what diffusers writes today, the others what it wrote before.
type Inside = &'static [(&'static str, &'static str)];

/// A module whose tensors have the same names in both layouts.
const SAME: Inside = &[];

/// The key map of one network.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    /// Original module, diffusers module, what differs inside.
    modules: Vec<(String, String, Inside)>,
    by_original: HashMap<String, usize>,
    by_diffusers: HashMap<String, usize>,
}

impl KeyMap {
    /// Adds `table`, with the numbers in braces replaced.
    fn add(&mut self, table: &[(&str, &str, Inside)], numbers: &[(&str, usize)]) {
        let fill = |text: &str| {
            numbers.iter().fold(text.to_owned(), |text, (name, n)| text.replace(name, &n.to_string()))
        };
        for (original, diffusers, inside) in table {
            let (original, diffusers) = (fill(original), fill(diffusers));
            self.by_original.insert(original.clone(), self.modules.len());
            self.by_diffusers.insert(diffusers.clone(), self.modules.len());
            self.modules.push((original, diffusers, inside));
        }
    }

    /// The original name of a tensor that diffusers calls `name`; both without the network's prefix.
    pub fn original(&self, name: &str) -> Option<String> {
        let (module, rest) = module_of(name, &self.by_diffusers)?;
        let (original, _, inside) = self.modules.get(module)?;
        Some(format!("{original}.{}", translate(rest, inside.iter().map(|(o, d)| (*d, *o)), inside)?))
    }

    /// What diffusers calls a tensor of the original layout; both without the network's prefix.
    pub fn diffusers(&self, name: &str) -> Option<String> {
        let (module, rest) = module_of(name, &self.by_original)?;
        let (_, diffusers, inside) = self.modules.get(module)?;
        Some(format!("{diffusers}.{}", translate(rest, inside.iter().copied(), inside)?))
    }
}

/// The longest module that `name` lies in, and what follows it.
fn module_of<'a>(name: &'a str, modules: &HashMap<String, usize>) -> Option<(usize, &'a str)> {
    let dots = name.rmatch_indices('.').map(|(at, _)| at);
    dots.into_iter().find_map(|at| {
        let (module, rest) = name.split_at_checked(at)?;
        Some((*modules.get(module)?, rest.strip_prefix('.')?))
    })
}

/// `rest` by the rows of a table, from left to right.
fn translate(
    rest: &str,
    mut rows: impl Iterator<Item = (&'static str, &'static str)>,
    inside: Inside,
) -> Option<String> {
    if inside.is_empty() {
        return Some(rest.to_owned());
    }
    rows.find_map(|(from, to)| rest.strip_prefix(from)?.strip_prefix('.').map(|leaf| format!("{to}.{leaf}")))
}

/// How many consecutive numbers from 0 on make names that exist.
fn count(exists: impl Fn(usize) -> bool) -> usize {
    // A name has at most 512 bytes and a file 32,768 tensors, so this ends.
    (0..).take_while(|&n| exists(n)).count()
}
