//! Every command of the README and of the pages for users: run in its own folder on the embedded model with fewer
//! steps, as a dry run if it names a checkpoint (generated here), or only parsed if it measures a GPU. The files
//! that it is said to write must exist.

use std::fs;
use std::path::Path;

use crate::common::files::{
    UNET, VAE, diffusers_unet, diffusers_vae, tensors, transformers_text, under, write,
};
use crate::common::workflow_bench::Bench;
use crate::common::{Failures, safetensors};
use crate::program::program;
use sagittal::checkpoint::Dtype;

const PAGES: [&str; 5] = [
    include_str!("../../../README.md"),
    include_str!("../../../docs/USAGE.md"),
    include_str!("../../../docs/LIBRARY.md"),
    include_str!("../../../docs/BENCHMARKS.md"),
    include_str!("../../../docs/RELIABILITY.md"),
];
const CI: &str = include_str!("../../../.ci/run");

/// Lines that other tests run: how they begin, the test, and a word that the test must contain.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    (
        "cargo run --release --example embed_window",
        include_str!("../../../examples/embed_window/tests/window.rs"),
        "embed_window",
    ),
    // What it builds is what the tests run.
    ("cargo install --path cli", include_str!("../program.rs"), "cargo_bin!"),
    ("cargo build --release -p sagittal-capi", C_INTERFACE, "sagittal_capi"),
    ("cc capi/examples/generate.c ", C_INTERFACE, "generate.c"),
    ("target/generate ", C_INTERFACE, "generate.c"),
];
const C_INTERFACE: &str = include_str!("../../../capi/tests/c_interface.rs");

/// Lines of the pages' shell blocks, without comments, each once.
fn commands() -> Vec<&'static str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in PAGES.iter().flat_map(|page| page.lines()) {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => found.push(line.split("  #").next().unwrap_or(line).trim()),
            _ => {}
        }
    }
    let mut known = std::collections::BTreeSet::new();
    found.retain(|line| !line.is_empty() && known.insert(*line));
    found
}

/// A line's words; double quotes are respected, `~` is the home folder.
fn words(line: &str, home: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            '~' if !quoted && word.is_empty() => word.push_str(home),
            _ => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Replaces a flag's value, or adds both.
fn set(words: &mut Vec<String>, flag: &str, value: &str) {
    match words.iter().position(|w| w == flag) {
        Some(at) => words[at + 1] = value.to_owned(),
        None => words.extend([flag.to_owned(), value.to_owned()]),
    }
}

fn value<'w>(words: &'w [String], flag: &str) -> Option<&'w str> {
    words.iter().position(|w| w == flag).map(|at| words[at + 1].as_str())
}

/// The files that the commands name, with generated weights.
fn furnish(folder: &Path) {
    let at = |name: &str| folder.join(name);
    let repository = crate::common::root();
    fs::create_dir_all(at("docs")).expect("a folder");
    for name in ["sag-on.png", "mask.png", "workflow.json"] {
        fs::copy(repository.join("docs").join(name), at("docs").join(name)).expect("a copy");
    }
    let family = |name: &str| tensors(&crate::common::workflow::manifest(name));
    let put =
        |name: &str, tensors: &[crate::common::files::Tensor]| write(&at(name), tensors, &[], |_| Dtype::F16);
    let sd1 = family("tiny-sd1");
    put("model.safetensors", &sd1);
    put("home/ComfyUI/models/checkpoints/tiny-sd1.safetensors", &sd1);
    fs::create_dir_all(at("home/ComfyUI/input")).expect("a folder");
    fs::copy(repository.join("tests/workflows/default_sag.ui.json"), at("workflow.json")).expect("a copy");
    let vector: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
    fs::create_dir_all(at("embeddings")).expect("a folder");
    let moss = safetensors([("emb_params", &[1, 64][..], &vector[..])]);
    fs::write(at("embeddings/moss.safetensors"), moss).expect("a file");
    let sd2 = family("tiny-sd2");
    let text = transformers_text(&sd2, "cond_stage_model.model.");
    put("stable-diffusion-2-1/unet/diffusion_pytorch_model.safetensors", &diffusers_unet(&sd2));
    put("stable-diffusion-2-1/vae/diffusion_pytorch_model.safetensors", &diffusers_vae(&sd2, false));
    put("stable-diffusion-2-1/text_encoder/model.safetensors", &text);
    let index = r#"{"_class_name": "StableDiffusionPipeline"}"#;
    fs::write(at("stable-diffusion-2-1/model_index.json"), index).expect("a file");
    let xl = family("tiny-sdxl");
    put("sdxl-unet.safetensors", &under(&xl, UNET));
    put("sdxl-vae.safetensors", &under(&xl, VAE));
    put("clip_l.safetensors", &transformers_text(&xl, "conditioner.embedders.0.transformer.text_model."));
    put("clip_g.safetensors", &transformers_text(&xl, "conditioner.embedders.1.model."));
}

/// How a line is run here, and the files that it must write.
fn staged(line: &str, home: &str) -> Option<(Vec<String>, Vec<String>)> {
    let mut words = words(line, home);
    let start = "./with-vulkan cargo run --release -- ";
    words = match line.strip_prefix(start) {
        Some(rest) => self::words(rest, home),
        None if words[0] == "sagittal" => words.split_off(1),
        None => return None,
    };
    let mut leaves: Vec<String> = Vec::new();
    match words[0].as_str() {
        // Twenty steps of a large picture show no more than two of a small one of whether the command does
        // what is said.
        "generate" | "grid" if value(&words, "-m").is_none() => {
            set(&mut words, "--steps", "2");
            let from_a_picture = value(&words, "-i").is_some() || value(&words, "--from").is_some();
            for side in ["-W", "-H"].into_iter().filter(|_| !from_a_picture) {
                set(&mut words, side, "96");
            }
            if !words.iter().any(|w| w == "--dry-run") {
                let named = ["-o", "--animate", "--preview", "--compare"].map(|flag| value(&words, flag));
                leaves.extend(named.into_iter().flatten().map(str::to_owned));
                leaves.extend(value(&words, "--save-attention").map(str::to_owned));
                if value(&words, "-o").is_none() {
                    leaves.push(format!(
                        "sagittal-{}.png",
                        value(&words, "-s").expect("a seed, to know the name")
                    ));
                }
            }
        }
        "generate" => words.push("--dry-run".into()),
        "run" if words[1] == "docs/workflow.json" => {
            words.extend(["--set".into(), "KSampler.steps=2".into()]);
            leaves.push("output/ComfyUI_00001_.png".into());
        }
        "run" => words.push("--dry-run".into()),
        "bench" => words.push("--help".into()),
        "devices" | "verify" | "inspect" => {}
        other => panic!("say here how `sagittal {other}` is tested"),
    }
    Some((words, leaves))
}

#[test]
fn every_command_does_what_it_says() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    let home = home.to_str().expect("a name");
    furnish(folder.path());
    bench.put_style();
    fs::copy(bench.home.at("models/loras/style/ink.safetensors"), folder.path().join("ink.safetensors"))
        .expect("a copy");
    let (mut failures, mut ran) = (Failures::default(), 0);
    for line in commands() {
        let Some((words, leaves)) = staged(line, home) else {
            let elsewhere =
                |(start, test, word): &(&str, &str, &str)| line.starts_with(start) && test.contains(word);
            let held = CI.contains(line) || ELSEWHERE.iter().any(elsewhere);
            failures.check(held, || format!("no test runs `{line}`"));
            continue;
        };
        let typed: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = program(folder.path(), &typed).env("HOME", home).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        failures.check(output.status.success(), || format!("{line}\n  as {words:?}: {stderr}"));
        for name in leaves {
            failures.check(folder.path().join(&name).exists(), || format!("{line}: no {name}; {stderr}"));
        }
        // The picture that a later line begins with.
        let _ = fs::copy(
            folder.path().join("output/ComfyUI_00001_.png"),
            folder.path().join("ComfyUI_00001_.png"),
        );
        ran += 1;
    }
    failures.check(ran >= 20, || format!("only {ran} commands were found"));
    failures.finish();
}
