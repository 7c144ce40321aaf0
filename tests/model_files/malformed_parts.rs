//! Whatever folder, part or combination of parts is passed: a typed error that names the fault.

use std::fs;
use std::path::Path;

use crate::common::files::{
    Tensor, UNET, VAE, diffusers_unet, diffusers_vae, tensors, transformers_text, under, write,
};
use crate::common::{Failures, MANIFESTS};
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::model::config::ModelConfig;
use sagittal::{ErrorKind, Result};
use serde_json::{Value, json};

fn manifest(name: &str) -> Manifest {
    let (_, json) = MANIFESTS.iter().find(|(n, _)| *n == name).unwrap();
    Manifest::parse(json).unwrap()
}

fn synthetic(name: &str) -> Checkpoint {
    Checkpoint::synthetic(&manifest(name), 0, Dtype::F16).unwrap()
}

/// What must be wrong with an outcome: a kind, and words that the message must hold.
fn judge(case: &str, outcome: Result<()>, kind: ErrorKind, words: &[&str], failures: &mut Failures) {
    match outcome {
        Ok(()) => failures.check(false, || format!("{case}: accepted")),
        Err(e) => {
            let text = e.to_string();
            let absent: Vec<&&str> = words.iter().filter(|w| !text.contains(**w)).collect();
            failures.check(e.kind() == kind && absent.is_empty() && text.len() < 900, || {
                format!("{case}: {:?} lacks {absent:?}: {text}", e.kind())
            });
        }
    }
}

/// Opens `path` and looks at it as `sagittal generate` does before it asks for a device.
fn load(path: &Path) -> Result<()> {
    runnable(&Checkpoint::open(path)?)
}

fn runnable(model: &Checkpoint) -> Result<()> {
    ModelConfig::infer(model)?.runnable(model.file())
}

/// A small tensor: enough for the checks of folders, which come before those of networks.
fn small(name: &str) -> Tensor {
    Tensor { name: name.into(), shape: vec![2], values: vec![0.0; 2] }
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A folder of shards `a` and `b` with one tensor each, and this index.
fn shards(root: &Path, index: &Value) {
    let unet = root.join("unet");
    put(&root.join("model_index.json"), "{}");
    for name in ["a", "b"] {
        write(&unet.join(format!("{name}.safetensors")), &[small(&format!("{name}.w"))], &[], |_| Dtype::F16);
    }
    put(&unet.join("diffusion_pytorch_model.safetensors.index.json"), &index.to_string());
}

#[test]
fn folders_that_are_no_models() {
    use ErrorKind::{File, Model};
    let index = |map: Value| json!({ "metadata": {}, "weight_map": map });
    type Make = Box<dyn Fn(&Path)>;
    let text =
        |file: &'static str, text: &'static str| -> Make { Box::new(move |p| put(&p.join(file), text)) };
    let indexed = |value: Value| -> Make { Box::new(move |p| shards(p, &value)) };
    let unet_of = |files: &'static [&'static str]| -> Make {
        Box::new(move |p| {
            put(&p.join("model_index.json"), "{}");
            files.iter().for_each(|f| write(&p.join("unet").join(f), &[small("w")], &[], |_| Dtype::F16));
        })
    };
    let cases: Vec<(&str, Make, ErrorKind, &[&str])> = vec![
        ("an empty folder", Box::new(|_| ()), File, &["folder of something else", "model_index.json"]),
        ("a folder of pictures", text("cat.png", "x"), File, &["folder of something else"]),
        ("a folder with a model in it", text("sd15.safetensors", "x"), File, &["such as sd15.safetensors"]),
        (
            "an index without a UNet",
            text("model_index.json", r#"{"_class_name": "FluxPipeline"}"#),
            Model,
            &["no UNet", "FluxPipeline"],
        ),
        (
            "an index that is no JSON",
            text("model_index.json", "{"),
            File,
            &["not valid JSON", "model_index.json"],
        ),
        ("an index that is a list", text("model_index.json", "[]"), File, &["list of a pipeline's parts"]),
        ("an empty UNet folder", unet_of(&[]), Model, &["no UNet"]),
        (
            "pickled weights",
            unet_of(&["diffusion_pytorch_model.bin"]),
            File,
            &["not in safetensors", ".bin", "save_pretrained"],
        ),
        (
            "two variants",
            unet_of(&["diffusion_pytorch_model.ema.safetensors", "diffusion_pytorch_model.raw.safetensors"]),
            File,
            &["several variants", "ema", "raw"],
        ),
        (
            "a missing shard",
            indexed(index(json!({ "a.w": "a.safetensors", "b.w": "c.safetensors" }))),
            File,
            &["shard is missing", "c.safetensors"],
        ),
        (
            "a tensor that the shard lacks",
            indexed(index(json!({ "a.w": "a.safetensors", "b.w": "b.safetensors", "c.w": "b.safetensors" }))),
            File,
            &["lists a tensor that its shard lacks", "c.w", "b.safetensors"],
        ),
        (
            "a tensor in another shard",
            indexed(index(json!({ "a.w": "b.safetensors", "b.w": "a.safetensors" }))),
            File,
            &["not where the index says", "a.w"],
        ),
        (
            "a tensor that the index lacks",
            indexed(index(json!({ "a.w": "a.safetensors", "b.v": "b.safetensors" }))),
            File,
            &["not where the index says", "b.w", "nowhere"],
        ),
        (
            "a shard above the folder",
            indexed(index(json!({ "a.w": "../../a.safetensors" }))),
            File,
            &["outside its folder", "../../a.safetensors"],
        ),
        (
            "a shard anywhere",
            indexed(index(json!({ "a.w": "/etc/a.safetensors" }))),
            File,
            &["outside its folder"],
        ),
        ("a shard that is a number", indexed(index(json!({ "a.w": 1 }))), File, &["outside its folder"]),
        ("an index without shards", indexed(index(json!({}))), File, &["impossible number of shards"]),
        ("an index without a map", indexed(json!({ "weights": {} })), File, &["no weight_map"]),
        (
            "an index that is no JSON text",
            Box::new(|p| {
                shards(p, &json!({}));
                put(&p.join("unet/diffusion_pytorch_model.safetensors.index.json"), "{\"weight_map\": {");
            }),
            File,
            &["not valid JSON", "index.json"],
        ),
        (
            "a UNet of something else",
            unet_of(&["diffusion_pytorch_model.safetensors"]),
            Model,
            &["no Stable"],
        ),
    ];
    let mut failures = Failures::default();
    for (case, make, kind, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        judge(case, load(folder.path()), kind, words, &mut failures);
    }
    failures.finish();
}

/// Whole diffusers folders with one thing wrong.
#[test]
fn pipelines_that_cannot_run() {
    let all = tensors(&manifest("tiny-sd1"));
    let prefix = "cond_stage_model.transformer.text_model.";
    let parts = [
        ("unet", "diffusion_pytorch_model", diffusers_unet(&all)),
        ("vae", "diffusion_pytorch_model", diffusers_vae(&all, false)),
        ("text_encoder", "model", transformers_text(&all, prefix)),
    ];
    type Edit = Box<dyn Fn(&str, &mut Vec<Tensor>)>;
    let add = |part: &'static str, name: &'static str| -> Edit {
        Box::new(move |at, tensors| {
            if at == part {
                tensors.push(small(name));
            }
        })
    };
    let drop_name = |part: &'static str, name: &'static str| -> Edit {
        Box::new(move |at, tensors| tensors.retain(|t| at != part || !t.name.contains(name)))
    };
    let nothing = || -> Edit { Box::new(|_, _| ()) };
    let none = ("", "");
    type Case = (&'static str, Edit, (&'static str, &'static str), &'static [&'static str]);
    let cases: Vec<Case> = vec![
        ("sound", nothing(), none, &[]),
        (
            "an unknown part",
            add("unet", "encoder_hid_proj.weight"),
            none,
            &["tensors that no layer takes", "encoder_hid_proj.weight"],
        ),
        (
            "one tensor twice",
            add("vae", "decoder.mid_block.attentions.0.query.weight"),
            none,
            &["two tensors have one name", "decoder.mid.attn_1.q.weight"],
        ),
        ("no text encoder", drop_name("text_encoder", "token_embedding"), none, &["no text encoder"]),
        ("no VAE", drop_name("vae", "conv_in"), none, &["no VAE"]),
        (
            "scales beside a part's weights",
            add("unet", "conv_in.scale_weight"),
            none,
            &["quantised with scales", "conv_in.scale_weight"],
        ),
        (
            "an unknown prediction",
            nothing(),
            ("scheduler/scheduler_config.json", r#"{"prediction_type": "flow_prediction"}"#),
            &["predicts something unknown", "flow_prediction"],
        ),
        (
            "settings that are no JSON",
            nothing(),
            ("scheduler/scheduler_config.json", "prediction"),
            &["not valid JSON", "scheduler_config.json"],
        ),
        (
            "heads of another rule",
            nothing(),
            ("unet/config.json", r#"{"attention_head_dim": [2, 8, 4]}"#),
            &["heads follow no known rule", "[2,8,4]"],
        ),
        (
            "an unknown nonlinearity",
            nothing(),
            ("text_encoder/config.json", r#"{"hidden_act": "relu"}"#),
            &["unknown nonlinearity", "relu"],
        ),
    ];
    let mut failures = Failures::default();
    for (case, edit, (file, text), words) in cases {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("model_index.json"), "{}");
        for (part, base, tensors) in &parts {
            let mut tensors = tensors.clone();
            edit(part, &mut tensors);
            write(&folder.path().join(part).join(format!("{base}.safetensors")), &tensors, &[], |_| {
                Dtype::F16
            });
        }
        if !file.is_empty() {
            put(&folder.path().join(file), text);
        }
        let outcome = load(folder.path());
        if words.is_empty() {
            failures.check(outcome.is_ok(), || format!("{case}: {outcome:?}"));
        } else {
            let kind = if case.contains("no JSON") { ErrorKind::File } else { ErrorKind::Model };
            judge(case, outcome, kind, words, &mut failures);
        }
    }
    failures.finish();
}

/// A family's checkpoint with something changed.
fn edited(family: &str, edit: impl Fn(&mut Manifest)) -> Checkpoint {
    let mut m = manifest(family);
    edit(&mut m);
    Checkpoint::synthetic(&m, 0, Dtype::F16).unwrap()
}

fn only(family: &str, prefix: &str) -> Checkpoint {
    edited(family, |m| m.tensors.retain(|(n, _)| n.starts_with(prefix)))
}

/// SD1 with another number of input channels.
fn first_conv(channels: usize) -> Checkpoint {
    edited("tiny-sd1", |m| {
        let name = format!("{UNET}input_blocks.0.0.weight");
        m.tensors.iter_mut().find(|(n, _)| *n == name).unwrap().1[1] = channels;
    })
}

/// As of SD3: the same network on latents of 16 channels.
fn wide_vae() -> Checkpoint {
    edited("tiny-sd1", |m| {
        for (name, shape) in &mut m.tensors {
            let moments = name.starts_with(&format!("{VAE}quant_conv")) || name.contains("encoder.conv_out");
            if name.starts_with(VAE) && moments {
                shape.iter_mut().for_each(|s| *s = if *s == 8 { 32 } else { *s });
            }
            if name.contains("post_quant_conv") || name.ends_with("decoder.conv_in.weight") {
                shape.iter_mut().for_each(|s| *s = if *s == 4 { 16 } else { *s });
            }
        }
    })
}

/// SD1's text encoder in place of SDXL's, or beside them.
fn mixed(keep: bool) -> Checkpoint {
    edited("tiny-sdxl", |m| {
        m.tensors.retain(|(n, _)| keep || !n.starts_with("conditioner."));
        let sd1 = manifest("tiny-sd1").tensors.into_iter();
        m.tensors.extend(sd1.filter(|(n, _)| n.starts_with("cond_stage_model.")));
    })
}

/// Parts that do not belong together, and files passed in each other's place.
#[test]
fn parts_that_do_not_fit() {
    type Outcome = Box<dyn Fn() -> Result<()>>;
    let cases: Vec<(&str, Outcome, &[&str])> = vec![
        (
            "SDXL as SD1",
            Box::new(|| runnable(&mixed(false))),
            &["one of the two text encoders of SDXL is missing", "bigG", "128 values", "pass a text encoder"],
        ),
        (
            "inpainting",
            Box::new(|| runnable(&first_conv(9))),
            &["not supported", "SD 1, inpainting, 9 input channels"],
        ),
        ("image editing", Box::new(|| runnable(&first_conv(8))), &["not supported", "image editing"]),
        ("depth", Box::new(|| runnable(&first_conv(5))), &["not supported", "depth to image"]),
        (
            "a VAE of another width",
            Box::new(|| runnable(&synthetic("tiny-sd1").with_vae(wide_vae())?)),
            &["UNet and VAE do not fit", "16 latent channels", "4"],
        ),
        (
            "a UNet as VAE",
            Box::new(|| synthetic("tiny-sd1").with_vae(only("tiny-sd1", UNET)).map(drop)),
            &["holds no VAE", "pass a file that holds a VAE"],
        ),
        (
            "half a VAE",
            Box::new(|| {
                let half = only("tiny-sd1", "first_stage_model.decoder.");
                runnable(&synthetic("tiny-sd1").with_vae(half)?)
            }),
            &["missing", "first_stage_model.encoder.conv_in", "pass a VAE"],
        ),
        (
            "a VAE as text encoder",
            Box::new(|| synthetic("tiny-sd1").with_text_encoder(only("tiny-sd1", VAE)).map(drop)),
            &["holds no text encoder"],
        ),
        (
            "SD2's text encoder for SD1",
            Box::new(|| synthetic("tiny-sd1").with_text_encoder(synthetic("tiny-sd2")).map(drop)),
            &["does not fit the UNet", "64 (CLIP-L of SD 1)", "128"],
        ),
        (
            "SD1's text encoder for SD2",
            Box::new(|| synthetic("tiny-sd2").with_text_encoder(synthetic("tiny-sd1")).map(drop)),
            &["does not fit the UNet", "128 (OpenCLIP-H of SD 2)", "64"],
        ),
        (
            "an encoder for a file without a UNet",
            Box::new(|| only("tiny-sd1", VAE).with_text_encoder(synthetic("tiny-sd1")).map(drop)),
            &["holds no UNet"],
        ),
        (
            "a UNet alone",
            Box::new(|| runnable(&only("tiny-sdxl", UNET))),
            &["no text encoder", "pass a text encoder"],
        ),
        (
            "a UNet and one of SDXL's encoders",
            Box::new(|| {
                let first = only("tiny-sdxl", "conditioner.embedders.0.");
                runnable(&only("tiny-sdxl", UNET).with_vae(synthetic("tiny-sdxl"))?.with_text_encoder(first)?)
            }),
            &["one of the two text encoders of SDXL is missing", "bigG", "128 values", "pass a text encoder"],
        ),
    ];
    let mut failures = Failures::default();
    for (case, outcome, words) in cases {
        judge(case, outcome(), ErrorKind::Model, words, &mut failures);
    }
    failures.finish();
}

/// A text encoder whose queries, keys and values cannot be one tensor.
#[test]
fn encoders_that_cannot_be_packed() {
    let all = tensors(&manifest("tiny-sd2"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.safetensors");
    let mut failures = Failures::default();
    let name = "text_model.encoder.layers.1.self_attn.k_proj.weight";
    for (case, broken) in [("missing", None), ("of another shape", Some(vec![128, 64]))] {
        let mut text = transformers_text(&all, "cond_stage_model.model.");
        let at = text.iter().position(|t| t.name == name).unwrap();
        let old = text.remove(at);
        text.extend(broken.map(|shape: Vec<usize>| {
            let values = old.values[..shape.iter().product()].to_vec();
            Tensor { shape, values, ..old }
        }));
        write(&path, &text, &[], |_| Dtype::F16);
        let outcome = Checkpoint::open(&path).and_then(|text| synthetic("tiny-sd2").with_text_encoder(text));
        let words = ["do not make up one tensor", "resblocks.1.attn.in_proj_weight"];
        judge(case, outcome.map(drop), ErrorKind::Model, &words, &mut failures);
    }
    failures.finish();
}

/// Data that starts at an odd byte, and tensors without elements, are sound.
#[test]
fn odd_but_sound() {
    let all = tensors(&manifest("tiny-sd1"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut odd = vec![Tensor { name: "a.b".into(), shape: vec![3, 0], values: vec![] }];
    odd.extend(all.iter().cloned());
    // A tensor of one byte in front moves all others to odd places.
    odd.insert(0, Tensor { name: "a".into(), shape: vec![1], values: vec![0.0] });
    let dtype = |name: &str| if name == "a" { Dtype::F8_E5M2 } else { Dtype::F16 };
    write(&path, &odd, &[], dtype);
    let model = Checkpoint::open(&path).unwrap();
    runnable(&model).unwrap();
    let conv = under(&all, UNET).into_iter().find(|t| t.name == "out.2.weight").unwrap();
    let read = model.read_f32(&format!("{UNET}out.2.weight"), &conv.shape).unwrap();
    assert_eq!(read, crate::common::files::rounded(&conv.values, Dtype::F16));
}
