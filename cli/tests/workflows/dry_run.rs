//! An error that a run would meet halfway is reported by the dry run, with the exit code that other commands have
//! for the same error; a workflow that runs has no error.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::files::{tensors, write};
use crate::common::workflow::{Home, add, device_context, manifest, options, set, stored, text_to_image};
use crate::common::{Failures, safetensors};
use crate::program::program;
use sagittal::checkpoint::Dtype;
use sagittal::pipeline::Limits;
use sagittal::workflow::{Options, Workflow};
use sagittal::{ErrorKind, Remedy};
use serde_json::{Value as Json, json};

/// The folders with both families, and a LoRA for neither.
fn home() -> Home {
    let home = Home::new(&["tiny-sd1", "tiny-sdxl"]);
    let values = [0.5f32; 8];
    let down = "lora_unet_input_blocks_99_1_proj_in.lora_down.weight";
    let up = "lora_unet_input_blocks_99_1_proj_in.lora_up.weight";
    let file = safetensors([(down, &[1, 8][..], &values[..]), (up, &[8, 1], &values)]);
    fs::write(home.at("models/loras/foreign.safetensors"), file).expect("a file");
    home
}

fn check(home: &Home, json: &Json) -> Result<(), (ErrorKind, String)> {
    let workflow = Workflow::parse("w.json", json.to_string().as_bytes()).expect("a workflow");
    let (folders, options) = (home.folders(), options());
    workflow.check(&folders, &options).map(drop).map_err(|e| (e.kind(), e.to_string()))
}

#[test]
fn errors_of_a_run_are_reported_by_the_dry_run() {
    let home = home();
    let mut failures = Failures::default();
    let mut case = |what: &str, change: &dyn Fn(&mut Json), refused: Option<(ErrorKind, &[&str])>| {
        let mut json = text_to_image("tiny-sd1.safetensors", [64, 72, 1]);
        add(&mut json, "8", "VAEDecode", json!({ "samples": ["3", 0], "vae": ["4", 2] }));
        add(&mut json, "9", "SaveImage", json!({ "images": ["8", 0], "filename_prefix": "x" }));
        change(&mut json);
        match (check(&home, &json), refused) {
            (Ok(()), None) => {}
            (Err((kind, error)), Some((wanted, words))) => {
                failures.check(kind == wanted, || format!("{what}: {kind:?}, {error}"));
                for word in words {
                    failures.check(error.contains(word), || format!("{what}: no {word:?} in {error}"));
                }
            }
            (found, _) => failures.check(false, || format!("{what}: {found:?}")),
        }
    };
    let (usage, model, memory) = (ErrorKind::Usage, ErrorKind::Model, ErrorKind::Memory);
    case("sound", &|_| {}, None);
    let twice = |w: &mut Json| {
        add(w, "11", "SelfAttentionGuidance", json!({ "model": ["10", 0], "scale": 1, "blur_sigma": 1 }));
        add(w, "12", "RescaleCFG", json!({ "model": ["11", 0], "multiplier": 0.7 }));
        set(w, "3", json!({ "model": ["12", 0] }));
    };
    case("SAG twice", &twice, Some((usage, &["node 11", "already"])));
    let lora = |strengths: [f64; 2]| {
        move |w: &mut Json| {
            let inputs = json!({ "model": ["4", 0], "clip": ["4", 1], "lora_name": "foreign.safetensors",
                "strength_model": strengths[0], "strength_clip": strengths[1] });
            add(w, "20", "LoraLoader", inputs);
            set(w, "10", json!({ "model": ["20", 0] }));
        }
    };
    case("a LoRA for nothing here", &lora([1.0, 1.0]), Some((model, &["node 20", "the LoRA does not fit"])));
    case("the same at strength 0", &lora([0.0, 0.0]), None);
    let sizes = |w: &mut Json| {
        let inputs = json!({ "clip": ["4", 1], "width": 64, "height": 64, "crop_w": 0, "crop_h": 0, "target_width": 64,
            "target_height": 64, "text_g": "a", "text_l": "b" });
        add(w, "6", "CLIPTextEncodeSDXL", inputs);
    };
    case("SDXL's node with another encoder", &sizes, Some((usage, &["node 6", "the two of SDXL"])));
    let other = |node: &'static str| {
        move |w: &mut Json| {
            add(w, "20", "CheckpointLoaderSimple", json!({ "ckpt_name": "tiny-sdxl.safetensors" }));
            set(w, node, json!({ "clip": ["20", 1] }));
        }
    };
    case(
        "a prompt of another family",
        &other("6"),
        Some((usage, &["node 3", "prompts do not fit the model"])),
    );
    case(
        "a negative of another family",
        &other("7"),
        Some((usage, &["node 3", "prompts do not fit the model"])),
    );
    let mixed = |w: &mut Json| {
        other("6")(w);
        add(
            w,
            "21",
            "ConditioningConcat",
            json!({ "conditioning_to": ["7", 0], "conditioning_from": ["6", 0] }),
        );
        set(w, "3", json!({ "positive": ["21", 0] }));
    };
    case("prompts of two families in one", &mixed, Some((usage, &["node 21"])));
    let levels = |low: f64, high: f64, rho: f64| {
        move |w: &mut Json| {
            let inputs = json!({ "steps": 4, "sigma_max": high, "sigma_min": low, "rho": rho });
            add(w, "20", "KarrasScheduler", inputs);
            add(w, "21", "KSamplerSelect", json!({ "sampler_name": "euler" }));
            add(
                w,
                "22",
                "SamplerCustom",
                json!({ "model": ["10", 0], "add_noise": true, "noise_seed": 1, "cfg": 7,
                "positive": ["6", 0], "negative": ["7", 0], "sampler": ["21", 0], "sigmas": ["20", 0], "latent_image": ["3", 0] }),
            );
            set(w, "8", json!({ "samples": ["22", 0] }));
        }
    };
    case("noise levels out of order", &levels(10.0, 1.0, 7.0), Some((usage, &["node 20", "out of order"])));
    case("a power of nothing", &levels(0.1, 1.0, 0.0), Some((usage, &["node 20", "power"])));
    case("noise levels in order", &levels(0.1, 1.0, 7.0), None);
    let scaled = |factors: &'static [f64]| {
        move |w: &mut Json| {
            for (i, factor) in factors.iter().enumerate() {
                let from = if i == 0 { json!(["3", 0]) } else { json!([format!("2{}", i - 1), 0]) };
                let inputs = json!({ "samples": from, "upscale_method": "bilinear", "scale_by": factor });
                add(w, &format!("2{i}"), "LatentUpscaleBy", inputs);
                set(w, "8", json!({ "samples": [format!("2{i}"), 0] }));
            }
        }
    };
    let open = |w: &mut Json| {
        add(w, "20", "SaveImage", json!({ "filename_prefix": "x" }));
        add(w, "21", "VAEDecode", json!({ "vae": ["4", 2] }));
        add(w, "22", "PreviewImage", json!({ "images": ["21", 0] }));
    };
    case("outputs that are not connected, beside others", &open, None);
    case("a latent of no cells", &scaled(&[0.01]), Some((usage, &["node 20", "empty latent"])));
    case("a latent beyond the memory", &scaled(&[8.0; 6]), Some((memory, &["would not fit the memory"])));
    case("a latent twice as large", &scaled(&[2.0]), None);
    let tiny = |side: u64| {
        move |w: &mut Json| {
            add(w, "20", "EmptyImage", json!({ "width": 64, "height": 64, "batch_size": 1, "color": 0 }));
            add(
                w,
                "21",
                "ImageScale",
                json!({ "image": ["20", 0], "upscale_method": "area", "width": side, "height": 9, "crop": "disabled" }),
            );
            add(w, "22", "VAEEncode", json!({ "pixels": ["21", 0], "vae": ["4", 2] }));
            set(w, "3", json!({ "latent_image": ["22", 0] }));
        }
    };
    case("a picture less than a cell", &tiny(7), Some((usage, &["node 22", "too small"])));
    case("a picture of a cell", &tiny(8), None);
    let alpha = |channel: &'static str| {
        move |w: &mut Json| {
            add(w, "20", "ImageToMask", json!({ "image": ["8", 0], "channel": channel }));
            add(w, "21", "MaskToImage", json!({ "mask": ["20", 0] }));
            set(w, "9", json!({ "images": ["21", 0] }));
        }
    };
    case("alpha of a picture without", &alpha("alpha"), Some((usage, &["node 20", "no such channel"])));
    case("red of a picture", &alpha("red"), None);
    // The rehearsal of what counts when.
    let early = |class: &'static str, inputs: Json| {
        move |w: &mut Json| {
            add(
                w,
                "20",
                "ConditioningSetTimestepRange",
                json!({ "conditioning": ["6", 0], "start": 0.0, "end": 0.2 }),
            );
            let mut inputs = inputs.clone();
            inputs["model"] = json!(["4", 0]);
            add(w, "21", class, inputs);
            set(w, "3", json!({ "model": ["21", 0], "positive": ["20", 0] }));
        }
    };
    let lcm = json!({ "sampling": "lcm", "zsnr": false });
    case("a positive that ends", &early("ModelSamplingDiscrete", lcm), None);
    case(
        "a positive that ends, under PAG",
        &early("PerturbedAttentionGuidance", json!({ "scale": 2.0 })),
        None,
    );
    let both = |w: &mut Json| {
        early("RescaleCFG", json!({ "multiplier": 0.5 }))(w);
        set(w, "3", json!({ "negative": ["20", 0] }));
    };
    case("both sides end", &both, Some((usage, &["node 3", "no conditioning is active"])));
    // SAG cannot look at maps this small, so it asks for nothing.
    let small = |side: u64| {
        move |w: &mut Json| {
            add(
                w,
                "20",
                "ConditioningSetTimestepRange",
                json!({ "conditioning": ["7", 0], "start": 0.5, "end": 1.0 }),
            );
            set(w, "3", json!({ "negative": ["20", 0] }));
            set(w, "5", json!({ "width": side }));
        }
    };
    case("a late negative under SAG", &small(64), Some((usage, &["node 3", "no conditioning is active"])));
    case("the same on a small latent", &small(32), None);
    failures.finish();
}

/// A file without one of the tensors that a network has.
#[test]
fn parts_that_files_lack() {
    let home = Home::new(&[]);
    let manifest = manifest("tiny-sd1");
    let mut failures = Failures::default();
    for (part, name) in [
        ("UNet", "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_k.weight"),
        ("text encoder", "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias"),
        ("decoder", "first_stage_model.decoder.conv_out.bias"),
    ] {
        let whole = tensors(&manifest);
        let count = whole.len();
        let cut: Vec<_> = whole.into_iter().filter(|tensor| tensor.name != name).collect();
        failures.check(cut.len() + 1 == count, || format!("{name} is no tensor"));
        write(&home.at("models/checkpoints/cut.safetensors"), &cut, &[], |_| Dtype::F16);
        let found = check(&home, &text_to_image("cut.safetensors", [64, 72, 1]));
        failures.check(
            matches!(&found, Err((_, error)) if error.contains("node 4") && error.contains(name)),
            || format!("{part}: {found:?}"),
        );
    }
    failures.finish();
}

/// A folder that cannot be written to has exit code 2 in every command, with the work and without.
#[test]
fn folders_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut json = stored("cases/prefix_class.json");
    set(&mut json, "9", json!({ "filename_prefix": "deep/x" }));
    fs::write(at("w.json"), json.to_string()).expect("a file");
    add(&mut json, "10", "PreviewImage", json!({ "images": ["8", 0] }));
    fs::write(at("preview.json"), json.to_string()).expect("a file");
    for name in ["file", "taken/deep", "shown/temp"] {
        fs::create_dir_all(at(name).parent().expect("a folder")).expect("a folder");
        fs::write(at(name), "in the way").expect("a file");
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", at("link")).expect("a link");
    let output = |words: &[&str]| program(folder.path(), words).output().expect("the program starts");
    let mut failures = Failures::default();
    let mut cases =
        vec![("w.json", "file"), ("w.json", "file/below"), ("w.json", "taken"), ("preview.json", "shown")];
    if cfg!(unix) {
        cases.extend([("w.json", "link"), ("w.json", "/proc/nothing")]);
    }
    for (workflow, to) in cases {
        let words = ["run", workflow, "--output-dir", to];
        for more in [&["--dry-run"][..], &["--dry-run", "--json"], &[]] {
            let output = output(&[&words[..], more].concat());
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            failures
                .check(output.status.code() == Some(2) && stderr.contains("no file can be written"), || {
                    format!("{workflow} {to} {more:?}: {:?} {stderr}", output.status.code())
                });
        }
    }
    // As in the other commands.
    let generate = output(&["generate", "-p", "a fox", "-o", "file/x.png"]);
    failures.check(generate.status.code() == Some(2), || format!("generate: {:?}", generate.status.code()));
    // Folders that are still to be made are no error, and a dry run makes none.
    for to in ["new", "new/deep", "shown"] {
        let output = output(&["run", "w.json", "--dry-run", "--output-dir", to]);
        failures.check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned());
    }
    failures.check(!at("new").exists() && !at("shown/deep").exists(), || "folders were made".into());
    failures.finish();
}

/// The one JSON event of a command.
fn event(folder: &Path, words: &[&str]) -> Json {
    let output = program(folder, words).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    crate::schema::event(&output.stdout, "plan")
}

#[test]
fn a_dry_run_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("w.json"), stored("cases/three_unknown.json").to_string()).expect("a file");
    let plan = event(folder.path(), &["run", "w.json", "--dry-run", "--json"]);
    assert_eq!(
        (&plan["event"], &plan["workflow"], &plan["samplers"]),
        (&json!("plan"), &json!("w.json"), &json!(1))
    );
    let ids =
        |of: &str| plan[of].as_array().expect("nodes").iter().map(|n| n["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("nodes"), ["4", "6", "7", "5", "3", "8", "9"]);
    assert_eq!(ids("resting"), ["97", "98", "99"]);
    assert_eq!(plan["nodes"][4], json!({ "id": "3", "class": "KSampler", "title": null }));
    // An error is an event, as it is without the flag.
    fs::write(folder.path().join("w.json"), "{}").expect("a file");
    let output =
        program(folder.path(), &["run", "w.json", "--dry-run", "--json"]).output().expect("it starts");
    let error: Json = serde_json::from_slice(&output.stdout).expect("an event");
    assert_eq!(
        (&error["event"], &error["kind"], output.status.code()),
        (&json!("error"), &json!("file"), Some(3))
    );
}

#[test]
fn kinds_of_nodes_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = program(folder.path(), &["run", "--nodes", "--json"]).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let kinds: Vec<Json> = crate::schema::events(text.as_bytes());
    assert_eq!(kinds.len(), sagittal::workflow::classes().count());
    assert!(kinds.iter().all(|kind| kind["event"] == "class"));
    let find = |name: &str| kinds.iter().find(|kind| kind["class"] == name).expect(name);
    let sampler = find("KSampler");
    assert_eq!((&sampler["outputs"], &sampler["output"]), (&json!(["LATENT"]), &json!(false)));
    let input = |name: &str| {
        let inputs = sampler["inputs"].as_array().expect("inputs");
        inputs.iter().find(|input| input["name"] == name).expect(name).clone()
    };
    assert_eq!(input("model"), json!({ "name": "model", "type": "MODEL", "optional": false }));
    assert_eq!(
        input("seed"),
        json!({
            "name": "seed", "type": "INT", "optional": false, "min": 0, "max": u64::MAX, "step": 1, "default": 0,
        })
    );
    assert_eq!(
        input("cfg"),
        json!({ "name": "cfg", "type": "FLOAT", "optional": false, "min": 0.0, "max": 100.0, "default": 8.0 })
    );
    assert!(input("sampler_name")["choices"].as_array().expect("choices").contains(&json!("euler")));
    let layer = &find("CLIPSetLastLayer")["inputs"][1];
    assert_eq!((&layer["min"], &layer["max"], &layer["default"]), (&json!(-24), &json!(-1), &json!(-1)));
    assert_eq!(find("LoadImage")["inputs"][0]["file"], "picture");
    assert_eq!(find("SaveImage")["output"], true);
    assert_eq!(find("VAEEncodeForInpaint")["inputs"][3]["optional"], true);
}

/// A memory limit that is too small is reported before anything runs, with the least that is enough for every node:
/// with that limit the run succeeds, with a MiB less neither the dry run nor the run does.
#[test]
fn memory_is_looked_at_before_anything_runs() {
    let Some(device_context) = device_context() else { return };
    let home = home();
    let mut json = text_to_image("tiny-sd1.safetensors", [256, 192, 2]);
    // Each is the largest once: the text encoder, the network at a mask, the autoencoder in both directions.
    add(&mut json, "8", "VAEDecodeTiled", json!({ "samples": ["3", 0], "vae": ["4", 2], "tile_size": 128 }));
    add(&mut json, "9", "SaveImage", json!({ "images": ["8", 0], "filename_prefix": "x" }));
    let masked = |w: &mut Json| {
        add(w, "20", "EmptyImage", json!({ "width": 256, "height": 192, "batch_size": 1, "color": 255 }));
        add(w, "21", "ImageToMask", json!({ "image": ["20", 0], "channel": "red" }));
        add(w, "22", "VAEEncode", json!({ "pixels": ["20", 0], "vae": ["4", 2] }));
        add(w, "23", "SetLatentNoiseMask", json!({ "samples": ["22", 0], "mask": ["21", 0] }));
        set(w, "3", json!({ "latent_image": ["23", 0], "steps": 1 }));
    };
    let larger = |w: &mut Json| {
        masked(w);
        let inputs = json!({ "clip": ["4", 1], "text": "a fox, ".repeat(200) });
        add(w, "6", "CLIPTextEncode", inputs);
        add(
            w,
            "24",
            "LatentUpscaleBy",
            json!({ "samples": ["3", 0], "upscale_method": "area", "scale_by": 1.5 }),
        );
        set(w, "8", json!({ "samples": ["24", 0] }));
    };
    let plain = |w: &mut Json| set(w, "3", json!({ "steps": 1 }));
    let of = |change: &dyn Fn(&mut Json)| {
        let mut json = json.clone();
        change(&mut json);
        json
    };
    let mut failures = Failures::default();
    for (what, json) in [("plain", of(&plain)), ("masked", of(&masked)), ("larger", of(&larger))] {
        let workflow = Workflow::parse("w.json", json.to_string().as_bytes()).expect("a workflow");
        let outcomes = |mib: u64| {
            let options =
                Options { limits: Limits { memory: Some(mib << 20), ..Limits::default() }, ..options() };
            let folders = home.folders();
            let mut ready = workflow.check(&folders, &options).expect("nothing else is wrong");
            let foreseen = ready.check_memory(&device_context);
            let ready = workflow.check(&folders, &options).expect("nothing else is wrong");
            (foreseen, ready.run(device_context.clone(), &mut |_| {}, &AtomicBool::new(false)))
        };
        let (foreseen, ran) = outcomes(2);
        let error = foreseen.expect_err("too little");
        failures.check(ran.is_err_and(|e| e.to_string() == error.to_string()), || format!("{what}: {error}"));
        failures.check(error.kind() == ErrorKind::Memory && error.to_string().contains("node "), || {
            format!("{what}: {error}")
        });
        let least = error.remedies().iter().find_map(|remedy| match remedy {
            Remedy::RaiseMemoryLimit(bytes) => *bytes,
            _ => None,
        });
        let least = least.unwrap_or_else(|| panic!("{what}: no proposal in {error}")).div_ceil(1 << 20);
        for (mib, enough) in [(least, true), (least - 1, false)] {
            let (foreseen, ran) = outcomes(mib);
            failures.check(foreseen.is_ok() == enough && ran.is_ok() == enough, || {
                format!("{what}, {mib} MiB: {:?}, {:?}", foreseen.err(), ran.err())
            });
        }
    }
    failures.finish();
}

#[test]
fn a_dry_run_tells_of_too_little_memory() {
    let home = home();
    fs::write(home.at("w.json"), text_to_image("tiny-sd1.safetensors", [64, 64, 1]).to_string())
        .expect("a file");
    let folder = home.at("");
    for more in [&["--dry-run"][..], &[]] {
        let words = [&["run", "w.json", "--max-memory", "2"], more].concat();
        let output = program(&folder, &words).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(4) && stderr.contains("--max-memory"), "{more:?}: {stderr}");
    }
}
