//! Model files on the command line: the same picture, however the model is stored.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::files::{
    UNET, VAE, diffusers_unet, diffusers_vae, tensors, transformers_text, under, write,
};
use crate::common::workflow::{set, text_to_image};
use crate::common::{Failures, MANIFESTS};
use crate::program::program;
use sagittal::checkpoint::{Dtype, Manifest};

/// Two steps of 64×64; `flags` say which model.
fn draw(folder: &Path, out: &str, flags: &[&str]) -> Output {
    let fixed = ["generate", "-p", "fox", "-W", "64", "-H", "64", "--steps", "2", "-s", "5", "-o", out];
    program(folder, &[&fixed, flags].concat()).output().unwrap()
}

fn pixels(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[test]
fn one_picture_from_every_layout() {
    if crate::common::gpu().is_none() {
        return;
    }
    let (_, json) = MANIFESTS.iter().find(|(name, _)| *name == "tiny-sdxl").unwrap();
    let all = tensors(&Manifest::parse(json).unwrap());
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let put =
        |name: &str, tensors: &[crate::common::files::Tensor]| write(&at(name), tensors, &[], |_| Dtype::F16);
    let l = transformers_text(&all, "conditioner.embedders.0.transformer.text_model.");
    let g = transformers_text(&all, "conditioner.embedders.1.model.");
    put("single.safetensors", &all);
    put("unet.safetensors", &under(&all, UNET));
    put("vae.safetensors", &under(&all, VAE));
    put("clip_l.safetensors", &l);
    put("clip_g.safetensors", &g);
    put("folder/unet/diffusion_pytorch_model.fp16.safetensors", &diffusers_unet(&all));
    put("folder/vae/diffusion_pytorch_model.fp16.safetensors", &diffusers_vae(&all, false));
    put("folder/text_encoder/model.fp16.safetensors", &l);
    put("folder/text_encoder_2/model.fp16.safetensors", &g);
    fs::write(at("folder/model_index.json"), r#"{"_class_name": "StableDiffusionXLPipeline"}"#).unwrap();
    let parts = "-m unet.safetensors --vae vae.safetensors --text-encoder clip_g.safetensors \
                 --text-encoder clip_l.safetensors";
    let mut failures = Failures::default();
    let mut first = None;
    for (out, flags) in
        [("single.png", "-m single.safetensors"), ("folder.png", "-m folder"), ("parts.png", parts)]
    {
        let output = draw(home.path(), out, &flags.split_whitespace().collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        failures.check(output.status.success(), || format!("{flags}: {stderr}"));
        if output.status.success() {
            let found = pixels(&at(out));
            let expected = first.get_or_insert_with(|| found.clone());
            failures.check(*expected == found, || format!("{flags}: another picture"));
        }
    }
    // The error about a missing part names the flag for it.
    let output = draw(home.path(), "lacking.png", &["-m", "unet.safetensors", "--vae", "vae.safetensors"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    failures.check(output.status.code() == Some(3) && stderr.contains("--text-encoder"), || stderr);
    failures.finish();
}

/// A tensor that no layer uses: the same exit code in every command, and one flag to ignore it.
#[test]
fn extra_tensors_are_refused_by_every_command_unless_they_are_to_be_ignored() {
    if crate::common::gpu().is_none() {
        return;
    }
    let (_, json) = MANIFESTS.iter().find(|(name, _)| *name == "tiny-sd1").unwrap();
    let all = tensors(&Manifest::parse(json).unwrap());
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let name = "input_blocks.1.1.transformer_blocks.0.attn2.processor.to_k_ip.weight";
    let extra = |prefix: &str| crate::common::files::Tensor {
        name: format!("{prefix}{name}"),
        shape: vec![2, 2],
        values: vec![1.0; 4],
    };
    let put = |file: &str, tensors: &[crate::common::files::Tensor]| {
        write(&at(file), tensors, &[], |_| Dtype::F16);
    };
    let with_adapter = [all.clone(), vec![extra(UNET)]].concat();
    put("models/checkpoints/ip.safetensors", &with_adapter);
    put("models/unet/ip.safetensors", &[under(&all, UNET), vec![extra("")]].concat());
    put("models/vae/gate.safetensors", &{
        let gate = crate::common::files::Tensor { name: "decoder.conv_in.gate".into(), ..extra("") };
        [under(&all, VAE), vec![gate]].concat()
    });
    put("plain.safetensors", &all);
    let mut of_checkpoint = text_to_image("ip.safetensors", [64, 64, 1]);
    set(&mut of_checkpoint, "3", serde_json::json!({"steps": 1}));
    let of_vae = serde_json::json!({
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": "gate.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "a"}},
    });
    fs::write(at("checkpoint.json"), of_checkpoint.to_string()).unwrap();
    fs::write(at("vae.json"), of_vae.to_string()).unwrap();
    let ip = "models/checkpoints/ip.safetensors";
    let generate =
        ["generate", "-p", "fox", "-W", "64", "-H", "64", "--steps", "1", "-s", "5", "-o", "a.png"];
    let commands: [(Vec<&str>, &str); 6] = [
        ([&generate[..], &["-m", ip]].concat(), "to_k_ip"),
        ([&generate[..], &["-m", ip, "--dry-run"]].concat(), "to_k_ip"),
        (
            [&generate[..], &["-m", "plain.safetensors", "--vae", "models/vae/gate.safetensors"]].concat(),
            "conv_in.gate",
        ),
        (vec!["run", "checkpoint.json", "--dry-run"], "to_k_ip"),
        (vec!["run", "checkpoint.json"], "to_k_ip"),
        (vec!["run", "vae.json", "--dry-run"], "conv_in.gate"),
    ];
    let mut failures = Failures::default();
    for (words, tensor) in commands {
        let refused = program(home.path(), &words).output().unwrap();
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        failures.check(refused.status.code() == Some(3) && stderr.contains(tensor), || {
            format!("{words:?}: {stderr}")
        });
        let passed = program(home.path(), &[&words[..], &["--ignore-extra"]].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&passed.stderr).into_owned();
        let once = stderr.matches("that no layer takes").count() == 1;
        failures.check(passed.status.success() && once && stderr.contains(tensor), || {
            format!("{words:?}: {stderr}")
        });
        let _ = fs::remove_file(at("a.png"));
    }
    failures.finish();
}
