//! What nodes of models, prompts and samplers do, held to the library's own calls bit for bit.

use std::fs;
use std::sync::Arc;

use crate::common::workflow::{Home, NEG, POS, add, device_context, manifest, options, set};
use crate::common::workflow_bench::{Bench, SD1, same, sampling, small};
use crate::common::{Failures, Rng, files, safetensors};
use sagittal::Size;
use sagittal::checkpoint::Dtype;
use sagittal::guidance::{Area, Conditioning, Entry, Guidance, Perturbed};
use sagittal::image::{Mask, Picture, png};
use sagittal::lora::{Lora, LoraUse};
use sagittal::pipeline::{Model, Sampling, Schedule, Sizes};
use sagittal::sampler::Scheduler;
use sagittal::{Checkpoint, Latent};
use serde_json::{Value as Json, json};

#[test]
fn prompts_and_what_is_made_of_them() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let (pos, neg) = (bench.entry(POS), bench.entry(NEG));
    let mut failures = Failures::default();
    let mut case = |what: &str,
                    nodes: &[(&str, &str, Json)],
                    links: Json,
                    positive: Vec<Entry>,
                    negative: Vec<Entry>| {
        let mut workflow = small(SD1);
        add(&mut workflow, "20", "CLIPTextEncode", json!({ "text": "an astronaut", "clip": ["4", 1] }));
        for (id, class, inputs) in nodes {
            add(&mut workflow, id, class, inputs.clone());
        }
        set(&mut workflow, "3", links);
        same(&mut failures, what, &bench.run(&workflow), &bench.sample(positive, negative, &sampling()));
    };
    let other = bench.entry("an astronaut");
    case("plain", &[], json!({}), vec![pos.clone()], vec![neg.clone()]);
    let combine = |a: &str, b: &str| json!({ "conditioning_1": [a, 0], "conditioning_2": [b, 0] });
    let two = vec![neg.clone(), other.clone()];
    for (what, inputs) in [("two negatives", combine("7", "20")), ("swapped", combine("20", "7"))] {
        case(
            what,
            &[("21", "ConditioningCombine", inputs)],
            json!({ "negative": ["21", 0] }),
            vec![pos.clone()],
            two.clone(),
        );
    }
    let joined = vec![pos.concat(&other).expect("one family")];
    let inputs = json!({ "conditioning_to": ["6", 0], "conditioning_from": ["20", 0] });
    case(
        "concat",
        &[("21", "ConditioningConcat", inputs)],
        json!({ "positive": ["21", 0] }),
        joined,
        vec![neg.clone()],
    );
    let mixed = vec![pos.average(&other, 0.25).expect("one family")];
    let inputs = json!({ "conditioning_to": ["6", 0], "conditioning_from": ["20", 0], "conditioning_to_strength": 0.25 });
    case(
        "average",
        &[("21", "ConditioningAverage", inputs)],
        json!({ "positive": ["21", 0] }),
        mixed,
        vec![neg.clone()],
    );
    let zero = [("21", "ConditioningZeroOut", json!({ "conditioning": ["7", 0] }))];
    case("zero out", &zero, json!({ "negative": ["21", 0] }), vec![pos.clone()], vec![neg.zeroed()]);
    let range = json!({ "conditioning": ["20", 0], "start": 0.0, "end": 0.4 });
    let nodes =
        [("21", "ConditioningSetTimestepRange", range), ("22", "ConditioningCombine", combine("6", "21"))];
    let early = Entry { end: 0.4, ..other.clone() };
    case("range", &nodes, json!({ "positive": ["22", 0] }), vec![pos.clone(), early], vec![neg.clone()]);
    let area =
        json!({ "conditioning": ["20", 0], "width": 64, "height": 64, "x": 16, "y": 8, "strength": 1.5 });
    let nodes = [("21", "ConditioningSetArea", area), ("22", "ConditioningCombine", combine("6", "21"))];
    let rectangle = Some(Area { y: 1, x: 2, height: 8, width: 8 });
    let there = Entry { area: rectangle, strength: 1.5, ..other.clone() };
    case("area", &nodes, json!({ "positive": ["22", 0] }), vec![pos.clone(), there], vec![neg.clone()]);
    let area = json!({ "conditioning": ["20", 0], "width": 0.5, "height": 0.5, "x": 0.5, "y": 0.25, "strength": 1.0 });
    let nodes = [
        ("21", "ConditioningSetAreaPercentage", area),
        ("23", "ConditioningSetAreaStrength", json!({ "conditioning": ["21", 0], "strength": 0.5 })),
        ("22", "ConditioningCombine", combine("6", "23")),
    ];
    let parts = Some(Area::of_parts(0.5, 0.25, 0.5, 0.5, Size::new(8, 9)));
    let there = Entry { area: parts, strength: 0.5, ..other.clone() };
    case(
        "area in parts",
        &nodes,
        json!({ "positive": ["22", 0] }),
        vec![pos.clone(), there],
        vec![neg.clone()],
    );
    // The left half, in pixels.
    let half: Vec<f32> = (0..72 * 64).map(|i| f32::from(i % 64 < 32)).collect();
    let rgb = half.iter().flat_map(|v| [(255.0 * v) as u8; 3]).collect();
    let picture = png::encode(&Picture { width: 64, height: 72, rgb }, &[]).expect("a PNG");
    fs::write(bench.home.at("input/half.png"), picture).expect("a file");
    let mask = Mask::new(Size::new(64, 72), half).expect("a mask").to_latent(Size::new(8, 9));
    for (bounds, area) in [("default", None), ("mask bounds", Some(Area { y: 0, x: 0, height: 9, width: 8 }))]
    {
        let nodes = [
            ("23", "LoadImageMask", json!({ "image": "half.png", "channel": "red" })),
            (
                "21",
                "ConditioningSetMask",
                json!({
                "conditioning": ["20", 0], "mask": ["23", 0], "strength": 2.0, "set_cond_area": bounds }),
            ),
            ("22", "ConditioningCombine", combine("6", "21")),
        ];
        let masked =
            Entry { mask: Some(Arc::new(mask.data().to_vec())), strength: 2.0, area, ..other.clone() };
        case(bounds, &nodes, json!({ "positive": ["22", 0] }), vec![pos.clone(), masked], vec![neg.clone()]);
    }
    failures.finish();
}

#[test]
fn guidance_and_what_the_output_means() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let (pos, neg) = (vec![bench.entry(POS)], vec![bench.entry(NEG)]);
    let mut failures = Failures::default();
    let plain = bench.run(&small(SD1));
    // SAG at one sampler and not at another of the same model.
    let mut two = small(SD1);
    let mut without = two["3"]["inputs"].clone();
    without["model"] = json!(["4", 0]);
    add(&mut two, "30", "KSampler", without);
    add(&mut two, "91", "SaveLatent", json!({ "samples": ["30", 0], "filename_prefix": "second" }));
    let saved = bench.home.run(&bench.device_context, &two).expect("both");
    let read = |node: &str| {
        crate::common::workflow::read_latent(&saved.iter().find(|s| s.node == node).expect(node).path)
    };
    same(&mut failures, "with SAG", &read("90"), &plain);
    let off = Sampling { guidance: Guidance::new(7.0), ..sampling() };
    same(&mut failures, "without SAG", &read("91"), &bench.sample(pos.clone(), neg.clone(), &off));
    failures.check(read("90") != read("91"), || "SAG does nothing".into());
    // Rescaled guidance: nothing taken back changes only roundings, all of it the contrast.
    let rescaled = |multiplier: f64| {
        let mut workflow = small(SD1);
        add(&mut workflow, "31", "RescaleCFG", json!({ "model": ["10", 0], "multiplier": multiplier }));
        set(&mut workflow, "3", json!({ "model": ["31", 0] }));
        bench.run(&workflow)
    };
    let spread = |l: &Latent| l.data().iter().map(|v| v * v).sum::<f32>();
    let far = rescaled(0.0)
        .zip(&plain, |a, b| (a - b).abs())
        .expect("one shape")
        .data()
        .iter()
        .copied()
        .fold(0.0, f32::max);
    failures.check(far < 2e-2, || format!("multiplier 0 differs by {far}"));
    failures.check(spread(&rescaled(1.0)) < 0.8 * spread(&plain), || "no contrast was taken back".into());
    // Two SAG nodes would shadow each other in ComfyUI.
    let mut twice = small(SD1);
    add(
        &mut twice,
        "31",
        "SelfAttentionGuidance",
        json!({ "model": ["10", 0], "scale": 1.0, "blur_sigma": 1.0 }),
    );
    set(&mut twice, "3", json!({ "model": ["31", 0] }));
    let error = bench.home.run(&bench.device_context, &twice).expect_err("refused").to_string();
    failures.check(error.contains("node 31") && error.contains("already"), || error);
    // PAG at scale 0 is none.
    let mut workflow = small(SD1);
    add(&mut workflow, "31", "PerturbedAttentionGuidance", json!({ "model": ["10", 0], "scale": 0.0 }));
    set(&mut workflow, "3", json!({ "model": ["31", 0] }));
    same(&mut failures, "PAG at 0", &bench.run(&workflow), &plain);
    // Two in a row add up, beside SAG.
    add(&mut workflow, "32", "PerturbedAttentionGuidance", json!({ "model": ["31", 0], "scale": 1.5 }));
    set(&mut workflow, "31", json!({ "scale": 2.0 }));
    set(&mut workflow, "3", json!({ "model": ["32", 0] }));
    let guidance = Guidance::default().with(Perturbed::pag(2.0)).with(Perturbed::pag(1.5));
    let twice = Sampling { guidance, ..sampling() };
    same(&mut failures, "PAG twice", &bench.run(&workflow), &bench.sample(pos.clone(), neg.clone(), &twice));
    // What the output means.
    let meant = |sampling: &str, zsnr: bool| {
        let mut workflow = small(SD1);
        let inputs = json!({ "model": ["10", 0], "sampling": sampling, "zsnr": zsnr });
        add(&mut workflow, "31", "ModelSamplingDiscrete", inputs);
        set(&mut workflow, "3", json!({ "model": ["31", 0], "cfg": 1.5 }));
        bench.run(&workflow)
    };
    let v = sagittal::pipeline::ModelOptions {
        prediction: Some(sagittal::internals::model::Prediction::V),
        ..options().model
    };
    let checkpoint =
        Arc::new(Checkpoint::open(bench.home.at("models/checkpoints").join(SD1)).expect("a file"));
    let v = Model::open_in(bench.device_context.clone(), checkpoint, &v).expect("a model");
    let conditioning = Conditioning { positive: pos, negative: neg };
    let guidance = Guidance { cfg: 1.5, ..Guidance::default() };
    let run = Sampling { guidance, ..sampling() };
    let by_v = v.sample(&conditioning, &run, &mut |_| {}, &bench.cancel).expect("v");
    same(&mut failures, "v", &meant("v_prediction", false), &by_v);
    let mut usual = small(SD1);
    set(&mut usual, "3", json!({ "cfg": 1.5 }));
    let eps = meant("eps", false);
    same(&mut failures, "eps", &eps, &bench.run(&usual));
    let others = [meant("v_prediction", true), meant("x0", false), meant("lcm", false)];
    for (i, a) in others.iter().enumerate() {
        failures
            .check(a.is_finite() && *a != eps && others[..i].iter().all(|b| b != a), || format!("kind {i}"));
    }
    failures.finish();
}

#[test]
fn loras_at_different_places() {
    let Some(mut bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    bench.put_style();
    let loader = |model: &str, strengths: (f64, f64)| {
        json!({ "model": [model, 0], "clip": ["4", 1], "lora_name": "style/ink.safetensors",
                "strength_model": strengths.0, "strength_clip": strengths.1 })
    };
    let with = |strengths: (f64, f64)| {
        let mut w = small(SD1);
        add(&mut w, "30", "LoraLoader", loader("4", strengths));
        set(&mut w, "10", json!({ "model": ["30", 0] }));
        for id in ["6", "7"] {
            set(&mut w, id, json!({ "clip": ["30", 1] }));
        }
        w
    };
    let plain = bench.run(&small(SD1));
    let lora = Arc::new(Lora::open(bench.home.at("models/loras/style/ink.safetensors")).expect("a LoRA"));
    for strengths in [(0.0, 0.0), (0.5, 0.0), (0.0, -0.5), (0.5, 0.25)] {
        let found = bench.run(&with(strengths));
        let one =
            LoraUse { unet: strengths.0 as f32, text: strengths.1 as f32, ..LoraUse::new(lora.clone(), 0.0) };
        bench.model.set_loras(&[one]).expect("it fits");
        let want = bench.sample(vec![bench.entry(POS)], vec![bench.entry(NEG)], &sampling());
        same(&mut failures, &format!("{strengths:?}"), &found, &want);
        failures.check((found == plain) == (strengths == (0.0, 0.0)), || format!("{strengths:?} and none"));
    }
    // Twice half is the whole, but for rounding; for the model alone.
    let mut twice = small(SD1);
    for (id, model) in [("30", "4"), ("31", "30")] {
        add(
            &mut twice,
            id,
            "LoraLoaderModelOnly",
            json!({
            "model": [model, 0], "lora_name": "style\\ink.safetensors", "strength_model": 0.25 }),
        );
    }
    set(&mut twice, "10", json!({ "model": ["31", 0] }));
    let far = bench.run(&twice).zip(&bench.run(&with((0.5, 0.0))), |a, b| (a - b).abs()).expect("one shape");
    let far = far.data().iter().copied().fold(0.0, f32::max);
    failures.check(far < 1e-2, || format!("twice half differs by {far}"));
    // At one sampler and not at the next.
    let mut one = with((0.5, 0.25));
    let mut second = small(SD1)["3"]["inputs"].clone();
    second["model"] = json!(["32", 0]);
    add(
        &mut one,
        "32",
        "SelfAttentionGuidance",
        json!({ "model": ["4", 0], "scale": 0.5, "blur_sigma": 2.0 }),
    );
    for (id, text) in [("36", POS), ("37", NEG)] {
        add(&mut one, id, "CLIPTextEncode", json!({ "text": text, "clip": ["4", 1] }));
    }
    second["positive"] = json!(["36", 0]);
    second["negative"] = json!(["37", 0]);
    add(&mut one, "33", "KSampler", second);
    add(&mut one, "91", "SaveLatent", json!({ "samples": ["33", 0], "filename_prefix": "second" }));
    let saved = bench.home.run(&bench.device_context, &one).expect("both");
    let file = &saved.iter().find(|s| s.node == "91").expect("saved").path;
    same(&mut failures, "without, beside one with", &crate::common::workflow::read_latent(file), &plain);
    failures.finish();
}

#[test]
fn clip_skip_and_embeddings() {
    let Some(mut bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let mut workflow = small(SD1);
    add(&mut workflow, "30", "CLIPSetLastLayer", json!({ "clip": ["4", 1], "stop_at_clip_layer": -2 }));
    for id in ["6", "7"] {
        set(&mut workflow, id, json!({ "clip": ["30", 0] }));
    }
    let entry = |prompt: &str| {
        bench.model.encode(prompt, Some(2), Sizes::of(Size::new(64, 72)), &bench.cancel).expect("text")
    };
    let want = bench.sample(vec![entry(POS)], vec![entry(NEG)], &sampling());
    same(&mut failures, "clip skip", &bench.run(&workflow), &want);
    // Beyond the first layer ComfyUI takes the last.
    set(&mut workflow, "30", json!({ "stop_at_clip_layer": -24 }));
    same(&mut failures, "no such layer", &bench.run(&workflow), &bench.run(&small(SD1)));
    let width = bench.model.text_encoders().configs()[0].width;
    let mut rng = Rng(4);
    let vectors: Vec<f32> = (0..2 * width).map(|_| rng.value()).collect();
    let file = safetensors([("emb_params", &[2, width][..], &vectors[..])]);
    fs::write(bench.home.at("models/embeddings/moss.safetensors"), file).expect("a file");
    let mut workflow = small(SD1);
    set(&mut workflow, "6", json!({ "text": "a embedding:moss cat" }));
    let folder =
        sagittal::internals::folder::Folder::open(bench.home.at("models/embeddings")).expect("a folder");
    bench.model.set_embedding_folder(Some(folder));
    let want = bench.sample(vec![bench.entry("a embedding:moss cat")], vec![bench.entry(NEG)], &sampling());
    let found = bench.run(&workflow);
    same(&mut failures, "embedding", &found, &want);
    failures.finish();
}

/// UNet, text encoders and VAE in files of their own give what the checkpoint gives.
#[test]
fn parts_from_files_of_their_own() {
    let mut failures = Failures::default();
    for (family, encoders) in [
        ("tiny-sd1", &["cond_stage_model.transformer.text_model."][..]),
        ("tiny-sd2", &["cond_stage_model.model."]),
        ("tiny-sdxl", &["conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."]),
    ] {
        let Some(bench) = Bench::new(family) else { return };
        let manifest = manifest(family);
        let all = files::tensors(&manifest);
        let metadata = [("modelspec.prediction_type", manifest.prediction.as_str())];
        let put = |name: &str, tensors: &[files::Tensor]| {
            files::write(&bench.home.at(name), tensors, &metadata, |_| Dtype::F16)
        };
        put("models/unet/unet.safetensors", &files::under(&all, files::UNET));
        put("models/vae/vae.safetensors", &files::under(&all, files::VAE));
        // OpenCLIP's own naming where it has one: transformers' would not tell SD 2's from SD 1's.
        let text = |prefix: &str| match prefix.ends_with("text_model.") {
            true => files::transformers_text(&all, prefix),
            false => files::under(&all, prefix),
        };
        put("models/clip/first.safetensors", &text(encoders[0]));
        let mut workflow = small(&format!("{family}.safetensors"));
        let whole = bench.run(&workflow);
        add(
            &mut workflow,
            "30",
            "UNETLoader",
            json!({ "unet_name": "unet.safetensors", "weight_dtype": "default" }),
        );
        add(
            &mut workflow,
            "31",
            "CLIPLoader",
            json!({ "clip_name": "first.safetensors", "type": "stable_diffusion" }),
        );
        if let Some(second) = encoders.get(1) {
            put("models/text_encoders/second.safetensors", &text(second));
            add(
                &mut workflow,
                "31",
                "DualCLIPLoader",
                json!({
                "clip_name1": "second.safetensors", "clip_name2": "first.safetensors", "type": "sdxl" }),
            );
        }
        add(&mut workflow, "32", "VAELoader", json!({ "vae_name": "vae.safetensors" }));
        set(&mut workflow, "10", json!({ "model": ["30", 0] }));
        for id in ["6", "7"] {
            set(&mut workflow, id, json!({ "clip": ["31", 0] }));
        }
        add(&mut workflow, "33", "VAEDecode", json!({ "samples": ["3", 0], "vae": ["32", 0] }));
        add(&mut workflow, "34", "SaveImage", json!({ "images": ["33", 0], "filename_prefix": "x" }));
        workflow.as_object_mut().expect("nodes").remove("4");
        let saved =
            bench.home.run(&bench.device_context, &workflow).unwrap_or_else(|e| panic!("{family}: {e}"));
        let latent = saved.iter().find(|s| s.node == "90").expect("a latent");
        same(&mut failures, family, &crate::common::workflow::read_latent(&latent.path), &whole);
        let picture = saved.iter().find(|s| s.node == "34").expect("a picture");
        let picture = sagittal::image::read::picture(&picture.path).expect("a PNG");
        failures.check(picture == bench.decode(&whole), || format!("{family}: the picture"));
    }
    failures.finish();
}

#[test]
fn sdxl_is_told_sizes() {
    let Some(bench) = Bench::new("tiny-sdxl") else { return };
    let mut failures = Failures::default();
    let ckpt = "tiny-sdxl.safetensors";
    let with = |l: &str, g: &str, target: (usize, usize)| {
        let mut w = small(ckpt);
        add(
            &mut w,
            "6",
            "CLIPTextEncodeSDXL",
            json!({
            "clip": ["4", 1], "text_l": l, "text_g": g, "width": 64, "height": 72, "crop_w": 0, "crop_h": 0,
            "target_width": target.0, "target_height": target.1 }),
        );
        bench.run(&w)
    };
    let plain = bench.run(&small(ckpt));
    same(&mut failures, "one text, the latent's own size", &with(POS, POS, (64, 72)), &plain);
    let sizes = Sizes { target: Size::new(400, 500), ..Sizes::of(Size::new(64, 72)) };
    let encoded = bench.model.encode(POS, None, sizes, &bench.cancel).expect("text");
    let want = bench.sample(vec![encoded], vec![bench.entry(NEG)], &sampling());
    same(&mut failures, "another target", &with(POS, POS, (400, 500)), &want);
    let long = "a very detailed painting of a city by the sea, ".repeat(9);
    let others = [with(POS, NEG, (64, 72)), with(&long, POS, (64, 72)), with(POS, &long, (64, 72))];
    for (i, other) in others.iter().enumerate() {
        failures
            .check(other.is_finite() && *other != plain && others[..i].iter().all(|o| o != other), || {
                format!("texts {i}")
            });
    }
    failures.finish();
}

/// What does not belong together says so, with the node.
#[test]
fn parts_of_different_families() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1", "tiny-sdxl"]);
    let mut failures = Failures::default();
    let mut refused = |what: &str, w: &Json, words: &[&str]| match home.run(&device_context, w) {
        Ok(_) => failures.check(false, || format!("{what}: it ran")),
        Err(e) => {
            let error = e.to_string();
            failures.check(words.iter().all(|word| error.contains(word)), || format!("{what}: {error}"));
        }
    };
    let mut mixed = small(SD1);
    add(&mut mixed, "30", "CheckpointLoaderSimple", json!({ "ckpt_name": "tiny-sdxl.safetensors" }));
    set(&mut mixed, "6", json!({ "clip": ["30", 1] }));
    refused("SDXL's prompt for SD 1", &mixed, &["node 3 (KSampler)", "values a token", "SD 1"]);
    set(&mut mixed, "3", json!({ "positive": ["31", 0] }));
    add(
        &mut mixed,
        "31",
        "ConditioningConcat",
        json!({ "conditioning_to": ["7", 0], "conditioning_from": ["6", 0] }),
    );
    refused("prompts of two families", &mixed, &["node 31 (ConditioningConcat)", "values a token"]);
    let mut sizes = small(SD1);
    add(
        &mut sizes,
        "6",
        "CLIPTextEncodeSDXL",
        json!({
        "clip": ["4", 1], "text_l": "", "text_g": "", "width": 64, "height": 64, "crop_w": 0, "crop_h": 0,
        "target_width": 64, "target_height": 64 }),
    );
    refused("sizes for SD 1", &sizes, &["node 6 (CLIPTextEncodeSDXL)", "SDXL", "CLIPTextEncode"]);
    let mut early = small(SD1);
    let range = json!({ "conditioning": ["7", 0], "start": 0.5, "end": 1.0 });
    add(&mut early, "30", "ConditioningSetTimestepRange", range);
    set(&mut early, "3", json!({ "negative": ["30", 0] }));
    refused("no negative at first", &early, &["node 3 (KSampler)", "no conditioning is active"]);
    failures.finish();
}

/// Noise levels, noise and guiders as nodes of their own.
#[test]
fn parts_of_a_sampler() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let mut parts = small(SD1);
    add(&mut parts, "20", "KSamplerSelect", json!({ "sampler_name": "euler" }));
    add(
        &mut parts,
        "21",
        "ExponentialScheduler",
        json!({ "steps": 3, "sigma_max": 14.614642, "sigma_min": 0.0291672 }),
    );
    add(&mut parts, "22", "RandomNoise", json!({ "noise_seed": 7 }));
    add(&mut parts, "23", "DisableNoise", json!({}));
    add(&mut parts, "24", "BasicGuider", json!({ "model": ["4", 0], "conditioning": ["6", 0] }));
    add(&mut parts, "25", "SplitSigmas", json!({ "sigmas": ["21", 0], "step": 2 }));
    let advanced = |noise: &str, sigmas: Json, latent: Json| json!({ "noise": [noise, 0], "guider": ["24", 0], "sampler": ["20", 0], "sigmas": sigmas, "latent_image": latent });
    let mut whole = parts.clone();
    add(&mut whole, "3", "SamplerCustomAdvanced", advanced("22", json!(["21", 0]), json!(["5", 0])));
    let guided = bench.run(&whole);
    let plain = Sampling {
        guidance: Guidance::new(1.0),
        levels: Schedule::new(Scheduler::Exponential, 3).into(),
        ..sampling()
    };
    let want = bench.sample(vec![bench.entry(POS)], vec![bench.entry(NEG)], &plain);
    let far = |a: &Latent, b: &Latent| {
        a.zip(b, |x, y| (x - y).abs()).expect("one shape").data().iter().copied().fold(0.0, f32::max)
    };
    failures
        .check(far(&guided, &want) < 2e-3, || format!("the basic guider differs by {}", far(&guided, &want)));
    // The last prediction is the latent where the run ends without noise.
    set(&mut whole, "90", json!({ "samples": ["3", 1] }));
    failures.check(far(&bench.run(&whole), &guided) < 1e-4, || "the prediction at the end".into());
    let mut halves = parts.clone();
    add(&mut halves, "30", "SamplerCustomAdvanced", advanced("22", json!(["25", 0]), json!(["5", 0])));
    add(&mut halves, "3", "SamplerCustomAdvanced", advanced("23", json!(["25", 1]), json!(["30", 0])));
    let two = bench.run(&halves);
    failures.check(far(&two, &guided) < 2e-3, || format!("two halves differ by {}", far(&two, &guided)));
    set(&mut halves, "90", json!({ "samples": ["30", 1] }));
    failures.check(far(&bench.run(&halves), &two) > 1e-2, || "the prediction in the middle".into());
    // What needs a negative prompt says so.
    set(&mut whole, "24", json!({ "model": ["10", 0] }));
    let error = bench.home.run(&bench.device_context, &whole).expect_err("refused").to_string();
    failures.check(error.contains("negative") && error.contains("CFGGuider"), || error);
    failures.finish();
}

/// A class that no test knows is a class that may do anything.
#[test]
fn every_class_is_in_some_test() {
    let tests = [
        include_str!("nodes.rs"),
        include_str!("golden.rs"),
        include_str!("../common/workflow.rs"),
        include_str!("formats.rs"),
        include_str!("pictures.rs"),
    ];
    let mut failures = Failures::default();
    for class in sagittal::workflow::classes() {
        let named = format!("\"{}\"", class.name);
        failures.check(tests.iter().any(|t| t.contains(&named)), || class.name.into());
    }
    failures.finish();
}
