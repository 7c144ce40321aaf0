//! `sagittal inspect` and the library's `inspect`: each kind of file, and files of no known kind.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::files::{self, UNET, VAE};
use crate::common::{Failures, MANIFESTS, safetensors};
use crate::schema::event;
use crate::{common::gpu_is_off, program::program};
use sagittal::checkpoint::{Dtype, Manifest};
use sagittal::image::{Picture, png};
use sagittal::inspect::{Inspected, inspect};
use sagittal::{ErrorKind, Latent, VaeLatent, latent};
use serde_json::Value;

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, &[&["inspect"], flags].concat()).output().expect("the program starts")
}

fn json(folder: &Path, flags: &[&str]) -> Value {
    let output = run(folder, &[flags, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    event(&output.stdout, "facts")
}

#[test]
fn models_of_every_family_and_their_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut failures = Failures::default();
    for (name, family) in [("tiny-sd1", "SD 1"), ("tiny-sd2", "SD 2"), ("tiny-sdxl", "SDXL")] {
        let (_, manifest) = MANIFESTS.iter().find(|(n, _)| *n == name).expect("a family");
        let all = files::tensors(&Manifest::parse(manifest).expect("a manifest"));
        let mixed = |name: &str| if name.starts_with(VAE) { Dtype::F32 } else { Dtype::F16 };
        files::write(&at("whole.safetensors"), &all, &[("modelspec.title", "a\nb")], mixed);
        let Inspected::Model(facts) = inspect(at("whole.safetensors")).expect("a model") else {
            panic!("a model")
        };
        let config = facts.config.as_ref().expect("a whole model");
        failures.check(config.family.to_string() == family, || format!("{name}: {}", config.family));
        let numbers: u64 = all.iter().map(|t| t.values.len() as u64).sum();
        failures.check((facts.all.tensors, facts.all.parameters) == (all.len(), numbers), || {
            format!("{:?}", facts.all)
        });
        let parts: Vec<&str> = facts.parts.iter().map(|p| p.name).collect();
        let text =
            if family == "SDXL" { &["text encoder 1", "text encoder 2"][..] } else { &["text encoder"] };
        let networks: Vec<&str> = parts.iter().copied().filter(|p| *p != "other tensors").collect();
        failures.check(networks == [&["UNet", "VAE"], text].concat(), || format!("{name}: {parts:?}"));
        let stored: Vec<&str> = facts.all.dtypes.keys().map(String::as_str).collect();
        failures.check(stored == ["F16", "F32"] && facts.obstacle.is_none(), || format!("{stored:?}"));
        failures.check(facts.metadata["modelspec.title"] == "a\nb", || "metadata".into());

        // A single network is shown, with the reason why it does not run.
        for (prefix, file) in [(UNET, "unet.safetensors"), (VAE, "vae.safetensors")] {
            files::write(&at(file), &files::under(&all, prefix), &[], |_| Dtype::F16);
            let Inspected::Model(part) = inspect(at(file)).expect(file) else { panic!("a model") };
            let diffusion = part.diffusion.as_ref().map(|d| d.family.to_string());
            failures.check(diffusion.is_some() == (prefix == UNET), || format!("{file}: {diffusion:?}"));
            failures.check(part.config.is_none() && part.obstacle.is_some(), || format!("{file} runs"));
            failures.check(part.vae.is_some() == (prefix == VAE), || format!("{file}: no VAE"));
        }
    }
    let text = files::transformers_text(
        &files::tensors(&Manifest::parse(MANIFESTS[0].1).expect("a manifest")),
        "cond_stage_model.transformer.text_model.",
    );
    files::write(&at("text.safetensors"), &text, &[], |_| Dtype::F16);
    let Inspected::Model(facts) = inspect(at("text.safetensors")).expect("an encoder") else {
        panic!("a model")
    };
    failures.check(facts.parts[0].name == "text encoder", || format!("{:?}", facts.parts));
    failures.finish();
}

#[test]
fn memory_is_what_the_planner_says() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let printed = json(folder.path(), &["--size", "64x128", "--size", "256x256", "--batch-size", "2"]);
    assert_eq!((&printed["family"], &printed["prediction"]), (&"SD 1".into(), &"eps".into()));
    let sizes = printed["memory"]["sizes"].as_array().expect("sizes");
    assert_eq!((&sizes[0]["width"], &sizes[0]["height"], sizes.len()), (&64.into(), &128.into(), 2));
    let peak = |size: &Value, sag: &str| size[sag]["peak_mib"].as_f64().expect("a number");
    assert!(peak(&sizes[1], "sag") > peak(&sizes[0], "sag"));
    assert_eq!(
        (&sizes[0]["sag"]["rows_per_step"], &sizes[0]["no_sag"]["rows_per_step"]),
        (&6.into(), &4.into())
    );
    let without = json(folder.path(), &["--no-memory"]);
    assert!(without["memory"].is_null() && without["parts"]["UNet"]["tensors"].as_u64() > Some(100));
    // A size that does not fit is reported, and is not an error of the command.
    let tight = json(folder.path(), &["--size", "256x256", "--max-memory", "1"]);
    assert!(
        tight["memory"]["sizes"][0]["sag"]["error"]["message"]
            .as_str()
            .expect("an error")
            .contains("--max-memory")
    );
}

#[test]
fn loras_embeddings_latents_and_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("a file");
    let module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k";
    let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
    write(
        "ink.safetensors",
        &safetensors([(&*down, &[2, 768][..], &[0.0; 1536][..]), (&*up, &[4, 2], &[0.0; 8])]),
    );
    let lora = json(folder.path(), &["ink.safetensors"]);
    assert_eq!(
        (&lora["kind"], &lora["family"], &lora["ranks"]["2"]),
        (&"lora".into(), &"SD 1".into(), &1.into())
    );
    assert_eq!((&lora["unet"], &lora["text_encoder"]), (&true.into(), &false.into()));

    write("moss.safetensors", &safetensors([("emb_params", &[3, 768][..], &[0.0; 2304][..])]));
    let moss = json(folder.path(), &["moss.safetensors"]);
    assert_eq!((&moss["kind"], &moss["family"]), (&"embedding".into(), &"SD 1".into()));
    assert_eq!(moss["vectors"][0]["vectors"], 3);

    let z = Latent::from_vec([1, 4, 2, 3], (0..24).map(|v| v as f32).collect()).expect("a latent");
    write("a.latent", &latent::file::encode(&VaeLatent::new(z), &[("parameters", "a fox")]).expect("bytes"));
    let printed = json(folder.path(), &["a.latent"]);
    assert_eq!((&printed["kind"], printed["shape"].to_string()), (&"latent".into(), "[1,4,2,3]".to_owned()));
    assert_eq!(
        (printed["channels"][1]["min"].as_f64(), &printed["texts"]["parameters"]),
        (Some(6.0), &"a fox".into())
    );

    let picture = Picture { width: 2, height: 1, rgb: vec![0; 6] };
    let api = r#"{"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}"#;
    let settings = "ein Fuchs 🦊\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 2x1";
    let texts = [("parameters", settings), ("prompt", api), ("Software", "x")];
    write("a.png", &png::encode(&picture, &texts).expect("bytes"));
    let printed = json(folder.path(), &["a.png"]);
    assert_eq!(
        (&printed["kind"], &printed["parameters"]["prompt"]),
        (&"picture".into(), &"ein Fuchs 🦊".into())
    );
    assert_eq!(printed["parameters"]["settings"]["Sampler"], "Euler a");
    assert_eq!(
        (&printed["workflow"]["nodes"][0]["class"], &printed["workflow"]["workflow"]),
        (&"KSampler".into(), &false.into())
    );
    assert_eq!(printed["text_bytes"]["Software"], 1);
    for (file, words) in [
        ("a.png", &["2x1", "ein Fuchs", "blurry", "Euler a", "seed=7", "Software of 1 bytes"][..]),
        ("ink.safetensors", &["SD 1", "1 modules of UNet", "<lora:ink:1>"]),
        ("moss.safetensors", &["3 of 768", "embedding:moss"]),
        ("a.latent", &["1 of 4x2x3", "pictures of 24x16", "channel 3"]),
    ] {
        let shown = String::from_utf8_lossy(&run(folder.path(), &[file]).stdout).into_owned();
        words.iter().for_each(|word| assert!(shown.contains(word), "{file}: {word} in\n{shown}"));
    }
    // A workflow that cannot be read is reported beside the rest.
    write("b.png", &png::encode(&picture, &[("prompt", "{")]).expect("bytes"));
    let printed = json(folder.path(), &["b.png"]);
    assert!(printed["workflow"]["error"].as_str().expect("a fault").contains("not sound JSON"), "{printed}");
}

/// Relatives of LoRA are shown like LoRAs.
#[test]
fn a_loha_is_shown_like_a_lora() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k";
    let names = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"].map(|role| format!("{module}.{role}"));
    let matrices = names.iter().enumerate().map(|(i, name)| {
        let shape = if i % 2 == 0 { &[4, 2][..] } else { &[2, 768][..] };
        (name.as_str(), shape, &[0.5; 1536][..shape.iter().product()])
    });
    fs::write(folder.path().join("ink.safetensors"), safetensors(matrices)).expect("a file");
    let printed = json(folder.path(), &["ink.safetensors"]);
    assert_eq!((&printed["kind"], &printed["ranks"]["2"]), (&"lora".into(), &1.into()), "{printed}");
}

/// A model without attention in its middle, as SSD-1B: the message about SAG is readable.
#[test]
fn a_middle_block_without_attention_is_explained() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (_, manifest) = MANIFESTS.iter().find(|(n, _)| *n == "tiny-sd1").expect("a family");
    for (cut, words) in [
        (&["middle_block.1.", "middle_block.2."][..], "residual blocks alone, as in SSD-1B"),
        (&["middle_block."], "no middle block, as in KOALA-700M"),
    ] {
        let mut all = files::tensors(&Manifest::parse(manifest).expect("a manifest"));
        all.retain(|t| !cut.iter().any(|part| t.name.contains(part)));
        files::write(&folder.path().join("cut.safetensors"), &all, &[], |_| Dtype::F16);
        let output = run(folder.path(), &["cut.safetensors", "--size", "64x64"]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && printed.contains(words), "{printed}");
        assert!(!printed.contains("found Res") && !printed.contains("found Absent"), "{printed}");
    }
}

#[test]
fn other_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let control = safetensors([("control_model.x", &[1][..], &[0.0][..])]);
    let deep = safetensors([("emb_params", &[2, 1, 768][..], &[0.0; 1536][..])]);
    let deep_alone = safetensors([("fox", &[2, 1, 768][..], &[0.0; 1536][..])]);
    let taesd = safetensors([("1.weight", &[1][..], &[0.0][..]), ("3.conv.0.weight", &[1], &[0.0])]);
    let taesd_of_diffusers = safetensors([
        ("decoder.layers.1.conv.0.weight", &[1][..], &[0.0][..]),
        ("encoder.layers.0.weight", &[1], &[0.0]),
    ]);
    let cases: &[(&str, &[u8], ErrorKind, &str)] = &[
        ("empty", b"", ErrorKind::File, "an empty file"),
        ("text", b"hello, this is a text", ErrorKind::File, "not a model file"),
        ("jpeg", b"\xff\xd8\xff\xe0 JFIF", ErrorKind::File, "the JPEG is damaged"),
        ("png", b"\x89PNG\r\n\x1a\n\0\0", ErrorKind::File, "damaged"),
        ("zip", b"PK\x03\x04\0\0", ErrorKind::File, "zip archive"),
        ("latent", b"\x40\0\0\0\0\0\0\0{\"latent_tensor\":", ErrorKind::File, "not a latent file"),
        ("control", &control, ErrorKind::Model, "a ControlNet"),
        (
            "deep",
            &deep,
            ErrorKind::Model,
            "expected two dimensions, vectors and their width, found [2, 1, 768]",
        ),
        ("deep alone", &deep_alone, ErrorKind::Model, "an embedding that is no list of vectors (fox)"),
        ("taesd", &taesd, ErrorKind::Model, "a tiny autoencoder for previews (TAESD)"),
        ("taesd of diffusers", &taesd_of_diffusers, ErrorKind::Model, "a tiny autoencoder for previews"),
        ("json", br#"{"3": {"class_type": "KSampler"}}"#, ErrorKind::File, "a JSON text"),
    ];
    let mut failures = Failures::default();
    for (name, bytes, kind, word) in cases {
        fs::write(at(name), bytes).expect("a file");
        let error = inspect(at(name)).expect_err(name);
        let printed = error.to_string();
        failures.check(error.kind() == *kind && printed.contains(word) && printed.contains(name), || {
            format!("{name}: {printed}")
        });
        failures.check(run(folder.path(), &[name]).status.code() == Some(3), || format!("{name}: exit code"));
        failures.check(!printed.contains("pass a full checkpoint") || *name == "control", || {
            format!("{name}: {printed}")
        });
    }
    for path in [at("nowhere"), folder.path().to_owned()] {
        failures.check(inspect(&path).is_err(), || format!("{}", path.display()));
    }
    failures.check(run(folder.path(), &["--size", "63x64"]).status.code() == Some(2), || "a size".into());
    failures.finish();
}
