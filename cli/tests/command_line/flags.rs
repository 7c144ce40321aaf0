//! Spellings of values, flags without effect, and how much is printed.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::Failures;
use crate::{common::gpu_is_off, program::program};
use sagittal::internals::image::texts;

const SMALL: [&str; 6] = ["-W", "64", "-H", "64", "--steps", "1"];

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, flags).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Draws, and returns the picture's settings and stderr.
fn draw(folder: &Path, flags: &[&str]) -> (String, String) {
    let output =
        run(folder, &[&["generate", "-p", "fox", "-o", "a.png", "--force"], &SMALL[..], flags].concat());
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{flags:?}: {stderr}");
    let bytes = fs::read(folder.join("a.png")).expect("a picture");
    (texts::texts(&bytes).expect("texts").remove(0).1, stderr)
}

#[test]
fn sampler_names_as_people_write_them() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Failures::default();
    for (name, text) in [
        ("DPM++ 2M Karras", "Sampler: DPM++ 2M, Schedule type: Karras"),
        ("dpm++2m karras", "Sampler: DPM++ 2M, Schedule type: Karras"),
        ("euler_a discrete", "Sampler: Euler a, Schedule type: Normal"),
        ("Euler a", "Sampler: Euler a, Schedule type: Normal"),
        ("k_dpmpp_2m_sde_gpu", "Sampler: DPM++ 2M SDE, Schedule type: Normal"),
    ] {
        let (settings, _) = draw(folder.path(), &["--sampler", name]);
        failures.check(settings.contains(text), || format!("{name}: {settings}"));
    }
    let (settings, _) = draw(folder.path(), &["--sampler", "DPM++ 2M Karras", "--scheduler", "karras"]);
    failures.check(settings.contains("Schedule type: Karras"), || settings);
    // Along an axis of a grid, too.
    let axis = "sampler=DPM++ 2M Karras,Euler a";
    let flags = [&["grid", "-p", "fox", "--x", axis, "-o", "g.png"], &SMALL[..]].concat();
    let output = run(folder.path(), &flags);
    failures.check(output.status.success(), || stderr(&output));
    for (cell, text) in [("x1", "DPM++ 2M, Schedule type: Karras"), ("x2", "Euler a, Schedule type: Normal")]
    {
        let bytes = fs::read(folder.path().join(format!("g/{cell}.png"))).expect("a cell");
        let settings = texts::texts(&bytes).expect("texts").remove(0).1;
        failures.check(settings.contains(text), || settings);
    }
    let both = run(folder.path(), &[&flags[..], &["--scheduler", "simple", "--force"]].concat());
    failures.check(both.status.code() == Some(2) && stderr(&both).contains("a different scheduler"), || {
        stderr(&both)
    });
    failures.finish();
}

#[test]
fn sizes_of_memory_and_precisions_as_people_write_them() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Failures::default();
    let plan = |flags: &[&str]| {
        let output = run(
            folder.path(),
            &[&["generate", "-p", "fox", "--dry-run", "--json"], &SMALL[..], flags].concat(),
        );
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let all = plan(&["--max-memory", "4096"]);
    for size in ["4G", "4GiB", "4096M", "4gb", "4.0g"] {
        failures.check(plan(&["--max-memory", size]) == all, || {
            format!("{size}: {:?}", plan(&["--max-memory", size]))
        });
    }
    for (name, precision) in [
        ("fp16", "f16"),
        ("half", "f16"),
        ("float16", "f16"),
        ("FP16", "f16"),
        ("fp32", "f32"),
        ("float32", "f32"),
        ("full", "f32"),
    ] {
        let (code, stderr) = plan(&["--precision", name]);
        let word = format!("\"precision\":\"{precision}\"");
        failures.check(code == Some(0) && stderr.contains(&word), || format!("{name}: {code:?} {stderr}"));
    }
    failures.finish();
}

#[test]
fn seeds_below_minus_1_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Failures::default();
    for words in [
        &["generate", "-p", "x", "-s", "-2"][..],
        &["generate", "-p", "x", "--seed=-9999999999999999999"],
        &["grid", "-p", "x", "--x", "steps=1", "-s", "-2"],
        &["grid", "-p", "x", "--x", "seed=1,-2"],
    ] {
        let output = run(folder.path(), words);
        let right = output.status.code() == Some(2) && stderr(&output).contains("-1 for a random one");
        failures.check(right, || format!("{words:?}: {:?} {}", output.status.code(), stderr(&output)));
    }
    failures.finish();
}

#[test]
fn a_suggestion_replaces_the_list() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flag, value, near) in [("--sampler", "dpmpp_2", "dpmpp_2m"), ("--scheduler", "karas", "karras")] {
        let output = run(folder.path(), &["generate", "-p", "x", flag, value]);
        let stderr = stderr(&output);
        assert!(stderr.contains("did you mean") && stderr.contains(near), "{stderr}");
        assert!(!stderr.contains("one of"), "{stderr}");
    }
    let output = run(folder.path(), &["generate", "-p", "x", "--sampler", "qwertz"]);
    assert!(stderr(&output).contains("expected one of euler, "), "{}", stderr(&output));
}

#[test]
fn flags_without_effect_give_warnings() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Failures::default();
    for (flags, idle) in [
        (&["--eta", "0.5"][..], &["--eta"][..]),
        (&["--s-noise", "1.1", "--sampler", "dpmpp_2m"], &["--s-noise"]),
        (
            &["--sag-scale", "0", "--sag-blur", "1", "--sag-threshold", "2"],
            &["--sag-blur", "--sag-threshold"],
        ),
        (&["--sag-blur", "0", "--sag-start", "0.5"], &["--sag-start"]),
        (&["--sag-cond", "--cfg-scale", "3"], &["--sag-cond"]),
        (&["--pag-start", "0.5", "--pag-end", "0.7"], &["--pag-start", "--pag-end"]),
        (&["--seg-blur", "2"], &["--seg-blur"]),
        (&["--seg-scale", "2", "--seg-blur", "0"], &["--seg-scale"]),
        (&["--sag-scale", "1", "--sag-blur", "0"], &["--sag-scale"]),
        (&["--preview", "now.png", "--preview-every", "2"], &["--preview-every"]),
        (&["-n", "grey", "--cfg-scale", "1", "--sag-scale", "0"], &["--negative-prompt"]),
        (&["-n", "grey", "--cfg-scale", "1", "--sag-cond"], &["--negative-prompt"]),
        (&["--eta", "0.5", "--sampler", "euler_a", "--sag-blur", "1", "-n", "grey"], &[]),
        (&["-n", "grey", "--cfg-scale", "1"], &[]),
        (&["--sag-cond", "--cfg-scale", "1"], &[]),
        (&["--pag-start", "0.1", "--pag-scale", "2", "--seg-blur", "2", "--seg-scale", "1"], &[]),
    ] {
        let (_, stderr) = draw(folder.path(), flags);
        let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("has no effect")).collect();
        let right = lines.len() == idle.len()
            && idle
                .iter()
                .all(|flag| lines.iter().any(|line| line.contains(&format!("{flag} has no effect"))));
        failures.check(right, || format!("{flags:?}: {stderr}"));
    }
    // In a grid only flags without effect in all cells.
    let grid = |axis: &str| {
        let flags = ["grid", "-p", "fox", "--x", axis, "--eta", "0.5", "--pag-end", "0.5", "--dry-run"];
        stderr(&run(folder.path(), &[&flags, &SMALL[..]].concat()))
    };
    let (one, none) = (grid("sampler=euler,euler_a"), grid("sampler=euler,heun"));
    failures.check(!one.contains("--eta") && one.contains("--pag-end has no effect"), || one);
    failures.check(none.contains("--eta has no effect"), || none);
    // An axis takes the place of its option.
    let replaced = grid("eta=0,1");
    failures.check(replaced.contains("--eta has no effect: an axis sets it"), || replaced);
    let flags = ["grid", "-p", "fox", "-n", "grey", "--x", "negative-prompt=a,b", "--dry-run"];
    let replaced = stderr(&run(folder.path(), &[&flags, &SMALL[..]].concat()));
    failures.check(replaced.contains("--negative-prompt has no effect: an axis sets it"), || replaced);
    failures.finish();
}

/// `--no-matrices` is an older name, which pictures do not hold: they say `Matrices: off`.
#[test]
fn matrices_are_chosen_and_stored() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, _) = draw(folder.path(), &["-s", "3"]);
    assert!(!plain.contains("Matrices"), "{plain}");
    for flags in [&["-s", "3", "--matrices", "off"][..], &["-s", "3", "--no-matrices"]] {
        let (settings, _) = draw(folder.path(), flags);
        assert!(settings.contains("Matrices: off"), "{settings}");
    }
    let again = run(folder.path(), &["generate", "--from", "a.png", "-o", "b.png"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let [first, second] =
        ["a.png", "b.png"].map(|name| fs::read(folder.path().join(name)).expect("a picture"));
    assert!(first == second, "the settings are not followed");
    let devices = run(folder.path(), &["devices", "--json"]);
    let has_none = String::from_utf8_lossy(&devices.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .all(|device| device["cooperative_matrices"].as_array().is_some_and(Vec::is_empty));
    let on = run(folder.path(), &["verify", "--matrices", "on", "--json"]);
    if has_none {
        assert_eq!(on.status.code(), Some(2), "{}", stderr(&on));
        assert!(stderr(&on).contains("no cooperative matrices"), "{}", stderr(&on));
    }
    let both = run(folder.path(), &["devices", "--matrices", "on"]);
    assert_eq!(both.status.code(), Some(2));
}

/// What is not followed is said, and what cannot be meant is an error.
#[test]
fn nothing_is_ignored_in_silence() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("workflow.json");
    fs::copy(crate::common::root().join("tests/workflows/default_sag.api.json"), &file).expect("a copy");
    draw(folder.path(), &[]);
    let whole = fs::read(folder.path().join("a.png")).expect("a picture");
    fs::write(folder.path().join("cut.png"), &whole[..whole.len() - 100]).expect("a file");
    let cut = run(folder.path(), &["inspect", "cut.png"]);
    let facts = String::from_utf8_lossy(&cut.stdout).into_owned();
    assert!(facts.contains("damaged ") && facts.contains("Steps"), "{facts}");
    let workflow = ["run", "workflow.json", "--set", "4.ckpt_name=tiny-emoji.safetensors", "--dry-run"];
    let mut failures = Failures::default();
    for (words, code, part) in [
        (&["generate", "-p", "x", "-o", "b%x.png", "--dry-run"][..], 0, "only %d and %03d become a number"),
        (&["generate", "-p", "x", "--save-latent", "l.txt"], 2, "try --save-latent l.latent"),
        (&["inspect", "a.png", "--size", "64x64"], 0, "--size has no effect"),
        (&["verify", "--set", "workflow.json"], 3, "not a golden set"),
        (&["inspect", "--no-memory", "--max-memory", "4G"], 0, "--max-memory has no effect"),
        (&["inspect", "--device", "no such device"], 2, "no such device"),
        (&[&workflow[..], &["--models-dir", "nowhere"]].concat(), 3, "--models-dir"),
        (&[&workflow[..], &["--input-dir", "nowhere"]].concat(), 3, "--input-dir"),
        (
            &[&workflow[..], &["--set", "5.width=100"]].concat(),
            0,
            "width 100 counts as 96, the multiple of 8 below",
        ),
        (&["generate", "-p", "x AND y", "--dry-run"], 0, "a CFG scale 2 times as large"),
    ] {
        let output = run(folder.path(), words);
        let right = output.status.code() == Some(code) && stderr(&output).contains(part);
        failures.check(right, || format!("{words:?}: {:?} {}", output.status.code(), stderr(&output)));
    }
    let halves = run(folder.path(), &["generate", "-p", "x :0.5 AND y :0.5", "--dry-run"]);
    failures.check(!stderr(&halves).contains("CFG"), || stderr(&halves));
    // Nothing is redrawn at a strength of 0.
    let none = ["generate", "-p", "x", "-i", "a.png", "--strength", "0", "--dry-run"];
    let none = String::from_utf8_lossy(&run(folder.path(), &none).stdout).into_owned();
    failures.check(none.contains("sampling        0 steps"), || none);
    failures.finish();
}

#[test]
fn missing_output_folders_are_made() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let flags = [
        &[
            "generate",
            "-p",
            "fox",
            "-o",
            "a/b/out.png",
            "--save-latent",
            "c/out.latent",
            "--animate",
            "d/out.png",
        ][..],
        &["--preview", "e/out.png", "--save-attention", "f/g"],
        &SMALL,
    ]
    .concat();
    let dry = run(folder.path(), &[&flags[..], &["--dry-run"]].concat());
    assert!(
        dry.status.success() && fs::read_dir(folder.path()).expect("a folder").count() == 0,
        "{}",
        stderr(&dry)
    );
    let output = run(folder.path(), &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    for name in ["a/b/out.png", "c/out.latent", "d/out.png", "e/out.png", "f/g"] {
        assert!(folder.path().join(name).exists(), "{name}: {}", stderr(&output));
    }
    let grid = [&["grid", "-p", "fox", "--x", "steps=1,2", "-o", "h/i/g.png"], &SMALL[..4]].concat();
    let output = run(folder.path(), &grid);
    assert!(output.status.success() && folder.path().join("h/i/g/x2.png").exists(), "{}", stderr(&output));
    // An invalid folder is reported before anything runs.
    fs::write(folder.path().join("file"), "keep me").expect("a file");
    let output = run(folder.path(), &["generate", "-p", "fox", "-o", "file/x/out.png"]);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("not a folder"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn long_lists_need_verbose() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let lines = |words: &[&str]| {
        let output = run(folder.path(), words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let dry = [&["generate", "-p", "fox", "--dry-run"], &SMALL[..]].concat();
    let (short, long) = (lines(&dry), lines(&[&dry[..], &["-v"]].concat()));
    assert!(short.len() <= 15 && long.len() > 2 * short.len(), "{} and {} lines", short.len(), long.len());
    // Totals are printed, and each set with its file.
    let (short, long) = (lines(&["verify"]), lines(&["verify", "--verbose"]));
    assert!(short.len() < 10 && long.len() > 5 * short.len(), "{} and {} lines", short.len(), long.len());
    assert!(short.last() == long.last() && short.iter().any(|l| l.starts_with("passed: ")), "{short:?}");
}
