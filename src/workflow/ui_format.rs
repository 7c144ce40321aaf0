//! ComfyUI's UI format, as its menu saves it: nodes on a screen, with links between them and values in widgets.

mod flatten;
mod layout;
mod read;
mod widgets;

pub(super) use layout::laid_out;
pub(super) use read::graph;
pub(super) use widgets::set_widget;
