//! Workflows of older versions of ComfyUI, and with nodes that are not known here: files as people have them
//! (`cases/`), and the other ways in which they differ.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::Failures;
use crate::common::workflow::{Home, add, options, read, set, sorted, steps, stored};
use crate::{common::gpu_is_off, program::program};
use sagittal::image::{Picture, png};
use sagittal::workflow::{Input, Workflow};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A case, with the built-in model.
fn case(name: &str) -> Json {
    stored(&format!("cases/{name}.json"))
}

/// A folder with the case as `w.json`.
fn folder(workflow: &Json) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("input")).expect("a folder");
    fs::write(folder.path().join("w.json"), workflow.to_string()).expect("a file");
    folder
}

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, &[&["run", "w.json"], flags].concat()).output().expect("the program starts")
}

/// Exit code, lines of the result and stderr of a dry run.
fn dry(workflow: &Json) -> (i32, Vec<String>, String) {
    let folder = folder(workflow);
    let picture = Picture { width: 64, height: 64, rgb: vec![128; 64 * 64 * 3] };
    fs::write(folder.path().join("input/p.png"), png::encode(&picture, &[]).expect("a PNG")).expect("a file");
    let output = run(folder.path(), &["--dry-run"]);
    assert!(!folder.path().join("output").exists(), "a dry run writes nothing");
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (output.status.code().expect("a code"), lines, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The lines of `plain.json`, which all cases with a skipped node have too.
fn plain_lines() -> Vec<String> {
    let (code, lines, stderr) = dry(&case("plain"));
    assert_eq!((code, stderr.as_str(), lines.len()), (0, "", 7));
    lines
}

fn value(json: &Json, id: &str, name: &str) -> Option<Input> {
    read(json).find(id).and_then(|node| node.input(name)).cloned()
}

#[test]
fn average_2023() {
    let (old, now) = (case("average_2023"), case("average_now"));
    assert!(old.to_string().contains("\"ConditioningAverage \""), "the case");
    assert_eq!(sorted(&read(&old)), sorted(&read(&now)));
    let (code, lines, stderr) = dry(&old);
    assert_eq!((code, stderr.as_str(), lines.len()), (0, "", 9));
    // The API format too.
    let (old, now) = (read(&old).to_api(), read(&now).to_api());
    let spaced = old.to_string().replace("\"ConditioningAverage\"", "\"ConditioningAverage \"");
    assert_ne!(spaced, old.to_string());
    assert_eq!(sorted(&read(&serde_json::from_str(&spaced).expect("JSON"))), sorted(&read(&now)));
}

#[test]
fn older_prompt_ui() {
    let ui = case("older_prompt_ui");
    assert_eq!(value(&ui, "26", "grow_mask_by"), Some(Input::Value(6.into())));
    let (code, lines, stderr) = dry(&ui);
    assert_eq!((code, stderr.as_str(), lines.len()), (0, "", 8));
    // The prompt half of a picture, which is what runs, is as old as the node.
    let mut prompt = read(&ui).to_api();
    let inputs = prompt["26"]["inputs"].as_object_mut().expect("inputs");
    inputs.remove("grow_mask_by").expect("the widget that came later");
    let picture = Picture { width: 8, height: 8, rgb: vec![9; 192] };
    let texts = [("prompt", &*prompt.to_string()), ("workflow", &*ui.to_string())];
    let bytes = png::encode(&picture, &texts).expect("a PNG");
    let home = Home::new(&[]);
    fs::write(home.at("input/p.png"), &bytes).expect("a file");
    let workflow = Workflow::parse("x.png", &bytes).expect("a workflow");
    let (folders, options) = (home.folders(), options());
    assert_eq!(workflow.check(&folders, &options).map(|ready| ready.nodes().count()).expect("it runs"), 8);
}

#[test]
fn sample_euler() {
    let (old, now) = (case("sample_euler"), case("plain"));
    assert_eq!(value(&old, "3", "sampler_name"), Some(Input::Value("euler".into())));
    assert_eq!(sorted(&read(&old)), sorted(&read(&now)));
    let (code, lines, stderr) = dry(&old);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(lines, plain_lines());
}

#[test]
fn three_unknown() {
    let (code, lines, stderr) = dry(&case("three_unknown"));
    // Nothing needs them here, so the rest runs.
    assert_eq!((code, lines), (0, plain_lines()));
    for part in [
        "node 97 (UpscaleModelLoader), ComfyUI's own;",
        "node 98 (ImageUpscaleWithModel), ComfyUI's own;",
        "node 99 (SAMLoader), custom\n",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(!stderr.contains("did you mean") && !stderr.contains("nearest"), "{stderr}");
    // Where what is saved needs them the file is refused, and all of them are named.
    let mut api = read(&case("plain")).to_api();
    add(&mut api, "97", "UpscaleModelLoader", json!({ "model_name": "x.pth" }));
    add(&mut api, "98", "ImageUpscaleWithModel", json!({ "upscale_model": ["97", 0], "image": ["99", 0] }));
    add(&mut api, "99", "SAMLoader", json!({ "image": ["8", 0] }));
    set(&mut api, "9", json!({ "images": ["98", 0] }));
    let (code, lines, stderr) = dry(&api);
    assert_eq!((code, lines.len()), (3, 0), "{stderr}");
    for part in [
        "nodes that do not run here",
        "node 97 (UpscaleModelLoader), ComfyUI's own;",
        "node 98 (ImageUpscaleWithModel), ComfyUI's own;",
        "node 99 (SAMLoader), custom;",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(!stderr.contains("did you mean") && !stderr.contains("nearest"), "{stderr}");
}

#[test]
fn label() {
    let (code, lines, stderr) = dry(&case("label"));
    assert_eq!((code, lines), (0, plain_lines()));
    assert!(stderr.contains("needs them: node 99 (Label (rgthree)), custom\n"), "{stderr}");
}

#[test]
fn bypasser() {
    let (code, lines, stderr) = dry(&case("bypasser"));
    assert_eq!((code, lines), (0, plain_lines()));
    assert!(stderr.contains("needs them: node 99 (Fast Groups Bypasser (rgthree)), custom\n"), "{stderr}");
}

#[test]
fn unlinked() {
    let (code, lines, stderr) = dry(&case("unlinked"));
    assert_eq!((code, lines), (0, plain_lines()));
    assert!(stderr.contains("needs them: node 99 (SomeCustomThing), custom\n"), "{stderr}");
}

#[test]
fn sag_basic_guider_second_pass() {
    let workflow = case("sag_basic_guider_second_pass");
    let (code, lines, stderr) = dry(&workflow);
    assert_eq!((code, lines.len()), (2, 0), "{stderr}");
    for part in
        ["node 10 (SamplerCustomAdvanced)", "Self-Attention Guidance needs a negative prompt", "CFGGuider"]
    {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    // Without SAG, or with SAG off, the guider does.
    for change in [json!({ "scale": 0.0 }), json!({ "blur_sigma": 0 })] {
        let mut off = workflow.clone();
        set(&mut off, "30", change);
        assert_eq!(dry(&off).0, 0);
    }
    let mut off = workflow.clone();
    set(&mut off, "41", json!({ "model": ["4", 0] }));
    assert_eq!(dry(&off).0, 0);
    // Samplers that look at the negative by themselves cannot do without it either.
    set(&mut off, "43", json!({ "sampler_name": "euler_cfg_pp" }));
    let (code, _, stderr) = dry(&off);
    assert!(code == 2 && stderr.contains("the sampler euler_cfg_pp needs a negative prompt"), "{stderr}");
}

#[test]
fn negative_range() {
    let workflow = case("negative_range");
    let (code, lines, stderr) = dry(&workflow);
    assert_eq!((code, lines.len()), (0, 8), "{stderr}");
    // Its SAG is linked to nothing, which is reported.
    assert!(stderr.contains("nothing that is saved needs node 30 (SelfAttentionGuidance)"), "{stderr}");
    // Under SAG the negative is asked for when it does not count.
    let mut under = workflow.clone();
    set(&mut under, "3", json!({ "model": ["30", 0] }));
    let (code, lines, stderr) = dry(&under);
    assert_eq!((code, lines.len()), (2, 0), "{stderr}");
    assert!(stderr.contains("node 3 (KSampler)") && stderr.contains("no conditioning is active"), "{stderr}");
    // A second that counts for the rest, or a range of all of it, will do.
    let mut whole = under.clone();
    set(&mut whole, "37", json!({ "end": 1.0 }));
    assert_eq!(dry(&whole).0, 0);
    let mut rest = under.clone();
    add(
        &mut rest,
        "38",
        "ConditioningSetTimestepRange",
        json!({ "conditioning": ["7", 0], "start": 0.3, "end": 1.0 }),
    );
    add(
        &mut rest,
        "39",
        "ConditioningCombine",
        json!({ "conditioning_1": ["37", 0], "conditioning_2": ["38", 0] }),
    );
    set(&mut rest, "3", json!({ "negative": ["39", 0] }));
    assert_eq!(dry(&rest).0, 0);
    set(&mut rest, "38", json!({ "start": 0.9 }));
    assert_eq!(dry(&rest).0, 2, "a gap");
    // So it is with the other samplers.
    for (id, class, inputs) in [
        (
            "50",
            "KSamplerAdvanced",
            json!({ "add_noise": "enable", "noise_seed": 1, "start_at_step": 0, "end_at_step": 9,
            "return_with_leftover_noise": "disable" }),
        ),
        (
            "51",
            "SamplerCustom",
            json!({ "add_noise": true, "noise_seed": 1, "sampler": ["52", 0], "sigmas": ["53", 0] }),
        ),
    ] {
        let mut other = under.clone();
        let mut all = other["3"]["inputs"].clone();
        all.as_object_mut().expect("inputs").extend(inputs.as_object().expect("inputs").clone());
        add(&mut other, id, class, all);
        add(&mut other, "52", "KSamplerSelect", json!({ "sampler_name": "dpm_2" }));
        add(
            &mut other,
            "53",
            "KarrasScheduler",
            json!({ "steps": 3, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7.0 }),
        );
        set(&mut other, "8", json!({ "samples": [id, 0] }));
        let (code, _, stderr) = dry(&other);
        assert!(code == 2 && stderr.contains(&format!("node {id} ({class})")), "{stderr}");
        set(&mut other, id, json!({ "model": ["4", 0] }));
        assert_eq!(dry(&other).0, 0, "{class} without SAG");
    }
}

/// The files below the output folder of a run in one step, as paths.
fn saved(workflow: &Json) -> Vec<String> {
    let folder = folder(workflow);
    let output = run(folder.path(), &["--set", "3.steps=1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let saved = crate::schema::events(&output.stdout).into_iter().filter(|event| event["event"] == "saved");
    saved.map(|event| event["path"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn prefix_linked() {
    if gpu_is_off() {
        return;
    }
    let files = saved(&case("prefix_linked"));
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let parts: Vec<&str> = file.split(['/', '\\']).collect();
    assert!(matches!(parts[..], ["output", _, "p_00001_.png"]), "{file}");
    let day: Vec<&str> = parts[1].split('-').collect();
    let digits = |part: &&str| part.chars().all(|c| c.is_ascii_digit());
    assert!(day.iter().map(|part| part.len()).eq([4, 2, 2]) && day.iter().all(digits), "{file}");
}

#[test]
fn prefix_class() {
    if gpu_is_off() {
        return;
    }
    assert_eq!(saved(&case("prefix_class")), ["output/5_64_00001_.png"]);
}

/// What else names of files may call, and what stays as it is, with a warning.
#[test]
fn prefixes_call_whatever_is_on_the_screen() {
    if gpu_is_off() {
        return;
    }
    let mut ui = case("plain");
    let nodes = ui["nodes"].as_array_mut().expect("nodes");
    let node = |id: u64, class: &str, title: &str, mode: u64, values: Json| {
        json!({ "id": id, "type": class, "title": title, "mode": mode, "inputs": [], "outputs": [],
                "properties": { "Node name for S&R": class }, "widgets_values": values })
    };
    nodes.push(node(20, "PrimitiveNode", "Run", 0, json!([7, "fixed"])));
    nodes.push(node(21, "EmptyLatentImage", "rested", 2, json!([32, 16, 1])));
    nodes.push(node(22, "PrimitiveFloat", "Strength", 0, json!([7.0])));
    let last = nodes.iter_mut().find(|n| n["id"] == 9).expect("an output");
    let names = [
        "Run.value",
        "rested.width",
        "Empty Latent Image.height",
        "KSampler.cfg",
        "Strength.value",
        "Nobody.seed",
    ];
    last["widgets_values"] = json!([names.map(|name| format!("%{name}%")).join("_")]);
    assert_eq!(saved(&ui), ["output/7_32_64_2_7_%Nobody.seed%_00001_.png"]);
    let stderr = dry(&ui).2;
    assert!(stderr.contains("%Nobody.seed%") && stderr.contains("no node or input"), "{stderr}");
    // A seed that comes from elsewhere, as a template of the API format has it.
    let mut api = case("prefix_class");
    add(&mut api, "30", "PrimitiveInt", json!({ "value": 12 }));
    set(&mut api, "3", json!({ "seed": ["30", 0] }));
    assert_eq!(saved(&api), ["output/12_64_00001_.png"]);
}

/// Widgets that were added to nodes after a file was written, in the API format, where ComfyUI's server stops.
#[test]
fn widgets_gained_later_are_at_their_defaults() {
    let mut json = stored("default_sag.api.json");
    set(&mut json, "4", json!({ "ckpt_name": "tiny-emoji" }));
    add(&mut json, "20", "EmptyImage", json!({ "width": 64, "height": 64, "batch_size": 1 }));
    add(&mut json, "21", "SolidMask", json!({ "value": 1.0, "width": 64, "height": 64 }));
    add(
        &mut json,
        "22",
        "VAEEncodeForInpaint",
        json!({ "pixels": ["20", 0], "vae": ["4", 2], "mask": ["21", 0] }),
    );
    add(&mut json, "23", "LatentFromBatch", json!({ "samples": ["22", 0], "batch_index": 0 }));
    add(
        &mut json,
        "24",
        "ConditioningSetMask",
        json!({ "conditioning": ["6", 0], "mask": ["21", 0], "strength": 1.0 }),
    );
    add(&mut json, "25", "VAEDecodeTiled", json!({ "samples": ["3", 0], "vae": ["4", 2] }));
    add(&mut json, "26", "BasicScheduler", json!({ "model": ["4", 0], "scheduler": "normal", "steps": 2 }));
    add(&mut json, "27", "KSamplerSelect", json!({ "sampler_name": "sample_euler" }));
    add(
        &mut json,
        "28",
        "SamplerCustom",
        json!({ "model": ["10", 0], "add_noise": true, "noise_seed": 1, "cfg": 7,
        "positive": ["24", 0], "negative": ["7", 0], "sampler": ["27", 0], "sigmas": ["26", 0], "latent_image": ["3", 0] }),
    );
    set(&mut json, "3", json!({ "latent_image": ["23", 0] }));
    set(&mut json, "25", json!({ "samples": ["28", 0] }));
    set(&mut json, "9", json!({ "images": ["25", 0] }));
    assert_eq!(steps(&json), Ok(15));
    // An input that a node always had is not filled in.
    drop(json["28"]["inputs"].as_object_mut().expect("inputs").remove("cfg"));
    assert!(steps(&json).expect_err("refused").contains("input cfg is missing"));
}

/// Values as an object with numbers for names, lists in objects, and what is never read.
#[test]
fn other_ways_to_write_values() {
    let ui = case("plain");
    let want = sorted(&read(&ui));
    let mut numbered = ui.clone();
    for node in numbered["nodes"].as_array_mut().expect("nodes") {
        let values = node["widgets_values"].as_array().expect("values").clone();
        let named = values.into_iter().enumerate().map(|(i, value)| (i.to_string(), value));
        node["widgets_values"] = Json::Object(named.collect());
    }
    assert_eq!(sorted(&read(&numbered)), want);
    let mut switched = ui.clone();
    let named =
        json!({ "seed": 5, "steps": 2, "cfg": 2, "sampler_name": "sample_euler", "scheduler": "Normal" });
    for node in switched["nodes"].as_array_mut().expect("nodes").iter_mut().filter(|n| n["id"] == 3) {
        node["widgets_values"] = named.clone();
    }
    assert_eq!(sorted(&read(&switched)), want);
    let mut api = read(&ui).to_api();
    set(&mut api, "6", json!({ "text": { "__value__": "fox, 3d style" } }));
    assert_eq!(value(&api, "6", "text"), Some(Input::Value("fox, 3d style".into())));
    set(
        &mut api,
        "6",
        json!({ "speak_and_recognation": { "__value__": [false, true] }, "odd": [[1], {}], "none": null }),
    );
    assert_eq!(steps(&api), Ok(7));
    set(&mut api, "6", json!({ "text": { "__value__": ["a", "b", "c"] } }));
    assert!(steps(&api).expect_err("refused").contains("input text: a value of the wrong type"));
}

/// Wires that are not seen, of the packages that public files have most.
#[test]
fn unseen_wires_are_followed() {
    let mut ui = case("plain");
    let want = sorted(&read(&ui));
    let get = |id: u64, class: &str, name: &str| json!({ "id": id, "type": class, "mode": 0, "inputs": [], "widgets_values": [name] });
    let nodes = ui["nodes"].as_array_mut().expect("nodes");
    let input = json!([{ "name": "MODEL", "type": "MODEL", "link": 100 }]);
    nodes.push(json!({ "id": 20, "type": "SetNode", "mode": 0, "inputs": input, "widgets_values": ["m"] }));
    nodes.push(get(21, "GetNode", "m"));
    let input = json!([{ "name": "", "type": "*", "link": 101 }]);
    nodes.push(json!({ "id": 22, "type": "Reroute (rgthree)", "mode": 0, "inputs": input }));
    nodes.iter_mut().find(|n| n["id"] == 3).expect("a sampler")["inputs"][0]["link"] = json!(102);
    let links = ui["links"].as_array_mut().expect("links");
    links.extend([
        json!([100, 4, 0, 20, 0, "MODEL"]),
        json!([101, 21, 0, 22, 0, "*"]),
        json!([102, 22, 0, 3, 0, "MODEL"]),
    ]);
    assert_eq!(sorted(&read(&ui)), want);
    assert_eq!(steps(&ui), Ok(7));
    // A start without its end, and wires in a circle, are reported.
    let mut lost = ui.clone();
    let at = |json: &mut Json, id: u64, key: &str, value: Json| {
        json["nodes"].as_array_mut().expect("nodes").iter_mut().find(|n| n["id"] == id).expect("a node")
            [key] = value;
    };
    for name in [json!(["n"]), json!([]), json!([7]), json!(null), json!({ "0": {} })] {
        at(&mut lost, 21, "widgets_values", name);
        assert!(steps(&lost).expect_err("refused").contains("node 3 (KSampler)"));
    }
    ui["links"].as_array_mut().expect("links").push(json!([103, 22, 0, 20, 0, "*"]));
    at(&mut ui, 20, "inputs", json!([{ "name": "MODEL", "type": "MODEL", "link": 103 }]));
    assert!(steps(&ui).expect_err("refused").contains("circle"));
}

/// Nodes that do not run here, wherever they are.
#[test]
fn unknown_nodes_wherever_they_are() {
    let plain = read(&case("plain")).to_api();
    let mut failures = Failures::default();
    let mut stderr = |what: &str, json: &Json, code: i32, parts: &[&str]| {
        let (found, _, stderr) = dry(json);
        failures.check(found == code, || format!("{what}: {found}, {stderr}"));
        for part in parts {
            failures.check(stderr.contains(part), || format!("{what}: no {part:?} in {stderr}"));
        }
    };
    // Only for a typing error a suggestion is made, and only of similar names.
    let mut json = plain.clone();
    json["3"]["class_type"] = json!("Ksampler");
    stderr(
        "a slip",
        &json,
        3,
        &["a node that does not run here", "node 3 (Ksampler", "custom (did you mean KSampler?)"],
    );
    // One that saves is no reason to stop while another does.
    let mut json = plain.clone();
    add(&mut json, "20", "Image Save", json!({ "images": ["8", 0], "prefix": "y" }));
    stderr("another that saves", &json, 0, &["node 20 (Image Save), custom"]);
    drop(json.as_object_mut().expect("nodes").remove("9"));
    stderr("it alone", &json, 3, &["no output node", "unknown here: node 20 (Image Save), custom"]);
    // A branch that a person muted needs nothing.
    let mut ui = case("plain");
    let node = |id: u64, class: &str, mode: u64, input: &str, link: u64| {
        json!({ "id": id, "type": class, "mode": mode,
        "inputs": [{ "name": input, "type": "IMAGE", "link": link }], "properties": { "cnr_id": "some-pack" } })
    };
    let nodes = ui["nodes"].as_array_mut().expect("nodes");
    nodes.extend([
        node(20, "ImageInvert", 2, "image", 9),
        node(21, "Face Fix", 0, "image", 100),
        node(22, "PreviewImage", 0, "images", 101),
    ]);
    let links = ui["links"].as_array_mut().expect("links");
    links.extend([json!([100, 20, 0, 21, 0, "IMAGE"]), json!([101, 21, 0, 22, 0, "IMAGE"])]);
    stderr("behind a muted node", &ui, 0, &["node 22 (PreviewImage) does not run"]);
    // Unmuted it is needed; the package that the file names is reported.
    ui["nodes"].as_array_mut().expect("nodes").iter_mut().find(|n| n["id"] == 20).expect("a node")["mode"] =
        json!(0);
    stderr("needed", &ui, 3, &["node 21 (Face Fix), custom, of some-pack"]);
    // So it is in a bypassed node, which lets its input through.
    let face = ui["nodes"].as_array_mut().expect("nodes").iter_mut().find(|n| n["id"] == 21).expect("a node");
    face["mode"] = json!(4);
    stderr("bypassed", &ui, 0, &[]);
    // A link into an input that a known kind does not have here.
    let mut json = plain.clone();
    add(&mut json, "20", "Magic", json!({}));
    set(&mut json, "3", json!({ "magic": ["20", 0] }));
    stderr(
        "an unknown input",
        &json,
        0,
        &["node 3 (KSampler): the link to its input \"magic\" is left out", "node 20 (Magic)"],
    );
    // Many are named, but not thousands.
    let mut json = plain.clone();
    for i in 0..500 {
        add(&mut json, &format!("x{i}"), "Thing", json!({ "a": [format!("x{}", (i + 1) % 500), 0] }));
    }
    set(&mut json, "3", json!({ "model": ["x0", 0] }));
    stderr("a circle of many", &json, 3, &["nodes that do not run here", "460 more"]);
    failures.finish();
}
