//! What Self-Attention Guidance looks at, made visible: the attention that each place receives as
//! colours, and the mask that follows from it as a tint with a rim. Both lie over a grey or coloured
//! preview of the same step, in steps of whole cells, so that no detail is shown that is not there.

pub use crate::guidance::overlay::{colour, heat, mask};
