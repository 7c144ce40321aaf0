//! Adapters of every kind merged into weights: LoRA, LoCon, LoHa, LoKr, DoRA, GLoRA, OFT, BOFT, differences.
//!
//! A set holds a few weights of a model and, for each case, the tensors of an adapter's file and what becomes of the
//! weight at some strengths. `truth` counts where it is given: it follows the format's definition where the reference
//! departs from it. Nothing here needs a device: merging is done on the host.

use std::sync::Arc;

use super::case::Case;
use super::compare::{Comparison, Findings, Yardstick};
use super::set::Set;
use super::tensor::{Tensor, write_all};
use super::tolerance;
use crate::checkpoint::{Checkpoint, Dtype, Manifest};
use crate::engine::WeightSource;
use crate::lora::{Lora, LoraUse, Networks, Patched, Patches};
use crate::model::ModelConfig;
use crate::{Error, Remedy, Resource, Result};

/// Before the set's names of weights in a checkpoint.
const PREFIX: &str = "model.";
/// After a case's name: what is no tensor of the adapter's file.
const RESULTS: [&str; 4] = ["merged.", "merged_bias.", "truth.", "truth_bias."];

pub(super) fn verify(set: &Set, manifests: &[Manifest], findings: &mut Findings<'_>) -> Result<()> {
    let target = Target::new(set, manifests)?;
    let strengths = set.root().numbers("strengths")?;
    for case in set.root().list("cases") {
        let name = case.name()?;
        match lora(set, name, str::to_owned) {
            Ok(lora) => {
                for strength in &strengths {
                    target.compare(&case, &lora, *strength, findings)?;
                }
                target.other_names(&case, &lora, findings)?;
            }
            Err(e) => findings.failed(name, e.to_string()),
        }
    }
    Ok(())
}

/// The adapter's file of a case, its keys renamed.
fn lora(set: &Set, case: &str, rename: impl Fn(&str) -> String) -> Result<Arc<Lora>> {
    let prefix = format!("{case}.");
    let own = set.under(&prefix).filter(|(key, _)| !RESULTS.iter().any(|start| key.starts_with(start)));
    let tensors: Vec<(String, Tensor)> = own.map(|(key, tensor)| (rename(key), tensor.clone())).collect();
    let name = format!("{} ({case})", set.file().display());
    Ok(Arc::new(Lora::from_tensors(Checkpoint::from_bytes(&name, write_all(&tensors)?)?)?))
}

/// The name of the tensor that a case changes.
fn weight(set: &Set, case: &Case<'_>) -> Result<String> {
    let keys = set.root().object("model_keys");
    let keys = keys.ok_or_else(|| set.misshapen("model_keys", "an object of names"))?;
    Ok(format!("{PREFIX}{}", keys.text(case.text("module")?)?))
}

/// The set's weights in a model of a family.
struct Target<'s> {
    set: &'s Set,
    model: Checkpoint,
    config: ModelConfig,
}

impl<'s> Target<'s> {
    /// The family is the first that has all modules of the set; of its other weights the names alone are needed.
    fn new(set: &'s Set, manifests: &[Manifest]) -> Result<Self> {
        let (mut own, mut biases): (Vec<(String, Tensor)>, Vec<_>) = (Vec::new(), Vec::new());
        for case in set.root().list("cases") {
            let (weight, stored) = (weight(set, &case)?, case.text("weight")?);
            if own.iter().any(|(name, _)| *name == weight) {
                continue;
            }
            let bias = set.find(&format!("{stored}_bias"));
            biases.extend(bias.map(|bias| (bias_of(&weight), bias.clone())));
            own.push((weight, set.tensor(stored)?.clone()));
        }
        let has_all = |manifest: &&Manifest| {
            own.iter().all(|(name, _)| manifest.tensors.iter().any(|(other, _)| other == name))
        };
        let family = set.root().text("family").ok();
        let manifest = manifests
            .iter()
            .filter(|manifest| family.is_none_or(|family| manifest.family == family))
            .find(has_all)
            .ok_or_else(|| {
                Error::usage("no known family has the weights of this set")
                    .file(set.file())
                    .found(own.first().map_or_else(String::new, |(name, _)| name.clone()))
                    .remedy(Remedy::Pass(Resource::Manifest))
            })?;
        let config = ModelConfig::infer(&Checkpoint::synthetic(manifest, 0, Dtype::F16)?)?;
        // Not every layer of the model has one.
        own.extend(biases);
        let others = manifest.tensors.iter().filter(|(name, _)| !own.iter().any(|(mine, _)| mine == name));
        let others: Vec<_> = others.map(|(name, _)| (name.clone(), Tensor::f32(&[1], vec![0.0]))).collect();
        own.extend(others);
        let model = Checkpoint::from_bytes(&set.file().display().to_string(), write_all(&own)?)?;
        Ok(Self { set, model, config })
    }

    fn merge(&self, lora: &Arc<Lora>, strength: f64, tensor: &str) -> Result<Vec<f32>> {
        let networks =
            Networks { family: self.config.family, model: &self.model, unet: true, text: &self.config.text };
        let patches = Patches::of_part(&networks, &[LoraUse::new(lora.clone(), strength as f32)])?;
        let shape = self.model.tensor(tensor).map_or_else(Vec::new, |t| t.shape.clone());
        Patched { checkpoint: &self.model, patches: &patches }.read(tensor, &shape)
    }

    /// Weight and bias at a strength against the set; some sets hold the first elements alone.
    fn compare(
        &self,
        case: &Case<'_>,
        lora: &Arc<Lora>,
        strength: f64,
        findings: &mut Findings<'_>,
    ) -> Result<()> {
        let (name, weight, stored) = (case.name()?, weight(self.set, case)?, case.text("weight")?);
        for (tensor, of, results) in [
            (weight.clone(), stored.to_owned(), ["truth", "merged"]),
            (bias_of(&weight), format!("{stored}_bias"), ["truth_bias", "merged_bias"]),
        ] {
            let names = results.map(|result| format!("{name}.{result}.{strength}"));
            let Some((name, expected)) =
                names.into_iter().find_map(|name| self.set.find(&name).map(|expected| (name, expected)))
            else {
                continue;
            };
            match self.merge(lora, strength, &tensor) {
                Ok(mut found) => {
                    let by = Yardstick::spread(&self.set.numbers(&of)?, tolerance::MERGED);
                    found.truncate(expected.len());
                    findings.compare(&name, Tensor::f32(&[found.len()], found), expected, by);
                }
                Err(e) => findings.failed(&name, e.to_string()),
            }
        }
        Ok(())
    }

    /// The module under its other names is changed alike.
    fn other_names(&self, case: &Case<'_>, lora: &Arc<Lora>, findings: &mut Findings<'_>) -> Result<()> {
        let names = self.set.root().texts("other_names_of_the_same_module");
        let (case_name, module) = (case.name()?, case.text("module")?);
        if !names.contains(&module) {
            return Ok(());
        }
        let weight = weight(self.set, case)?;
        let known = self.merge(lora, 1.0, &weight);
        for other in names.into_iter().filter(|other| *other != module) {
            let renamed = self::lora(self.set, case_name, |key| key.replacen(module, other, 1));
            let merged = renamed.and_then(|lora| self.merge(&lora, 1.0, &weight));
            let name = format!("{case_name} as {other}");
            match (&known, merged) {
                (Ok(known), Ok(merged)) => {
                    let apart = known.iter().zip(&merged).filter(|(a, b)| a != b).count();
                    findings.compared(&name, Comparison::of_faults(apart));
                }
                (Err(e), _) => findings.failed(&name, e.to_string()),
                (_, Err(e)) => findings.failed(&name, e.to_string()),
            }
        }
        Ok(())
    }
}

fn bias_of(weight: &str) -> String {
    weight.strip_suffix("weight").map_or_else(|| format!("{weight}_bias"), |module| format!("{module}bias"))
}
