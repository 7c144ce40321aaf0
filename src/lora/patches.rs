//! LoRAs fitted to a model: which tensors they change, every shape looked at.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::file::{Lora, LoraUse};
use super::module_names::{self, ModuleNames, Target};
use super::networks::{Networks, TargetNetwork};
use super::weight_change::{Change, ChangeKind, matrix};
use crate::checkpoint::{Checkpoint, dtype};
use crate::families::Family;
use crate::model::ModelConfig;
use crate::{Error, ErrorKind, Result};

/// One change of one tensor.
#[derive(Debug)]
pub(super) struct Patch {
    pub lora: Arc<Lora>,
    /// Which of the LoRA's changes.
    pub change: usize,
    /// The weight that the LoRA is used with.
    pub weight: f32,
    /// weight · alpha/rank.
    pub scale: f32,
    /// See [`Target`].
    pub third: Option<usize>,
    pub transposed: bool,
}

/// What some LoRAs do to a model's tensors.
#[derive(Debug, Default)]
pub struct Patches {
    tensors: HashMap<String, Vec<Patch>>,
    /// Which LoRAs act on a part and how strongly, to see whether something changed. LoRAs are
    /// compared by address: the patches keep them alive.
    acting: HashMap<TargetNetwork, Vec<(usize, u32)>>,
    left_out: Vec<String>,
    /// Which changes of each LoRA fit, of a weight of 0 too, in the order in which the LoRAs were given.
    fitting: Vec<BTreeSet<usize>>,
    /// LoRAs that hold embeddings, if they are for text encoders.
    bundles: Vec<Arc<Lora>>,
}

impl Patches {
    /// Fits `uses` to `model`, whose configuration is `config`. Only names and shapes are looked at.
    /// The result does not depend on the order of `uses`. What a LoRA holds beyond what the model
    /// has is left out, as ComfyUI does, and reported by [`left_out`](Self::left_out).
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if nothing of a LoRA fits, or a matrix has the wrong shape: the message
    /// says which, and the family that the LoRA seems to be made for; [`ErrorKind::Usage`] for a
    /// weight that is not finite.
    pub fn new(config: &ModelConfig, model: &Checkpoint, uses: &[LoraUse]) -> Result<Self> {
        let networks = Networks { family: config.family, model, unet: true, text: &config.text };
        let mut patches = Self::of_part(&networks, uses)?;
        for (i, one) in uses.iter().enumerate() {
            let unused = Self::leftovers(&one.lora, config.family, &[(&patches, i)], &[])?;
            patches.left_out.extend(unused);
        }
        Ok(patches)
    }

    /// Fits `uses` to some networks of a model. What is for others is not looked at, and not
    /// reported either: see [`leftovers`](Self::leftovers).
    ///
    /// # Errors
    /// As [`new`](Self::new), but not where nothing fits.
    pub fn of_part(networks: &Networks<'_>, uses: &[LoraUse]) -> Result<Self> {
        let mut patches = Patches { fitting: vec![BTreeSet::new(); uses.len()], ..Patches::default() };
        let names = ModuleNames::new(networks);
        // Sums of more than two numbers depend on their order, if only in the last digit.
        let mut uses: Vec<(usize, &LoraUse)> = uses.iter().enumerate().collect();
        uses.sort_by(|(_, a), (_, b)| {
            let file = a.lora.file().cmp(b.lora.file());
            file.then(a.unet.total_cmp(&b.unet)).then(a.text.total_cmp(&b.text))
        });
        for (i, one) in uses {
            if let Some(weight) = [one.unet, one.text].into_iter().find(|w| !w.is_finite()) {
                return Err(Error::usage("the weight of a LoRA is not a finite number")
                    .file(one.lora.file())
                    .found(weight.to_string()));
            }
            let fit = Fit { family: networks.family, model: networks.model, lora: &one.lora };
            let fitting = patches.fit(&fit, &names, one)?;
            if let Some(of_use) = patches.fitting.get_mut(i) {
                *of_use = fitting;
            }
            if !networks.text.is_empty() && one.lora.embeddings().next().is_some() {
                patches.bundles.push(one.lora.clone());
            }
        }
        Ok(patches)
    }

    /// Whether no tensor is changed.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Names of the tensors that are changed, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether `self` and `other` do the same to a network.
    pub fn same(&self, other: &Patches, part: TargetNetwork) -> bool {
        let bundles = |patches: &Patches| -> Vec<_> { patches.bundles.iter().map(Arc::as_ptr).collect() };
        let named = part == TargetNetwork::Unet || bundles(self) == bundles(other);
        named && self.acting.get(&part) == other.acting.get(&part)
    }

    /// LoRAs that hold embeddings for text encoders.
    pub fn bundles(&self) -> &[Arc<Lora>] {
        &self.bundles
    }

    /// A sentence for each LoRA that holds more than the model has.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// What of `lora` fits none of the networks that `patches` are for, each with the number of the LoRA's use there,
    /// and what its file contradicts itself in: a sentence each. What is for parts in `elsewhere` is not reported.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if nothing fits, with the family that the LoRA seems to be made for. Shapes decide: what
    /// a file says of itself refuses nothing.
    pub fn leftovers(
        lora: &Lora,
        family: Family,
        patches: &[(&Patches, usize)],
        elsewhere: &[TargetNetwork],
    ) -> Result<Vec<String>> {
        let fits =
            |i: &usize| patches.iter().any(|(p, at)| p.fitting.get(*at).is_some_and(|own| own.contains(i)));
        let (fitting, unused): (Vec<usize>, Vec<usize>) = (0..lora.changes.len()).partition(fits);
        let unused =
            unused.iter().filter_map(|i| lora.changes.get(*i)?.kind.tensors().into_iter().next_back());
        let mut unused: Vec<&str> = lora.others.iter().map(String::as_str).chain(unused).collect();
        if let (true, Some(first)) = (fitting.is_empty(), unused.first()) {
            return Err(misfit(lora, family, first)
                .expected(format!("modules of this {family} model"))
                .found(format!("{} of {} that it does not have", unused.len(), unused.len())));
        }
        let all = fitting.len() + unused.len();
        unused.retain(|name| {
            module_names::network_of(name)
                .is_none_or(|place| !elsewhere.iter().any(|part| place.part() == *part))
        });
        let mut sentences = Vec::new();
        if let Some(first) = unused.first() {
            let mut places: Vec<String> = unused
                .iter()
                .map(|name| {
                    module_names::network_of(name).map_or("every part".to_owned(), |place| place.to_string())
                })
                .collect();
            places.sort();
            places.dedup();
            sentences.push(format!(
                "{}: {} of {all} LoRA keys fit nothing in this model and are left out, such as {first}; looked \
                 for in {}",
                lora.file().display(),
                unused.len(),
                places.join(" and ")
            ));
        }
        sentences.extend_from_slice(lora.warnings());
        Ok(sentences)
    }

    pub(super) fn of(&self, tensor: &str) -> &[Patch] {
        self.tensors.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// Adds what of a LoRA fits; gives which of its changes.
    fn fit(&mut self, fit: &Fit<'_>, names: &ModuleNames, one: &LoraUse) -> Result<BTreeSet<usize>> {
        let mut fitting = BTreeSet::new();
        let mut parts = HashSet::new();
        let mut seen: HashMap<(String, Option<usize>, &str), &str> = HashMap::new();
        for (i, change) in one.lora.changes.iter().enumerate() {
            let Some((target, tensor)) = fit.target(change, names) else { continue };
            fitting.insert(i);
            fit.check(change, target, &tensor)?;
            // The same module under two names, each with the same kind of change, counts once.
            if let Some(first) =
                seen.insert((tensor.clone(), target.third, change.kind.name()), &change.module)
                && first != change.module
            {
                self.left_out.push(format!(
                    "{}: {} and {first} are one module of this model: the second is left out",
                    one.lora.file().display(),
                    change.module
                ));
                continue;
            }
            let weight = one.weight(target.part);
            // At weight 0 not even -0 may become 0.
            if weight != 0.0 {
                let scale = (f64::from(weight) * change.scale) as f32;
                if !scale.is_finite() {
                    return Err(fit.endless(change, scale));
                }
                parts.insert(target.part);
                let (lora, third) = (one.lora.clone(), target.third);
                self.tensors.entry(tensor).or_default().push(Patch {
                    lora,
                    change: i,
                    weight,
                    scale,
                    third,
                    transposed: target.transposed,
                });
            }
        }
        for part in parts {
            let acting = (Arc::as_ptr(&one.lora).addr(), one.weight(part).to_bits());
            self.acting.entry(part).or_default().push(acting);
        }
        Ok(fitting)
    }
}

/// A LoRA beside a model.
struct Fit<'a> {
    family: Family,
    model: &'a Checkpoint,
    lora: &'a Lora,
}

impl Fit<'_> {
    /// The module that `change` is for, and the tensor in it, if the model has it.
    fn target<'n>(&self, change: &Change, names: &'n ModuleNames) -> Option<(&'n Target, String)> {
        let target = names.find(&change.module)?;
        let tensor = target.tensor_of(change.leaf);
        self.model.has(&tensor).then_some((target, tensor))
    }

    /// Checks that `change` has the shape of the tensor that it is for.
    fn check(&self, change: &Change, target: &Target, tensor: &str) -> Result<()> {
        let mut want = self.model.tensor(tensor).map_or_else(Vec::new, |t| t.shape.clone());
        if target.transposed {
            want.reverse();
        }
        if let (Some(_), Some(rows)) = (target.third, want.first_mut()) {
            *rows /= 3;
        }
        let tensors = change.kind.tensors().into_iter().chain(change.magnitude.as_deref());
        for name in tensors {
            if let Some(info) = self.lora.tensors.tensor(name).filter(|info| !dtype::is_floating(info.dtype))
            {
                return Err(self
                    .lora
                    .tensors
                    .fault("a matrix of a LoRA is not stored as floating point")
                    .at(name)
                    .expected("F32, F16, BF16, F64, F8_E4M3 or F8_E5M2")
                    .found(info.dtype.to_string())
                    .hint("pass the LoRA before it was quantised"));
            }
        }
        if let Err(found) = change.kind.check(&self.lora.tensors, &want) {
            let Some(found) = found else { return Err(self.mismatched(change)) };
            let (want, found) = (matrix(&want), matrix(&found));
            let expected = format!("a change of {want:?} for {tensor}");
            return Err(self.misfit(&change.module).expected(expected).found(format!("{found:?}")));
        }
        match &change.magnitude {
            Some(name) if !is_magnitude(self.lora.shape(name), &want) => Err(self
                .misfit(name)
                .expected(format!("a length for each row or column of {want:?}"))
                .found(format!("{:?}", self.lora.shape(name)))),
            _ => Ok(()),
        }
    }

    fn endless(&self, change: &Change, scale: f32) -> Error {
        self.lora
            .tensors
            .fault("weight · alpha / rank is too large")
            .at(&change.module)
            .found(scale.to_string())
            .hint("the file is damaged, or the weight far beyond the usual -2 to 2")
    }

    fn mismatched(&self, change: &Change) -> Error {
        let tensors = change.kind.tensors();
        let shapes: Vec<String> = tensors
            .iter()
            .map(|name| {
                format!("{} {:?}", name.strip_prefix(&change.module).unwrap_or(name), self.lora.shape(name))
            })
            .collect();
        let expected = match change.kind {
            ChangeKind::Pair { .. } => "up [outputs, rank] and down [rank, inputs]".to_owned(),
            ref kind => format!("those of a {}", kind.name()),
        };
        self.lora
            .tensors
            .fault("the matrices of a LoRA do not fit each other")
            .at(tensors.last().copied().unwrap_or(&change.module))
            .expected(expected)
            .found(shapes.join(", "))
            .hint("the file is damaged: fetch it again")
    }

    fn misfit(&self, at: &str) -> Error {
        misfit(self.lora, self.family, at)
    }
}

fn misfit(lora: &Lora, family: Family, at: &str) -> Error {
    let hint = match lora.family() {
        Some(other) if other != family.to_string() => {
            format!("it seems to be made for {other}: pass one made for {family}")
        }
        _ => format!("pass one made for {family} models of this size"),
    };
    Error::new(ErrorKind::Model, "the LoRA does not fit this model").file(lora.file()).at(at).hint(hint)
}

/// Whether `shape` is that of lengths of the rows, `[outputs, …]`, or the columns, `[1, inputs, …]`, of a weight of
/// shape `want`.
fn is_magnitude(shape: &[usize], want: &[usize]) -> bool {
    let all: usize = shape.iter().product();
    let rows = shape.first() == want.first() && Some(&all) == want.first();
    rows || shape.first() == Some(&1) && want.get(1) == Some(&all)
}
