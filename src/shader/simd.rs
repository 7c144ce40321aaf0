//! Shaders for CPU drivers, where an invocation is a SIMD lane: lanes share what they load if they can.

use super::text::{plain, replaced};
use crate::kernels::{Const, LANES, Variant};
use crate::{Error, Result};

/// What such a shader says, and what is written for it where lanes share; `helpers/of_lane.wgsl` says the same for
/// those that do not. It is no function, since the language wants the number of the lane to be a constant, which
/// a function's parameter is not.
const WORDS: [(&str, &str); 1] = [("of_lane(", "subgroupBroadcast(")];

/// The text of a variant of whose things, counted by its constant `shares`, each lane loads a part if they are
/// `shared`.
pub fn text(variant: &Variant, shares: &str, shared: bool) -> Result<String> {
    let missing = || Error::internal(format!("{variant} does not say what lanes have in common"));
    let all = variant.constant(shares).ok_or_else(missing)?;
    let lanes = if shared { LANES } else { 1 };
    let mut variant = variant.clone();
    let own = [("LANES", LANES), ("SHARED", lanes), ("HELD", all / lanes)];
    variant.consts.extend(own.map(|(name, v)| Const::U32(name, v)));
    let text = plain(&variant, shared)?;
    Ok(if shared { replaced(text, &WORDS) } else { text })
}
