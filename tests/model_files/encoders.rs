//! Text encoders in any place, naming and orientation; the UNet says which family it is.

use std::fs;
use std::path::Path;

use crate::common::files::{
    Tensor, UNET, VAE, diffusers_unet, diffusers_vae, prefixed, rounded, tensors, transformers_text, under,
    write,
};
use crate::common::warnings::warnings;
use crate::common::{Failures, MANIFESTS};
use sagittal::Size;
use sagittal::inspect::{Inspected, inspect};
use sagittal::internals::checkpoint::{Checkpoint, Dtype, Manifest, key_maps};
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::config::{Family, ModelConfig, Tower};
use sagittal::{ErrorKind, Latent, Model, ModelOptions, Request};

const L: &str = "cond_stage_model.transformer.text_model.";
const H: &str = "cond_stage_model.model.";
const XL_L: &str = "conditioner.embedders.0.transformer.text_model.";
/// The table of tokens, under any name.
const TOKENS: &str = "token_embedding.weight";
const XL_G: &str = "conditioner.embedders.1.model.";

pub fn all(family: &str) -> Vec<Tensor> {
    let (_, json) = MANIFESTS.iter().find(|(name, _)| *name == family).unwrap();
    tensors(&Manifest::parse(json).unwrap())
}

fn without(all: &[Tensor], prefix: &str) -> Vec<Tensor> {
    all.iter().filter(|t| !t.name.starts_with(prefix)).cloned().collect()
}

/// What a file of `tensors` is, opened.
pub fn opened(folder: &Path, tensors: &[Tensor], metadata: &[(&str, &str)]) -> sagittal::Result<Checkpoint> {
    let path = folder.join("model.safetensors");
    write(&path, tensors, metadata, |_| Dtype::F32);
    Checkpoint::open(&path)
}

/// The same, with what is large stored in few bytes: all but the text encoders' layers.
fn opened_small(folder: &Path, tensors: &[Tensor]) -> sagittal::Result<Checkpoint> {
    let path = folder.join("model.safetensors");
    let large = |name: &str| [UNET, VAE].iter().any(|p| name.starts_with(p)) || name.ends_with(TOKENS);
    write(&path, tensors, &[], |name| if large(name) { Dtype::F8_E5M2 } else { Dtype::F32 });
    Checkpoint::open(&path)
}

/// One step of a picture.
pub fn latent(checkpoint: Checkpoint, options: ModelOptions) -> Option<Latent> {
    let gpu = crate::common::gpu()?;
    let options = ModelOptions { precision: Some(Precision::F32), ..options };
    let mut request = Request::new("a fox", Size::square(64));
    (request.schedule.steps, request.guidance.cfg, request.seed) = (1, 3.5, 5);
    let model = Model::new(gpu, checkpoint, options).expect("it runs");
    Some(model.generate(&request).expect("a latent").latent.into_inner())
}

/// The encoder at `prefix` as OpenCLIP names it.
fn open_clip(all: &[Tensor], prefix: &str) -> Vec<Tensor> {
    let own = under(all, prefix);
    if !prefix.ends_with("text_model.") {
        return own;
    }
    let mut packed: Vec<Tensor> = Vec::new();
    for tensor in own {
        let place = key_maps::text::open_clip(&tensor.name).unwrap();
        match packed.iter_mut().find(|t| t.name == place.name) {
            // In their order: see `ordered`.
            Some(whole) => {
                whole.values.extend(&tensor.values);
                whole.shape[0] += tensor.shape[0];
            }
            None => packed.push(Tensor { name: place.name, ..tensor }),
        }
    }
    packed
}

/// In the order in which packed tensors hold them.
fn ordered(all: &[Tensor]) -> Vec<Tensor> {
    let mut all = all.to_vec();
    let rank = |name: &str| ["q_proj", "k_proj", "v_proj"].iter().position(|part| name.contains(part));
    all.sort_by_key(|t| rank(&t.name));
    all
}

/// The projection as a linear layer's weight, transposed.
fn with_linear_projection(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    for tensor in tensors.iter_mut().filter(|t| t.name == "text_projection") {
        let [rows, columns] = tensor.shape[..] else { panic!("a matrix") };
        let places = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        tensor.values = places.map(|i| tensor.values[i]).collect();
        tensor.shape = vec![columns, rows];
        tensor.name = "text_projection.weight".into();
    }
    tensors
}

/// A family as it is when all of it is in its usual place.
struct Usual {
    tensors: Vec<Tensor>,
    config: ModelConfig,
}

impl Usual {
    fn of(family: &str) -> Self {
        let config = ModelConfig::infer(&crate::common::synthetic(family)).unwrap();
        Self { tensors: all(family), config }
    }

    /// Every tensor of the text encoders must be there under its usual name.
    fn check(&self, case: &str, model: sagittal::Result<Checkpoint>, failures: &mut Failures) {
        let model = match model {
            Ok(model) => model,
            Err(e) => return failures.check(false, || format!("{case}: {e}")),
        };
        let text = |t: &&Tensor| !t.name.starts_with(UNET) && !t.name.starts_with(VAE);
        for tensor in self.tensors.iter().filter(text) {
            // The tables of tokens alone are large: some rows of them will do.
            let same = match tensor.name.ends_with(TOKENS) {
                true => model.rows_f32(&tensor.name, &[1, 0]).is_ok_and(|found| {
                    let width = tensor.shape[1];
                    let rows = [&tensor.values[width..2 * width], &tensor.values[..width]].concat();
                    found == rows || found == rounded(&rows, Dtype::F8_E5M2)
                }),
                false => {
                    model.read_f32(&tensor.name, &tensor.shape).is_ok_and(|found| found == tensor.values)
                }
            };
            failures.check(same, || format!("{case}: {}", tensor.name));
        }
        match ModelConfig::infer(&model) {
            Ok(found) => failures.check(
                (found.family, found.variant, &found.text)
                    == (self.config.family, self.config.variant, &self.config.text),
                || format!("{case}: {:?}", found.text),
            ),
            Err(e) => failures.check(false, || format!("{case}: {e}")),
        }
    }
}

/// Where files keep encoders, as transformers names them.
const TRANSFORMERS: [&str; 14] = [
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.text_model.",
    "conditioner.embedders.1.transformer.text_model.",
    "conditioner.embedders.1.model.transformer.text_model.",
    "text_encoders.clip_l.transformer.text_model.",
    "text_encoders.clip_g.transformer.text_model.",
    "clip_l.transformer.text_model.",
    "clip_h.transformer.text_model.",
    "text_encoder.text_model.",
    "text_encoder_2.text_model.",
    "te1.text_model.",
    "te_text_model.",
    "text_model.",
];

/// The same as OpenCLIP and OpenAI name them.
const OPEN_CLIP: [&str; 9] = [
    "cond_stage_model.model.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
    "text_encoders.clip_g.",
    "clip_g.",
    "clip_h.",
    "text.",
    "cond_stage_model.",
    "",
];

#[test]
fn encoders_are_found_in_every_place_naming_and_orientation() {
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Failures::default();
    for (family, encoders) in [("tiny-sd1", &[L][..]), ("tiny-sd2", &[H]), ("tiny-sdxl", &[XL_L, XL_G])] {
        let usual = Usual::of(family);
        let all = ordered(&usual.tensors);
        for own in encoders {
            let rest = without(&all, own);
            let transformers: Vec<Tensor> = under(&transformers_text(&all, own), "text_model.");
            let projection: Vec<Tensor> = transformers_text(&all, own)
                .into_iter()
                .filter(|t| t.name == "text_projection.weight")
                .collect();
            // What one encoder shows another of its kind need not.
            let every = if *own == XL_L { 4 } else { 1 };
            for (i, place) in TRANSFORMERS.into_iter().enumerate().step_by(every) {
                if encoders.contains(&place) && place != *own {
                    continue;
                }
                let beside = place.strip_suffix("text_model.").unwrap_or(place);
                for at in if i == 0 { vec![beside, place] } else { vec![beside] } {
                    let moved = [rest.clone(), prefixed(&transformers, place), prefixed(&projection, at)];
                    let case = format!("{family} {own} at {place}, projection at {at}");
                    usual.check(&case, opened_small(folder.path(), &moved.concat()), &mut failures);
                }
            }
            let places = OPEN_CLIP.into_iter().filter(|place| !encoders.contains(place) || place == own);
            for place in places.step_by(every) {
                let clip = open_clip(&all, own);
                let mut kinds = vec![("as OpenCLIP's", clip.clone())];
                if place == *own || place.is_empty() {
                    kinds.push(("as a linear layer's", with_linear_projection(clip)));
                }
                for (how, tensors) in kinds {
                    let moved = [rest.clone(), prefixed(&tensors, place)].concat();
                    let case = format!("{family} {own} at {place:?}, projection {how}");
                    usual.check(&case, opened_small(folder.path(), &moved), &mut failures);
                }
            }
        }
    }
    failures.finish();
}

/// SDXL's two encoders in each other's places.
#[test]
fn sdxls_encoders_are_known_by_width() {
    let folder = tempfile::tempdir().unwrap();
    let all = all("tiny-sdxl");
    let networks: Vec<Tensor> = without(&all, "conditioner.");
    let l = prefixed(&under(&all, XL_L), "conditioner.embedders.1.transformer.text_model.");
    let g = prefixed(&under(&all, XL_G), "conditioner.embedders.0.model.");
    let model = opened(folder.path(), &[networks, g, l].concat(), &[]);
    let mut failures = Failures::default();
    Usual::of("tiny-sdxl").check("swapped", model, &mut failures);
    failures.finish();
}

/// SD-Turbo: SD 2's UNet with its encoder where SDXL's first stands.
#[test]
fn sd_turbos_encoder_stands_where_sdxls_first_does() {
    let folder = tempfile::tempdir().unwrap();
    let all = all("tiny-sd2");
    let moved = [without(&all, H), prefixed(&under(&all, H), "conditioner.embedders.0.model.")].concat();
    let open =
        |tensors: &[Tensor]| opened(folder.path(), tensors, &[("modelspec.prediction_type", "v")]).unwrap();
    let config = ModelConfig::infer(&open(&moved)).unwrap();
    assert_eq!((config.family, config.text.len(), config.text[0].tower), (Family::Sd2, 1, Tower::H));
    let Some(found) = latent(open(&moved), ModelOptions::default()) else { return };
    let expected = latent(open(&all), ModelOptions::default()).unwrap();
    assert_eq!(found.data(), expected.data());
}

/// A UNet's family is its own, whatever encoder stands beside it.
#[test]
fn a_missing_or_foreign_encoder_is_named_with_what_to_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (sd1, sd2, xl) = (all("tiny-sd1"), all("tiny-sd2"), all("tiny-sdxl"));
    let at = |from: &[Tensor], old: &str, new: &str| prefixed(&under(from, old), new);
    let cases: [(&str, Vec<Tensor>, &[&str]); 6] = [
        (
            "none",
            without(&sd1, L),
            &["no text encoder", "CLIP-L of SD 1", "64 values", "pass a text encoder"],
        ),
        (
            "SD 2's beside SD 1's UNet",
            [without(&sd1, L), at(&sd2, H, H)].concat(),
            &[
                "text encoder and UNet do not fit",
                "CLIP-L of SD 1, 64 values",
                "SD 1",
                "128 values",
                H,
                "pass a text encoder",
            ],
        ),
        (
            "SD 1's beside SD 2's UNet",
            [without(&sd2, H), at(&sd1, L, L)].concat(),
            &[
                "do not fit",
                "OpenCLIP-H of SD 2, 128 values",
                "looks like SD 2",
                "64 values",
                "pass a text encoder",
            ],
        ),
        (
            "SDXL's first alone",
            without(&xl, XL_G),
            &[
                "one of the two text encoders of SDXL",
                "bigG of SDXL, 128 values",
                "CLIP-L",
                "pass a text encoder",
            ],
        ),
        (
            "SDXL's second alone",
            without(&xl, XL_L),
            &[
                "one of the two text encoders of SDXL",
                "CLIP-L of SDXL, 64 values",
                "bigG",
                "pass a text encoder",
            ],
        ),
        (
            "no projection",
            xl.iter().filter(|t| !t.name.ends_with("text_projection")).cloned().collect(),
            &["missing", "conditioner.embedders.1.model.text_projection", "pooled", "pass a text encoder"],
        ),
    ];
    let mut failures = Failures::default();
    for (case, tensors, words) in cases {
        let outcome = opened(folder.path(), &tensors, &[]).and_then(|model| ModelConfig::infer(&model));
        match outcome {
            Ok(config) => failures.check(false, || format!("{case}: accepted as {}", config.family)),
            Err(e) => {
                let text = e.to_string();
                let absent: Vec<_> =
                    words.iter().chain(&["model.safetensors"]).filter(|w| !text.contains(**w)).collect();
                failures.check(e.kind() == ErrorKind::Model && absent.is_empty(), || {
                    format!("{case}: lacks {absent:?}: {text}")
                });
            }
        }
    }
    failures.finish();
}

/// A diffusers folder with one of SDXL's encoders.
#[test]
fn folders_with_one_of_sdxls_encoders_say_so() {
    let all = all("tiny-sdxl");
    for (folder_name, prefix, missing) in
        [("text_encoder", XL_L, "OpenCLIP-bigG of SDXL"), ("text_encoder_2", XL_G, "CLIP-L of SDXL")]
    {
        let folder = tempfile::tempdir().unwrap();
        let put = |part: &str, tensors: &[Tensor]| {
            write(&folder.path().join(part).join("model.safetensors"), tensors, &[], |_| Dtype::F16);
        };
        put("unet", &diffusers_unet(&all));
        put("vae", &diffusers_vae(&all, false));
        put(folder_name, &transformers_text(&all, prefix));
        fs::write(folder.path().join("model_index.json"), "{}").unwrap();
        let model = Checkpoint::open(folder.path()).unwrap();
        let error = ModelConfig::infer(&model).unwrap_err();
        let text = error.to_string();
        let words = ["one of the two text encoders", missing, "pass a text encoder"];
        assert!(error.kind() == ErrorKind::Model && words.iter().all(|w| text.contains(w)), "{text}");
        // The other one makes it whole.
        let other = if prefix == XL_L { XL_G } else { XL_L };
        let path = folder.path().join("other.safetensors");
        write(&path, &transformers_text(&all, other), &[], |_| Dtype::F16);
        let whole = model.with_text_encoder(Checkpoint::open(&path).unwrap()).unwrap();
        assert_eq!(ModelConfig::infer(&whole).unwrap().text.len(), 2);
    }
}

/// Of several encoders in a file those count that the UNet reads; the others are reported.
#[test]
fn encoders_that_the_unet_does_not_read_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mixed =
        [all("tiny-sdxl"), all("tiny-sd1").into_iter().filter(|t| t.name.starts_with(L)).collect()].concat();
    let model = opened(folder.path(), &mixed, &[]).unwrap();
    let (config, warned) = warnings(|| ModelConfig::infer(&model).unwrap());
    assert_eq!((config.family, config.text.len()), (Family::Sdxl, 2));
    let words = ["text encoder", "does not read", L, "model.safetensors"];
    assert!(warned.len() == 1 && words.iter().all(|w| warned[0].contains(w)), "{warned:?}");
    let (_, again) = warnings(|| ModelConfig::infer(&model).unwrap());
    assert!(again.is_empty(), "{again:?}");
    let mut failures = Failures::default();
    Usual::of("tiny-sdxl").check("both", Ok(model), &mut failures);
    failures.finish();
}

/// The tensors with as many more positions as LongCLIP has.
fn with_long_table(mut all: Vec<Tensor>) -> Vec<Tensor> {
    let tables = ["position_embedding.weight", "positional_embedding"];
    for table in all.iter_mut().filter(|t| tables.iter().any(|end| t.name.ends_with(end))) {
        let width = table.shape[1];
        table.values.extend((0..(248 - 77) * width).map(|i| (i % 7) as f32));
        table.shape[0] = 248;
    }
    all
}

#[test]
fn a_position_table_of_248_runs_with_its_first_77() {
    let folder = tempfile::tempdir().unwrap();
    for family in ["tiny-sd1", "tiny-sd2", "tiny-sdxl"] {
        let long = with_long_table(all(family));
        let prediction = if family == "tiny-sd2" { "v" } else { "epsilon" };
        let metadata = [("modelspec.prediction_type", prediction)];
        let model = opened(folder.path(), &long, &metadata).unwrap();
        let (config, warned) = warnings(|| ModelConfig::infer(&model).unwrap());
        assert!(config.text.iter().all(|text| text.positions == 248));
        assert_eq!(warned.len(), config.text.len(), "{warned:?}");
        assert!(warned.iter().all(|t| t.contains("248") && t.contains("model.safetensors")), "{warned:?}");
        let Inspected::Model(facts) = inspect(folder.path().join("model.safetensors")).unwrap() else {
            panic!("a model")
        };
        assert_eq!(facts.obstacle, None);
        let Some(found) = latent(model, ModelOptions::default()) else { continue };
        let expected = latent(crate::common::synthetic(family), ModelOptions::default()).unwrap();
        assert_eq!(found.data(), expected.data(), "{family}");
    }
    // One that is too short for a prompt is refused when it is looked at.
    let mut short = all("tiny-sd1");
    let table = short.iter_mut().find(|t| t.name.ends_with("position_embedding.weight")).unwrap();
    table.shape[0] = 64;
    table.values.truncate(64 * table.shape[1]);
    let error = ModelConfig::infer(&opened(folder.path(), &short, &[]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("at least 77 positions"), "{error}");
}

/// An encoder of its own file, in OpenAI's naming: what it is counted as, and what it serves.
#[test]
fn openais_names_are_a_text_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.safetensors");
    let all = ordered(&all("tiny-sd1"));
    let mut clip = open_clip(&all, L);
    let more = |name: &str, shape: &[usize]| Tensor {
        name: name.into(),
        shape: shape.to_vec(),
        values: vec![0.5; shape.iter().product()],
    };
    clip.extend([more("logit_scale", &[]), more("visual.proj", &[4, 4]), more("text_projection", &[64, 64])]);
    write(&path, &clip, &[], |_| Dtype::F32);
    let Inspected::Model(facts) = inspect(&path).unwrap() else { panic!("a model") };
    let parts: Vec<(&str, usize)> = facts.parts.iter().map(|p| (p.name, p.tally.tensors)).collect();
    assert_eq!(parts, [("text encoder", clip.len() - 2), ("image encoder", 1), ("other tensors", 1)]);
    assert_eq!(facts.text.len(), 1, "{facts:?}");
    let model =
        crate::common::synthetic("tiny-sd1").with_text_encoder(Checkpoint::open(&path).unwrap()).unwrap();
    let mut failures = Failures::default();
    Usual::of("tiny-sd1").check("OpenAI's names", Ok(model), &mut failures);
    failures.finish();
}

/// UNet and VAE of a file in the diffusers layout, each with a prefix.
#[test]
fn diffusers_networks_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Failures::default();
    for (family, text) in [("tiny-sd1", vec![L]), ("tiny-sd2", vec![H]), ("tiny-sdxl", vec![XL_L, XL_G])] {
        let all = all(family);
        for (unet, vae) in [("unet.", "vae."), (UNET, VAE)] {
            let mut file = prefixed(&diffusers_unet(&all), unet);
            file.extend(prefixed(&diffusers_vae(&all, false), vae));
            for (i, prefix) in text.iter().enumerate() {
                file.extend(prefixed(
                    &transformers_text(&all, prefix),
                    ["text_encoder.", "text_encoder_2."][i],
                ));
            }
            let case = format!("{family} {unet}");
            Usual::of(family).check(&case, opened(folder.path(), &file, &[]), &mut failures);
        }
    }
    failures.finish();
}
