//! `--from` with the pictures of other programs: each setting is used, or named in a warning.

use std::fs;
use std::path::PathBuf;

use crate::common::{Failures, Rng, safetensors};
use crate::{common::gpu_is_off, program::program};
use sagittal::internals::image::{Picture, png, texts};
use tempfile::TempDir;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-emoji/tiny-emoji.safetensors");
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line/pictures");

/// Where a test's pictures are.
pub struct Home(TempDir);

/// The outcome of a run: its exit code, its stderr, and the settings of its picture.
pub struct Drawn {
    pub code: Option<i32>,
    pub stderr: String,
    pub text: String,
    bytes: Vec<u8>,
}

impl Drawn {
    /// Checks that the run succeeded, and that the settings and the warnings contain these words.
    pub fn holds(&self, what: &str, settings: &[&str], warnings: &[&str], failures: &mut Failures) {
        failures.check(self.code == Some(0), || format!("{what}: {:?} {}", self.code, self.stderr));
        for word in settings {
            failures.check(self.text.contains(word), || format!("{what}: no {word:?} in {}", self.text));
        }
        for word in warnings {
            let warned = self.stderr.lines().any(|line| line.starts_with("warning") && line.contains(word));
            failures.check(warned, || format!("{what}: no {word:?} in {}", self.stderr));
        }
    }
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(name).parent().expect("a folder")).expect("a folder");
        fs::write(self.at(name), bytes).expect("a file");
    }

    /// A PNG with these texts.
    pub fn png(&self, name: &str, texts: &[(&str, &str)]) {
        self.write(name, &png::encode(&flat(8, 8), texts).expect("bytes"));
    }

    /// A PNG with A1111's settings: a prompt, and pairs after those that are always there.
    pub fn a1111_png(&self, name: &str, prompt: &str, pairs: &str) {
        let text = format!("{prompt}\nSteps: 1, CFG scale: 2, Seed: 5, Size: 64x64, Model: m{pairs}");
        self.png(name, &[("parameters", &text)]);
    }

    fn run(&self, flags: &[&str]) -> Drawn {
        let words = [&["generate", "-m", MODEL, "-o", "out.png", "--force"], flags].concat();
        let output = program(self.0.path(), &words).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let bytes = fs::read(self.at("out.png")).unwrap_or_default();
        let _ = fs::remove_file(self.at("out.png"));
        let text = texts::texts(&bytes).unwrap_or_default().into_iter().next().unwrap_or_default().1;
        Drawn { code: output.status.code(), stderr, text, bytes }
    }

    pub fn from(&self, name: &str, flags: &[&str]) -> Drawn {
        self.run(&[&["--from", name], flags].concat())
    }

    /// The same for a picture that is kept with the tests.
    fn kept(&self, name: &str, flags: &[&str]) -> Drawn {
        let path = format!("{PICTURES}/{name}.png");
        self.run(&[&["--from", &path], flags].concat())
    }
}

pub fn flat(width: usize, height: usize) -> Picture {
    Picture { width, height, rgb: vec![90; width * height * 3] }
}

/// A picture drawn with flags, whose bytes the settings of a picture must reproduce.
fn same(by_hand: &Drawn, from: &Drawn, what: &str, failures: &mut Failures) {
    let text = || format!("{what}: other bytes\n{}\n{}\n{}", by_hand.text, from.text, from.stderr);
    failures.check(by_hand.code == Some(0) && by_hand.bytes == from.bytes, text);
}

#[test]
fn forge_sag() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let drawn = home.kept("forge_sag", &[]);
    let sag =
        "SAG Guidance Enabled: True, SAG Guidance Scale: 0.75, SAG Mask Threshold: 0.9, SAG Blur Sigma: 3";
    drawn.holds("forge_sag", &[sag], &[], &mut failures);
    failures.check(!drawn.stderr.contains("ignored"), || drawn.stderr.clone());
    let by_hand: Vec<&str> =
        "-p|a fox|--steps|2|-W|64|-H|64|-s|5|--cfg-scale|7|--sag-scale|0.75|--sag-blur|3|--sag-threshold|0.9"
            .split('|')
            .collect();
    same(&home.run(&by_hand), &drawn, "forge_sag", &mut failures);
    failures.finish();
}

/// The first version had a fixed blur and no switch; later ones added the blur, the switch, and a resolution that
/// scales blur and threshold. Forge had no threshold at first.
#[test]
fn sag_of_every_version_of_a1111s_extension_and_forge() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let cases: &[(&str, &str, &[&str])] = &[
        (
            ", SAG Guidance Scale: 0.75, SAG Mask Threshold: 1.1",
            "Scale: 0.75, SAG Mask Threshold: 1.1, SAG Blur Sigma: 1",
            &[],
        ),
        (
            ", SAG Guidance Scale: 0.6, SAG Mask Threshold: 0.9, SAG Blur Sigma: 2.5",
            "Scale: 0.6, SAG Mask Threshold: 0.9, SAG Blur Sigma: 2.5",
            &[],
        ),
        (
            ", SAG Guidance Enabled: True, SAG Guidance Scale: 0.6, SAG Mask Threshold: 1, SAG Blur Sigma: 2, \
             SAG bilinear interpolation: True, SAG Attention Target: block5",
            "Scale: 0.6, SAG Mask Threshold: 1, SAG Blur Sigma: 2",
            &[
                "SAG bilinear interpolation: True is not supported",
                "SAG Attention Target: block5 is not supported",
            ],
        ),
        (
            ", SAG Guidance Enabled: True, SAG Guidance Scale: 0.6, SAG Mask Threshold: 1, SAG Blur Sigma: 2, \
             SAG bilinear interpolation: False, SAG Attention Target: middle, SAG Base Model: SD 1.5, \
             SAG Custom Resolution: 128, SAG Smooth Vectors Scale: 0.5",
            "Scale: 0.6, SAG Mask Threshold: 0.5, SAG Blur Sigma: 1",
            &["multiplied by 0.500", "ignored: SAG Smooth Vectors Scale"],
        ),
        (
            ", sag_enabled: True, sag_scale: 0.5, sag_blur_sigma: 2",
            "Scale: 0.5, SAG Mask Threshold: 1, SAG Blur Sigma: 2",
            &[],
        ),
    ];
    for (pairs, sag, warnings) in cases {
        home.a1111_png("a.png", "a fox", pairs);
        home.from("a.png", &[]).holds(pairs, &[sag], warnings, &mut failures);
    }
    for off in
        [", SAG Guidance Enabled: False, SAG Guidance Scale: 0.5", ", sag_enabled: False, sag_scale: 1", ""]
    {
        home.a1111_png("a.png", "a fox", off);
        let drawn = home.from("a.png", &[]);
        failures
            .check(drawn.code == Some(0) && !drawn.text.contains("SAG"), || format!("{off}: {}", drawn.text));
    }
    home.a1111_png(
        "a.png",
        "a fox",
        ", PAG Active: True, PAG Scale: 3, PAG Start Step: 0, PAG End Step: 2048",
    );
    home.from("a.png", &[]).holds("PAG", &["PAG Scale: 3, "], &[], &mut failures);
    for (pairs, warnings) in [
        (", PAG Active: False, PAG Scale: 3", &[][..]),
        (", pag_enabled: False, pag_scale: 3", &[]),
        (", PAG Active: True, PAG Scale: 3, PAG Start Step: 5, PAG End Step: 10", &["PAG Start Step 5"]),
    ] {
        home.a1111_png("a.png", "a fox", pairs);
        let drawn = home.from("a.png", &[]);
        drawn.holds(pairs, &[], warnings, &mut failures);
        failures.check(!drawn.text.contains("PAG"), || format!("{pairs}: {}", drawn.text));
    }
    home.a1111_png("a.png", "a fox", ", pag_enabled: True, pag_scale: 2, pag_block: middle");
    home.from("a.png", &[]).holds("Forge's PAG", &["PAG Scale: 2, "], &["ignored: pag_block"], &mut failures);
    failures.finish();
}

#[test]
fn sdcpp_eta_inf() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let drawn = home.kept("sdcpp_eta_inf", &[]);
    drawn.holds("inf", &["Sampler: Euler, Schedule type: Normal"], &[], &mut failures);
    for (eta, sampler) in [("inf", "euler_a"), ("-inf", "euler_a"), ("nan", "euler_a"), ("-nan", "euler")] {
        let pairs = format!(", Guidance: 3.5, Eta: {eta}, Sampler: {sampler}, Version: stable-diffusion.cpp");
        home.a1111_png("a.png", "a fox", &pairs);
        let drawn = home.from("a.png", &[]);
        drawn.holds(eta, &["Sampler: Euler"], &[], &mut failures);
        let quiet =
            !drawn.text.contains("Eta") && !drawn.stderr.contains("eta") && !drawn.stderr.contains("ignored");
        failures.check(quiet, || format!("{eta}: {} {}", drawn.text, drawn.stderr));
    }
    failures.finish();
}

#[test]
fn sdcpp_eta_0() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let drawn = home.kept("sdcpp_eta_0", &[]);
    drawn.holds("0", &["Sampler: Euler a"], &["writes an eta of 0"], &mut failures);
    failures.check(!drawn.text.contains("Eta"), || drawn.text.clone());
    let by_hand: Vec<&str> =
        "-p|a fox|--steps|2|-W|64|-H|64|-s|5|--cfg-scale|7|--sag-scale|0|--sampler|euler_a"
            .split('|')
            .collect();
    same(&home.run(&by_hand), &drawn, "0", &mut failures);
    home.kept("sdcpp_eta_0", &["--eta", "0"]).holds("by hand", &["Eta: 0,"], &[], &mut failures);
    // Newer versions write what was set, and all settings again as JSON.
    let pairs = r#", Eta: 0.000000, Sampler: euler_a discrete, Version: stable-diffusion.cpp, SDCPP: {"prompt":"a, Eta: 3, x: y"}"#;
    home.a1111_png("a.png", "a fox", pairs);
    home.from("a.png", &[]).holds("new", &["Eta: 0,", "Sampler: Euler a, "], &[], &mut failures);
    failures.finish();
}

#[test]
fn sdcpp_scheduler() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.kept("sdcpp_scheduler", &[]).holds(
        "kept",
        &["Sampler: DPM++ 2M, Schedule type: Karras"],
        &[],
        &mut failures,
    );
    for (sampler, text) in [
        ("euler_a discrete", "Sampler: Euler a, Schedule type: Normal"),
        ("dpm++2m", "Sampler: DPM++ 2M, Schedule type: Normal"),
        ("dpm2 exponential", "Sampler: DPM2, Schedule type: Exponential"),
        ("euler sgm_uniform", "Sampler: Euler, Schedule type: SGM Uniform"),
    ] {
        home.a1111_png(
            "a.png",
            "a fox",
            &format!(", Sampler: {sampler}, Clip skip: 0, Version: stable-diffusion.cpp"),
        );
        home.from("a.png", &[]).holds(sampler, &[text], &[], &mut failures);
    }
    home.a1111_png("a.png", "a fox", ", Sampler: euler gits, Version: stable-diffusion.cpp");
    let unknown = home.from("a.png", &[]);
    let right =
        unknown.code == Some(2) && unknown.stderr.contains("a.png") && unknown.stderr.contains("\"gits\"");
    failures.check(right, || unknown.stderr.clone());
    // With a flag, with the name of a sampler as in A1111.
    home.from("a.png", &["--sampler", "DPM++ 2M Karras"]).holds(
        "by hand",
        &["Sampler: DPM++ 2M, Schedule type: Karras"],
        &[],
        &mut failures,
    );
    // Parts in files of their own.
    home.a1111_png(
        "a.png",
        "a fox",
        ", Sampler: euler, TE: clip_l.safetensors, VAE: ft.safetensors, Version: stable-diffusion.cpp",
    );
    home.from("a.png", &[]).holds(
        "parts",
        &[],
        &["text encoder clip_l.safetensors", "VAE ft.safetensors"],
        &mut failures,
    );
    failures.finish();
}

#[test]
fn prompt_editing() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let words =
        ["prompt editing, `[cat:dog:0.5]`", "alternation of words, `[red|blue]`", "less than 1, `[tree]`"];
    home.kept("prompt_editing", &[]).holds(
        "kept",
        &["[cat:dog:0.5] in [red|blue] sky, [tree]"],
        &words,
        &mut failures,
    );
    // With flags, and in a grid, too.
    let small = ["-W", "64", "-H", "64", "--steps", "1"];
    let by_hand = home.run(&[&["-p", "a [cat:dog:0.5]", "-n", "[red|blue]"], &small[..]].concat());
    by_hand.holds("by hand", &[], &words[..2], &mut failures);
    let grid =
        [&["grid", "--x", "prompt=fox,[fox],[fox:owl:0.5]", "-p", "a fox", "--force"], &small[..]].concat();
    let output = program(home.0.path(), &grid).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let right = stderr.matches("warning").count() == 2
        && stderr.contains("`[fox:owl:0.5]`")
        && stderr.contains("`[fox]`");
    failures.check(output.status.success() && right, || stderr);
    let json =
        program(home.0.path(), &["generate", "-p", "[a|b]", "--json", "--dry-run"]).output().expect("starts");
    let line = String::from_utf8_lossy(&json.stdout).lines().next().unwrap_or_default().to_owned();
    failures.check(line.contains("\"warning\"") && line.contains("[a|b]"), || line);
    failures.finish();
}

#[test]
fn f_sched_and_f_and() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let words = ["`[cat:dog:0.5]`", "`[fox|owl]`", "`[blurry]`"];
    home.kept("f_sched", &[]).holds("f_sched", &[], &words, &mut failures);
    let and = ["A1111's AND", "2 times as large"];
    home.kept("f_and", &[]).holds("f_and", &["a cat AND a dog"], &and, &mut failures);
    // Two flags mean what this program does.
    let drawn = home.run(&["-p", "cat", "-p", "dog", "-W", "64", "-H", "64", "--steps", "1"]);
    failures.check(!drawn.stderr.contains("warning") && drawn.text.contains("cat AND dog"), || {
        drawn.stderr.clone()
    });
    failures.finish();
}

#[test]
fn img2img_a1111() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.write("start.png", &png::encode(&flat(96, 80), &[]).expect("bytes"));
    let without = home.kept("img2img_a1111", &[]);
    let right = without.code == Some(2)
        && without.stderr.contains("made from another picture")
        && without.stderr.contains("pass the picture that it was made from with -i FILE");
    failures.check(right, || without.stderr.clone());
    let start = ["-i", "start.png"];
    let drawn = home.kept("img2img_a1111", &start);
    drawn.holds(
        "size",
        &["Size: 64x64", "Denoising strength: 0.6", "Resize mode: Just resize"],
        &[],
        &mut failures,
    );
    let wider = home.kept("img2img_a1111", &[&start[..], &["-W", "72"]].concat());
    wider.holds("by hand", &["Size: 72x64"], &[], &mut failures);
    // The strength of A1111's hires pass does not mean a start picture.
    for pair in
        [", Hires upscale: 2", ", \"Hires resize\": 128x128", ", Hires resize: 128x128, Hires steps: 2"]
    {
        home.a1111_png("a.png", "a fox", &format!(", Sampler: Euler, Denoising strength: 0.5{pair}"));
        let drawn = home.from("a.png", &[]);
        failures.check(drawn.code == Some(0) || pair.contains('"'), || format!("{pair}: {}", drawn.stderr));
    }
    failures.finish();
}

/// A LoRA for the model above.
pub fn lora(rng: &mut Rng) -> Vec<u8> {
    let model = sagittal::embedded::checkpoint().expect("embedded");
    let name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight";
    let shape = model.tensor(name).expect(name).shape.clone();
    let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.value()).collect() };
    let (down, up) = (values(2 * shape[1]), values(2 * shape[0]));
    let module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
    safetensors([(&*a, &[2, shape[1]][..], &down[..]), (&*b, &[shape[0], 2], &up)])
}

/// An embedding for it.
fn embedding(rng: &mut Rng) -> Vec<u8> {
    let model = sagittal::embedded::checkpoint().expect("embedded");
    let name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
    let width = model.tensor(name).expect(name).shape[1];
    let values: Vec<f32> = (0..2 * width).map(|_| rng.value()).collect();
    safetensors([("emb_params", &[2, width][..], &values[..])])
}

#[test]
fn f_lora_f_neg_lora_and_f_hires_as_they_were() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.write("loras/a1_f32.safetensors", &lora(&mut Rng(1)));
    let drawn = home.kept("f_lora", &["--lora-dir", "loras"]);
    drawn.holds("f_lora", &["a cat <lora:a1_f32:1>\nNegative prompt: blurry\n"], &["GPU"], &mut failures);
    let negative = home.kept("f_neg_lora", &["--lora-dir", "loras"]);
    let right = negative.code == Some(2) && negative.stderr.contains("a LoRA changes the whole model");
    failures.check(right, || negative.stderr.clone());
    let left = "ignored: Hires upscale, ENSD, Token merging ratio, NGMS, Refiner, Refiner switch at";
    home.kept("f_hires", &[]).holds("f_hires", &["Clip skip: 2"], &[left], &mut failures);
    failures.finish();
}

#[test]
fn ti_hashes_become_embeddings() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.write("embeddings/EasyNeg.safetensors", &embedding(&mut Rng(2)));
    let hash = sagittal::internals::checkpoint::digest::file(
        &home.at("embeddings/EasyNeg.safetensors"),
        &std::sync::atomic::AtomicBool::new(false),
    )
    .expect("a checksum");
    let dir = ["--embedding-dir", "embeddings"];
    let pairs = |hashes: &str| format!(", Sampler: Euler, TI hashes: {hashes}");
    let text = "a fox\nNegative prompt: easyneg, (EasyNeg:1.2) bad";
    home.a1111_png("a.png", text, &pairs(&format!("\"EasyNeg: {}, EasyNeg: {}\"", &hash[..12], &hash[..12])));
    let drawn = home.from("a.png", &dir);
    drawn.holds("both", &["embedding:EasyNeg , (embedding:EasyNeg :1.2) bad"], &[], &mut failures);
    failures.check(!drawn.stderr.contains("embedding"), || drawn.stderr.clone());
    let by_hand: Vec<&str> =
        "-p|a fox|-n|embedding:EasyNeg , (embedding:EasyNeg :1.2) bad|--steps|1|-W|64|-H|64|-s|5|\
                              --cfg-scale|2|--sag-scale|0|--embedding-dir|embeddings"
            .split('|')
            .collect();
    same(&home.run(&by_hand), &drawn, "both", &mut failures);
    // Missing files are reported, and the names are read as plain words.
    let other = "\"EasyNeg: 0123456789ab\"";
    home.a1111_png("a.png", text, &pairs(other));
    home.from("a.png", &dir).holds(
        "another",
        &["embedding:EasyNeg"],
        &["embedding EasyNeg is not the one"],
        &mut failures,
    );
    home.from("a.png", &[]).holds(
        "no folder",
        &["easyneg, (EasyNeg:1.2)"],
        &["--embedding-dir"],
        &mut failures,
    );
    home.a1111_png("a.png", "a moss fox", &pairs("\"moss: 0123456789ab, gone: 0123456789ab\""));
    home.from("a.png", &dir).holds(
        "missing",
        &["a moss fox\n"],
        &["embedding moss, which is not in embeddings", "embedding gone, which its prompts do not name"],
        &mut failures,
    );
    home.a1111_png("a.png", "embedding:EasyNeg", &pairs(other));
    let named = home.from("a.png", &dir);
    failures.check(named.code == Some(0) && named.text.starts_with("embedding:EasyNeg\n"), || {
        named.stderr.clone()
    });
    home.a1111_png(
        "a.png",
        "easyneg",
        ", Sampler: Euler, Hashes: {\"model\": \"1\", \"embed:EasyNeg\": \"2\"}",
    );
    home.from("a.png", &dir).holds("Civitai's", &["embedding:EasyNeg\n"], &[], &mut failures);
    failures.finish();
}

#[test]
fn lora_hashes_become_loras() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.write("loras/ink.safetensors", &lora(&mut Rng(1)));
    let never = std::sync::atomic::AtomicBool::new(false);
    let hash = sagittal::internals::checkpoint::digest::tensors(&home.at("loras/ink.safetensors"), &never)
        .expect("a checksum");
    let dir = ["--lora-dir", "loras"];
    let write_png = |prompt: &str, hash: &str| {
        home.a1111_png(
            "a.png",
            prompt,
            &format!(", Sampler: Euler, Lora hashes: \"ink: {hash}, gone: {hash}\""),
        );
    };
    write_png("a fox <lora:ink:0.5>", &hash[..12]);
    let drawn = home.from("a.png", &dir);
    drawn.holds("named", &["a fox <lora:ink:0.5>\n"], &["LoRA gone, which is not in loras"], &mut failures);
    failures.check(!drawn.stderr.contains("LoRA ink"), || drawn.stderr.clone());
    write_png("a fox <lora:ink:0.5>", "0123456789ab");
    home.from("a.png", &dir).holds(
        "another",
        &["<lora:ink:0.5>"],
        &["LoRA ink is not the one"],
        &mut failures,
    );
    write_png("a fox", &hash[..12]);
    home.from("a.png", &dir).holds(
        "not named",
        &["a fox <lora:ink:1>\n"],
        &["LoRA ink of unknown weight"],
        &mut failures,
    );
    home.from("a.png", &[]).holds(
        "no folder",
        &["a fox\n"],
        &["LoRA ink, whose folder must be passed with --lora-dir"],
        &mut failures,
    );
    home.from("a.png", &["--lora", "loras/ink.safetensors:0.3"]).holds(
        "by hand",
        &["<lora:ink:0.3>"],
        &[],
        &mut failures,
    );
    failures.finish();
}
