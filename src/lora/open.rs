//! Opens a LoRA's file: its tensors are sorted into changes of weights.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::file::{BUNDLED, Lora};
use super::training_settings::TrainingSettings;
use super::weight_change::{Change, ChangeKind, Factor, Leaf};
use super::{other_kinds, tensor_roles};
use crate::checkpoint::Checkpoint;
use crate::{Error, ErrorKind, Result};

/// The tensors of a module by their roles.
type Parts<'a> = HashMap<&'static str, &'a str>;

impl Lora {
    /// Opens a `.safetensors` file of LoRA, LoCon, DoRA, LoHa, LoKr, GLoRA, OFT or BOFT matrices, of differences of
    /// weights, or a mix of these.
    ///
    /// # Errors
    /// [`ErrorKind::File`] as [`Checkpoint::open`]; [`ErrorKind::Model`] if the file holds another
    /// kind of change, something else altogether, or half of a pair.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_tensors(Checkpoint::open(path)?)
    }

    /// The same for tensors that are open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_tensors(tensors: Checkpoint) -> Result<Self> {
        other_kinds::refuse_other_kinds(&tensors)?;
        let mut modules: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
        let (mut others, mut embeddings) = (Vec::new(), BTreeSet::new());
        for name in tensors.names() {
            if let Some((embedding, _)) = name.strip_prefix(BUNDLED).and_then(|rest| rest.split_once('.')) {
                embeddings.insert(embedding.to_owned());
                continue;
            }
            let Some((module, role)) = tensor_roles::split(name) else {
                others.push(name.to_owned());
                continue;
            };
            if let Some(first) = modules.entry(module).or_default().insert(role, name) {
                return Err(tensors
                    .fault("two tensors of the LoRA are for the same thing")
                    .at(name)
                    .found(first));
            }
        }
        let trained = TrainingSettings::with(&tensors);
        let modules: Vec<(String, HashMap<&'static str, String>)> = modules
            .into_iter()
            .map(|(module, parts)| {
                (module.to_owned(), parts.into_iter().map(|(role, name)| (role, name.to_owned())).collect())
            })
            .collect();
        let mut lora = Self { tensors, changes: Vec::new(), others, embeddings, warnings: Vec::new() };
        let file = lora.file().display().to_string();
        lora.warnings.extend(trained.warnings().iter().map(|what| format!("{file}: {what}")));
        for (module, parts) in modules {
            Module { lora: &mut lora, trained: &trained, module, parts }.sort()?;
        }
        if lora.changes.is_empty() {
            return Err(other_kinds::not_a_lora(&lora.tensors));
        }
        Ok(lora)
    }
}

/// The tensors of a module, to be sorted into changes.
struct Module<'l> {
    lora: &'l mut Lora,
    trained: &'l TrainingSettings,
    module: String,
    parts: HashMap<&'static str, String>,
}

impl Module<'_> {
    fn take(&mut self, role: &str) -> Option<String> {
        self.parts.remove(role)
    }

    /// A tensor that others need.
    fn need(&mut self, role: &str, at: &str) -> Result<String> {
        let expected = match role {
            "up" => "its second matrix (up, or B)".to_owned(),
            "down" => "its first matrix (down, or A)".to_owned(),
            other => format!("its {other}"),
        };
        self.take(role).ok_or_else(|| half(&self.lora.tensors, at, expected))
    }

    /// Adds the module's changes to the LoRA.
    fn sort(mut self) -> Result<()> {
        let alpha = self.take("alpha");
        let magnitude = self.take("magnitude");
        let mut kinds = Vec::new();
        if let Some(name) = self.take("set") {
            // First: what else there is changes the new weight.
            kinds.push(ChangeKind::Set(name));
        }
        kinds.extend(self.pair()?);
        kinds.extend(self.loha()?);
        kinds.extend(self.lokr()?);
        kinds.extend(self.glora()?);
        kinds.extend(self.oft(alpha.as_deref())?);
        let mut bias_scale = 1.0;
        let mut magnitude_used = false;
        for kind in kinds {
            let product = !matches!(kind, ChangeKind::Set(_) | ChangeKind::Oft { .. });
            let scale = if product { self.scale(&kind, alpha.as_deref())? } else { 1.0 };
            if matches!(kind, ChangeKind::Pair { .. }) {
                bias_scale = scale;
            }
            let magnitude = magnitude.clone().filter(|_| product);
            magnitude_used |= magnitude.is_some();
            self.push(Leaf::Weight, kind, scale, magnitude);
        }
        if let Some(name) = self.take("diff") {
            self.push(Leaf::Weight, ChangeKind::Difference(name), 1.0, None);
        }
        if let Some(name) = self.take("diff_b") {
            self.push(Leaf::Bias, ChangeKind::Difference(name), 1.0, None);
        }
        if let Some(name) = self.take("up_bias") {
            self.push(Leaf::Bias, ChangeKind::Difference(name), bias_scale, None);
        }
        if let Some(name) = magnitude.filter(|_| !magnitude_used) {
            return Err(half(&self.lora.tensors, &name, "the matrices that it belongs to".into()));
        }
        if let Some((_, name)) = self.parts.iter().min() {
            return Err(half(&self.lora.tensors, name, "the matrices that it belongs to".into()));
        }
        let alone = !self.lora.changes.iter().any(|change| change.module == self.module);
        if let Some(alpha) = alpha.filter(|_| alone) {
            self.warn(format!("{alpha} is alone: the module has no matrices, and is left out"));
        }
        Ok(())
    }

    fn pair(&mut self) -> Result<Option<ChangeKind>> {
        let (down, up) = match (self.take("down"), self.take("up")) {
            (None, None) => return Ok(None),
            (Some(down), None) => (down.clone(), self.need("up", &down)?),
            (None, Some(up)) => (self.need("down", &up)?, up),
            (Some(down), Some(up)) => (down, up),
        };
        Ok(Some(ChangeKind::Pair { up, down, mid: self.take("mid") }))
    }

    fn loha(&mut self) -> Result<Option<ChangeKind>> {
        let Some(a) = self.take("hada_w1_a") else { return Ok(None) };
        let rest = ["hada_w1_b", "hada_w2_a", "hada_w2_b"].map(|role| self.need(role, &a));
        let [b, a2, b2] = rest;
        let (b, a2, b2) = (b?, a2?, b2?);
        let factors = match (self.take("hada_t1"), self.take("hada_t2")) {
            (Some(t), Some(t2)) => [Factor::Tucker { t, a, b }, Factor::Tucker { t: t2, a: a2, b: b2 }],
            (None, None) => [Factor::Product { a, b }, Factor::Product { a: a2, b: b2 }],
            (Some(one), None) | (None, Some(one)) => {
                return Err(half(&self.lora.tensors, &one, "both hada_t1 and hada_t2".into()));
            }
        };
        Ok(Some(ChangeKind::Loha(factors)))
    }

    fn lokr(&mut self) -> Result<Option<ChangeKind>> {
        let names = [
            ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_t1"],
            ["lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"],
        ];
        if !names.iter().flatten().any(|role| self.parts.contains_key(role)) {
            return Ok(None);
        }
        let mut factor = |[whole, a, b, t]: [&str; 4]| -> Result<Factor> {
            if let Some(whole) = self.take(whole) {
                return Ok(Factor::Whole(whole));
            }
            let at = self.parts.values().min().cloned().unwrap_or_default();
            let (a, b) = (self.need(a, &at)?, self.need(b, &at)?);
            Ok(match self.take(t) {
                Some(t) => Factor::Tucker { t, a, b },
                None => Factor::Product { a, b },
            })
        };
        let [first, second] = names;
        Ok(Some(ChangeKind::Lokr([factor(first)?, factor(second)?])))
    }

    fn glora(&mut self) -> Result<Option<ChangeKind>> {
        let Some(a1) = self.take("a1") else { return Ok(None) };
        let [a2, b1, b2] = ["a2", "b1", "b2"].map(|role| self.need(role, &a1));
        let (a2, b1, b2) = (a2?, b1?, b2?);
        Ok(Some(ChangeKind::Glora { a: [a1, a2], b: [b1, b2] }))
    }

    fn oft(&mut self, alpha: Option<&str>) -> Result<Option<ChangeKind>> {
        let Some(blocks) = self.take("oft_blocks") else { return Ok(None) };
        let limit = alpha.map_or(Ok(0.0), |alpha| self.lora.tensors.number(alpha))?;
        Ok(Some(ChangeKind::Oft { blocks, limit, rescale: self.take("rescale") }))
    }

    /// alpha/rank: the tensor's alpha, or what the file says of its training.
    fn scale(&mut self, kind: &ChangeKind, alpha: Option<&str>) -> Result<f64> {
        let rank = kind.rank(&self.lora.tensors).filter(|rank| *rank > 0);
        let trained = match (kind, rank) {
            (ChangeKind::Pair { .. }, Some(rank)) => self.trained.scale(&self.module, rank).unwrap_or_else(|other| {
                let module = self.module.clone();
                self.warn(format!(
                    "{module} has rank {rank} where the file's settings say {other}: its alpha is not taken from them"
                ));
                None
            }),
            _ => None,
        };
        let (Some(alpha), Some(rank)) = (alpha, rank) else {
            // Both matrices of a LoKr are whole: alpha is no factor.
            return Ok(trained.unwrap_or(1.0));
        };
        let scale = self.lora.tensors.number(alpha)? / rank as f64;
        if let Some(trained) = trained.filter(|trained| (trained - scale).abs() > 1e-6 * scale.abs()) {
            self.warn(format!(
                "{alpha} makes a strength of {scale}, the file's settings {trained}: the tensor counts"
            ));
        }
        Ok(scale)
    }

    fn push(&mut self, leaf: Leaf, kind: ChangeKind, scale: f64, magnitude: Option<String>) {
        self.lora.changes.push(Change { module: self.module.clone(), leaf, kind, scale, magnitude });
    }

    fn warn(&mut self, what: String) {
        self.lora.warnings.push(format!("{}: {what}", self.lora.file().display()));
    }
}

fn half(tensors: &Checkpoint, name: &str, expected: String) -> Error {
    Error::new(ErrorKind::Model, "a part of a LoRA's module is missing")
        .file(tensors.file())
        .at(name)
        .expected(expected)
        .hint("the file is damaged or was cut up: fetch it again")
}
