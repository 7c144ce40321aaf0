//! One workflow in every format that people have: it reads as the same graph.

use crate::common::Failures;
use crate::common::workflow::{read, sorted, steps, stored};
use sagittal::image::{Picture, png};
use sagittal::workflow::{Input, Workflow};
use serde_json::{Value as Json, json};

#[test]
fn both_formats_are_one_workflow() {
    let (api, ui) = (read(&stored("default_sag.api.json")), read(&stored("default_sag.ui.json")));
    assert_eq!(sorted(&api), sorted(&ui));
    // Notes, reroutes, a primitive for the seed, a bypassed LoRA and a muted preview leave nothing behind.
    let screen = read(&stored("screen_only.ui.json"));
    assert_eq!(sorted(&api), sorted(&screen));
}

#[test]
fn other_ways_to_write_the_same() {
    let (api, ui) = (stored("default_sag.api.json"), stored("default_sag.ui.json"));
    let want = sorted(&read(&api));
    let mut failures = Failures::default();
    let mut check = |what: &str, json: &Json| {
        let found = sorted(&read(json));
        failures.check(found == want, || format!("{what}: {found:?}"));
    };
    // What is posted to ComfyUI's server.
    check(
        "a request",
        &json!({ "prompt": api, "client_id": "x", "extra_data": { "extra_pnginfo": { "workflow": ui } } }),
    );
    // Old pictures hold what is no JSON.
    let odd = api.to_string().replacen("\"class_type\"", "\"is_changed\":[NaN,-Infinity],\"class_type\"", 1);
    let odd = odd.replacen("golden hour", "NaN \\\" golden hour", 1);
    let graph = Workflow::parse("x", odd.as_bytes()).expect("a workflow").graph().clone();
    let text = graph.find("6").and_then(|n| n.input("text")).cloned();
    assert!(matches!(text, Some(Input::Value(Json::String(t))) if t.contains("NaN \" golden hour")));
    // Links as objects, as the newest files have them, and ids as texts.
    let mut objects = ui.clone();
    objects["version"] = json!(1);
    for link in objects["links"].as_array_mut().expect("links") {
        *link = json!({ "id": link[0], "origin_id": link[1], "origin_slot": link[2], "target_id": link[3],
                        "target_slot": link[4], "type": link[5] });
    }
    check("links as objects", &objects);
    // Values by name, as newer frontends add them; then the list counts for nothing.
    let mut named = ui.clone();
    for node in named["nodes"].as_array_mut().expect("nodes") {
        if node["type"] == "KSampler" {
            node["widgets_values"] = json!([1, "fixed", 1, 1, "lms", "karras", 0.5]);
            node["widgets_values_named"] = json!({ "seed": 42, "control_after_generate": "fixed", "steps": 6, "cfg": 7,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 1 });
        }
    }
    check("values by name", &named);
    // The oldest files have no word behind the seed, or a switch; the last widgets may be missing.
    for values in [json!([42, 6, 7, "euler", "normal", 1]), json!([42, true, 6, 7, "euler", "normal"])] {
        let mut old = ui.clone();
        for node in old["nodes"].as_array_mut().expect("nodes") {
            if node["type"] == "KSampler" {
                node["widgets_values"] = values.clone();
            }
        }
        check("an old list", &old);
    }
    failures.finish();
}

#[test]
fn pictures_carry_their_workflow() {
    let (api, ui) = (stored("default_sag.api.json").to_string(), stored("default_sag.ui.json").to_string());
    let picture = Picture { width: 8, height: 8, rgb: vec![9; 192] };
    let want = sorted(&read(&stored("default_sag.api.json")));
    let parse =
        |texts: &[(&str, &str)]| Workflow::parse("x.png", &png::encode(&picture, texts).expect("a PNG"));
    for texts in
        [&[("prompt", api.as_str())][..], &[("workflow", &ui)], &[("workflow", "{}"), ("prompt", &api)]]
    {
        assert_eq!(sorted(parse(texts).expect("a workflow").graph()), want);
    }
    // Text beyond Latin-1 is in a chunk of another kind.
    let wide = api.replace("golden hour", "золотой час");
    assert!(parse(&[("prompt", &wide)]).expect("a workflow").graph().find("6").is_some());
    for (texts, word) in [
        (&[][..], "a picture without one"),
        (&[("parameters", "a fox\nSteps: 20")], "settings of a picture"),
        (&[("prompt", "{\"3\": ")], "text `prompt`"),
    ] {
        let error = parse(texts).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// A subgraph, as newer frontends make them: its inner side is linked to nodes -10 and -20.
#[test]
fn subgraphs_are_laid_open() {
    let inner = json!({
        "id": "b2c4", "name": "sampling", "inputNode": {"id": -10}, "outputNode": {"id": -20},
        "inputs": [{"name": "model", "type": "MODEL"}, {"name": "seed", "type": "INT"}],
        "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
        "nodes": [
            {"id": 1, "type": "KSampler", "mode": 0, "inputs": [
                {"name": "model", "type": "MODEL", "link": 1}, {"name": "positive", "type": "CONDITIONING", "link": 2},
                {"name": "negative", "type": "CONDITIONING", "link": 2}, {"name": "latent_image", "type": "LATENT", "link": 3},
                {"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": 4}],
             "widgets_values": [5, "fixed", 6, 7, "euler", "normal", 1]},
            {"id": 2, "type": "CLIPTextEncode", "mode": 0, "inputs": [{"name": "clip", "type": "CLIP", "link": 5}],
             "widgets_values": ["fox"]},
            {"id": 3, "type": "EmptyLatentImage", "mode": 0, "inputs": [], "widgets_values": [64, 64, 1]},
            {"id": 4, "type": "VAEDecode", "mode": 0, "inputs": [
                {"name": "samples", "type": "LATENT", "link": 6}, {"name": "vae", "type": "VAE", "link": 7}]},
            {"id": 5, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [], "widgets_values": ["tiny-emoji"]}],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "MODEL"},
            {"id": 2, "origin_id": 2, "origin_slot": 0, "target_id": 1, "target_slot": 1, "type": "CONDITIONING"},
            {"id": 3, "origin_id": 3, "origin_slot": 0, "target_id": 1, "target_slot": 3, "type": "LATENT"},
            {"id": 4, "origin_id": -10, "origin_slot": 1, "target_id": 1, "target_slot": 4, "type": "INT"},
            {"id": 5, "origin_id": 5, "origin_slot": 1, "target_id": 2, "target_slot": 0, "type": "CLIP"},
            {"id": 6, "origin_id": 1, "origin_slot": 0, "target_id": 4, "target_slot": 0, "type": "LATENT"},
            {"id": 7, "origin_id": 5, "origin_slot": 2, "target_id": 4, "target_slot": 1, "type": "VAE"},
            {"id": 8, "origin_id": 4, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"}],
    });
    let outer = |seed: Json| {
        json!({
            "nodes": [
                {"id": 10, "type": "b2c4", "mode": 0, "inputs": [{"name": "model", "type": "MODEL", "link": 1},
                    {"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": null}],
                 "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}], "widgets_values": seed},
                {"id": 11, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [], "widgets_values": ["tiny-emoji"]},
                {"id": 12, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
                 "widgets_values": ["x"]}],
            "links": [[1, 11, 0, 10, 0, "MODEL"], [2, 10, 0, 12, 0, "IMAGE"]],
            "definitions": {"subgraphs": [inner]}, "version": 0.4,
        })
    };
    let graph = read(&outer(json!([])));
    let link = |id: &str, name: &str| graph.find(id).and_then(|n| n.input(name)).cloned();
    assert_eq!(link("10:1", "model"), Some(Input::Link { node: "11".into(), output: 0 }));
    assert_eq!(link("12", "images"), Some(Input::Link { node: "10:4".into(), output: 0 }));
    assert_eq!(link("10:1", "positive"), Some(Input::Link { node: "10:2".into(), output: 0 }));
    assert_eq!(link("10:1", "seed"), Some(Input::Value(5.into())));
    // A widget that is shown on the outside has its value there.
    let promoted = read(&outer(json!([77])));
    assert_eq!(promoted.find("10:1").and_then(|n| n.input("seed")), Some(&Input::Value(77.into())));
    // So has one that is shown on the outside of two.
    let around = json!({
        "id": "a1", "name": "around", "inputs": [{"name": "seed", "type": "INT"}],
        "nodes": [
            {"id": 20, "type": "b2c4", "mode": 0, "inputs": [{"name": "model", "type": "MODEL", "link": 1},
                {"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": 2}], "widgets_values": [77]},
            {"id": 21, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [], "widgets_values": ["tiny-emoji"]}],
        "links": [[1, 21, 0, 20, 0, "MODEL"], [2, -10, 0, 20, 1, "INT"], [3, 20, 0, -20, 0, "IMAGE"]],
    });
    let mut twice = outer(json!([4321]));
    twice["definitions"]["subgraphs"].as_array_mut().expect("subgraphs").push(around);
    twice["nodes"][0]["type"] = json!("a1");
    let seed = json!([{"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": null}]);
    twice["nodes"][0]["inputs"] = seed;
    let twice = read(&twice);
    assert_eq!(twice.find("10:20:1").and_then(|n| n.input("seed")), Some(&Input::Value(4321.into())));
    assert_eq!(steps(&outer(json!([]))), Ok(7));
    // One that contains itself ends.
    let mut endless = outer(json!([]));
    let own = json!({"id": 9, "type": "b2c4", "mode": 0, "inputs": []});
    endless["definitions"]["subgraphs"][0]["nodes"].as_array_mut().expect("nodes").push(own);
    let error = Workflow::parse("x", endless.to_string().as_bytes()).expect_err("refused").to_string();
    assert!(error.contains("without end"), "{error}");
}

/// Whoever mutes the first node of a branch wants the other branches.
#[test]
fn outputs_behind_a_muted_node_rest() {
    let mut json = stored("default_sag.ui.json");
    let nodes = json["nodes"].as_array_mut().expect("nodes");
    let loader = nodes.iter_mut().find(|n| n["type"] == "CheckpointLoaderSimple").expect("a loader");
    loader["widgets_values"][0] = json!("tiny-emoji");
    let whole = nodes.len();
    let second = |id: u64, class: &str, mode: u64, input: &str, kind: &str, link: u64| {
        json!({ "id": id, "type": class, "mode": mode,
            "inputs": [{ "name": input, "type": kind, "link": link }], "widgets_values": ["nearest-exact", 2.0] })
    };
    nodes.push(second(90, "ImageScaleBy", 2, "image", "IMAGE", 900));
    nodes.push(second(91, "ImageInvert", 0, "image", "IMAGE", 901));
    nodes.push(second(92, "PreviewImage", 0, "images", "IMAGE", 902));
    let links = json["links"].as_array_mut().expect("links");
    for (link, from, to) in [(900, 8, 90), (901, 90, 91), (902, 91, 92)] {
        links.push(json!([link, from, 0, to, 0, "IMAGE"]));
    }
    assert_eq!(steps(&json), Ok(whole));
    // With the only other output muted as well, the error says what is missing.
    let nodes = json["nodes"].as_array_mut().expect("nodes");
    nodes.iter_mut().find(|n| n["type"] == "SaveImage").expect("an output")["mode"] = json!(2);
    assert!(steps(&json).expect_err("refused").contains("node 90 (ImageScaleBy) is muted"));
}

/// Primitive nodes of the server's side: their values are looked at before anything runs.
#[test]
fn primitives_hold_values() {
    let mut json = stored("default_sag.api.json");
    json["4"]["inputs"]["ckpt_name"] = json!("tiny-emoji");
    for (id, class, value, input) in [
        ("20", "PrimitiveInt", json!(9), ("3", "seed")),
        ("21", "PrimitiveFloat", json!(3.5), ("3", "cfg")),
        ("22", "PrimitiveString", json!("a fox"), ("6", "text")),
        ("23", "PrimitiveStringMultiline", json!("blurry"), ("7", "text")),
    ] {
        json[id] = json!({ "class_type": class, "inputs": { "value": value } });
        json[input.0]["inputs"][input.1] = json!([id, 0]);
    }
    assert_eq!(steps(&json), Ok(8));
    json["24"] = json!({ "class_type": "PrimitiveBoolean", "inputs": { "value": true } });
    json["3"]["inputs"]["seed"] = json!(["24", 0]);
    assert!(steps(&json).expect_err("refused").contains("wrong type"));
    json["3"]["inputs"]["seed"] = json!(["20", 0]);
    json["20"]["inputs"]["value"] = json!(-1);
    assert!(steps(&json).expect_err("refused").contains("seed"));
}

#[test]
fn inputs_are_set_by_hand() {
    let mut workflow =
        Workflow::parse("x", stored("default_sag.ui.json").to_string().as_bytes()).expect("a workflow");
    for assignment in
        ["3.seed=7", "KSampler.cfg=2.5", "6.text=a=b.c", "9.filename_prefix=x/y", "4.ckpt_name=tiny-emoji"]
    {
        workflow.set(assignment).unwrap_or_else(|e| panic!("{assignment}: {e}"));
    }
    let value = |id: &str, name: &str| workflow.graph().find(id).and_then(|n| n.input(name)).cloned();
    assert_eq!(value("3", "seed"), Some(Input::Value(7.into())));
    assert_eq!(value("3", "cfg"), Some(Input::Value(2.5.into())));
    assert_eq!(value("6", "text"), Some(Input::Value("a=b.c".into())));
    for (bad, word) in [
        ("3.seed", "NODE.INPUT=VALUE"),
        ("seed=3", "NODE.INPUT=VALUE"),
        ("CLIPTextEncode.text=x", "node 7 (CLIPTextEncode); node 6"),
        ("KSampla.seed=1", "did you mean KSampler"),
        ("3.sed=1", "one of seed, steps"),
        ("3.seed=x", "whole number"),
        ("3.seed=-1", "outside its range"),
        ("3.sampler_name=eulr", "did you mean euler"),
        ("3.model=1", "no such input"),
    ] {
        let error = workflow.set(bad).expect_err(bad);
        assert_eq!(error.kind(), sagittal::ErrorKind::Usage, "{bad}");
        assert!(error.to_string().contains(word), "{bad}: {error}");
    }
}
