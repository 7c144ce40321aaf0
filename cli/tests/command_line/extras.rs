//! `--lora`, `<lora:…>` and `--embedding-dir` as users see them.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::{Failures, Rng, safetensors};
use crate::{common::gpu_is_off, program::program};
use tempfile::TempDir;

fn run(folder: &Path, prompt: &str, flags: &[&str]) -> Output {
    let fixed = ["generate", "-p", prompt, "-W", "64", "-H", "64", "--steps", "1", "-s", "5", "--force"];
    let words = [&fixed[..], &["--precision", "f32"], flags].concat();
    program(folder, &words).output().expect("the program starts")
}

/// A folder with two LoRAs for the embedded model, an embedding, and things that are neither.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let model = sagittal::embedded::checkpoint().expect("embedded");
    let shape = |name: &str| model.tensor(name).expect(name).shape.clone();
    let q = shape("model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight");
    let mut rng = Rng(1);
    let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.value()).collect() };
    fs::create_dir_all(folder.path().join("loras/styles")).expect("a folder");
    fs::create_dir(folder.path().join("embeddings")).expect("a folder");
    for name in ["loras/ink.safetensors", "loras/styles/oil.safetensors"] {
        let (down, up) = (values(2 * q[1]), values(2 * q[0]));
        let module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
        let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
        let file = safetensors([(a.as_str(), &[2, q[1]][..], &down[..]), (b.as_str(), &[q[0], 2], &up)]);
        fs::write(folder.path().join(name), file).expect("a file");
    }
    let wide = safetensors([
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", &[1, 7][..], &[0.0; 7][..]),
        ("unet.mid_block.attentions.0.proj_in.lora_B.weight", &[9, 1], &[0.0; 9]),
    ]);
    fs::write(folder.path().join("loras/wide.safetensors"), wide).expect("a file");
    fs::write(folder.path().join("loras/old.ckpt"), "PK\x03\x04 and more").expect("a file");
    let width = shape("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight")[1];
    let moss = safetensors([("emb_params", &[2, width][..], &values(2 * width)[..])]);
    fs::write(folder.path().join("embeddings/moss.safetensors"), moss).expect("a file");
    let wide = safetensors([("emb_params", &[1, 7][..], &[0.0; 7][..])]);
    fs::write(folder.path().join("embeddings/wide.safetensors"), wide).expect("a file");
    folder
}

/// Pixels and settings of a PNG.
fn read(path: &Path) -> (Vec<u8>, String) {
    let bytes = fs::read(path).expect("the picture");
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    let chunks = &reader.info().uncompressed_latin1_text;
    let text = chunks.iter().find(|c| c.keyword == "parameters").expect("the text chunk").text.clone();
    (pixels, text)
}

#[test]
fn flags_and_tags_do_the_same_and_are_stored() {
    if gpu_is_off() {
        return;
    }
    let folder = folder();
    let mut failures = Failures::default();
    let draw = |prompt: &str, flags: &[&str]| {
        let output = run(folder.path(), prompt, &[flags, &["-o", "x.png"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{prompt:?} {flags:?}: {stderr}");
        let (pixels, text) = read(&folder.path().join("x.png"));
        (pixels, text.lines().next().expect("a prompt").to_owned(), stderr)
    };
    let (plain, _, _) = draw("a fox", &[]);
    let dir = ["--lora-dir", "loras"];
    let (flag, written, _) = draw("a fox", &["--lora", "loras/ink.safetensors:0.5"]);
    failures.check(written == "a fox <lora:ink:0.5>", || written.clone());
    failures.check(flag != plain, || "the LoRA does nothing".into());
    let (tag, again, _) = draw(&written, &dir);
    failures.check(again == written, || again.clone());
    // "a fox" and "a fox " are the same tokens.
    failures.check(tag == flag, || "flag and tag differ".into());
    let (none, written, _) = draw("<lora:ink:0>a fox", &dir);
    failures.check(none == plain && written == "<lora:ink:0>a fox", || format!("weight 0: {written}"));
    let both = ["--lora", "loras/ink.safetensors", "--lora", "loras/styles/oil.safetensors:-0.5"];
    let (two, written, _) = draw("a fox", &both);
    failures.check(written == "a fox <lora:ink:1> <lora:oil:-0.5>", || written.clone());
    let (tags, _, _) = draw("a fox<lora:styles/oil:-0.5><lora:ink>", &dir);
    failures.check(tags == two && two != flag, || "two LoRAs".into());

    let moss = ["--embedding-dir", "embeddings"];
    let (with, written, _) = draw("a embedding:moss fox", &moss);
    failures.check(written == "a embedding:moss fox", || written.clone());
    let (without, _, warned) = draw("a embedding:moss fox", &[]);
    failures.check(with != without && without == plain, || "the embedding".into());
    failures.check(warned.contains("the embedding \"moss\" is left out"), || warned.clone());
    failures.finish();
}

/// Prompt, flags, exit code, and words that the message must contain.
#[test]
fn bad_flags_and_files_are_errors() {
    let folder = folder();
    let dir = ["--lora-dir", "loras"];
    let cases: &[(&str, &[&str], i32, &str)] = &[
        ("", &["--lora", "nothing.safetensors"], 3, "cannot open the file"),
        ("", &["--lora", "loras"], 3, "a folder"),
        ("", &["--lora", "loras/ink.safetensors:much"], 2, "FILE:WEIGHT"),
        ("", &["--lora", "loras/ink.safetensors:inf"], 2, "not a number"),
        ("", &["--lora", "loras/old.ckpt"], 3, "zip archive"),
        ("", &["--lora", "loras/wide.safetensors"], 3, "does not fit this model"),
        ("", &["--lora", "embeddings/moss.safetensors"], 3, "--embedding-dir"),
        ("<lora:ink:1>", &[], 2, "--lora-dir"),
        ("<lora:ink:1>", &["--lora-dir", "nowhere"], 3, "cannot open the folder"),
        ("<lora:inc:1>", &dir, 3, "did you mean ink?"),
        ("<lora:../loras/ink:1>", &dir, 2, "not a name in the folder"),
        ("<lora:ink:x>", &dir, 2, "not a number"),
        ("<lora:old>", &dir, 3, "old.ckpt"),
        ("<lora::1>", &dir, 2, "without a name"),
        ("", &["-n", "<lora:ink:1>", "--lora-dir", "loras"], 2, "--negative-prompt"),
        ("embedding:wide", &["--embedding-dir", "embeddings"], 3, "values for clip_l, found [1, 7]"),
        ("embedding:../loras/ink", &["--embedding-dir", "embeddings"], 2, "not a name in the folder"),
        ("", &["--embedding-dir", "embeddings/moss.safetensors"], 3, "not a folder"),
    ];
    let mut failures = Failures::default();
    let no_gpu = gpu_is_off();
    for (prompt, flags, code, word) in cases {
        // Files named in prompts are looked for when the work is planned, which needs a device.
        if no_gpu && prompt.starts_with("embedding:") {
            continue;
        }
        let output = run(folder.path(), prompt, &[flags, &["-o", "x.png"][..]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(*code) && message.contains(word);
        failures.check(right, || format!("{prompt:?} {flags:?}: {:?} {message}", output.status.code()));
        failures.check(!folder.path().join("x.png").exists(), || format!("{prompt:?} {flags:?}: a picture"));
    }
    failures.finish();
}
