//! `generate --from`: the bytes of a picture again from its settings alone, and the messages where that is not
//! possible.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::borrowed::lora;
use crate::common::{Failures, Rng};
use crate::{common::gpu_is_off, program::program};
use sagittal::image::{Picture, png};

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, &[&["generate"], flags].concat()).output().expect("the program starts")
}

/// A picture to start from, a mask, and a LoRA for the embedded model.
fn files(folder: &Path) {
    let mut rng = Rng(3);
    let rgb = (0..80 * 72 * 3).map(|_| rng.range(0, 255) as u8).collect();
    let picture = Picture { width: 80, height: 72, rgb };
    fs::write(folder.join("start.png"), png::encode(&picture, &[]).expect("bytes")).expect("a file");
    let half = (0..80 * 72).flat_map(|at| [if at % 80 < 40 { 255 } else { 0 }; 3]).collect();
    let mask = Picture { width: 80, height: 72, rgb: half };
    fs::write(folder.join("mask, half.png"), png::encode(&mask, &[]).expect("bytes")).expect("a file");
    let lora = lora(&mut rng);
    fs::create_dir(folder.join("loras")).expect("a folder");
    fs::write(folder.join("loras/ink.safetensors"), lora).expect("a file");
}

const SMALL: [&str; 6] = ["-W", "64", "-H", "64", "--steps", "1"];

/// Draws with `flags`, then again from the last picture with `again` beside it.
fn bytes_again(folder: &Path, flags: &[&str], again: &[&str], failures: &mut Failures) {
    let count = flags.iter().position(|f| *f == "--batch-size").map_or("1", |at| flags[at + 1]);
    let first = if count == "1" { "a.png".to_owned() } else { format!("a-{count}.png") };
    let made = run(folder, &[flags, &["-o", "a.png", "--force"]].concat());
    let repeated = run(folder, &[&["--from", &first, "-o", "b.png", "--force"], again].concat());
    for output in [&made, &repeated] {
        let stderr = String::from_utf8_lossy(&output.stderr);
        failures.check(output.status.code() == Some(0), || format!("{flags:?} {again:?}: {stderr}"));
        // Only a typed AND gives the warning that A1111 adds predictions up: in a picture of this program its meaning
        // is known.
        let typed = std::ptr::eq(output, &made);
        let warned =
            stderr.lines().any(|l| l.starts_with("warning") && !(typed && l.contains("A1111's AND")));
        failures.check(!warned, || format!("{flags:?} {again:?}: {stderr}"));
    }
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
    let settings = || {
        let text = |name: &str| sagittal::internals::image::texts::texts(&read(name)).unwrap_or_default();
        format!("{flags:?}: other bytes\n{:?}\n{:?}", text(&first), text("b.png"))
    };
    failures.check(read(&first) == read("b.png"), settings);
    failures.check(!read("b.png").is_empty(), || format!("{flags:?}: nothing"));
    let _ = fs::remove_file(folder.join("b.png"));
}

#[test]
fn the_bytes_of_a_picture_again() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Failures::default();
    let odd = "  \"quotes\", a\\b: (fox:1.2) ünïcödé 🦊 \r\n second line,\tx \nNegative prompt: no\nSteps: 9, Sampler: Heun, Seed: 3 ";
    let cases: &[&[&str]] = &[
        &["-p", "fox, 3d style", "-s", "7"],
        &[
            "-p",
            "",
            "--cfg-scale",
            "1",
            "--sag-scale",
            "1.5",
            "--sag-blur",
            "0.7",
            "--sag-threshold",
            "1.1",
            "--sag-start",
            "0.05",
            "--sag-end",
            "0.95",
            "--sag-cond",
        ],
        &["-p", "-x", "--sag-scale", "-0.5", "-s", "18446744073709551615", "--cfg-scale", "3.14159"],
        &["-p", "fox", "--sag-scale", "0", "-n", "blurry, \"bad\""],
        &["-p", "fox", "--pag-scale", "2.5", "--seg-scale", "1.25", "--seg-blur", "inf"],
        &[
            "-p",
            "fox",
            "--pag-scale",
            "2",
            "--pag-start",
            "0.3",
            "--seg-scale",
            "1",
            "--seg-start",
            "0.1",
            "--seg-end",
            "0.7",
        ],
        &["-p", odd, "--steps", "2", "-n", " b ", "-n", "", "-n", "é: AND c"],
        &["-p", "fox :1.5 AND owl :0.5 BREAK red", "-n", "x\ny", "--clip-skip", "2"],
        &["-p", "fox", "-p", "owl", "--batch-size", "3"],
        &[
            "-p",
            "fox",
            "--batch-size",
            "2",
            "--steps",
            "2",
            "--sampler",
            "euler_a",
            "--eta",
            "0.5",
            "--s-noise",
            "1.01",
        ],
        // Sides of 9 cells: blocks of the noise generator reach across pictures.
        &["-p", "fox", "-W", "72", "-H", "72", "--batch-size", "2", "--scheduler", "karras"],
        &["-p", "fox", "--sampler", "dpmpp_2m_sde", "--scheduler", "ddim_uniform", "--steps", "3"],
        &[
            "-p",
            "fox",
            "--precision",
            "f16",
            "--vae-precision",
            "f32",
            "--vae-tile",
            "16",
            "--prediction",
            "v",
            "-W",
            "192",
        ],
    ];
    for flags in cases {
        // A case's own value counts: the command line does not accept a flag twice.
        let own = |flag: &&[&str]| !flags.contains(&flag[0]);
        let small: Vec<&str> = SMALL.chunks(2).filter(own).flatten().copied().collect();
        bytes_again(folder.path(), &[&small, *flags].concat(), &[], &mut failures);
    }
    failures.finish();
}

#[test]
fn with_the_files_that_it_was_made_from() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    files(folder.path());
    let mut failures = Failures::default();
    let again = |flags: &[&str], files: &[&str], failures: &mut Failures| {
        bytes_again(
            folder.path(),
            &[&["-p", "fox", "--steps", "2", "-s", "5"], flags].concat(),
            files,
            failures,
        );
    };
    let start = ["-i", "start.png"];
    again(&start, &start, &mut failures);
    again(&[&start[..], &["--strength", "0.5", "--batch-size", "2"]].concat(), &start, &mut failures);
    let both = ["-i", "start.png", "--mask", "mask, half.png"];
    again(&[&both[..], &["-W", "64", "--strength", "0.9"]].concat(), &both, &mut failures);
    let small = ["-W", "64", "-H", "64"];
    let lora = ["--lora", "loras/ink.safetensors:0.5"];
    again(&[&lora[..], &small].concat(), &["--lora-dir", "loras"], &mut failures);
    again(&[&lora[..], &small].concat(), &["--lora", "loras/ink.safetensors"], &mut failures);
    let tag = ["-p", "a <lora:ink:1:-0.5> owl", "--lora-dir", "loras"];
    let two = [&small[..], &["--steps", "2"], &tag].concat();
    bytes_again(folder.path(), &two, &["--lora-dir", "loras"], &mut failures);
    // A weight in a flag overrides that of the tag, and is stored in the new picture.
    let other =
        run(folder.path(), &["--from", "a.png", "--lora", "loras/ink.safetensors:0.25", "-o", "c.png"]);
    failures.check(other.status.success(), || String::from_utf8_lossy(&other.stderr).into_owned());
    let texts = sagittal::internals::image::texts::texts(&fs::read(folder.path().join("c.png")).expect("c"))
        .expect("texts");
    failures.check(texts[0].1.starts_with("a  owl <lora:ink:0.25>\n"), || texts[0].1.clone());

    // Other files of the same name are reported.
    let lines = |flags: &[&str]| {
        let output = run(folder.path(), &[flags, &["-o", "d.png", "--force"]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    again(&start, &start, &mut failures);
    fs::write(folder.path().join("start.png"), fs::read(folder.path().join("mask, half.png")).expect("m"))
        .expect("w");
    let (code, stderr) = lines(&["--from", "a.png", "-i", "start.png"]);
    let warned = stderr.contains("the picture to start from is not the one");
    failures.check(code == Some(0) && warned, || format!("another picture: {code:?} {stderr}"));
    failures.finish();
}

#[test]
fn flags_given_by_hand_count() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let draw = |flags: &[&str]| {
        let output = run(folder.path(), flags);
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let text = |name: &str| {
        sagittal::internals::image::texts::texts(&fs::read(folder.path().join(name)).expect(name))
            .expect("texts")[0]
            .1
            .clone()
    };
    draw(&[&SMALL[..], &["-p", "fox", "-n", "cat", "-s", "5", "-o", "a.png", "--batch-size", "2"]].concat());
    draw(&["--from", "a-2.png", "-p", "owl", "-s", "6", "--sag-scale=0", "--steps", "1", "-o", "b.png"]);
    let written = text("b.png");
    assert!(
        written.starts_with("owl\nNegative prompt: cat\nSteps: 1, ") && written.contains("Seed: 6,"),
        "{written}"
    );
    assert!(!written.contains("SAG") && written.contains("Batch pos: 1"), "{written}");
    draw(&["--from", "a-2.png", "--batch-size", "1", "-n", "dog", "-o", "c.png"]);
    assert!(!text("c.png").contains("Batch") && text("c.png").contains("Negative prompt: dog\n"));
}

#[test]
fn what_cannot_be_repeated_is_reported_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    files(folder.path());
    let picture = Picture { width: 8, height: 8, rgb: vec![0; 192] };
    let write = |name: &str, texts: &[(&str, &str)]| {
        fs::write(folder.path().join(name), png::encode(&picture, texts).expect("bytes")).expect("a file");
    };
    let line = |more: &str| {
        format!("fox\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 1, Size: 64x64, Model: tiny-emoji{more}")
    };
    write("bare.png", &[]);
    write("prose.png", &[("parameters", "just words, and: more")]);
    write("workflow.png", &[("prompt", "{}")]);
    for (name, more) in [
        ("started.png", ", Denoising strength: 0.5, Init image: cat.png"),
        ("masked.png", ", Denoising strength: 0.5, Mask image: hole.png"),
        ("other.png", ", Model: v1-5"),
        ("vae.png", ", VAE: ft-mse, Version: sagittal 0.2.0"),
        ("encoder.png", ", Text encoder: clip, Version: sagittal 0.2.0"),
        ("position.png", ", Batch size: 2, Batch pos: 2"),
        ("lora.png", ""),
        ("clip.png", ", Clip skip: 0"),
    ] {
        let text = line(more)
            .replace("Model: tiny-emoji, Model", "Model")
            .replace("fox", if name == "lora.png" { "<lora:ink:1>" } else { "fox" });
        write(name, &[("parameters", &text)]);
    }
    write("sampler.png", &[("parameters", &line("").replace("Euler", "Restart"))]);
    write("schedule.png", &[("parameters", &line(", Schedule type: Turbo"))]);
    write("size.png", &[("parameters", &line("").replace("64x64", "64"))]);
    let mut failures = Failures::default();
    for (name, code, words) in [
        ("missing.png", 3, &["missing.png"][..]),
        ("bare.png", 3, &["contains no settings that can be read"]),
        ("prose.png", 3, &["contains no settings that can be read"]),
        ("workflow.png", 3, &["sagittal run"]),
        ("loras/ink.safetensors", 3, &["no picture that can be read", "--from"]),
        ("started.png", 2, &["cat.png", "-i"]),
        ("masked.png", 2, &["-i"]),
        ("other.png", 2, &["v1-5", "-m"]),
        ("vae.png", 2, &["ft-mse", "--vae"]),
        ("encoder.png", 2, &["--text-encoder"]),
        ("position.png", 2, &["Batch pos"]),
        ("lora.png", 2, &["--lora-dir"]),
        ("clip.png", 2, &["clip-skip"]),
        ("sampler.png", 2, &["Restart", "--sampling-method"]),
        ("schedule.png", 2, &["Turbo", "--scheduler"]),
        ("size.png", 2, &["Size", "WxH"]),
    ] {
        let output = run(folder.path(), &["--from", name, "-o", "out.png"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(code) && words.iter().all(|word| stderr.contains(word));
        failures.check(right, || format!("{name}: {:?} {stderr}", output.status.code()));
    }
    failures.check(!folder.path().join("out.png").exists(), || "a picture".into());
    if !gpu_is_off() {
        let redrawn = |name: &str, flags: &[&str]| {
            let output = run(folder.path(), &[&["--from", name, "--dry-run"], flags].concat());
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        // With a flag.
        let (code, text) = redrawn("sampler.png", &["--sampler", "euler"]);
        failures.check(code == Some(0) && text.contains("another program made it"), || text);
        write(
            "a1111.png",
            &[(
                "parameters",
                &line(", Model hash: 0123456789, Hires upscale: 2, Denoising strength: 0.5, Tiling: True"),
            )],
        );
        let (code, text) = redrawn("a1111.png", &[]);
        let words = ["expected 0123456789, found", "ignored: Hires upscale, Tiling", "GPU"];
        failures.check(code == Some(0) && words.iter().all(|w| text.contains(w)), || text);
    }
    failures.finish();
}
