//! LoRAs: every way to name a module, the sum, and what is refused.

mod adapters;
mod cases;
mod names;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{Failures, MANIFESTS, Rng, gpu, safetensors, synthetic};
use names::{FAMILIES, UNET};
use sagittal::Size;
use sagittal::internals::engine::WeightSource;
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::ModelConfig;
use sagittal::lora::{Patched, Patches, TargetNetwork};
use sagittal::{Checkpoint, ErrorKind, Lora, LoraUse, Model, ModelOptions, Request, embedded};

const UNET_PREFIX: &str = "model.diffusion_model.";

/// Name, shape, values.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn checkpoint(name: &str, tensors: &[Tensor]) -> Checkpoint {
    let file =
        safetensors(tensors.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..])));
    Checkpoint::from_bytes(name, file).expect("a sound file")
}

fn lora(name: &str, tensors: &[Tensor]) -> Arc<Lora> {
    Arc::new(Lora::from_tensors(checkpoint(name, tensors)).expect("a LoRA"))
}

/// Random values of a shape.
fn random(rng: &mut Rng, name: String, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    (name, shape.to_vec(), (0..n).map(|_| rng.value()).collect())
}

/// How a file format writes down and up, and alpha where it has one.
struct Format {
    down: &'static str,
    up: &'static str,
    alpha: Option<f32>,
}

const KOHYA: Format = Format { down: ".lora_down.weight", up: ".lora_up.weight", alpha: Some(3.0) };
const PEFT: Format = Format { down: ".lora_A.weight", up: ".lora_B.weight", alpha: None };
const DIFFUSERS: Format = Format { down: ".lora.down.weight", up: ".lora.up.weight", alpha: Some(6.0) };
const OLD: Format = Format { down: "_lora.down.weight", up: "_lora.up.weight", alpha: None };
const LINEAR: Format =
    Format { down: ".lora_linear_layer.down.weight", up: ".lora_linear_layer.up.weight", alpha: None };

/// A pair of `rank` for a weight of `shape`: the kernel is in `down`.
fn pair(rng: &mut Rng, module: &str, format: &Format, shape: &[usize], rank: usize) -> Vec<Tensor> {
    let mut down = shape.to_vec();
    down[0] = rank;
    let mut up = vec![shape[0], rank];
    up.extend(shape[2..].iter().map(|_| 1));
    let mut tensors = vec![
        random(rng, format!("{module}{}", format.down), &down),
        random(rng, format!("{module}{}", format.up), &up),
    ];
    tensors.extend(format.alpha.map(|alpha| (format!("{module}.alpha"), vec![], vec![alpha])));
    tensors
}

/// up · down in f64, `[outputs, rank]` · `[rank, columns]`.
fn product(up: &[f32], down: &[f32], rank: usize) -> Vec<f64> {
    let columns = down.len() / rank;
    let at = |row: usize, column: usize| -> f64 {
        (0..rank).map(|k| f64::from(up[row * rank + k]) * f64::from(down[k * columns + column])).sum()
    };
    (0..up.len() / rank * columns).map(|i| at(i / columns, i % columns)).collect()
}

/// Largest error over what f32 can lose in a sum of `rank` products and the weight.
fn error(got: &[f32], before: &[f32], change: &[f64], scale: f64) -> f64 {
    assert_eq!((got.len(), before.len()), (change.len(), change.len()));
    let sum = |i: usize| f64::from(before[i]) + scale * change[i];
    (0..got.len()).map(|i| (f64::from(got[i]) - sum(i)).abs() / sum(i).abs().max(1.0)).fold(0.0, f64::max)
}

/// The whole name of a tensor.
fn whole(tensor: &str) -> String {
    let text = tensor.starts_with("cond");
    if text { tensor.to_owned() } else { format!("model.diffusion_model.{tensor}") }
}

#[test]
fn merging_equals_w_plus_weight_alpha_over_rank_up_down() {
    const RANK: usize = 4;
    let mut failures = Failures::default();
    let (mut rng, mut cases, mut worst) = (Rng(1), 0, 0.0f64);
    for (family, own) in FAMILIES {
        let model = synthetic(family);
        let config = ModelConfig::infer(&model).expect("a family");
        for case in UNET.iter().chain(own) {
            let name = whole(case.tensor);
            let shape = model.tensor(&name).unwrap_or_else(|| panic!("{family} lacks {name}")).shape.clone();
            let before = model.read_f32(&name, &shape).expect("weights");
            let mut part = shape.clone();
            if case.third.is_some() {
                part[0] /= 3;
            }
            let kohya = case.kohya.iter().map(|m| (*m, KOHYA));
            let dotted = case.dotted.iter().flat_map(|m| {
                let old = [OLD].into_iter().filter(|_| m.contains(".processor."));
                let today = [PEFT, DIFFUSERS, LINEAR].into_iter().filter(|_| !m.contains(".processor."));
                old.chain(today).map(|format| (*m, format))
            });
            for (module, format) in kohya.chain(dotted) {
                cases += 1;
                let tensors = pair(&mut rng, module, &format, &part, RANK);
                let lora = lora("lora", &tensors);
                let patches = Patches::new(&config, &model, &[LoraUse::new(lora, 0.7)]);
                let patches = match patches {
                    Ok(patches) => patches,
                    Err(e) => {
                        failures.check(false, || format!("{family} {module}: {e}"));
                        continue;
                    }
                };
                let touched: Vec<&str> = patches.tensors().collect();
                failures.check(touched == [name.as_str()], || format!("{family} {module}: {touched:?}"));
                let merged =
                    Patched { checkpoint: &model, patches: &patches }.read(&name, &shape).expect("read");
                let scale = f64::from(0.7f32) * f64::from(format.alpha.unwrap_or(RANK as f32)) / RANK as f64;
                let change = product(&tensors[1].2, &tensors[0].2, RANK);
                let start = change.len() * case.third.unwrap_or(0);
                let end = start + change.len();
                let d = error(&merged[start..end], &before[start..end], &change, scale);
                worst = worst.max(d);
                failures.check(d < 4e-7, || format!("{family} {module}: off by {d:e}"));
                let rest = merged[..start] == before[..start] && merged[end..] == before[end..];
                failures.check(rest, || format!("{family} {module}: other rows changed"));
            }
        }
    }
    println!("{cases} cases, largest relative error {worst:.1e}");
    failures.finish();
}

/// A projection stored as inputs × outputs, a Tucker form, and 1×1 kernels for matrices and back.
#[test]
fn odd_shapes_merge_too() {
    let mut rng = Rng(2);
    let (sd1, sdxl) = (synthetic("tiny-sd1"), synthetic("tiny-sdxl"));
    let merged = |model: &Checkpoint, name: &str, tensors: &[Tensor]| {
        let config = ModelConfig::infer(model).expect("a family");
        let patches =
            Patches::new(&config, model, &[LoraUse::new(lora("lora", tensors), 1.0)]).expect("fits");
        let shape = model.tensor(name).expect("listed").shape.clone();
        let merged = Patched { checkpoint: model, patches: &patches }.read(name, &shape).expect("read");
        (merged, model.read_f32(name, &shape).expect("read"))
    };

    let name = "conditioner.embedders.1.model.text_projection";
    let tensors = pair(&mut rng, "lora_te2_text_projection", &KOHYA, &[128, 128], 3);
    let (got, before) = merged(&sdxl, name, &tensors);
    let straight = product(&tensors[1].2, &tensors[0].2, 3);
    let turned: Vec<f64> = (0..straight.len()).map(|i| straight[i % 128 * 128 + i / 128]).collect();
    assert!(error(&got, &before, &turned, 1.0) < 4e-7, "a transposed projection");

    let name = "model.diffusion_model.input_blocks.5.0.in_layers.2.weight";
    let module = "lora_unet_down_blocks_2_resnets_0_conv1";
    let tensors = [
        random(&mut rng, format!("{module}.lora_down.weight"), &[4, 128, 1, 1]),
        random(&mut rng, format!("{module}.lora_mid.weight"), &[5, 4, 3, 3]),
        random(&mut rng, format!("{module}.lora_up.weight"), &[256, 5, 1, 1]),
    ];
    let (got, before) = merged(&sd1, name, &tensors);
    let [down, mid, up] = [0, 1, 2].map(|i| &tensors[i].2);
    let mut change = vec![0.0; got.len()];
    for (i, c) in change.iter_mut().enumerate() {
        let (o, input, tap) = (i / (128 * 9), i / 9 % 128, i % 9);
        for a in 0..5 {
            for b in 0..4 {
                let product = up[o * 5 + a] as f64 * mid[(a * 4 + b) * 9 + tap] as f64;
                *c += product * down[b * 128 + input] as f64;
            }
        }
    }
    assert!(error(&got, &before, &change, 1.0) < 4e-6, "a Tucker form");

    let name = "model.diffusion_model.input_blocks.3.1.proj_in.weight";
    for (model, shape) in [(&sd1, &[128, 128][..]), (&sdxl, &[128, 128, 1, 1])] {
        let tensors = pair(&mut rng, "lora_unet_down_blocks_1_attentions_0_proj_in", &PEFT, shape, 4);
        let (got, before) = merged(model, name, &tensors);
        let change = product(&tensors[1].2, &tensors[0].2, 4);
        assert!(error(&got, &before, &change, 1.0) < 4e-7, "{shape:?}");
    }
}

/// Names as they are in published files, on the full-size families.
#[test]
fn published_names_are_found() {
    let cases = [
        (
            "sd15",
            "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_v",
            "input_blocks.2.1.transformer_blocks.0.attn2.to_v",
        ),
        ("sd15", "lora_unet_up_blocks_3_attentions_2_proj_out", "output_blocks.11.1.proj_out"),
        ("sd15", "lora_unet_up_blocks_2_upsamplers_0_conv", "output_blocks.8.2.conv"),
        ("sd21", "lora_unet_up_blocks_0_upsamplers_0_conv", "output_blocks.2.1.conv"),
        (
            "sdxl",
            "lora_unet_input_blocks_8_1_transformer_blocks_9_attn1_to_k",
            "input_blocks.8.1.transformer_blocks.9.attn1.to_k",
        ),
        (
            "sdxl",
            "lora_unet_down_blocks_2_attentions_1_transformer_blocks_9_attn1_to_k",
            "input_blocks.8.1.transformer_blocks.9.attn1.to_k",
        ),
        (
            "sdxl",
            "unet.up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2",
            "output_blocks.5.1.transformer_blocks.1.ff.net.2",
        ),
    ];
    let mut rng = Rng(3);
    for (family, module, tensor) in cases {
        let model = synthetic(family);
        let name = format!("model.diffusion_model.{tensor}.weight");
        let tensors = pair(&mut rng, module, &PEFT, &model.tensor(&name).expect(tensor).shape, 1);
        let config = ModelConfig::infer(&model).expect("a family");
        let patches =
            Patches::new(&config, &model, &[LoraUse::new(lora("lora", &tensors), 1.0)]).expect(module);
        assert_eq!(patches.tensors().collect::<Vec<_>>(), [name], "{module}");
    }
}

/// The modules of a model: the tensor, its third, and its original and diffusers' name in its network.
fn modules(model: &Checkpoint, prefix: &str, unet: bool) -> Vec<(String, Option<usize>, [String; 2])> {
    use sagittal::internals::checkpoint::key_maps::{text, unet as names};
    let map = names::from_original(|name| model.has(&format!("{prefix}{name}")));
    let mut modules = Vec::new();
    for tensor in model.names_under(prefix) {
        let (name, bare) =
            (&tensor[prefix.len()..], |name: &str| name.trim_end_matches(".weight").to_owned());
        if unet {
            let diffusers = map.diffusers(name).unwrap_or_else(|| panic!("{name}"));
            let both = [bare(name), bare(&diffusers)];
            modules.extend(name.ends_with(".weight").then(|| (tensor.to_owned(), None, both)));
            continue;
        }
        let transformers = match prefix.ends_with("text_model.") {
            true => vec![name.to_owned()],
            false => text::transformers(name).unwrap_or_default(),
        };
        let layers = ["encoder.layers.", "final_layer_norm.", "embeddings."];
        for (n, own) in transformers.iter().enumerate() {
            if own.ends_with(".weight") && layers.iter().any(|start| own.starts_with(start)) {
                let third = (transformers.len() > 1).then_some(n);
                modules.push((tensor.to_owned(), third, [bare(own), bare(own)]));
            }
        }
    }
    modules
}

/// Every module of UNet and text encoder layers is found under the name that each program writes, and by no other
/// module's name.
#[test]
fn every_program_names_every_module() {
    let mut failures = Failures::default();
    let mut count = 0;
    for (family, _) in MANIFESTS {
        let model = synthetic(family);
        let config = ModelConfig::infer(&model).expect("a family");
        let mut networks = vec![(UNET_PREFIX, true, vec![names::UNET_STYLES])];
        for (i, text) in config.text.iter().enumerate() {
            let styles = match (i, config.text.len()) {
                (0, 1) => vec![names::FIRST_STYLES, names::ONLY_STYLES],
                (0, _) => vec![names::FIRST_STYLES],
                _ => vec![names::SECOND_STYLES],
            };
            networks.push((&text.prefix, false, styles));
        }
        for (prefix, unet, styles) in networks {
            let modules = modules(&model, prefix, unet);
            for style in styles.into_iter().flatten() {
                // One file with a pair for each module, so that two with one name would be reported.
                let mut tensors = Vec::new();
                for (tensor, third, [original, diffusers]) in &modules {
                    let name = if style.original { original } else { diffusers };
                    let name = if style.dots { name.clone() } else { name.replace('.', "_") };
                    let mut shape = model.tensor(tensor).expect("listed").shape.clone();
                    shape[0] /= if third.is_some() { 3 } else { 1 };
                    let end = if shape.len() == 1 { "diff" } else { "set_weight" };
                    tensors.push((format!("{}{name}.{end}", style.before), shape));
                }
                let manifest = sagittal::checkpoint::Manifest {
                    family: "a LoRA".into(),
                    prediction: String::new(),
                    tensors,
                };
                let file =
                    Checkpoint::synthetic(&manifest, 7, sagittal::checkpoint::Dtype::F32).expect("tensors");
                let lora = Lora::from_tensors(file).expect("a LoRA");
                let patches = match Patches::new(&config, &model, &[LoraUse::new(lora, 1.0)]) {
                    Ok(patches) => patches,
                    Err(e) => {
                        failures.check(false, || format!("{family} {}: {e}", style.program));
                        continue;
                    }
                };
                let touched: BTreeSet<&str> = patches.tensors().collect();
                let wanted: BTreeSet<&str> = modules.iter().map(|(tensor, ..)| tensor.as_str()).collect();
                let left_out = patches.left_out().join(" ");
                failures.check(touched == wanted && left_out.is_empty(), || {
                    format!(
                        "{family} {} {}: {} of {}, {left_out}",
                        style.program,
                        prefix,
                        touched.len(),
                        wanted.len()
                    )
                });
                count += modules.len();
            }
        }
    }
    println!("{count} names");
    failures.finish();
}

/// A LoRA of the embedded model that changes its UNet and its text encoder.
fn for_embedded(name: &str, seed: u64) -> Arc<Lora> {
    let mut rng = Rng(seed);
    let model = embedded::checkpoint().expect("embedded");
    let shape = |name: &str| model.tensor(name).unwrap_or_else(|| panic!("no {name}")).shape.clone();
    let unet = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q";
    let text = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1";
    let conv = "model.diffusion_model.input_blocks.0.0";
    let mut tensors = Vec::new();
    for (module, tensor) in [
        ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", unet),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", text),
        ("lora_unet_conv_in", conv),
    ] {
        let mut made = pair(&mut rng, module, &PEFT, &shape(&format!("{tensor}.weight")), 2);
        made.iter_mut().for_each(|t| t.2.iter_mut().for_each(|v| *v *= 0.2));
        tensors.extend(made);
    }
    lora(name, &tensors)
}

#[test]
fn a_picture_with_loras_is_that_of_the_merged_checkpoint() {
    let Some(gpu) = gpu() else { return };
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let mut request = Request::new("panda, noto style", Size::square(64));
    (request.schedule.steps, request.guidance.cfg, request.seed) = (2, 3.5, 5);
    let draw = |model: &Model| model.generate(&request).expect("a picture").latent;
    let (a, b) = (for_embedded("a", 7), for_embedded("b", 8));
    let original = embedded::checkpoint().expect("embedded");
    let mut model =
        Model::new(gpu.clone(), embedded::checkpoint().expect("embedded"), options).expect("model");
    let plain = draw(&model);

    let both = [LoraUse::new(a.clone(), 0.8), LoraUse::new(b.clone(), -0.5)];
    model.set_loras(&both).expect("they fit");
    let with = draw(&model);
    assert_ne!(with.data(), plain.data(), "the LoRAs do something");

    let patches = Patches::new(model.config(), &original, &both).expect("they fit");
    let source = Patched { checkpoint: &original, patches: &patches };
    let merged: Vec<Tensor> = original
        .names()
        .map(|name| {
            let shape = original.tensor(name).expect("listed").shape.clone();
            (name.to_owned(), shape.clone(), source.read(name, &shape).expect("read"))
        })
        .collect();
    let merged = Model::new(gpu, checkpoint("merged", &merged), options).expect("model");
    assert_eq!(draw(&merged).data(), with.data(), "a checkpoint with merged weights");

    model.set_loras(&[both[1].clone(), both[0].clone()]).expect("they fit");
    assert_eq!(draw(&model).data(), with.data(), "the other order");
    let text_only = LoraUse { lora: a.clone(), unet: 0.0, text: 0.8 };
    model.set_loras(&[text_only]).expect("it fits");
    let text = draw(&model);
    assert!(text.data() != plain.data() && text.data() != with.data(), "the text encoder alone");
    model.set_loras(&[LoraUse::new(a, 0.0), LoraUse::new(b, 0.0)]).expect("they fit");
    assert!(model.patches().is_empty());
    assert_eq!(draw(&model).data(), plain.data(), "weight 0");
    model.set_loras(&[]).expect("nothing");
    assert_eq!(draw(&model).data(), plain.data(), "without them again");
}

#[test]
fn several_loras_add_up_in_any_order() {
    let model = embedded::checkpoint().expect("embedded");
    let config = ModelConfig::infer(&model).expect("a family");
    let name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight";
    let shape = model.tensor(name).expect("listed").shape.clone();
    let uses: Vec<LoraUse> =
        (0..3).map(|i| LoraUse::new(for_embedded(&format!("l{i}"), i), 0.3 + i as f32)).collect();
    let read = |order: [usize; 3]| {
        let uses = order.map(|i| uses[i].clone());
        let patches = Patches::new(&config, &model, &uses).expect("they fit");
        Patched { checkpoint: &model, patches: &patches }.read(name, &shape).expect("read")
    };
    let want = read([0, 1, 2]);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(read(order), want, "{order:?}");
    }
    let patches = Patches::new(&config, &model, &uses[..1]).expect("it fits");
    let none = Patches::default();
    let twice = [uses[0].clone(), uses[0].clone()];
    let twice = Patches::new(&config, &model, &twice).expect("it fits");
    assert!(!patches.same(&twice, TargetNetwork::Unet), "the same one twice");
    assert!(!patches.same(&none, TargetNetwork::Unet) && patches.same(&none, TargetNetwork::Text(1)));
}

/// What is wrong with a file or its fit: the kind of error and a word of its message.
#[test]
fn bad_loras_are_refused_with_reasons() {
    let mut rng = Rng(4);
    let mut failures = Failures::default();
    let q = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let good = pair(&mut rng, q, &KOHYA, &[128, 64], 4);
    let zeros =
        |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec(), vec![0.0; shape.iter().product()]);
    let with = |name: &str, shape: &[usize]| {
        let mut tensors = good.clone();
        tensors.push(zeros(name, shape));
        tensors
    };
    let down = format!("{q}.lora_down.weight");
    let up = format!("{q}.lora_up.weight");
    let mut nan_alpha = good.clone();
    nan_alpha[2].2[0] = f32::NAN;
    let cases: Vec<(&str, Vec<Tensor>, &str)> = vec![
        ("empty", vec![], "without tensors"),
        ("no up", vec![good[0].clone()], "up, or B"),
        ("no down", vec![good[1].clone(), good[2].clone()], "down, or A"),
        ("alpha alone", vec![good[2].clone()], "no LoRA"),
        ("mid alone", vec![zeros(&format!("{q}.lora_mid.weight"), &[4, 4, 3, 3])], "matrices"),
        ("NaN alpha", nan_alpha, "not a finite number"),
        ("two alphas", [&good[..2], &[zeros(&format!("{q}.alpha"), &[2])]].concat(), "one number"),
        ("half a LoHa", with(&format!("{q}.hada_w1_a"), &[4, 4]), "hada_w1_b"),
        ("half a LoKr", with(&format!("{q}.lokr_w1"), &[4, 4]), "lokr_w2_a"),
        ("a DoRA's lengths alone", with("unet.a.lora_magnitude_vector", &[128]), "matrices"),
        ("half a GLoRA", with(&format!("{q}.a1.weight"), &[4, 4]), "a2"),
        ("IA3", with(&format!("{q}.on_input"), &[4]), "IA3"),
        ("PEFT's OFT", with("unet.a.oft_R.weight", &[4]), "OFT"),
        ("checkpoint", vec![zeros("model.diffusion_model.out.2.weight", &[4, 4, 3, 3])], "a checkpoint"),
        ("embedding", vec![zeros("emb_params", &[2, 64])], "use it as an embedding"),
        ("other", vec![zeros("foo", &[2])], "such as foo"),
        (
            "the same twice",
            [&good[..], &[zeros(&format!("{q}.lora_A.weight"), &[4, 64])]].concat(),
            "same thing",
        ),
    ];
    for (case, tensors, word) in cases {
        match Lora::from_tensors(checkpoint("bad", &tensors)) {
            Ok(_) => failures.check(false, || format!("{case}: accepted")),
            Err(e) => failures.check(e.kind() == ErrorKind::Model && e.to_string().contains(word), || {
                format!("{case}: {:?} {e}", e.kind())
            }),
        }
    }

    let model = synthetic("tiny-sd1");
    let config = ModelConfig::infer(&model).expect("a family");
    let mut nan = good.clone();
    nan[0].2[3] = f32::NAN;
    let sdxl = pair(
        &mut rng,
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
        &KOHYA,
        &[640, 2048],
        4,
    );
    let te2 = pair(&mut rng, "lora_te2_text_model_encoder_layers_0_mlp_fc1", &KOHYA, &[512, 128], 4);
    let flux = pair(&mut rng, "lora_unet_double_blocks_0_img_attn_proj", &KOHYA, &[64, 64], 4);
    let ranks = vec![zeros(&down, &[4, 64]), zeros(&up, &[128, 5])];
    let rank0 = vec![zeros(&down, &[0, 64]), zeros(&up, &[128, 0])];
    let flat = vec![zeros(&down, &[256]), zeros(&up, &[128, 4])];
    let kernel = vec![zeros(&down, &[4, 64, 3, 3]), zeros(&up, &[128, 4, 1, 1])];
    let cases: Vec<(&str, Vec<Tensor>, &[&str])> = vec![
        (
            "SDXL's width",
            sdxl,
            &["[128, 64]", "[640, 2048]", "seems to be made for SDXL", "pass one made for SD 1"],
        ),
        ("SDXL's encoder", te2, &["seems to be made for SDXL", "1 of 1"]),
        ("Flux", flux, &["diffusion transformer"]),
        ("ranks", ranks, &["[128, 5]", "[4, 64]", "do not fit each other"]),
        ("rank 0", rank0, &["do not fit each other"]),
        ("one dimension", flat, &["do not fit each other"]),
        ("a kernel for a matrix", kernel, &["[128, 64, 3, 3]", "of this size"]),
    ];
    for (case, tensors, words) in cases {
        match Patches::new(&config, &model, &[LoraUse::new(lora("bad", &tensors), 1.0)]) {
            Ok(_) => failures.check(false, || format!("{case}: accepted")),
            Err(e) => {
                let left_out = words.iter().all(|w| e.to_string().contains(w));
                failures.check(e.kind() == ErrorKind::Model && left_out, || {
                    format!("{case}: {:?} {e}", e.kind())
                });
            }
        }
    }
    let e = Patches::new(&config, &model, &[LoraUse::new(lora("l", &good), f32::NAN)]).map(drop).unwrap_err();
    failures.check(e.kind() == ErrorKind::Usage, || format!("weight NaN: {e}"));

    // Values are looked at when they are read.
    let patches = Patches::new(&config, &model, &[LoraUse::new(lora("nan", &nan), 1.0)]).expect("fits");
    let name = whole("input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight");
    let e = Patched { checkpoint: &model, patches: &patches }.read(&name, &[128, 64]).unwrap_err();
    failures.check(e.to_string().contains("nan: a weight is not a finite number"), || format!("NaN: {e}"));

    // Finite values whose sum is not.
    let mut huge = good.clone();
    (huge[0].2[0], huge[1].2[0]) = (3e38, 3e38);
    let patches = Patches::new(&config, &model, &[LoraUse::new(lora("huge", &huge), 1.0)]).expect("fits");
    let e = Patched { checkpoint: &model, patches: &patches }.read(&name, &[128, 64]).unwrap_err();
    failures.check(e.to_string().contains("leaves the range of f32"), || format!("huge: {e}"));
    let mut alpha = good.clone();
    alpha[2].2[0] = 3e38;
    let e = Patches::new(&config, &model, &[LoraUse::new(lora("l", &alpha), 1e9)]).map(drop).unwrap_err();
    failures.check(e.to_string().contains("too large"), || format!("alpha: {e}"));

    // A module too many is left out, as ComfyUI does.
    let more = [good, pair(&mut rng, "lora_unet_no_such_module", &KOHYA, &[4, 4], 4)].concat();
    let patches = Patches::new(&config, &model, &[LoraUse::new(lora("more", &more), 1.0)]).expect("fits");
    let left_out = patches.left_out().join("\n");
    let right = patches.tensors().count() == 1 && left_out.contains("1 of 2 LoRA keys fit nothing");
    failures.check(right, || format!("a module too many: {left_out}"));
    failures.finish();
}
