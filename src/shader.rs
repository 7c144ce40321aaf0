//! The catalogue of shaders: WGSL files, and the one text step that makes a variant of them: a
//! generated header in front, `#import shared/name` lines replaced by the files they name, and what
//! stands between `#repeat i COUNT` and `#end` written out COUNT times, for i from 0. `#repeat $i COUNT` writes
//! the number itself for each `$i`, also into names: bindings of which variants have more or fewer. A COUNT that
//! is true or false is 1 or 0.
//!
//! Writing out is for arrays: a driver that does not unroll a loop over them keeps them in memory instead
//! of registers (matrices, measured on an H100: 29 TFLOP/s instead of 113).

mod files;
mod lanes;
mod software_matrices;

use std::str::Lines;

pub(crate) use files::file;
pub use files::{File, files};

use crate::kernels::{Const, Form, Precision, Variant};
use crate::{Error, Result};

/// What a device has beyond what every device has, as far as shaders are written in another way for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// Cooperative matrices; without, they are written out in plain WGSL.
    pub matrices: bool,
    /// Subgroups of eight or more, and 64-bit integers: lanes of kernels for CPU drivers share what they
    /// load.
    pub lanes: bool,
}

/// The WGSL text of `variant` for a device with `offers`.
pub fn source(variant: &Variant, offers: Offers) -> Result<String> {
    match variant.form() {
        Form::Lanes { shares } => lanes::text(variant, shares, offers),
        Form::Matrices if !offers.matrices => {
            software_matrices::write_out(plain(variant, &files::WIDE_ELEM)?)
        }
        Form::Plain | Form::Matrices => plain(variant, &files::WIDE_ELEM),
    }
}

/// `text` with the second of each two words in place of the first.
fn replaced(text: String, words: &[(&str, &str)]) -> String {
    words.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// The text as it is in the files. `wide` says what products and attention read at once; those with
/// cooperative matrices say so themselves.
fn plain(variant: &Variant, wide: &File) -> Result<String> {
    let mut text = String::new();
    if variant.matrices() {
        text += "enable f16;\nenable wgpu_cooperative_matrix;\n";
    }
    for c in &variant.consts {
        match c {
            Const::U32(name, v) => text += &format!("const {name} = {v}u;\n"),
            Const::Bool(name, v) => text += &format!("const {name} = {v};\n"),
        }
    }
    let elem = match variant.precision {
        Precision::F32 => files::ELEM_F32,
        Precision::F16 if variant.matrices() => files::ELEM_HALF,
        Precision::F16 => files::ELEM_F16,
    };
    include(&elem, &mut text)?;
    if !variant.matrices() {
        include(wide, &mut text)?;
    }
    include(if variant.out_f32 { &files::OUT_F32 } else { &files::OUT_ELEM }, &mut text)?;
    include(&variant.kernel.spec().file, &mut text)?;
    if let Some(core) = variant.core {
        include(&core.spec().file, &mut text)?;
    }
    let mut written = String::with_capacity(4 * text.len());
    repeat(&mut text.lines(), variant, &mut written, 0)?;
    Ok(written)
}

/// Copies lines up to the `#end` that belongs to `depth`, or to the end, and writes repetitions out.
fn repeat(lines: &mut Lines<'_>, variant: &Variant, to: &mut String, depth: usize) -> Result<()> {
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#end") if depth > 0 => return Ok(()),
            Some("#repeat") => {
                let bad = || Error::internal(format!("{variant}: `{line}` names no constant of the variant"));
                let name = words.next().ok_or_else(bad)?;
                let count = words.next().and_then(|of| variant.constant(of)).ok_or_else(bad)?;
                let mut after = lines.clone();
                for i in 0..count.max(1) {
                    after = lines.clone();
                    let mut body = String::new();
                    repeat(&mut after, variant, &mut body, depth + 1)?;
                    match name.starts_with('$') {
                        _ if i >= count => {}
                        true => *to += &body.replace(name, &i.to_string()),
                        false => *to += &format!("{{\nconst {name} = {i}u;\n{body}}}\n"),
                    }
                }
                *lines = after;
            }
            _ => {
                to.push_str(line);
                to.push('\n');
            }
        }
    }
    Ok(())
}

/// Appends `file` and what it imports.
fn include(file: &File, text: &mut String) -> Result<()> {
    for line in file.text.lines() {
        match line.strip_prefix("#import ").map(str::trim) {
            Some(name) => {
                let missing = || Error::internal(format!("{} imports {name}, which is no file", file.name));
                include(files::imported(name).ok_or_else(missing)?, text)?;
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}
