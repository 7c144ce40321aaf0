//! All kinds of nodes that run here, by name.

use super::nodes::{
    Class, conditioning, custom, guidance, images, latents, loaders, masks, primitives, sampling, save,
};
use crate::sampler::names::nearest_to;

/// The families' tables.
const FAMILIES: [&[Class]; 10] = [
    loaders::CLASSES,
    conditioning::CLASSES,
    latents::CLASSES,
    images::CLASSES,
    masks::CLASSES,
    sampling::CLASSES,
    custom::CLASSES,
    guidance::CLASSES,
    primitives::CLASSES,
    save::CLASSES,
];

/// Every kind of node.
pub fn all() -> impl Iterator<Item = &'static Class> {
    FAMILIES.into_iter().flatten()
}

/// The kind that workflows call `name`.
pub fn find(name: &str) -> Option<&'static Class> {
    all().find(|class| class.name == name)
}

/// The names that `name` could be a slip of the pen for, or a variant of.
pub fn nearest(name: &str) -> Vec<&'static str> {
    let near = nearest_to(name, all().map(|class| class.name));
    if !near.is_empty() {
        return near;
    }
    // `KSampler (Efficient)` is no slip of the pen, yet near.
    let first: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
    let within =
        |class: &&Class| first.len() > 3 && (class.name.contains(&first) || first.contains(class.name));
    all().filter(within).map(|class| class.name).take(2).collect()
}
