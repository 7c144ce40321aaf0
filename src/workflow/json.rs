//! What both formats of workflows share: ids, limits, values in messages.

use serde_json::Value as Json;

use crate::{Error, ErrorKind, Result};

/// Nodes that a workflow may have, far beyond what anyone draws.
pub(super) const MOST_NODES: usize = 10_000;

/// A node's id, which is a number in some files and a text in others.
pub(super) fn id(value: &Json) -> Option<String> {
    match value {
        Json::String(id) => Some(id.clone()),
        Json::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Refuses what would take all memory before it is read.
pub(super) fn too_many(nodes: usize) -> Result<()> {
    if nodes <= MOST_NODES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::File, "the workflow has too many nodes")
        .expected(format!("at most {MOST_NODES}"))
        .found(nodes.to_string()))
}

/// A value as a message shows it.
pub(super) fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
