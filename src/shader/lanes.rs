//! Shaders for CPU drivers, where an invocation is a SIMD lane: lanes share what they load if they can.

use super::{Offers, files, include, plain, replaced};
use crate::kernels::{Const, Core, LANES, Precision, Variant, gemm};
use crate::{Error, Result};

/// What such a shader says, and what stands for it where lanes share; `shared/lanes_alone.wgsl` says the same for
/// those that do not. It is no function, since the language wants the number of the lane to be a constant, which
/// a function's parameter is not.
const WORDS: [(&str, &str); 1] = [("of_lane(", "subgroupBroadcast(")];

/// The text of a variant of whose things, counted by its constant `shares`, each lane loads a part.
pub fn text(variant: &Variant, shares: &str, offers: Offers) -> Result<String> {
    let missing = || Error::internal(format!("{variant} does not say what lanes have in common"));
    let all = variant.constant(shares).ok_or_else(missing)?;
    let shared = offers.lanes;
    let lanes = if shared { LANES } else { 1 };
    let mut variant = variant.clone();
    let own = [("LANES", LANES), ("SHARED", lanes), ("HELD", all / lanes)];
    variant.consts.extend(own.map(|(name, v)| Const::U32(name, v)));
    let wide = match variant.precision {
        _ if !shared => files::WIDE_ELEM,
        Precision::F32 => files::WIDE_LONG_F32,
        Precision::F16 => files::WIDE_LONG_F16,
    };
    let mut text = plain(&variant, &wide)?;
    if variant.core == Some(Core::Lanes) {
        let weight = match (gemm::lanes::has_halves(&variant), shared) {
            (false, _) => files::WEIGHT_WIDE,
            (true, false) => files::WEIGHT_HALF,
            (true, true) => files::WEIGHT_LONG_HALF,
        };
        include(&weight, &mut text)?;
    }
    if shared {
        return Ok(replaced(text, &WORDS));
    }
    include(&files::LANES_ALONE, &mut text)?;
    Ok(text)
}
