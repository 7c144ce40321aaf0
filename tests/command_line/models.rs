//! Model files on the command line: one picture, however its network is kept.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::files::{
    UNET, VAE, diffusers_unet, diffusers_vae, tensors, transformers_text, under, write,
};
use crate::common::program::program;
use crate::common::{Failures, MANIFESTS};
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
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        failures.check(output.status.success(), || format!("{flags}: {told}"));
        if output.status.success() {
            let found = pixels(&at(out));
            let expected = first.get_or_insert_with(|| found.clone());
            failures.check(*expected == found, || format!("{flags}: another picture"));
        }
    }
    // What lacks a part says which flag brings it.
    let output = draw(home.path(), "lacking.png", &["-m", "unet.safetensors", "--vae", "vae.safetensors"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    failures.check(output.status.code() == Some(3) && told.contains("--text-encoder"), || told);
    failures.finish();
}
