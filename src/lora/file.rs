//! A LoRA's file: its tensors sorted into pairs.

use std::collections::BTreeMap;
use std::path::Path;

use super::foreign;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::{Error, ErrorKind, Result};

/// What a tensor of a LoRA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `[rank, inputs…]`, the first of the two matrices.
    Down,
    /// `[outputs, rank]`, the second.
    Up,
    /// `[rank, rank, 3, 3]`, between the two (LoCon's Tucker form).
    Mid,
    /// One number, by which alpha/rank is the scale.
    Alpha,
}

/// Ends of names: kohya, PEFT, and three generations of diffusers.
const ROLES: [(&str, Role); 14] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".alpha", Role::Alpha),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
];

/// The change of one module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// The module in the file's own words.
    pub module: String,
    /// Tensor names.
    pub down: String,
    pub up: String,
    pub mid: Option<String>,
    /// alpha/rank; 1 without alpha.
    pub scale: f64,
}

/// An opened LoRA file: names and shapes; the matrices are read when they are added to a model.
#[derive(Debug)]
pub struct Lora {
    pub(super) tensors: Checkpoint,
    pub(super) changes: Vec<Change>,
    /// Tensors that belong to no change.
    pub(super) others: Vec<String>,
}

/// The tensors of a module, while they are collected.
#[derive(Default)]
struct Parts<'a> {
    down: Option<&'a str>,
    up: Option<&'a str>,
    mid: Option<&'a str>,
    alpha: Option<&'a str>,
}

impl Lora {
    /// Opens a `.safetensors` file of LoRA (or LoCon) matrices.
    ///
    /// # Errors
    /// [`ErrorKind::File`] as [`Checkpoint::open`]; [`ErrorKind::Model`] if the file holds another
    /// kind of change (LoHa, LoKr, DoRA, …), something else altogether, or half of a pair.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_tensors(Checkpoint::open(path)?)
    }

    /// The same for tensors that are open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_tensors(tensors: Checkpoint) -> Result<Self> {
        foreign::refuse_other_kinds(&tensors)?;
        let mut modules: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
        let mut others = Vec::new();
        for name in tensors.names() {
            let Some((module, role)) = split(name) else {
                others.push(name.to_owned());
                continue;
            };
            let parts = modules.entry(module).or_default();
            let place = match role {
                Role::Down => &mut parts.down,
                Role::Up => &mut parts.up,
                Role::Mid => &mut parts.mid,
                Role::Alpha => &mut parts.alpha,
            };
            if let Some(first) = place.replace(name) {
                return Err(tensors
                    .fault("two tensors of the LoRA are for the same thing")
                    .at(name)
                    .found(first));
            }
        }
        let change = |(module, parts): (&&str, &Parts<'_>)| change(&tensors, module, parts);
        let changes = modules.iter().map(change).collect::<Result<Vec<_>>>()?;
        if changes.is_empty() {
            return Err(foreign::not_a_lora(&tensors));
        }
        Ok(Self { changes, others, tensors })
    }

    /// The path of the file.
    pub fn file(&self) -> &Path {
        self.tensors.file()
    }

    /// The file's name without folder and extension, as prompts name it.
    pub fn name(&self) -> String {
        self.file().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Number of modules that it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing; a file that does is refused when it is opened.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The file's tensors.
    pub fn tensors(&self) -> &Checkpoint {
        &self.tensors
    }

    /// Ranks of the changes, and how many modules have each.
    pub fn ranks(&self) -> BTreeMap<usize, usize> {
        let mut ranks = BTreeMap::new();
        for change in &self.changes {
            *ranks.entry(self.shape(&change.down).first().copied().unwrap_or(0)).or_default() += 1;
        }
        ranks
    }

    /// The family that it seems made for, as the file says or by what it changes.
    pub fn family(&self) -> Option<&'static str> {
        foreign::made_for(self)
    }

    pub(super) fn shape(&self, name: &str) -> &[usize] {
        self.tensors.tensor(name).map_or(&[], |t: &TensorInfo| &t.shape)
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.tensors.read_f32(name, self.shape(name))
    }
}

/// A tensor's module and what it is there.
fn split(name: &str) -> Option<(&str, Role)> {
    ROLES.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))
}

/// Puts a module's tensors together and reads its alpha.
fn change(tensors: &Checkpoint, module: &str, parts: &Parts<'_>) -> Result<Change> {
    let (down, up) = match (parts.down, parts.up) {
        (Some(down), Some(up)) => (down, up),
        (None, None) => {
            let alone = parts.mid.or(parts.alpha).unwrap_or(module);
            return Err(half(tensors, alone, "the matrices that it belongs to"));
        }
        (Some(there), None) => return Err(half(tensors, there, "its second matrix (up, or B)")),
        (None, Some(there)) => return Err(half(tensors, there, "its first matrix (down, or A)")),
    };
    let rank = tensors.tensor(down).and_then(|t| t.shape.first()).copied().unwrap_or(0);
    let scale = match parts.alpha {
        Some(alpha) if rank > 0 => f64::from(number(tensors, alpha)?) / rank as f64,
        _ => 1.0,
    };
    let owned = str::to_owned;
    Ok(Change { module: owned(module), down: owned(down), up: owned(up), mid: parts.mid.map(owned), scale })
}

/// The one value of a tensor.
fn number(tensors: &Checkpoint, name: &str) -> Result<f32> {
    let shape = tensors.tensor(name).map_or(&[][..], |t| &t.shape);
    match tensors.read_f32(name, shape)?[..] {
        [value] => Ok(value),
        _ => Err(tensors.misshapen(name, "one number", shape)),
    }
}

fn half(tensors: &Checkpoint, name: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Model, "a pair of LoRA matrices is not complete")
        .file(tensors.file())
        .at(name)
        .expected(expected)
        .hint("the file is damaged or was cut up: fetch it again")
}
