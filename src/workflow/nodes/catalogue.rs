//! All classes of nodes that run here, and the names of those that do not.

use super::node_class::NodeClass;
use super::{
    conditioning, custom, guidance, images, latents, loaders, lora, masks, primitives, sampling, save,
};
use crate::sampler::names::{edit_distance, nearest_to};
use crate::workflow::spec::Class;

/// The families' tables.
const FAMILIES: [&[NodeClass]; 11] = [
    loaders::CLASSES,
    lora::CLASSES,
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

/// What runs here of the class that workflows call `name`.
pub(crate) fn find(name: &str) -> Option<&'static NodeClass> {
    FAMILIES.into_iter().flatten().find(|class| class.spec.name == name)
}

/// Every class of nodes that runs here.
pub fn classes() -> impl Iterator<Item = &'static Class> {
    FAMILIES.into_iter().flatten().map(|class| &class.spec)
}

/// The class that workflows call `name`.
pub fn class(name: &str) -> Option<&'static Class> {
    find(name).map(|class| &class.spec)
}

/// Every class of ComfyUI's own, those that it has no longer included, as of November 2026.
const COMFYUIS: &str = include_str!("comfyui_classes.txt");

/// Whether a class is ComfyUI's own, be it known here or not.
pub(crate) fn is_comfyuis(name: &str) -> bool {
    COMFYUIS.lines().flat_map(|line| line.split(", ")).any(|class| class == name)
}

/// What a node of a class is called on the screen as long as it is given no other title.
pub(crate) fn title(name: &str) -> &str {
    class(name).map_or(name, |class| class.title)
}

/// The class that `name` is a misspelling of. Half of all names are near another: only very few letters may differ.
pub(crate) fn misspelt(name: &str) -> Option<&'static str> {
    let plain = name.trim();
    let most = (plain.chars().count() / 8).max(1);
    let near = nearest_to(plain, classes().map(|class| class.name)).first().copied()?;
    let is_slip = near.eq_ignore_ascii_case(plain) || edit_distance(plain, near) <= most;
    is_slip.then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_complete() {
        for class in classes() {
            let named = [class.name, class.title, class.category];
            assert!(named.iter().all(|text| !text.is_empty()), "{}", class.name);
            assert_eq!(classes().filter(|other| other.name == class.name).count(), 1, "{}", class.name);
            let names = class.output_names.len();
            assert!(names == 0 || names == class.outputs.len(), "{}", class.name);
        }
    }
}
