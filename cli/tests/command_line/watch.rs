//! `--save-attention`, `--animate` and `--preview`: what they write, that they change no picture, and the
//! event behind them.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::{Failures, gpu};
use crate::{common::gpu_is_off, program::program};
use sagittal::Size;
use sagittal::image::{Picture, read};
use sagittal::{Model, ModelOptions, Progress, Request, Sag, embedded};

fn run(folder: &Path, flags: &[&str]) -> Output {
    let steps: &[&str] = if flags.contains(&"--steps") { &[] } else { &["--steps", "3"] };
    let words = [&["generate", "-p", "fox", "-W", "64", "-H", "72", "-s", "5"], steps, flags].concat();
    program(folder, &words).output().expect("the program starts")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_shown_changes_nothing() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let good = |flags: &[&str]| {
        let output = run(folder.path(), flags);
        assert_eq!(output.status.code(), Some(0), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    good(&["-o", "plain.png"]);
    good(&[
        "-o",
        "a.png",
        "--save-attention",
        "att",
        "--animate",
        "moving.png",
        "--preview",
        "live.png",
        "--preview-every",
        "2",
    ]);
    let read_bytes = |name: &str| fs::read(folder.path().join(name)).expect(name);
    assert!(read_bytes("plain.png") == read_bytes("a.png"), "looking on changed the picture");
    assert_eq!(
        names(folder.path()),
        ["a.png", "att", "live.png", "moving.png", "plain.png"],
        "parts are left over"
    );
    let steps = (1..=3).flat_map(|step| {
        [format!("evaluation-{step:02}-heat.png"), format!("evaluation-{step:02}-mask.png")]
    });
    let files: Vec<String> = steps.chain(["maps.safetensors".to_owned()]).collect();
    assert_eq!(names(&folder.path().join("att")), files);
    // The same as data, for scripts.
    let maps = read_bytes("att/maps.safetensors");
    let length = u64::from_le_bytes(maps[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&maps[8..8 + length]).expect("a header");
    let shape = |name: &str| header[name]["shape"].clone();
    assert_eq!(shape("3.attention"), serde_json::json!([1, 3, 2]), "{header}");
    assert_eq!((shape("3.mask"), shape("sigmas")), (serde_json::json!([1, 9, 8]), serde_json::json!([3])));
    assert_eq!(shape("3.denoised"), serde_json::json!([1, 4, 9, 8]));
    for name in ["att/evaluation-01-heat.png", "att/evaluation-03-mask.png", "live.png"] {
        let picture = read::picture(&folder.path().join(name)).expect(name);
        assert_eq!((picture.width, picture.height), (64, 72), "{name}");
        assert!(picture.rgb.chunks(3).any(|p| p != &picture.rgb[..3]), "{name} is empty");
    }
    // Frames for what comes before the first step, each step, and the picture.
    let reader =
        png::Decoder::new(std::io::Cursor::new(read_bytes("moving.png"))).read_info().expect("a PNG");
    assert_eq!(reader.info().animation_control().expect("an animation").num_frames, 5);
    let last = |name: &str| read::picture(&folder.path().join(name)).expect(name);
    assert!(last("moving.png") == last("a.png"), "a program without animations shows the picture");

    // Four pictures side by side, with their names above; the last is the picture itself.
    good(&["-o", "c.png", "--compare", "strip.png"]);
    let strip = read::picture(&folder.path().join("strip.png")).expect("strip.png");
    assert!(strip.width > 4 * 64 && strip.height > 72, "{}x{}", strip.width, strip.height);
    let picture = last("c.png");
    let line = |p: &Picture, x: usize, y: usize| p.rgb[(y * p.width + x) * 3..][..64 * 3].to_vec();
    let is_there = |x: usize, y: usize| (0..72).all(|row| line(&strip, x, y + row) == line(&picture, 0, row));
    let mut places = (0..strip.height - 71).flat_map(|y| (0..strip.width - 63).map(move |x| (x, y)));
    let place = places.find(|(x, y)| is_there(*x, *y)).expect("the picture is in the strip");
    assert!(place.0 > 3 * 64, "{place:?}");
    assert!(read_bytes("plain.png") == read_bytes("c.png"), "comparing changed the picture");

    // Several evaluations per step, several pictures and batches.
    good(&["-o", "b.png", "--sampler", "heun", "--batch-size", "2", "--steps", "2", "--save-attention", "b"]);
    let heat: Vec<String> =
        names(&folder.path().join("b")).into_iter().filter(|n| n.ends_with("heat.png")).collect();
    let again = "evaluation-03-picture-2-heat.png".to_owned();
    assert!(heat.len() == 6 && heat.contains(&again), "{heat:?}");
}

#[test]
fn errors_are_reported_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("taken.png"), "keep me").expect("a file");
    fs::create_dir(folder.path().join("full")).expect("a folder");
    fs::write(folder.path().join("full/evaluation-01-heat.png"), "keep me").expect("a file");
    let mut failures = Failures::default();
    for (flags, word) in [
        (&["--save-attention", "a", "--sag-scale", "0"][..], "SAG is off"),
        (&["--save-attention", "full"], "exists already"),
        (&["--animate", "taken.png"], "exists already"),
        (&["--preview", "taken.png"], "exists already"),
        (&["--compare", "taken.png"], "exists already"),
        (&["--compare", "a.png", "--sag-scale", "0"], "SAG is off"),
        (&["--compare", "a.png", "--batch-size", "2"], "single picture"),
        (&["--compare", "a.png", "-o", "a.png"], "same file name"),
        (&["--animate", "a.gif"], "PNG"),
        (&["--preview", "taken.png/a.png"], "folder"),
        (&["--preview-every", "2"], "--preview"),
        (&["--preview", "a.png", "--preview-every", "0"], "--preview-every"),
        (&["--preview", "a.png", "-o", "a.png"], "same file name"),
    ] {
        let output = run(folder.path(), flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(2) && stderr.contains(word);
        failures.check(right, || format!("{flags:?}: {:?} {stderr}", output.status.code()));
    }
    failures.check(names(folder.path()) == ["full", "taken.png"], || "something was written".into());
    failures
        .check(fs::read(folder.path().join("taken.png")).expect("it") == b"keep me", || "taken.png".into());
    failures.finish();
}

#[test]
fn evaluations_are_reported_with_their_latents() {
    let Some(gpu) = gpu() else { return };
    let model =
        Model::new(gpu, embedded::checkpoint().expect("embedded"), ModelOptions::default()).expect("model");
    let mut request = Request::new("fox", Size::square(64));
    (request.schedule.steps, request.evaluations) = (3, true);
    request.guidance.set_sag(Sag { end: 0.5, ..Sag::default() });
    let mut evaluations = Vec::new();
    let mut observe = |event: Progress| {
        if let Progress::Evaluated { sigma, evaluation, preview } = event {
            evaluations.push((
                sigma,
                evaluation.sag.is_some(),
                evaluation.result.shape(),
                (preview.width, preview.height),
            ));
            if let Some(sag) = &evaluation.sag {
                let columns = &sag.columns[0];
                let mean = columns.values.iter().sum::<f32>() / columns.values.len() as f32;
                assert!((mean - 1.0).abs() < 1e-3, "{mean}");
                let above = columns.values.iter().any(|v| *v > 1.0);
                assert!(above && sag.mask.contains(&1) && sag.mask.contains(&0));
            }
        }
    };
    model.run(&request).on_event(&mut observe).generate().expect("a run");
    let sag: Vec<bool> = evaluations.iter().map(|t| t.1).collect();
    assert_eq!(sag, [true, true, false], "SAG acts in the first half");
    assert!(evaluations.iter().all(|t| t.2 == [1, 4, 8, 8] && t.3 == (8, 8)));
    assert!(evaluations.windows(2).all(|pair| pair[0].0 > pair[1].0), "from much noise to little");
}
