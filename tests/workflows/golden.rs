//! Workflows whose latents ComfyUI computed: the default one with SAG in both formats, and what runs of
//! the golden sets there are, by way of KSampler and of SamplerCustom's family.

use crate::common::Failures;
use crate::common::workflow::{
    Golden, Home, add, device_context, difference, first_of, read_latent, set, stored, text_to_image,
};
use serde_json::{Value as Json, json};

/// Runs whose workflows are run here, of the 103 that there are: each setting at least once.
const RUNS: [(&str, &[&str]); 3] = [
    (
        "tiny-sd1",
        &[
            "sag_euler",
            "sag_euler_ancestral",
            "sag_dpm_2",
            "sag_dpmpp_2m_sde",
            "plain_uni_pc",
            "sch_beta",
            "cfg1",
            "cfg1_plain",
            "unequal_prompts",
            "img2img",
            "img2img_uni_pc",
            "size_33x47",
        ],
    ),
    ("tiny-sd2", &["sag_euler", "batch3", "unequal_prompts", "img2img_2m"]),
    ("tiny-sdxl", &["sag_euler", "cfg1", "unequal_prompts", "img2img_2m"]),
];

#[test]
fn workflows_give_comfyuis_latents() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1", "tiny-sd2", "tiny-sdxl"]);
    let mut failures = Failures::default();
    for (family, runs) in RUNS {
        let golden = Golden::of(family);
        home.input_latent("latent.a.latent", golden.tensor("latent.a"));
        for name in runs {
            let workflow = golden.workflow(&format!("{family}.safetensors"), name);
            let share = golden.share(name, &home.latent(&device_context, &workflow));
            println!("{family} {name}: {:.1} % of the tolerance", 100.0 * share);
            failures.check(share <= 1.0, || format!("{family} {name}: {share:.2} of the tolerance"));
        }
    }
    failures.finish();
}

/// As ComfyUI's menu exports it, in both formats, on three families: with a node that saves the latent
/// they give ComfyUI's, and as they are the same picture.
#[test]
fn the_default_workflow_with_sag_in_both_formats() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1", "tiny-sd2", "tiny-sdxl"]);
    let mut failures = Failures::default();
    for family in ["tiny-sd1", "tiny-sd2", "tiny-sdxl"] {
        let golden = Golden::of(family);
        let mut pictures = Vec::new();
        for name in ["default_sag.api.json", "default_sag.ui.json", "screen_only.ui.json"] {
            let mut workflow = stored(name);
            name_checkpoint(&mut workflow, &format!("{family}.safetensors"));
            // What differs between the formats is read before a family is looked at.
            if family == "tiny-sd1" {
                let saved = home.run(&device_context, &workflow).unwrap_or_else(|e| panic!("{name}: {e}"));
                failures.check(saved.len() == 1, || format!("{name} saved {saved:?}"));
                pictures.push(pixels(&saved[0].path));
            }
            save_latent(&mut workflow);
            let saved = home.run(&device_context, &workflow).unwrap_or_else(|e| panic!("{name}: {e}"));
            pictures.push(pixels(first_of(&saved, "png")));
            let share = golden.share("sag_euler", &read_latent(first_of(&saved, "latent")));
            failures.check(share <= 1.0, || format!("{family} {name}: {share:.2} of the tolerance"));
        }
        failures.check(pictures.windows(2).all(|p| p[0] == p[1]), || format!("{family}: the formats differ"));
        failures.check(pictures[0].len() == 160 * 128 * 3, || format!("{family}: the size"));
    }
    failures.finish();
}

/// Several prompts on a side: ComfyUI's own latents where its node does not go astray, and the same
/// whatever the order where it does.
#[test]
fn several_prompts_on_a_side() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1"]);
    let golden = Golden::of("chunk");
    let mut failures = Failures::default();
    let case = |positive: &[&str], negative: &[&str], sag: bool| {
        let mut w = text_to_image("tiny-sd1.safetensors", [160, 128, 1]);
        set(&mut w, "3", json!({ "seed": 90, "steps": 3, "scheduler": "karras" }));
        set(&mut w, "10", json!({ "scale": 0.75 }));
        if !sag {
            set(&mut w, "3", json!({ "model": ["4", 0] }));
        }
        for (side, names) in [("positive", positive), ("negative", negative)] {
            for (i, name) in names.iter().enumerate() {
                let text = json!({ "text": golden.prompt(name), "clip": ["4", 1] });
                add(&mut w, &format!("{side}{i}"), "CLIPTextEncode", text);
            }
            set(&mut w, "3", json!({ side: [format!("{side}0"), 0] }));
            if names.len() > 1 {
                let both = json!({ "conditioning_1": [format!("{side}0"), 0], "conditioning_2": [format!("{side}1"), 0] });
                add(&mut w, side, "ConditioningCombine", both);
                set(&mut w, "3", json!({ side: [side, 0] }));
            }
        }
        home.latent(&device_context, &w)
    };
    for (name, positive, negative, sag) in [
        ("normal", &["pos"][..], &["neg"][..], true),
        ("two_negatives_plain", &["pos"], &["neg", "neg2"], false),
        ("two_positives", &["pos", "neg2"], &["neg"], true),
        ("unequal_lengths", &["long_pos"], &["neg"], true),
    ] {
        let (d, s) =
            difference(&case(positive, negative, sag), golden.tensor(&format!("comfyui.{name}.samples")));
        failures.check(d <= 1e-3 * s, || format!("{name}: {:.2} of the tolerance", d / (1e-3 * s)));
    }
    let [one, other] = [["neg", "neg2"], ["neg2", "neg"]].map(|order| case(&["pos"], &order, true));
    failures.check(one == other, || "the order of two negatives changes the latent".into());
    failures.finish();
}

/// Sampler, noise levels, noise and guider as nodes of their own give what KSampler gives.
#[test]
fn the_custom_samplers_give_the_same() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1"]);
    let golden = Golden::of("tiny-sd1");
    let mut failures = Failures::default();
    let base = golden.workflow("tiny-sd1.safetensors", "sag_dpmpp_2m");
    let run = golden.run("sag_dpmpp_2m");
    let mut parts = base.clone();
    add(&mut parts, "20", "KSamplerSelect", json!({ "sampler_name": "dpmpp_2m" }));
    let basic = json!({ "model": ["10", 0], "scheduler": "karras", "steps": run["steps"], "denoise": 1.0 });
    add(&mut parts, "21", "BasicScheduler", basic);
    add(
        &mut parts,
        "22",
        "KarrasScheduler",
        json!({
        "steps": run["steps"], "sigma_max": 14.614642, "sigma_min": 0.0291675, "rho": 7.0 }),
    );
    add(&mut parts, "23", "RandomNoise", json!({ "noise_seed": run["seed"] }));
    add(
        &mut parts,
        "24",
        "CFGGuider",
        json!({
        "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "cfg": 7.0 }),
    );
    let custom = |sigmas: &str| {
        let mut workflow = parts.clone();
        add(
            &mut workflow,
            "3",
            "SamplerCustom",
            json!({
            "model": ["10", 0], "add_noise": true, "noise_seed": run["seed"], "cfg": 7.0, "positive": ["6", 0],
            "negative": ["7", 0], "sampler": ["20", 0], "sigmas": [sigmas, 0], "latent_image": ["5", 0] }),
        );
        workflow
    };
    let mut advanced = parts.clone();
    add(
        &mut advanced,
        "3",
        "SamplerCustomAdvanced",
        json!({
        "noise": ["23", 0], "guider": ["24", 0], "sampler": ["20", 0], "sigmas": ["21", 0], "latent_image": ["5", 0] }),
    );
    let mut in_two = base.clone();
    let half = |noise: &str, from: usize, to: usize, leftover: &str, latent: Json| {
        json!({
        "model": ["10", 0], "add_noise": noise, "noise_seed": run["seed"], "steps": run["steps"], "cfg": 7.0,
        "sampler_name": "euler", "scheduler": "karras", "positive": ["6", 0], "negative": ["7", 0],
        "latent_image": latent, "start_at_step": from, "end_at_step": to, "return_with_leftover_noise": leftover })
    };
    add(&mut in_two, "30", "KSamplerAdvanced", half("enable", 0, 3, "enable", json!(["5", 0])));
    add(&mut in_two, "3", "KSamplerAdvanced", half("disable", 3, 10_000, "disable", json!(["30", 0])));
    for (what, workflow) in [("basic", custom("21")), ("karras", custom("22")), ("advanced", advanced)] {
        let share = golden.share("sag_dpmpp_2m", &home.latent(&device_context, &workflow));
        failures.check(share <= 1.0, || format!("{what}: {share:.2} of the tolerance"));
    }
    // Euler's method keeps no memory of the steps before: two halves are the whole.
    let mut whole = base;
    set(&mut whole, "3", json!({ "sampler_name": "euler" }));
    let (whole, halves) = (home.latent(&device_context, &whole), home.latent(&device_context, &in_two));
    let far = whole
        .zip(&halves, |a, b| (a - b).abs())
        .expect("one shape")
        .data()
        .iter()
        .copied()
        .fold(0.0, f32::max);
    failures.check(far < 2e-3, || format!("two halves differ by {far}"));
    failures.finish();
}

/// Sets the checkpoint's name in either format.
fn name_checkpoint(workflow: &mut Json, name: &str) {
    match workflow.get_mut("nodes").and_then(Json::as_array_mut) {
        Some(nodes) => {
            let loader = nodes.iter_mut().find(|n| n["type"] == "CheckpointLoaderSimple").expect("a loader");
            loader["widgets_values"][0] = json!(name);
        }
        None => set(workflow, "4", json!({ "ckpt_name": name })),
    }
}

/// Adds a node that saves the sampler's latent, in either format.
fn save_latent(workflow: &mut Json) {
    let Some(links) = workflow.get_mut("links").and_then(Json::as_array_mut) else {
        return add(
            workflow,
            "90",
            "SaveLatent",
            json!({ "samples": ["3", 0], "filename_prefix": "latents/x" }),
        );
    };
    links.push(json!([900, 3, 0, 90, 0, "LATENT"]));
    workflow["nodes"].as_array_mut().expect("nodes").push(json!({
        "id": 90, "type": "SaveLatent", "mode": 0, "inputs": [{"name": "samples", "type": "LATENT", "link": 900}],
        "widgets_values": ["latents/x"],
    }));
}

fn pixels(file: &std::path::Path) -> Vec<u8> {
    sagittal::image::read::picture(file).expect("a picture").rgb
}
