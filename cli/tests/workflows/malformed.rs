//! Errors in a workflow are reported before anything runs: exit code 2 or 3, the node, a remedy, and no file is
//! written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::workflow::{add, set, stored};
use crate::common::{Failures, Rng};
use crate::program::program;
use sagittal::workflow::{Folders, Options, Workflow};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A folder with everything that the default workflow needs, and files that it must not read.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["models/checkpoints", "models/loras", "models/vae", "models/clip", "input", "secret"] {
        fs::create_dir_all(at(name)).expect("a folder");
    }
    let picture = sagittal::image::Picture { width: 8, height: 8, rgb: vec![7; 192] };
    let picture = sagittal::image::png::encode(&picture, &[]).expect("a PNG");
    for name in ["input/ok.png", "secret/key.png", "empty.png"] {
        fs::write(at(name), &picture).expect("a file");
    }
    fs::write(at("cut.png"), &picture[..40]).expect("a file");
    fs::write(at("models/checkpoints/garbage.safetensors"), "not a model").expect("a file");
    fs::write(at("models/checkpoints/old.ckpt"), "PK\x03\x04").expect("a file");
    fs::write(at("models/loras/garbage.safetensors"), "not a LoRA").expect("a file");
    fs::write(at("input/garbage.latent"), "not a latent").expect("a file");
    fs::write(at("input/photo.jpg"), b"\xff\xd8\xff\xe0 JFIF").expect("a file");
    fs::write(at("bad.yaml"), "a:\n  - b\n").expect("a file");
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("secret/key.png"), at("input/link.png")).expect("a link");
    folder
}

/// The default workflow with the built-in model.
fn sound() -> Json {
    let mut json = stored("default_sag.api.json");
    set(&mut json, "4", json!({ "ckpt_name": "tiny-emoji.safetensors" }));
    json
}

fn sound_ui() -> Json {
    let mut json = stored("default_sag.ui.json");
    let nodes = json["nodes"].as_array_mut().expect("nodes");
    nodes.iter_mut().find(|n| n["id"] == 4).expect("a loader")["widgets_values"][0] =
        json!("tiny-emoji.safetensors");
    json
}

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, &[&["run"], flags].concat()).output().expect("the program starts")
}

/// All files and folders below `folder`.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        found.push(entry.path());
        if entry.file_type().expect("a type").is_dir() {
            found.extend(all(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Cases: what is wrong, the file's text, and words that the message must contain.
type Case = (&'static str, String, &'static [&'static str]);

fn changed(change: impl FnOnce(&mut Json)) -> String {
    let mut json = sound();
    change(&mut json);
    json.to_string()
}

fn inputs(id: &str, values: Json) -> String {
    changed(|w| set(w, id, values))
}

fn changed_ui(change: impl FnOnce(&mut Json)) -> String {
    let mut json = sound_ui();
    change(&mut json);
    json.to_string()
}

fn ui_node(json: &mut Json, id: u64) -> &mut Json {
    json["nodes"].as_array_mut().expect("nodes").iter_mut().find(|n| n["id"] == id).expect("a node")
}

/// Texts that are not a workflow.
fn no_workflows() -> Vec<Case> {
    let deep = "[".repeat(200_000);
    let nested = format!("{{\"3\": {}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    vec![
        ("an empty file", String::new(), &["not a workflow", "empty"]),
        ("white space", "  \n".into(), &["not a workflow"]),
        ("a text", "a fox".into(), &["not a workflow", "neither JSON nor a picture"]),
        ("cut off", sound().to_string()[..300].into(), &["not sound JSON"]),
        ("brackets without end", deep, &["not sound JSON"]),
        ("objects without end", nested, &["not sound JSON"]),
        ("a list", "[1, 2]".into(), &["not a workflow"]),
        ("a number", "7".into(), &["not a workflow"]),
        ("an empty object", "{}".into(), &["not a workflow", "empty object"]),
        (
            "something else",
            r#"{"model": 1, "prompt_strength": 2}"#.into(),
            &["not a workflow", "model, prompt_strength"],
        ),
        ("a node that is no object", changed(|w| w["3"] = json!(7)), &["node 3", "class_type"]),
        ("a class that is a number", changed(|w| w["3"]["class_type"] = json!(7)), &["node 3", "class_type"]),
        ("inputs in a list", changed(|w| w["3"]["inputs"] = json!([1])), &["node 3", "inputs"]),
        ("an input that is an object", inputs("3", json!({ "cfg": { "a": 1 } })), &["node 3", "input cfg"]),
        ("a link of three", inputs("3", json!({ "model": ["4", 0, 1] })), &["node 3", "input model"]),
        ("a link to output -1", inputs("3", json!({ "model": ["4", -1] })), &["node 3", "input model"]),
    ]
}

/// Nodes and links that do not fit.
fn misfits() -> Vec<Case> {
    vec![
        (
            "an unknown class",
            changed(|w| w["3"]["class_type"] = json!("KSamplar")),
            &["node 3 (KSamplar", "KSampler", "\"KSampler\""],
        ),
        (
            "one near no other",
            changed(|w| {
                add(w, "20", "XyzzyPlugh", json!({}));
                set(w, "6", json!({ "clip": ["20", 0] }));
            }),
            &["node 20 (XyzzyPlugh), custom", "--nodes"],
        ),
        (
            "a group node",
            changed(|w| {
                add(w, "20", "workflow>mine", json!({}));
                set(w, "6", json!({ "clip": ["20", 0] }));
            }),
            &["node 20", "group node \"mine\""],
        ),
        (
            "a missing link",
            changed(|w| drop(w["3"]["inputs"].as_object_mut().unwrap().remove("model"))),
            &["node 3", "input model is missing", "MODEL"],
        ),
        (
            "a missing value",
            changed(|w| drop(w["3"]["inputs"].as_object_mut().unwrap().remove("steps"))),
            &["node 3", "input steps is missing"],
        ),
        (
            "a link to no node",
            inputs("3", json!({ "model": ["99", 0] })),
            &["node 3", "leads to no node", "99"],
        ),
        ("a link to no output", inputs("3", json!({ "model": ["4", 7] })), &["node 3", "output 7 of node 4"]),
        (
            "a link of the wrong type",
            inputs("3", json!({ "model": ["4", 1] })),
            &["node 3", "MODEL", "CLIP from node 4", "its output 0"],
        ),
        (
            "a latent for a picture",
            inputs("9", json!({ "images": ["3", 0] })),
            &["node 9", "IMAGE", "LATENT from node 3"],
        ),
        (
            "a model for a number",
            inputs("3", json!({ "cfg": ["4", 0] })),
            &["node 3", "input cfg", "MODEL from node 4"],
        ),
        (
            "a value for a link",
            inputs("3", json!({ "model": "tiny" })),
            &["node 3", "input model", "another node's MODEL"],
        ),
        (
            "two nodes in a circle",
            changed(|w| {
                add(
                    w,
                    "20",
                    "LatentUpscaleBy",
                    json!({ "samples": ["3", 0], "upscale_method": "area", "scale_by": 1.5 }),
                );
                set(w, "3", json!({ "latent_image": ["20", 0] }));
            }),
            &["circle", "3", "20"],
        ),
        ("a node that needs itself", inputs("10", json!({ "model": ["10", 0] })), &["node 10", "circle"]),
        (
            "no output node",
            changed(|w| drop(w.as_object_mut().unwrap().remove("9"))),
            &["no output node", "SaveImage"],
        ),
        (
            "guidance beyond its range",
            changed(|w| {
                add(w, "20", "PerturbedAttentionGuidance", json!({ "model": ["10", 0], "scale": 101.0 }));
                set(w, "3", json!({ "model": ["20", 0] }));
            }),
            &["node 20", "scale", "100"],
        ),
    ]
}

/// Values outside of their ranges.
fn values() -> Vec<Case> {
    vec![
        (
            "a batch of 0",
            inputs("5", json!({ "batch_size": 0 })),
            &["node 5", "batch_size", "from 1 to 4096", "found 0"],
        ),
        ("a batch of 5000", inputs("5", json!({ "batch_size": 5000 })), &["node 5", "batch_size", "4096"]),
        ("too narrow", inputs("5", json!({ "width": 8 })), &["node 5", "width", "16 to 16384"]),
        ("too wide", inputs("5", json!({ "width": 1_000_000_000_000u64 })), &["node 5", "width", "16384"]),
        (
            "more than the memory",
            inputs("5", json!({ "width": 16384, "height": 16384, "batch_size": 4096 })),
            &["node 5", "would not fit the memory"],
        ),
        (
            "pictures more than the memory",
            inputs("5", json!({ "width": 8192, "height": 8192, "batch_size": 64 })),
            &["node 5", "would not fit the memory"],
        ),
        ("a negative seed", inputs("3", json!({ "seed": -1 })), &["node 3", "seed", "found -1"]),
        ("a seed beyond 64 bits", inputs("3", json!({ "seed": 1e20 })), &["node 3", "seed"]),
        ("no steps", inputs("3", json!({ "steps": 0 })), &["node 3", "steps", "1 to 10000"]),
        ("steps in words", inputs("3", json!({ "steps": "many" })), &["node 3", "steps", "whole number"]),
        ("a scale that is no number", inputs("3", json!({ "cfg": "nan" })), &["node 3", "cfg", "0 to 100"]),
        ("a scale that is null", inputs("3", json!({ "cfg": null })), &["node 3", "cfg", "null"]),
        ("a scale that is true", inputs("3", json!({ "cfg": true })), &["node 3", "cfg"]),
        ("too much denoise", inputs("3", json!({ "denoise": 1.5 })), &["node 3", "denoise", "0 to 1"]),
        (
            "an unknown sampler",
            inputs("3", json!({ "sampler_name": "eulr" })),
            &["node 3", "did you mean euler"],
        ),
        (
            "an unknown scheduler",
            inputs("3", json!({ "scheduler": "karas" })),
            &["node 3", "did you mean karras"],
        ),
        ("SAG beyond its range", inputs("10", json!({ "scale": 9 })), &["node 10", "scale", "-2 to 5"]),
        (
            "a value behind a link",
            changed(|w| {
                add(w, "20", "PrimitiveInt", json!({ "value": 0 }));
                set(w, "5", json!({ "batch_size": ["20", 0] }));
            }),
            &["node 5", "batch_size", "4096"],
        ),
    ]
}

/// Names of files.
fn names() -> Vec<Case> {
    let image = |name: &str| {
        changed(|w| {
            add(w, "20", "LoadImage", json!({ "image": name }));
            add(w, "21", "SaveImage", json!({ "images": ["20", 0], "filename_prefix": "x" }));
        })
    };
    let lora = |name: &str| {
        changed(|w| {
            let inputs = json!({ "model": ["4", 0], "lora_name": name, "strength_model": 1.0 });
            add(w, "20", "LoraLoaderModelOnly", inputs);
            set(w, "10", json!({ "model": ["20", 0] }));
        })
    };
    let prefix = |prefix: &str| inputs("9", json!({ "filename_prefix": prefix }));
    let ckpt = |name: &str| inputs("4", json!({ "ckpt_name": name }));
    let mut cases: Vec<Case> = vec![
        ("a prefix that leaves", prefix("../x"), &["node 9", "leaves the output folder"]),
        ("a prefix that leaves later", prefix("a/../../x"), &["node 9", "leaves the output folder"]),
        ("an absolute prefix", prefix("/etc/x"), &["node 9", "leaves the output folder"]),
        ("a prefix of Windows", prefix("..\\x"), &["node 9", "leaves the output folder"]),
        ("a prefix with NUL", prefix("a\0b"), &["node 9", "file-name prefix"]),
        ("a prefix with a line break", prefix("a\nb"), &["node 9", "file-name prefix"]),
        ("a prefix without end", prefix(&"x".repeat(5000)), &["node 9", "too long"]),
        (
            "a prefix out of a primitive",
            changed(|w| {
                add(w, "20", "PrimitiveString", json!({ "value": "../x" }));
                set(w, "9", json!({ "filename_prefix": ["20", 0] }));
            }),
            &["node 9", "leaves the output folder"],
        ),
        (
            "a checkpoint that is not there",
            ckpt("v1-5.safetensors"),
            &["node 4", "no such checkpoint", "tiny-emoji"],
        ),
        ("nearly a checkpoint", ckpt("garbag.safetensors"), &["node 4", "did you mean garbage.safetensors"]),
        ("a checkpoint above", ckpt("../../secret/key.png"), &["node 4", "not a name in the folder"]),
        ("an absolute checkpoint", ckpt("/etc/passwd"), &["node 4", "not a name in the folder"]),
        ("a checkpoint with NUL", ckpt("a\0b"), &["node 4", "not a name in the folder"]),
        ("no checkpoint", ckpt(""), &["node 4", "not a name in the folder"]),
        ("no model", ckpt("garbage.safetensors"), &["node 4", "not a model file"]),
        ("a pickle", ckpt("old.ckpt"), &["node 4", "zip archive"]),
        ("a LoRA that is not there", lora("ink.safetensors"), &["node 20", "no such LoRA"]),
        ("a LoRA above", lora("../x.safetensors"), &["node 20", "not a name in the folder"]),
        ("no LoRA", lora("garbage.safetensors"), &["node 20", "not a model file"]),
        ("a picture that is not there", image("no.png"), &["node 20", "no such picture"]),
        ("nearly a picture", image("okk.png"), &["node 20", "did you mean ok.png"]),
        ("a picture above", image("../secret/key.png"), &["node 20", "not a name in the folder"]),
        (
            "a picture above the output",
            image("../secret/key.png [output]"),
            &["node 20", "not a name in the folder"],
        ),
        ("an absolute picture", image("/etc/passwd"), &["node 20", "not a name in the folder"]),
        ("a picture with NUL", image("a\0.png"), &["node 20", "not a name in the folder"]),
        ("a photograph", image("photo.jpg"), &["node 20", "the JPEG is damaged"]),
        ("a folder for a picture", image("."), &["node 20"]),
        (
            "no latent",
            changed(|w| {
                add(w, "5", "LoadLatent", json!({ "latent": "garbage.latent" }));
            }),
            &["node 5", "not a latent file"],
        ),
        (
            "a latent above",
            changed(|w| {
                add(w, "5", "LoadLatent", json!({ "latent": "../secret/key.png" }));
            }),
            &["node 5", "not a name in the folder"],
        ),
        (
            "a text encoder of another kind",
            changed(|w| {
                add(w, "20", "CLIPLoader", json!({ "clip_name": "x.safetensors", "type": "sd3" }));
                set(w, "6", json!({ "clip": ["20", 0] }));
            }),
            &["node 20"],
        ),
        (
            "two encoders of another kind",
            changed(|w| {
                let inputs =
                    json!({ "clip_name1": "x.safetensors", "clip_name2": "y.safetensors", "type": "flux" });
                add(w, "20", "DualCLIPLoader", inputs);
                set(w, "6", json!({ "clip": ["20", 0] }));
            }),
            &["node 20"],
        ),
    ];
    if cfg!(unix) {
        cases.push((
            "a link out of the input folder",
            image("link.png"),
            &["node 20", "leads out of its folder"],
        ));
    }
    cases
}

/// The UI format.
fn screens() -> Vec<Case> {
    let node = |json: &mut Json| {
        json["nodes"].as_array_mut().expect("nodes").push(json!({ "id": 3, "type": "Note" }))
    };
    vec![
        ("no nodes", json!({ "nodes": [], "links": [] }).to_string(), &["no output node"]),
        ("nodes that are none", json!({ "nodes": [1, 2], "links": [] }).to_string(), &["a node has no id"]),
        (
            "a node without a type",
            json!({ "nodes": [{ "id": 1 }], "links": [] }).to_string(),
            &["node 1", "no type"],
        ),
        ("two nodes of one id", changed_ui(node), &["same id"]),
        ("a link that is none", changed_ui(|w| w["links"][0] = json!(["x"])), &["a link makes no sense"]),
        (
            "links that are gone",
            changed_ui(|w| w["links"] = json!([])),
            &["is missing", "its link is not in the file"],
        ),
        (
            "a widget that is an object",
            changed_ui(|w| ui_node(w, 3)["widgets_values"][2] = json!({ "a": 1 })),
            &["node 3", "steps"],
        ),
        (
            "a widget outside its range",
            changed_ui(|w| ui_node(w, 5)["widgets_values"][2] = json!(0)),
            &["node 5", "batch_size"],
        ),
        (
            "a muted node in between",
            changed_ui(|w| ui_node(w, 8)["mode"] = json!(2)),
            &["node 9", "images is missing", "node 8 (VAEDecode) is muted"],
        ),
        (
            "a bypassed node with nothing to let through",
            changed_ui(|w| ui_node(w, 5)["mode"] = json!(4)),
            &["node 3", "latent_image is missing"],
        ),
        ("all of it muted", changed_ui(|w| ui_node(w, 9)["mode"] = json!(2)), &["no output node"]),
        (
            "reroutes in a circle",
            changed_ui(|w| {
                for (id, link) in [(20, 901), (21, 900)] {
                    w["nodes"].as_array_mut().expect("nodes").push(json!({
                    "id": id, "type": "Reroute", "inputs": [{ "name": "", "type": "*", "link": link }] }));
                }
                let links = w["links"].as_array_mut().expect("links");
                links.push(json!([900, 20, 0, 21, 0, "*"]));
                links.push(json!([901, 21, 0, 20, 0, "*"]));
                links.push(json!([902, 20, 0, 3, 0, "MODEL"]));
                ui_node(w, 3)["inputs"][0]["link"] = json!(902);
            }),
            &["node 3", "model is missing", "circle"],
        ),
        (
            "an unknown class",
            changed_ui(|w| ui_node(w, 10)["type"] = json!("SelfAttentionGuidence")),
            &["node 10 (SelfAttentionGuidence)", "SelfAttentionGuidance"],
        ),
    ]
}

#[test]
fn malformed_workflows_are_errors() {
    let folder = folder();
    let before = all(folder.path());
    let mut failures = Failures::default();
    let cases = [no_workflows(), misfits(), values(), names(), screens()].concat();
    assert!(cases.len() > 90, "{}", cases.len());
    let file = folder.path().join("workflow.json");
    for (what, text, words) in cases {
        fs::write(&file, &text).expect("a file");
        let output = run(folder.path(), &["workflow.json"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // Too little memory has the same exit code as in every command.
        let codes = if words.contains(&"would not fit the memory") { 4..=4 } else { 2..=3 };
        failures.check(output.status.code().is_some_and(|code| codes.contains(&code)), || {
            format!("{what}: {:?} {stderr}", output.status.code())
        });
        for word in words {
            failures.check(stderr.contains(word), || format!("{what}: no {word:?} in {stderr}"));
        }
        failures.check(
            stderr.contains("workflow.json") && stderr.len() < 4000 && output.stdout.is_empty(),
            || format!("{what}: {stderr}"),
        );
        fs::remove_file(&file).expect("the file");
        failures.check(all(folder.path()) == before, || format!("{what}: files were written"));
    }
    failures.finish();
}

#[test]
fn files_without_a_workflow_are_errors() {
    let folder = folder();
    let before = all(folder.path());
    let mut failures = Failures::default();
    for (flags, code, word) in [
        (&["nothing.json"][..], 3, "cannot be read"),
        (&["secret"], 3, "not a regular file"),
        (&["empty.png"], 3, "a picture without one"),
        (&["cut.png"], 3, "damaged"),
        (&["models/checkpoints/garbage.safetensors"], 3, "neither JSON nor a picture"),
        (&[], 2, "WORKFLOW"),
        (&["nothing.json", "--set"], 2, "--set"),
    ] {
        let output = run(folder.path(), flags);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let right = output.status.code() == Some(code) && stderr.contains(word);
        failures.check(right, || format!("{flags:?}: {:?} {stderr}", output.status.code()));
    }
    failures.check(all(folder.path()) == before, || "files were written".into());
    fs::write(folder.path().join("sound.json"), sound().to_string()).expect("a file");
    let before = all(folder.path());
    for (flags, code, word) in [
        (&["--set", "3.seed=x"][..], 2, "--set 3.seed=x"),
        (&["--set", "99.seed=1"], 2, "no such node"),
        (&["--extra-model-paths", "bad.yaml"], 3, "line 2"),
        (&["--extra-model-paths", "no.yaml"], 3, "no.yaml"),
        (&["--chunk", "0"], 2, "chunk"),
        (&["--max-memory", "-1"], 2, "max-memory"),
    ] {
        let output = run(folder.path(), &[&["sound.json"][..], flags].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let right = output.status.code() == Some(code) && stderr.contains(word);
        failures.check(right, || format!("{flags:?}: {:?} {stderr}", output.status.code()));
    }
    failures.check(all(folder.path()) == before, || "files were written".into());
    failures.finish();
}

/// A million nodes, a hundred thousand links in a row: an answer in seconds, and no stack overflows.
#[test]
fn large_workflows_end() {
    let folder = folder();
    let file = folder.path().join("workflow.json");
    let mut text = String::from("{");
    for i in 0..1_000_000 {
        text.push_str(&format!("\"{i}\":{{\"class_type\":\"VAEDecode\",\"inputs\":{{}}}},"));
    }
    text.push_str("\"x\":{\"class_type\":\"SaveImage\",\"inputs\":{}}}");
    fs::write(&file, text).expect("a file");
    let output = run(folder.path(), &["workflow.json"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && stderr.contains("too many nodes"), "{stderr}");
    // As many as are allowed, each linked to the one before it, in the order that is worst.
    let mut json = sound();
    let chain = 9900;
    for i in 0..chain {
        let from = if i + 1 == chain { json!(["5", 0]) } else { json!([format!("c{}", i + 1), 0]) };
        add(&mut json, &format!("c{i}"), "RepeatLatentBatch", json!({ "samples": from, "amount": 1 }));
    }
    set(&mut json, "3", json!({ "latent_image": ["c0", 0] }));
    fs::write(&file, json.to_string()).expect("a file");
    let output = run(folder.path(), &["workflow.json", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 8 + chain);
}

/// Bytes and values of valid workflows changed at random: nothing panics.
#[test]
fn mutated_workflows_never_panic() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let folders = Folders::new(at("models"), at("input"), at("output"));
    let options = Options::default();
    let mut rng = Rng(11);
    let junk = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("../x"),
        json!([]),
        json!({}),
        json!(["4", 0]),
        json!([4, 99]),
        json!(true),
        json!("\u{0}"),
        json!([[[]]]),
        json!(u64::MAX),
    ];
    let sources = [sound(), sound_ui(), stored("screen_only.ui.json"), stored("hires_fix.ui.json")];
    let (mut read, mut ready) = (0, 0);
    for round in 0..4000 {
        let mut json = sources[round % sources.len()].clone();
        let bytes = if rng.range(0, 1) == 0 {
            // One value, somewhere, is another.
            let mut paths = Vec::new();
            pointers(&json, String::new(), &mut paths);
            for _ in 0..rng.range(1, 3) {
                let path = &paths[rng.range(0, paths.len() - 1)];
                if let Some(value) = json.pointer_mut(path) {
                    *value = junk[rng.range(0, junk.len() - 1)].clone();
                }
            }
            json.to_string().into_bytes()
        } else {
            let mut bytes = json.to_string().into_bytes();
            for _ in 0..rng.range(1, 4) {
                let place = rng.range(0, bytes.len() - 1);
                match rng.range(0, 2) {
                    0 => bytes[place] = rng.range(0, 255) as u8,
                    1 => drop(bytes.remove(place)),
                    _ => bytes.insert(place, b"[]{}\",:0-\\"[rng.range(0, 9)]),
                }
            }
            bytes
        };
        let Ok(workflow) = Workflow::parse("mutated", &bytes) else { continue };
        read += 1;
        ready += usize::from(workflow.check(&folders, &options).is_ok());
    }
    println!("{read} of 4000 read, {ready} could run");
    assert!(read > 1000 && ready > 100 && ready < read);
}

/// JSON pointers to every value.
fn pointers(json: &Json, path: String, found: &mut Vec<String>) {
    match json {
        Json::Object(object) => object.iter().for_each(|(k, v)| pointers(v, format!("{path}/{k}"), found)),
        Json::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{path}/{i}"), found))
        }
        _ => {}
    }
    found.push(path);
}
