//! Files, LoRAs, prompts and folders with any argument: none panics, and what a caller did wrong is called that.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::any_argument::{FLOATS, SIZES, Watch, pairs};
use crate::common::{safetensors, synthetic};
use sagittal::inspect;
use sagittal::internals::checkpoint::{Dtype, Manifest, digest, key_maps};
use sagittal::internals::folder::Folder;
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::{DiffusionConfig, Family, ModelConfig, Prediction};
use sagittal::internals::sampler::names::{edit_distance, with_scheduler};
use sagittal::internals::text::embedding_files::{EmbeddingSources, Learned};
use sagittal::internals::text::prompt::chunks_with;
use sagittal::internals::text::syntax::notes;
use sagittal::internals::text::{Embeddings, Tokenizer, Vectors, compose, encode};
use sagittal::internals::verify::{Options, Set, Tensor, Verifier, write_all};
use sagittal::lora::{Networks, Patched, Patches, TargetNetwork, tags};
use sagittal::{Checkpoint, Error, Lora, LoraUse, Result};

/// Names that nobody gives a thing.
const NAMES: [&str; 12] =
    ["", ".", "..", "/", "a/../b", "\0", "語", "a.", "weight", "\\", "x:y", "🦀.safetensors"];

#[test]
fn checkpoints_asked_for_anything() {
    let mut watch = Watch::default();
    let tiny = synthetic("tiny-sd1");
    let matrix = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
    let [height, width] = tiny.dims(matrix).expect("a matrix");
    let all: Vec<&str> = tiny.names().collect();
    for name in NAMES.into_iter().chain([matrix, all[0], "model.diffusion_model."]) {
        watch.runs(name, || (tiny.tensor(name).is_some(), tiny.has(name), tiny.fits_f16(name)));
        watch.runs(name, || tiny.names_under(name).count());
        watch.tries(name, || tiny.count(name));
        watch.tries(name, || tiny.number(name));
        watch.tries(name, || tiny.dims::<0>(name));
        watch.tries(name, || tiny.dims::<4>(name));
        for shape in [&[][..], &[0], &[usize::MAX; 4], &[height, width], &[width, height], &[1; 100]] {
            watch.tries(name, || tiny.expect(name, shape));
            watch.tries(name, || tiny.read_f32(name, shape).map(|v| v.len()));
            watch.tries(name, || tiny.raw(name, shape).map(|(_, bytes)| bytes.is_some()));
        }
        for row in SIZES.into_iter().chain([height - 1, height, width]) {
            watch.tries(name, || tiny.rows_f32(name, &[row, 0, row]));
        }
        watch.tries(name, || tiny.rows_f32(name, &[]));
    }
    for bytes in [&[][..], &[0; 7], &[0; 8], &[255; 64], b"\x02\0\0\0\0\0\0\0{}", b"\x04\0\0\0\0\0\0\0null"] {
        watch.tries("bytes", || Checkpoint::from_bytes("\0", bytes.to_vec()).map(|c| c.names().len()));
        watch.runs("bytes", || digest::bytes(bytes));
    }
    let none = std::path::Path::new("/no/such/file\0");
    let go = AtomicBool::new(false);
    watch.tries("no file", || digest::file(none, &go));
    watch.tries("no file", || digest::tensors(none, &go));
    watch.tries("no file", || digest::old(none));
    for name in NAMES {
        watch.tries(name, || Checkpoint::open(name));
        watch.tries(name, || Lora::open(name));
        watch.tries(name, || inspect::inspect(name));
        watch.tries(name, || inspect::picture(name));
    }
    manifests(&mut watch);
    for name in NAMES {
        let map = key_maps::unet::from_original(|_| false);
        watch.runs(name, || (map.original(name), map.diffusers(name)));
        watch.runs(name, || (key_maps::text::open_clip(name).is_some(), key_maps::text::transformers(name)));
    }
    assert!(watch.refused > 100, "{} refused", watch.refused);
    watch.failures.finish();
}

/// Networks of any shape, read as any part of a model.
fn manifests(watch: &mut Watch) {
    let sound = synthetic("tiny-sd1");
    let shape_of = |name: &str| sound.tensor(name).map(|t| t.shape.clone()).unwrap_or_default();
    let sound: Vec<(String, Vec<usize>)> = sound.names().map(|n| (n.to_owned(), shape_of(n))).collect();
    let manifest = |tensors| Manifest { family: "\0".into(), prediction: "?".into(), tensors };
    let mut sets =
        vec![vec![], vec![("a".into(), vec![])], vec![("a".into(), vec![0]), ("a".into(), vec![1])]];
    for (a, b) in pairs() {
        sets.push(vec![("model.diffusion_model.input_blocks.0.0.weight".into(), vec![a, b, 3, 3])]);
    }
    // Every twentieth tensor of a model with one size replaced.
    for at in (0..sound.len()).step_by(20) {
        for size in [0, 1, 3, 1 << 40, usize::MAX] {
            let mut changed = sound.clone();
            changed[at].1[0] = size;
            sets.push(changed);
        }
    }
    for tensors in sets {
        let what = format!("{} tensors", tensors.len());
        for dtype in [Dtype::F16, Dtype::BOOL] {
            let made = watch.tries(&what, || Checkpoint::synthetic(&manifest(tensors.clone()), 1, dtype));
            let Some(made) = made else { continue };
            watch.tries(&what, || ModelConfig::infer(&made).map(|c| c.latent_cell()));
            watch.tries(&what, || DiffusionConfig::infer(&made));
            watch.tries(&what, || inspect::checkpoint(made));
        }
    }
    for json in ["", "[]", "{}", "{\"tensors\": [[1, 2]]}", "{\"family\": 1e999}"] {
        watch.tries(json, || Manifest::parse(json));
    }
}

#[test]
fn loras_of_any_weight_on_any_network() {
    let mut watch = Watch::default();
    let models = ["tiny-sd1", "tiny-sd2", "tiny-sdxl"].map(synthetic);
    let configs: Vec<ModelConfig> = models.iter().map(|m| ModelConfig::infer(m).expect("a model")).collect();
    let module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    let file = |pairs: &[(&str, &[usize])]| {
        let named: Vec<(String, &[usize], Vec<f32>)> = pairs
            .iter()
            .map(|(role, shape)| (format!("{module}.{role}"), *shape, vec![0.5; shape.iter().product()]))
            .collect();
        safetensors(named.iter().map(|(name, shape, values)| (name.as_str(), *shape, values.as_slice())))
    };
    let sizes: [&[usize]; 9] = [&[], &[0], &[1], &[0, 0], &[1, 0], &[0, 256], &[2, 256], &[256, 2], &[1; 9]];
    let mut loras: Vec<Arc<Lora>> = Vec::new();
    for (a, b) in sizes.into_iter().flat_map(|a| sizes.map(|b| (a, b))) {
        for (down, up) in [
            ("lora_down.weight", "lora_up.weight"),
            ("hada_w1_a", "hada_w2_b"),
            ("lokr_w1", "lokr_w2"),
            ("oft_blocks", "alpha"),
            ("diff", "diff_b"),
            ("lora_down.weight", "dora_scale"),
        ] {
            let what = format!("{down} {a:?}, {up} {b:?}");
            let bytes = file(&[(down, a), (up, b)]);
            let lora = watch.tries(&what, || Lora::from_tensors(Checkpoint::from_bytes("l", bytes)?));
            loras.extend(lora.map(Arc::new));
        }
    }
    for lora in &loras {
        watch.runs("facts", || {
            (lora.ranks(), lora.kinds(), lora.parts(), lora.family(), lora.name(), lora.len())
        });
        for (config, model) in configs.iter().zip(&models) {
            for weight in FLOATS {
                let uses = [LoraUse::new(lora.clone(), weight), LoraUse::new(lora.clone(), 1.0)];
                watch.tries("patches", || Patches::new(config, model, &uses));
            }
        }
    }
    assert!(loras.len() > 20, "{} LoRAs", loras.len());
    // One model's text encoders with another's file, and numbers of uses that there are not.
    for (model, config) in models.iter().flat_map(|m| configs.iter().map(move |c| (m, c))) {
        for (unet, family) in [(true, Family::Sdxl), (false, Family::Sd1)] {
            let networks = Networks { family, model, unet, text: &config.text };
            let uses = [LoraUse::new(loras[0].clone(), f32::MAX)];
            let patches = watch.tries("a part", || Patches::of_part(&networks, &uses)).unwrap_or_default();
            for at in SIZES {
                let elsewhere = [TargetNetwork::Text(at), TargetNetwork::Unet];
                watch.tries("leftovers", || {
                    Patches::leftovers(&loras[0], family, &[(&patches, at)], &elsewhere)
                });
                watch.runs("the same", || patches.same(&Patches::default(), TargetNetwork::Text(at)));
            }
            let patched = Patched { checkpoint: model, patches: &patches };
            for name in NAMES.into_iter().chain([model.names().next().expect("a tensor")]) {
                watch.tries(name, || {
                    sagittal::internals::engine::WeightSource::read(&patched, name, &[usize::MAX, 0])
                });
            }
        }
    }
    let long = "<lora:".repeat(3000);
    let odd =
        ["<", "<lora:>", "<lora:a:nan>", "<lora:a:1e99>", "<lora:a:b:c:d>", "<lora::>", "<lora:語:1", &long];
    for text in NAMES.into_iter().chain(odd) {
        watch.tries(text, || tags::take(text));
        watch.runs(text, || notes(text).len());
        watch.runs(text, || compose::parts(text).len());
    }
    watch.failures.finish();
}

/// Vectors of any width, or a fault.
#[derive(Debug)]
struct Anything(usize, usize);

impl Vectors for Anything {
    fn find(&self, _: &str) -> Result<Option<Vec<Vec<f32>>>> {
        Ok(Some(vec![vec![f32::NAN; self.1]; self.0]))
    }
}

#[test]
fn prompts_with_any_vectors() {
    let mut watch = Watch::default();
    let tokenizer = Tokenizer::new();
    for (count, width) in [(0, 0), (1, 0), (1, 5), (80, 1), (5000, 2)] {
        let vectors = Anything(count, width);
        for text in ["embedding:a", "embedding:", "a embedding:語, (b embedding:c:0)", " embedding:\0"] {
            for found in [Embeddings::Found(&vectors), Embeddings::Named, Embeddings::Text] {
                for pad in [0, u32::MAX] {
                    watch.tries(text, || chunks_with(&tokenizer, text, pad, found));
                }
            }
        }
    }
    let model = synthetic("tiny-sdxl");
    let encoders = ModelConfig::infer(&model).expect("a model").text;
    let folder = tempfile::tempdir().expect("a folder");
    let file = safetensors([("clip_l", &[2, encoders[0].width][..], &vec![0.5; 2 * encoders[0].width][..])]);
    std::fs::write(folder.path().join("a.safetensors"), file).expect("a file");
    let places =
        EmbeddingSources { loras: vec![], folders: vec![Folder::open(folder.path()).expect("a folder")] };
    for this in SIZES {
        for configs in [&encoders[..], &encoders[..1], &[]] {
            let learned = Learned::new(&places, configs, this);
            for name in NAMES.into_iter().chain(["a", "b"]) {
                watch.tries(name, || learned.find(name));
                watch.runs(name, || {
                    (places.missing(name), matches!(learned.as_embeddings(), Embeddings::Text))
                });
            }
        }
    }
    for name in NAMES {
        let folder = &places.folders[0];
        watch.tries(name, || folder.find(name));
        watch.runs(name, || (folder.missing(name, name).to_string(), folder.names().len()));
        watch.tries(name, || Folder::open(name));
        watch.tries(name, || with_scheduler(name));
        watch.runs(name, || edit_distance(name, "語🦀"));
    }
    let encoding = |context: usize, tokens: usize| encode::Encoding {
        context: vec![1.0; context],
        tokens,
        pooled: None,
        missing_embeddings: vec![],
        embeddings_elsewhere: vec![],
    };
    for (a, b) in pairs() {
        for context in [0, 1, 77] {
            watch.tries("beside", || encoding(context, a).beside(encoding(77 - context, b)));
        }
    }
    for family in [Family::Sd1, Family::Sd2, Family::Sdxl] {
        let facts = family.facts();
        for prediction in [Prediction::Eps, Prediction::V, Prediction::ZeroSnrV, Prediction::Picture] {
            watch.runs("facts", || (facts.native_side(prediction), facts.vae_precision(Precision::F16)));
        }
    }
    watch.failures.finish();
}

#[test]
fn golden_sets_of_any_json() {
    let mut watch = Watch::default();
    let stop = AtomicBool::new(false);
    let no_gpu = || Err(Error::usage("no device here"));
    let kinds = ["model", "sag_node", "noise", "schedules", "tokens", "chunk", "adapters"];
    let sizes =
        ["0", "1", "18446744073709551615", "-1", "1e308", "null", "\"\"", "[]", "{}", "[[]]", "[0, 0]"];
    let keys = [
        "shape",
        "seed",
        "steps",
        "sigma",
        "sigmas",
        "cfg",
        "scale",
        "denoise",
        "draws",
        "height",
        "width",
        "name",
        "blur_sigma",
        "mask_size",
        "attention_size",
        "noise_inds",
        "prompt",
        "ids",
        "weights",
        "family",
        "strengths",
        "synthetic_seed",
        "dtype",
        "scheduler",
        "timestep_of_sigma",
        "sigma_of_timestep",
        "percent_to_sigma",
        "pairs_in_call_order",
        "sag",
        "text",
        "model_keys",
    ];
    let lists = [
        "cases",
        "ancestral",
        "brownian",
        "prompts",
        "schedules",
        "step",
        "run",
        "unet",
        "truth",
        "perturbed",
        "comfyui_behaviour",
    ];
    for kind in kinds {
        for size in sizes {
            let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\": {size}")).collect();
            let object = format!("{{{}}}", members.join(", "));
            let of: Vec<String> =
                lists.iter().map(|list| format!("\"{list}\": [{object}, {size}]")).collect();
            let json = format!("{{\"kind\": \"{kind}\", {}, {}}}", members.join(", "), of.join(", "));
            for tensors in [None, Some(safetensors([("a", &[0][..], &[][..])]))] {
                let set = watch.tries(&json, || Set::parse("\0", &json, tensors.as_deref()));
                let Some(set) = set else { continue };
                let mut verifier = Verifier::new(&no_gpu, Options::default(), &stop);
                watch.tries(&format!("{kind} of {size}"), || verifier.verify(&set, &mut |_| {}));
            }
        }
    }
    for json in ["", "1", "[]", "{\"kind\": 1}", "{\"kind\": \"\"}"] {
        watch.tries(json, || Set::parse("", json, Some(&[1])));
    }
    for (a, b) in pairs() {
        let tensors = [
            ("\0".to_owned(), Tensor::f32(&[a, b], vec![1.0; 4])),
            ("a".to_owned(), Tensor::u8(&[], vec![])),
        ];
        watch.tries("tensors", || write_all(&tensors));
    }
    assert!(watch.refused > 50, "{} refused", watch.refused);
    watch.failures.finish();
}
