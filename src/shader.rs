//! The catalogue of shaders: WGSL files, and what makes the text of a variant of them.
//!
//! * `shaders/kernels` has a file for each kernel, with its entry point or, where a core has that, with what is
//!   multiplied; `shaders/cores` what several kernels have at their heart; `shaders/types` how values are stored, loaded
//!   and stored; `shaders/helpers` small functions.
//! * A generated header of constants comes in front. `#import folder/name` is replaced by that file. Of lines between
//!   `#if NAME` (or `#if !NAME`), `#else` and `#endif` those are left whose condition holds.
//! * What is between `#repeat i COUNT` and `#end` is written out COUNT times, for i from 0. `#repeat $i COUNT` writes the
//!   number itself for each `$i`, also into names: bindings of which variants have more or fewer. A COUNT that is true
//!   or false is 1 or 0.
//!
//! Writing out is for arrays: a driver that does not unroll a loop over them keeps them in memory instead
//! of registers (matrices, measured on an H100: 29 TFLOP/s instead of 113).

mod conditions;
mod files;
mod simd;
mod software_matrices;
mod text;

pub(crate) use files::file;
pub use files::{File, SHARED};

use std::sync::Arc;

use crate::Result;
use crate::kernels::{Form, Matrices, Variant};

/// What a device has beyond what every device has, as far as shaders are written in another way for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// The cooperative matrices; a variant for others has them written out in plain WGSL.
    pub matrices: Arc<[Matrices]>,
    /// Subgroups of eight or more, and 64-bit integers: lanes of kernels for CPU drivers share what they
    /// load.
    pub shared_loads: bool,
}

impl Offers {
    /// Whether `variant` uses cooperative matrices that the device has not: they are written out.
    pub fn writes_out(&self, variant: &Variant) -> bool {
        variant.is_cooperative() && !variant.matrices().is_some_and(|own| self.matrices.contains(&own))
    }
}

/// The WGSL text of `variant` for a device with `offers`.
pub fn source(variant: &Variant, offers: &Offers) -> Result<String> {
    match variant.form() {
        Form::Simd { shares } => simd::text(variant, shares, offers.shared_loads),
        Form::Cooperative if offers.writes_out(variant) => {
            software_matrices::write_out(variant, text::plain(variant, false)?)
        }
        Form::Plain | Form::Cooperative => text::plain(variant, false),
    }
}
