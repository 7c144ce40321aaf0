//! The text of a variant from its files: a generated header in front, `#if` resolved, `#import folder/name` lines
//! replaced by the files they name, `#repeat` written out.

use std::str::Lines;

use super::conditions::{Conditions, chosen};
use super::files::{self, File};
use crate::kernels::{Const, Precision, Variant};
use crate::{Error, Result};

/// `text` with the second of each two words in place of the first.
pub fn replaced(text: String, words: &[(&str, &str)]) -> String {
    words.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// The text as the files have it. `shared_loads`: the lanes of a kernel for CPU drivers share what they load.
pub fn plain(variant: &Variant, shared_loads: bool) -> Result<String> {
    let conditions = conditions(variant, shared_loads);
    let mut text = String::new();
    if variant.is_cooperative() {
        text += "enable f16;\nenable wgpu_cooperative_matrix;\n";
    }
    for c in &variant.consts {
        match c {
            Const::U32(name, v) => text += &format!("const {name} = {v}u;\n"),
            Const::Bool(name, v) => text += &format!("const {name} = {v};\n"),
        }
    }
    let mut include = |file: &File| include(file, &conditions, &mut text);
    include(&files::ELEMENT)?;
    // Kernels with cooperative matrices say themselves what they read at once.
    if !variant.is_cooperative() {
        include(&files::WIDE)?;
    }
    include(&files::RESULT)?;
    include(&variant.kernel.file)?;
    if let Some(core) = variant.core {
        include(&core.file)?;
    }
    let mut written = String::with_capacity(4 * text.len());
    repeat(&mut text.lines(), variant, &mut written, 0)?;
    Ok(written)
}

/// What `#if` lines may ask for: what is written here, and the variant's own truths.
fn conditions(variant: &Variant, shared_loads: bool) -> Vec<(&'static str, bool)> {
    let own = variant.consts.iter().filter_map(|c| match *c {
        Const::Bool(name, v) => Some((name, v)),
        Const::U32(..) => None,
    });
    let all = [
        ("F16", variant.precision == Precision::F16),
        ("COOPERATIVE", variant.is_cooperative()),
        ("OUT_F32", variant.out_f32),
        ("SHARED_LOADS", shared_loads),
    ];
    all.into_iter().chain(own).collect()
}

/// Appends `file` with its repetitions written out by the constants of `variant`.
pub fn helper(file: &File, variant: &Variant, text: &mut String) -> Result<()> {
    let mut plain = String::new();
    include(file, &[], &mut plain)?;
    repeat(&mut plain.lines(), variant, text, 0)
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

/// Appends what is left of `file` under `conditions`, and what it imports.
pub fn include(file: &File, conditions: &Conditions, text: &mut String) -> Result<()> {
    let lines = chosen(file.text, conditions);
    for line in lines.map_err(|e| Error::internal(format!("shaders/{}.wgsl, {e}", file.name)))? {
        match line.strip_prefix("#import ").map(str::trim) {
            Some(name) => {
                let missing = || Error::internal(format!("{} imports {name}, which is no file", file.name));
                include(files::imported(name).ok_or_else(missing)?, conditions, text)?;
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}
