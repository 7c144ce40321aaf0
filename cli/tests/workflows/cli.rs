//! `sagittal run` as users see it: files, events, numbers, pictures that open again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::Failures;
use crate::common::gpu_is_off;
use crate::common::workflow::{add, set, stored};
use crate::program;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

fn program(folder: &Path, flags: &[&str]) -> Command {
    program::program(folder, &[&["run"], flags].concat())
}

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, flags).output().expect("the program starts")
}

/// A folder with the default workflow in both formats, small and with the built-in model.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut api = stored("default_sag.api.json");
    set(&mut api, "3", json!({ "steps": 2, "seed": 7, "cfg": 3.5 }));
    set(&mut api, "4", json!({ "ckpt_name": "tiny-emoji.safetensors" }));
    set(&mut api, "5", json!({ "width": 72, "height": 64 }));
    set(&mut api, "6", json!({ "text": "fox, 3d style — «é»" }));
    let mut ui = stored("default_sag.ui.json");
    for (id, at, value) in [
        (3, 0, json!(7)),
        (3, 2, json!(2)),
        (3, 3, json!(3.5)),
        (4, 0, json!("tiny-emoji.safetensors")),
        (5, 0, json!(72)),
        (5, 1, json!(64)),
        (6, 0, json!("fox, 3d style — «é»")),
    ] {
        let nodes = ui["nodes"].as_array_mut().expect("nodes");
        nodes.iter_mut().find(|n| n["id"] == id).expect("a node")["widgets_values"][at] = value;
    }
    fs::write(folder.path().join("api.json"), api.to_string()).expect("a file");
    fs::write(folder.path().join("ui.json"), ui.to_string()).expect("a file");
    folder
}

/// Pixels and text chunks of a PNG.
fn read(path: &Path) -> (Vec<u8>, BTreeMap<String, String>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    // What ComfyUI's loader reads is in chunks of the oldest kind.
    let texts = reader.info().uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone()));
    let mut texts: BTreeMap<String, String> = texts.collect();
    // A1111's settings contain the prompt unchanged.
    for text in reader.info().utf8_text.iter().filter(|t| t.keyword == "parameters") {
        texts.insert(text.keyword.clone(), text.get_text().expect("text"));
    }
    (pixels, texts)
}

/// The text chunks as ComfyUI's page reads them: it walks the chunks itself and takes the bytes behind
/// the keyword's end as UTF-8.
fn as_comfyui_reads(bytes: &[u8]) -> BTreeMap<String, String> {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let (mut texts, mut at) = (BTreeMap::new(), 8);
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let body = &bytes[at + 8..at + 8 + length];
        if &head[4..] == b"tEXt" {
            let end = body.iter().position(|b| *b == 0).expect("a keyword's end");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            texts.insert(text(&body[..end]), text(&body[end + 1..]));
        }
        at += 12 + length;
    }
    texts
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn both_formats_and_the_picture_itself_give_one_picture() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    let ok = |flags: &[&str]| {
        let output = run(folder.path(), flags);
        assert_eq!(output.status.code(), Some(0), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    ok(&["api.json"]);
    ok(&["ui.json"]);
    // From the picture, and over it: numbers count up.
    ok(&["output/ComfyUI_00001_.png"]);
    ok(&["output/ComfyUI_00002_.png", "--output-dir", "output"]);
    let output = folder.path().join("output");
    assert_eq!(files(&output), [1, 2, 3, 4].map(|n| format!("ComfyUI_{n:05}_.png")));
    let [a, b, c, d] = [1, 2, 3, 4].map(|n| read(&output.join(format!("ComfyUI_{n:05}_.png"))));
    assert!(a.0 == b.0 && a.0 == c.0 && a.0 == d.0 && a.0.len() == 72 * 64 * 3);
    // Both chunks are there, sound and in ASCII; a picture made from a picture tells the same.
    for (pixels, texts) in [(&a.0, &a.1), (&b.0, &b.1)] {
        assert!(!pixels.is_empty());
        for keyword in ["prompt", "workflow"] {
            assert!(texts[keyword].is_ascii(), "{keyword}");
            let json: Json = serde_json::from_str(&texts[keyword]).expect(keyword);
            assert!(json.as_object().is_some_and(|o| !o.is_empty()), "{keyword}");
        }
    }
    let walked = as_comfyui_reads(&fs::read(output.join("ComfyUI_00001_.png")).expect("the picture"));
    for keyword in ["prompt", "workflow"] {
        assert_eq!(walked[keyword], a.1[keyword], "{keyword}");
    }
    let json = |texts: &BTreeMap<String, String>, key: &str| -> Json {
        serde_json::from_str(&texts[key]).expect(key)
    };
    assert_eq!(
        (json(&c.1, "prompt"), json(&c.1, "workflow")),
        (json(&a.1, "prompt"), json(&a.1, "workflow"))
    );
    // The UI format is kept as it was, layout and all.
    let own: Json =
        serde_json::from_slice(&fs::read(folder.path().join("ui.json")).expect("a file")).expect("JSON");
    assert_eq!(json(&b.1, "workflow"), own);
    // ComfyUI's rules: every node has a type, every link ends at nodes that are there.
    let shown = json(&a.1, "workflow");
    let ids: Vec<&Json> = shown["nodes"].as_array().expect("nodes").iter().map(|n| &n["id"]).collect();
    for link in shown["links"].as_array().expect("links") {
        assert!(ids.contains(&&link[1]) && ids.contains(&&link[3]), "{link}");
    }
    // A1111's settings, in its grammar.
    let settings = &a.1["parameters"];
    let lines: Vec<&str> = settings.lines().collect();
    assert_eq!(lines[0], "fox, 3d style — «é»");
    assert!(lines[1].starts_with("Negative prompt: blurry"), "{settings}");
    for part in [
        "Steps: 2, ",
        "Sampler: Euler, ",
        "CFG scale: 3.5, ",
        "Seed: 7, ",
        "Size: 72x64, ",
        "Model: tiny-emoji, ",
        "SAG Guidance Scale: 0.5, ",
    ] {
        assert!(lines[2].contains(part), "{part} in {settings}");
    }
}

/// The pages' own workflow, in fewer steps.
#[test]
fn the_readmes_workflow_runs() {
    if gpu_is_off() {
        return;
    }
    let readme = include_str!("../../../docs/USAGE.md");
    assert!(
        readme.lines().any(|line| line == "sagittal run docs/workflow.json"),
        "docs/USAGE.md: the command"
    );
    let workflow = crate::common::root().join("docs/workflow.json");
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &[workflow.to_str().expect("a name"), "--set", "KSampler.steps=1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (pixels, _) = read(&folder.path().join("output/ComfyUI_00001_.png"));
    assert_eq!(pixels.len(), 256 * 256 * 3);
}

#[test]
fn inputs_set_by_hand_are_in_the_picture() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    let flags =
        ["ui.json", "--set", "3.seed=8", "--set", "9.filename_prefix=%date:yyyy%/%KSampler.seed%_%width%"];
    let output = run(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let year = files(&folder.path().join("output"));
    assert!(
        year.len() == 1 && year[0].len() == 4 && year[0].parse::<u32>().is_ok_and(|y| y > 2024),
        "{year:?}"
    );
    let (_, texts) = read(&folder.path().join("output").join(&year[0]).join("8_72_00001_.png"));
    let prompt: Json = serde_json::from_str(&texts["prompt"]).expect("JSON");
    assert_eq!(prompt["3"]["inputs"]["seed"], 8);
    let workflow: Json = serde_json::from_str(&texts["workflow"]).expect("JSON");
    let nodes = workflow["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.iter().find(|n| n["id"] == 3).expect("a sampler")["widgets_values"][0], 8);
}

#[test]
fn events_are_json_lines_and_previews_have_their_folder() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    let mut json: Json =
        serde_json::from_slice(&fs::read(folder.path().join("api.json")).expect("a file")).expect("JSON");
    add(&mut json, "20", "PreviewImage", json!({ "images": ["8", 0] }));
    add(&mut json, "21", "SaveLatent", json!({ "samples": ["3", 0], "filename_prefix": "latents/x" }));
    set(&mut json, "9", json!({ "filename_prefix": "a/b_%batch_num%" }));
    set(&mut json, "5", json!({ "batch_size": 2 }));
    fs::write(folder.path().join("more.json"), json.to_string()).expect("a file");
    let output = run(folder.path(), &["more.json", "--json", "--output-dir", "out/deep"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let events = crate::schema::events(&output.stdout);
    let named = |name: &str| events.iter().filter(|e| e["event"] == name).collect::<Vec<_>>();
    assert_eq!(
        (named("start").len(), named("node").len(), named("step").len(), named("done").len()),
        (1, 10, 2, 1)
    );
    let saved: Vec<(&str, &str)> = named("saved")
        .iter()
        .map(|e| (e["kind"].as_str().expect("kind"), e["path"].as_str().expect("path")))
        .collect();
    let at = |kind: &str| saved.iter().filter(|(k, _)| *k == kind).map(|(_, p)| *p).collect::<Vec<_>>();
    assert_eq!(at("picture"), ["out/deep/a/b_0_00001_.png", "out/deep/a/b_1_00002_.png"]);
    assert_eq!(
        at("preview"),
        ["out/deep/temp/ComfyUI_temp_00001_.png", "out/deep/temp/ComfyUI_temp_00002_.png"]
    );
    assert_eq!(at("latent"), ["out/deep/latents/x_00001_.latent"]);
    assert!(saved.iter().all(|(_, path)| folder.path().join(path).is_file()), "{saved:?}");
    let numbers: Vec<&Json> = named("saved").iter().map(|e| &e["index"]).collect();
    assert_eq!(numbers.iter().filter(|n| ***n == 1).count(), 2, "the second of each batch: {numbers:?}");
    // A latent contains its workflow too.
    let bytes = fs::read(folder.path().join("out/deep/latents/x_00001_.latent")).expect("the latent");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
    assert!(
        header.metadata().as_ref().is_some_and(|m| m.contains_key("prompt") && m.contains_key("workflow"))
    );
    // Errors are events too.
    let output = run(folder.path(), &["nothing.json", "--json"]);
    let event: Json = serde_json::from_slice(&output.stdout).expect("an event");
    assert_eq!((event["event"].as_str(), event["kind"].as_str()), (Some("error"), Some("file")));
}

#[test]
fn a_dry_run_and_the_list_of_nodes_write_nothing() {
    let folder = folder();
    let before = files(folder.path());
    let output = run(folder.path(), &["ui.json", "--dry-run"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.lines().count() == 8 && text.contains("node 3 (KSampler)"),
        "{text}"
    );
    let output = run(folder.path(), &["--nodes"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("SelfAttentionGuidance") && text.contains("blur_sigma"),
        "{text}"
    );
    assert_eq!(files(folder.path()), before);
}

/// Models of other programs, by ComfyUI's list of folders beside `models`.
#[test]
fn further_folders_are_listed_in_yaml() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("webui/models/Stable-diffusion/sd")).expect("a folder");
    fs::create_dir_all(path("models")).expect("a folder");
    let emoji = crate::common::root().join("models/tiny-emoji/tiny-emoji.safetensors");
    fs::copy(emoji, path("webui/models/Stable-diffusion/sd/mine.safetensors")).expect("a file");
    let yaml = "a111:\n    base_path: webui/\n    checkpoints: models/Stable-diffusion\n    loras: |\n        models/Lora\n        models/LyCORIS\n";
    fs::write(path("extra_model_paths.yaml"), yaml).expect("a file");
    let flags = ["api.json", "--dry-run", "--set", "4.ckpt_name=sd/mine.safetensors"];
    let found = run(folder.path(), &flags);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    // The same list somewhere else, named.
    fs::rename(path("extra_model_paths.yaml"), path("list.yaml")).expect("a file");
    assert_eq!(run(folder.path(), &flags).status.code(), Some(3));
    let named = run(folder.path(), &[&flags[..], &["--extra-model-paths", "list.yaml"]].concat());
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
}

/// A place that cannot be written to is reported before the sampling, and nothing is left behind.
#[test]
fn outputs_that_cannot_be_written() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    fs::write(folder.path().join("file"), "in the way").expect("a file");
    let mut failures = Failures::default();
    for flags in [&["api.json", "--output-dir", "file"][..], &["api.json", "--output-dir", "file/below"]] {
        let output = run(folder.path(), flags);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        failures.check(matches!(output.status.code(), Some(2 | 3)) && stderr.contains("file"), || {
            format!("{flags:?}: {stderr}")
        });
        failures.check(!stderr.contains("it/s"), || format!("{flags:?}: it sampled first"));
    }
    failures.check(files(folder.path()) == ["api.json", "file", "ui.json"], || {
        format!("{:?}", files(folder.path()))
    });
    failures.finish();
}

/// Ctrl-C in the middle: exit code 130, and no part of a file.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_part_of_a_file() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    let flags = ["api.json", "--json", "--set", "3.steps=500"];
    let mut child = program(folder.path(), &flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its output")));
    assert!(lines.any(|line| line.is_ok_and(|l| l.contains("\"step\""))), "no step was done");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    let last = lines.map_while(Result::ok).last().unwrap_or_default();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{last}");
    assert!(last.contains("\"cancelled\""), "{last}");
    assert_eq!(files(&folder.path().join("output")), Vec::<String>::new());
}
