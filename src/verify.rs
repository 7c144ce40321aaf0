//! Does this device and its driver compute right? Tensors that ComfyUI computed on a CPU, in
//! golden sets, are computed again here and compared.
//!
//! A [`Set`] has a kind: `model` (text encoder, UNet, autoencoder, guided steps and whole runs of
//! a family), `sag_node` (mask and blur alone), `noise`, `schedules`, `tokens`, `chunk`
//! (batches in portions), or `adapters` (LoRA and its relatives, merged into weights). Each kind has a file of its own below; [`Verifier`] makes what they need.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use sagittal::{Gpu, internals::verify::{Options, Set, Verifier, compact_sets}};
//! let (open, cancel) = (|| Gpu::open(None), AtomicBool::new(false));
//! let mut verifier = Verifier::new(&open, Options::default(), &cancel);
//! for set in compact_sets()? {
//!     let report = verifier.verify(&set, &mut |finding| assert!(finding.holds(), "{finding:?}"))?;
//!     assert!(report.holds(false));
//! }
//! # Ok::<(), sagittal::Error>(())
//! ```

mod adapters;
mod behaviour;
mod case;
mod chunk;
mod compare;
mod context;
mod model;
mod noise;
mod run;
mod sag_node;
mod schedules;
mod set;
mod step;
mod tensor;
mod text;
mod tokens;
mod tolerance;
mod unet;
mod vae;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::checkpoint::{Checkpoint, Dtype, Manifest};
use crate::gpu::Gpu;
use crate::kernels::Precision;
use crate::model::{ModelConfig, Prediction};
use crate::pipeline::{Model, ModelOptions};
use crate::{Error, ErrorKind, Remedy, Resource, Result};

pub use compare::{Comparison, Finding, Measure, Outcome};
pub use set::{Kind, Set};
pub use tensor::{Tensor, Values, write_all};

use compare::Findings;
use context::Context;
use tolerance::Tolerances;

/// Manifests of the small families, whose synthetic weights are made in a moment.
const MANIFESTS: [&str; 3] = [
    include_str!("verify/data/manifest-tiny-sd1.json"),
    include_str!("verify/data/manifest-tiny-sd2.json"),
    include_str!("verify/data/manifest-tiny-sdxl.json"),
];

/// How sets are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Storage of activations and weights; it decides the tolerances.
    pub precision: Precision,
    /// The checkpoint that the sets were made with. None: weights are made by formula from the
    /// manifest of the set's family.
    pub model: Option<PathBuf>,
    /// What the UNet's output means, where the checkpoint does not say or is wrong.
    pub prediction: Option<Prediction>,
    /// Manifests of families that are not built in.
    pub manifests: Vec<Manifest>,
}

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::F32, model: None, prediction: None, manifests: Vec::new() }
    }
}

/// What came of a set.
#[derive(Debug, Clone)]
pub struct Report {
    /// Everything that was to be compared, in order.
    pub findings: Vec<Finding>,
    /// Every tensor that was computed, under the set's names.
    pub tensors: Vec<(String, Tensor)>,
}

impl Report {
    /// Whether all comparisons hold. What could not be run counts as a failure unless
    /// `allow_unsupported`. A report without a single comparison shows nothing and does not hold.
    pub fn holds(&self, allow_unsupported: bool) -> bool {
        let fine = |f: &Finding| f.holds() || (allow_unsupported && f.is_unsupported());
        self.findings.iter().any(Finding::holds) && self.findings.iter().all(fine)
    }
}

/// Runs sets on a device, which is opened when a set first needs it.
pub struct Verifier<'a> {
    open: &'a dyn Fn() -> Result<Gpu>,
    options: Options,
    cancel: &'a AtomicBool,
    gpu: Option<Gpu>,
    /// The last model, with what it was made from: sets of a family share it.
    model: Option<(Origin, Model)>,
}

/// What a model is made from.
#[derive(Debug, Clone, PartialEq)]
enum Origin {
    File(PathBuf),
    Formula { family: String, seed: u64, dtype: Dtype },
}

impl<'a> Verifier<'a> {
    /// A verifier on the device that `open` gives. Setting `cancel` ends the work.
    pub fn new(open: &'a dyn Fn() -> Result<Gpu>, options: Options, cancel: &'a AtomicBool) -> Self {
        Self { open, options, cancel, gpu: None, model: None }
    }

    /// The device, if a set has needed it.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// Runs all that `set` holds; `observe` hears of each finding at once.
    ///
    /// # Errors
    /// [`ErrorKind::File`] for a set that is not complete, [`ErrorKind::Usage`] for a family whose
    /// weights cannot be made, [`ErrorKind::Cancelled`], or the checkpoint's and the device's.
    /// A case that fails by itself is a finding.
    pub fn verify(&mut self, set: &Set, observe: &mut dyn FnMut(&Finding)) -> Result<Report> {
        let mut findings = Findings::new(observe);
        match set.kind() {
            Kind::SagNode => sag_node::verify(set, &mut findings)?,
            Kind::Noise => noise::verify(set, &mut findings)?,
            Kind::Schedules => schedules::verify(set, &mut findings)?,
            Kind::Tokens => tokens::verify(set, &mut findings)?,
            Kind::Adapters => adapters::verify(set, &self.manifests()?, &mut findings)?,
            Kind::Model | Kind::Chunk => self.verify_model(set, &mut findings)?,
        }
        Ok(Report { findings: findings.all, tensors: findings.tensors })
    }

    fn verify_model(&mut self, set: &Set, findings: &mut Findings<'_>) -> Result<()> {
        let origin = self.origin(set)?;
        if self.model.as_ref().is_none_or(|(from, _)| *from != origin) {
            // The old one goes first: two models may not fit the device together.
            self.model = None;
            let checkpoint = self.checkpoint(&origin)?;
            // A damaged file is an error here; what follows is about networks that do not run yet.
            ModelConfig::infer(&checkpoint)?;
            let options = ModelOptions {
                precision: Some(self.options.precision),
                prediction: self.options.prediction,
                ..Default::default()
            };
            match Model::new(self.gpu_or_open()?, checkpoint, options) {
                Ok(model) => self.model = Some((origin, model)),
                Err(e) if e.kind() == ErrorKind::Model => {
                    model::all_unsupported(set, findings, &e.to_string());
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        let Some((_, model)) = &self.model else { return Err(Error::internal("no model to verify")) };
        let tolerances = Tolerances::of(self.options.precision, model.config());
        let mut context = Context { set, model, tolerances, findings, cancel: self.cancel };
        match set.kind() {
            Kind::Chunk => chunk::verify(&mut context),
            _ => model::verify(&mut context),
        }
    }

    fn gpu_or_open(&mut self) -> Result<Gpu> {
        let gpu = match self.gpu.take() {
            Some(gpu) => gpu,
            None => (self.open)()?,
        };
        self.gpu = Some(gpu.clone());
        Ok(gpu)
    }

    fn origin(&self, set: &Set) -> Result<Origin> {
        if let Some(file) = &self.options.model {
            return Ok(Origin::File(file.clone()));
        }
        let json = set.root();
        // "f16 stored, run in f32"; sets that do not say use f16.
        let dtype = match json.text("dtype") {
            Ok(text) if text.starts_with("f32") => Dtype::F32,
            _ => Dtype::F16,
        };
        Ok(Origin::Formula {
            family: json.text("family")?.to_owned(),
            seed: json.integer("synthetic_seed")?,
            dtype,
        })
    }

    fn checkpoint(&self, origin: &Origin) -> Result<Checkpoint> {
        match origin {
            Origin::File(file) => Checkpoint::open(file),
            Origin::Formula { family, seed, dtype } => {
                Checkpoint::synthetic(&self.manifest(family)?, *seed, *dtype)
            }
        }
    }

    /// Those that were given, then those inside the program.
    fn manifests(&self) -> Result<Vec<Manifest>> {
        let built_in = MANIFESTS.iter().map(|json| Manifest::parse(json));
        self.options.manifests.iter().cloned().map(Ok).chain(built_in).collect()
    }

    fn manifest(&self, family: &str) -> Result<Manifest> {
        let manifests = self.manifests()?;
        let known: BTreeSet<_> = manifests.iter().map(|m| m.family.clone()).collect();
        let known: Vec<String> = known.into_iter().collect();
        manifests.into_iter().find(|m| m.family == family).ok_or_else(|| {
            Error::usage("the weights of this family cannot be made")
                .expected(format!("one of {}", known.join(", ")))
                .found(family)
                .remedy(Remedy::Pass(Resource::Manifest))
                .remedy(Remedy::Pass(Resource::Checkpoint))
        })
    }
}

/// The sets inside the program: a little of every kind, enough to catch a driver that computes
/// wrong, in a few seconds.
///
/// # Errors
/// None that a built program can meet.
pub fn compact_sets() -> Result<Vec<Set>> {
    let set = |name, json, tensors| Set::parse(name, json, tensors);
    Ok(vec![
        set("tiny-sd1 (compact)", include_str!("verify/data/tiny-sd1.json"), Some(TINY_SD1))?,
        set("sag_node (compact)", include_str!("verify/data/sag_node.json"), Some(SAG_NODE))?,
        set("noise (compact)", include_str!("verify/data/noise.json"), Some(NOISE))?,
        set("schedules (compact)", include_str!("verify/data/schedules.json"), None)?,
        set("tokens (compact)", include_str!("verify/data/tokens.json"), None)?,
    ])
}

const TINY_SD1: &[u8] = include_bytes!("verify/data/tiny-sd1.safetensors");
const SAG_NODE: &[u8] = include_bytes!("verify/data/sag_node.safetensors");
const NOISE: &[u8] = include_bytes!("verify/data/noise.safetensors");

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(set: &Set) -> Result<Report> {
        let open = || Err(Error::new(ErrorKind::Device, "these tests need no device"));
        let cancel = AtomicBool::new(false);
        Verifier::new(&open, Options::default(), &cancel).verify(set, &mut |_| {})
    }

    /// The compact set of SAG's mask and blur with its last byte changed, which is a mask's.
    #[test]
    fn a_fault_is_found_and_named() {
        let mut tensors = SAG_NODE.to_vec();
        *tensors.last_mut().unwrap() ^= 1;
        let set =
            |bytes: &[u8]| Set::parse("set", include_str!("verify/data/sag_node.json"), Some(bytes)).unwrap();
        assert!(verify(&set(SAG_NODE)).unwrap().holds(false));
        let report = verify(&set(&tensors)).unwrap();
        assert!(!report.holds(true));
        let wrong: Vec<_> = report.findings.iter().filter(|f| !f.holds()).map(|f| f.name.as_str()).collect();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("mask"), "{wrong:?}");
    }

    #[test]
    fn what_is_unsupported_counts_unless_allowed() {
        let report = |more: &str| {
            let of_tomorrow = r#"{"scheduler": "of_tomorrow", "steps": 1, "denoise": 1}"#;
            let json = format!(r#"{{"kind": "schedules", "schedules": [{of_tomorrow}]{more}}}"#);
            verify(&Set::parse("set", &json, None).unwrap()).unwrap()
        };
        let mixed = report(r#", "timestep_of_sigma": [[100, 999]]"#);
        assert!(!mixed.holds(false) && mixed.holds(true), "{mixed:?}");
        // Where nothing is compared, nothing is shown.
        assert!(!report("").holds(true));
    }

    #[test]
    fn damaged_sets_are_errors() {
        for (json, place) in [
            ("", "not valid JSON"),
            ("[]", "kind"),
            (r#"{"kind": 3}"#, "kind"),
            (r#"{"kind": "weights"}"#, "unknown kind"),
            (r#"{"kind": "model"}"#, "family"),
            (r#"{"kind": "model", "family": "sd9", "synthetic_seed": 0}"#, "sd9"),
            (r#"{"kind": "noise", "cases": [{"name": "a", "seed": -1}]}"#, "case a, seed"),
            (r#"{"kind": "noise", "cases": [{"name": "a", "seed": 1, "shape": [1, 4]}]}"#, "case a, shape"),
            (
                r#"{"kind": "noise", "cases": [{"name": "a", "seed": 1, "shape": [9999999, 9999999, 1, 1]}]}"#,
                "shape",
            ),
            (r#"{"kind": "noise", "cases": [{"name": "a", "seed": 1, "shape": [1, 1, 1, 1]}]}"#, "(a)"),
            (r#"{"kind": "sag_node", "cases": [{"name": "a"}]}"#, "a.x0"),
            (r#"{"kind": "tokens", "prompts": [{"prompt": "a", "ids": 1}]}"#, "tokens.0"),
            (
                r#"{"kind": "tokens", "prompts": [{"prompt": "a", "ids": [[1]], "weights": [[[1.0, 999]]]}]}"#,
                "tokens.0",
            ),
            (r#"{"kind": "schedules", "schedules": [{"scheduler": "simple", "denoise": 1}]}"#, "steps"),
        ] {
            let error = Set::parse("set.json", json, None).and_then(|set| verify(&set)).unwrap_err();
            assert!(error.to_string().contains(place), "{json}: {error}");
            assert!(matches!(error.kind(), ErrorKind::File | ErrorKind::Usage), "{json}: {error:?}");
        }
    }
}
