//! Nodes that only exist on the screen: ComfyUI's own, and those that public files have. The frontend leads links
//! through them before it queues a workflow.

/// What a node on the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScreenOnly {
    /// Words.
    Note,
    /// A bend in a wire.
    Bend,
    /// The end of a wire that goes on, unseen, from all starts with its name.
    WireEnd,
    /// The start of a wire that comes, unseen, from the end with its name.
    WireStart,
    /// A value, with a wire to where it is used.
    Value,
}

/// The classes.
const CLASSES: [(&str, ScreenOnly); 9] = [
    ("Note", ScreenOnly::Note),
    ("MarkdownNote", ScreenOnly::Note),
    ("Reroute", ScreenOnly::Bend),
    ("Reroute (rgthree)", ScreenOnly::Bend),
    ("SetNode", ScreenOnly::WireEnd),
    ("easy setNode", ScreenOnly::WireEnd),
    ("GetNode", ScreenOnly::WireStart),
    ("easy getNode", ScreenOnly::WireStart),
    ("PrimitiveNode", ScreenOnly::Value),
];

/// What a class is on the screen, if it is nowhere else.
pub(crate) fn screen_only(class: &str) -> Option<ScreenOnly> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, what)| *what)
}
