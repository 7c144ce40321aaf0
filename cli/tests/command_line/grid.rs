//! `sagittal grid`: its cells, its sheet, and errors before anything runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Failures, Rng, safetensors};
use crate::{common::gpu_is_off, program::program};
use sagittal::internals::image::{Picture, read, texts};
use serde_json::Value;

use crate::schema::events;

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, flags).output().expect("the program starts")
}

fn good(folder: &Path, flags: &[&str]) -> Vec<Value> {
    let output = run(folder, flags);
    assert_eq!(output.status.code(), Some(0), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    match flags.contains(&"--json") {
        true => events(&output.stdout),
        false => Vec::new(),
    }
}

const SMALL: [&str; 10] = ["-p", "fox, 3d style", "-W", "64", "-H", "64", "--steps", "1", "-s", "5"];

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn settings(folder: &Path, name: &str) -> String {
    texts::texts(&bytes(folder, name)).expect("texts")[0].1.clone()
}

/// Whether `small` is somewhere in `large`, pixel by pixel.
fn holds(large: &Picture, small: &Picture) -> bool {
    let row =
        |p: &Picture, x: usize, y: usize, width: usize| p.rgb[(y * p.width + x) * 3..][..width * 3].to_vec();
    let first = row(small, 0, 0, small.width);
    let fits = |x: usize, y: usize| {
        row(large, x, y, small.width) == first
            && (1..small.height).all(|i| row(large, x, y + i, small.width) == row(small, 0, i, small.width))
    };
    (0..=large.height - small.height).any(|y| (0..=large.width - small.width).any(|x| fits(x, y)))
}

#[test]
fn cells_are_the_pictures_of_generate_and_equal_ones_are_drawn_once() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let axes = ["grid", "--x", "sag-scale=0:1.5[3]", "--y", "sag-blur=0,2", "-o", "g.png", "--json"];
    let events = good(folder.path(), &[&axes[..], &SMALL].concat());
    let start = &events[0];
    assert_eq!(
        (&start["event"], &start["cells"], &start["pictures"]),
        (&"start".into(), &6.into(), &3.into())
    );
    let of = |kind: &str| events.iter().filter(|e| e["event"] == "saved" && e["kind"] == kind).count();
    assert_eq!((of("cell"), of("grid")), (6, 1));
    let steps = events.iter().filter(|e| e["event"] == "step").count();
    assert_eq!(steps, 3, "one step for each picture that differs");

    let off = bytes(folder.path(), "g/x1-y1.png");
    for name in ["g/x2-y1.png", "g/x3-y1.png", "g/x1-y2.png"] {
        assert!(bytes(folder.path(), name) == off, "{name} has no SAG either");
    }
    let generate =
        [&["generate", "--sag-scale", "1.5", "--sag-blur", "2", "-o", "one.png"][..], &SMALL].concat();
    good(folder.path(), &generate);
    assert!(
        bytes(folder.path(), "one.png") == bytes(folder.path(), "g/x3-y2.png"),
        "a cell is another picture"
    );
    good(folder.path(), &["generate", "--from", "g/x2-y2.png", "-o", "again.png"]);
    assert!(bytes(folder.path(), "again.png") == bytes(folder.path(), "g/x2-y2.png"), "--from a cell");

    let sheet = read::picture(&at("g.png")).expect("the sheet");
    assert_eq!(
        (Some(sheet.width as u64), Some(sheet.height as u64)),
        (start["width"].as_u64(), start["height"].as_u64())
    );
    for name in ["g/x1-y1.png", "g/x2-y2.png", "g/x3-y2.png"] {
        assert!(holds(&sheet, &read::picture(&at(name)).expect(name)), "{name} is not on the sheet");
    }
    let written = settings(folder.path(), "g.png");
    for word in ["Script: X/Y/Z plot", "X Type: sag-scale", "X Values: \"0, 0.75, 1.5\"", "Y Type: sag-blur"]
    {
        assert!(written.contains(word), "{word} in {written}");
    }
    // Existing files are kept.
    assert_eq!(run(folder.path(), &[&axes[..], &SMALL].concat()).status.code(), Some(2));
}

#[test]
fn axes_of_every_kind() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let model = sagittal::embedded::checkpoint().expect("embedded");
    let tensor = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight";
    let shape = model.tensor(tensor).expect(tensor).shape.clone();
    let mut rng = Rng(1);
    let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.value()).collect() };
    let (down, up) = (values(2 * shape[1]), values(2 * shape[0]));
    let module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
    let lora = safetensors([(&*a, &[2, shape[1]][..], &down[..]), (&*b, &[shape[0], 2], &up)]);
    fs::write(folder.path().join("ink.safetensors"), lora).expect("a file");
    let flags = [
        "grid",
        "--x",
        "prompt=fox,\"owl, red\"",
        "--y",
        "sampler=euler,lcm",
        "--z",
        "lora-weight=0,1",
        "--lora",
        "ink.safetensors",
        "-o",
        "g.png",
        "--cells",
        "single",
    ];
    good(folder.path(), &[&flags[..], &SMALL].concat());
    let written = settings(folder.path(), "single/x2-y2-z2.png");
    assert!(
        written.starts_with("owl, red, 3d style <lora:ink:1>\n") && written.contains("Sampler: LCM"),
        "{written}"
    );
    assert!(settings(folder.path(), "single/x1-y1-z1.png").starts_with("fox, 3d style <lora:ink:0>\n"));
    let pixels = |name: &str| read::picture(&folder.path().join(name)).expect(name);
    let all: Vec<Picture> =
        ["x1-y1-z1", "x2-y1-z1", "x1-y1-z2"].map(|n| pixels(&format!("single/{n}.png"))).into();
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    // Cells of different sizes, panels without rows, and switches; the plan alone.
    let flags = ["grid", "--x", "width=64,72", "--z", "sag-cond=false,true", "--json", "--dry-run"];
    let plan = good(folder.path(), &[&flags[..], &["-p", "x", "-H", "64"]].concat()).remove(0);
    assert_eq!((&plan["event"], &plan["cells"], &plan["pictures"]), (&"plan".into(), &4.into(), &4.into()));
    assert!(plan["peak_mib"].as_f64() > Some(1.0) && !folder.path().join("grid.png").exists());
}

#[test]
fn errors_are_reported_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("taken"), "a file").expect("a file");
    let mut failures = Failures::default();
    for (flags, words) in [
        (&["--x", "sag-scale=0,9"][..], &["sag-scale", "9", "-2 to 5"][..]),
        (&["--x", "steps=1,2.5"], &["steps", "2.5"]),
        (&["--x", "sampler=euler,eulr"], &["sampler", "eulr", "did you mean euler"]),
        (&["--x", "sag-scal=1"], &["did you mean sag-scale"]),
        (&["--x", "steps=1:5[x]"], &["FROM:TO[COUNT]"]),
        (&["--x", "model=a,b"], &["same for all cells"]),
        (&["--x", "steps=1", "--y", "steps=2"], &["two axes"]),
        (&["--x", "prompt=cat,dog"], &["cat", "does not contain"]),
        (&["--x", "seed=-1,2"], &["seed", "-1", "random"]),
        (&["--x", "lora-weight=0,1"], &["no such LoRA"]),
        (&["--x", "sag-cond=maybe"], &["maybe", "true or false"]),
        (&["--x", "steps=1,2", "--batch-size", "2"], &["one picture"]),
        (&["--x", "steps=1,2", "--animate", "a.png"], &["--animate"]),
        (
            &["--x", "sag-start=0,0.5", "--y", "sag-end=0.25,1"],
            &["sag-start=0.5", "sag-end=0.25", "never act"],
        ),
        (
            &["--x", "width=64,9600", "--y", "seed=1:9[9]", "-o", "big.png", "-H", "16000"],
            &["too large", "65535"],
        ),
        (&["--x", "seed=1:1000[1000]", "--y", "cfg-scale=1:2[1000]"], &["too many pictures"]),
        (&["--x", "steps=1", "-o", "grid.jpg"], &["PNG"]),
        (&["--x", "steps=1", "--cells", "taken"], &["taken"]),
        (&["--x", "steps"], &["NAME=VALUES"]),
        (&[], &["--x"]),
    ] {
        let output = run(folder.path(), &[&["grid", "-p", "fox", "-W", "64"], flags].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(2) && words.iter().all(|word| stderr.contains(word));
        failures.check(right, || format!("{flags:?}: {:?} {stderr}", output.status.code()));
    }
    failures.check(fs::read_dir(folder.path()).expect("the folder").count() == 1, || {
        "something was written".into()
    });
    failures.finish();
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_sheet() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let flags =
        ["grid", "--x", "seed=1:50[50]", "-p", "fox", "-W", "64", "-H", "64", "--steps", "50", "--json"];
    let mut child =
        program(folder.path(), &flags).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"step\":1,")), "no step was taken");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    assert_eq!(child.wait().expect("the program ends").code(), Some(130));
    assert!(!folder.path().join("grid.png").exists());
}
