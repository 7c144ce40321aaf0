//! `sagittal bench`: its output can be parsed, and is right as far as a test can check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::AtomicBool;

use crate::common::{Failures, MANIFESTS};
use crate::program::program;
use crate::schema::events;
use sagittal::checkpoint::Manifest;
use sagittal::internals::bench::presets::Preset;
use sagittal::internals::bench::profile::{Network, profile};
use sagittal::internals::bench::rows::{self, Choice, Outcome};
use sagittal::internals::bench::{Bench, Effort, shapes, sweep};
use sagittal::internals::model::ModelConfig;
use sagittal::{ErrorKind, Gpu};
use serde_json::Value;

fn run(folder: &Path, flags: &[&str]) -> Output {
    program(folder, &[&["bench"], flags].concat()).output().expect("the program starts")
}

/// Standard output and standard error of a run with small networks that must end with `code`.
fn tiny(folder: &Path, flags: &[&str], code: i32) -> (String, String) {
    let output = run(folder, &[flags, &["--tiny"]].concat());
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {err}");
    (out, err)
}

/// Folder for a test that needs an adapter; None if such tests are off.
fn folder() -> Option<tempfile::TempDir> {
    crate::common::gpu().map(|_| tempfile::tempdir().expect("a folder for the test"))
}

/// The cells of a line, `|` between them.
fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect()
}

/// Whether all are numbers above 0.
fn positive(cells: &[&str]) -> bool {
    cells.iter().all(|c| c.parse::<f64>().is_ok_and(|v| v.is_finite() && v > 0.0))
}

/// Names and shapes are those of the real checkpoints, and what is read off them is what the preset
/// says.
#[test]
fn presets_are_the_families() {
    let presets = [
        (Preset::Sd15, "sd15"),
        (Preset::Sdxl, "sdxl"),
        (Preset::TinySd1, "tiny-sd1"),
        (Preset::TinySdxl, "tiny-sdxl"),
    ];
    let mut failures = Failures::default();
    for (preset, family) in presets {
        let made = preset.checkpoint().expect("a checkpoint");
        let (_, text) = MANIFESTS.iter().find(|(n, _)| *n == family).expect("a family");
        let real: BTreeMap<String, Vec<usize>> =
            Manifest::parse(text).expect("a manifest").tensors.into_iter().collect();
        for (name, shape) in &real {
            let found = made.tensor(name).map(|t| &t.shape);
            failures.check(found == Some(shape), || format!("{preset:?} {name}: {found:?}, not {shape:?}"));
        }
        failures.check(made.names().len() == real.len(), || format!("{preset:?}: tensors too many"));
        let read = ModelConfig::infer(&made).expect("a configuration");
        failures.check(read == preset.config(), || format!("{preset:?}: {read:?}"));
    }
    failures.finish();
}

/// Rows, sweep and report in one run: each row is printed and is in the page.
#[test]
fn a_report_has_all_rows() {
    let Some(folder) = folder() else { return };
    let (out, err) = tiny(folder.path(), &["--report", "speed"], 0);
    let page = fs::read_to_string(folder.path().join("speed/report.md")).expect("the page");
    let mut failures = Failures::default();
    let printed: Vec<Vec<&str>> = out.lines().filter_map(|l| l.strip_prefix("ROW ")).map(cells).collect();
    let clock = !err.contains(rows::NO_CLOCK);
    let names = rows::names(true);
    let names: Vec<&String> = names.iter().filter(|n| clock || !n.contains("GPU")).collect();
    for name in &names {
        let row = printed.iter().find(|row| row[0] == name.as_str());
        let good = row.is_some_and(|row| row.len() == 6 && positive(&row[1..]));
        failures.check(good, || format!("{name}: {row:?}"));
        let line = page.lines().map(cells).find(|c| c.first() == Some(&name.as_str()));
        failures.check(line.is_some_and(|c| c.len() == 6 && positive(&c[1..])), || {
            format!("{name} is not in the page")
        });
    }
    failures.check(printed.len() == names.len(), || format!("{} rows", printed.len()));
    // The points of the sweep: a first cell that is a number.
    let points = page.lines().map(cells).filter(|c| c.len() == 7 && c[0].parse::<usize>().is_ok());
    failures.check(points.count() == sweep::steps(true).len(), || "points of the sweep".into());
    for name in ["batch.svg", "size.svg"] {
        let svg = fs::read_to_string(folder.path().join("speed").join(name)).expect("a chart");
        failures.check(well_formed(&svg), || format!("{name} is no XML: {svg}"));
        failures.check(svg.matches("<circle").count() >= 2 && !svg.contains("NaN"), || svg.clone());
        failures.check(page.contains(name), || format!("the page does not show {name}"));
    }
    failures.check(page.contains("bench --report speed") && page.contains("- Device: "), || page.clone());
    failures.finish();

    // Nothing is measured that could not be written.
    let (out, err) = tiny(folder.path(), &["--report", "speed"], 2);
    assert!(out.is_empty() && err.contains("exists already") && err.contains("--force"), "{err}");
    tiny(folder.path(), &["--report", "speed", "--force", "--only", "CLIP", "--deadline", "0.001"], 0);
    fs::write(folder.path().join("taken"), "keep me").expect("a file");
    let (_, err) = tiny(folder.path(), &["--report", "taken/such"], 2);
    assert!(err.contains("not a folder"), "{err}");
}

/// Whether every tag of `xml` is closed in order, and every attribute quoted.
fn well_formed(xml: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some((text, after)) = rest.split_once('<') {
        let Some((tag, next)) = after.split_once('>') else { return false };
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if text.contains('>') || tag.matches('"').count() % 2 == 1 || tag.contains('<') {
            return false;
        }
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) if open.pop() != Some(name) => return false,
            (false, false) => open.push(name),
            _ => {}
        }
        rest = next;
    }
    open.is_empty() && xml.trim_end().ends_with("</svg>") && xml.starts_with("<svg ")
}

#[test]
fn a_checker_that_finds_faults() {
    assert!(well_formed("<svg a=\"1\"><g><line/></g>x</svg>\n"));
    for bad in ["<svg a=\"1\"><g></svg>", "<svg a=\"1></svg>", "<svg ><g></svg></g>", "<svg >"] {
        assert!(!well_formed(bad), "{bad}");
    }
}

#[test]
fn a_profile_adds_up() {
    let Some(folder) = folder() else { return };
    let mut failures = Failures::default();
    for (flags, class) in [(&["--model", "clip"][..], "linear"), (&["--rows-per-call", "1"], "convolution")] {
        let (out, _) = tiny(folder.path(), &[&["--profile", "--json"], flags].concat(), 0);
        let events: Vec<Value> = events(out.as_bytes());
        let of = |name: &str| events.iter().filter(|e| e["event"] == name).collect::<Vec<_>>();
        let sum =
            |events: &[&Value], key: &str| -> f64 { events.iter().filter_map(|e| e[key].as_f64()).sum() };
        let (whole, classes, layers) = (of("profile")[0], of("class"), of("layer"));
        let count = whole["dispatches"].as_u64().expect("a number");
        failures
            .check(count == layers.len() as u64, || format!("{count} dispatches, {} layers", layers.len()));
        failures.check(sum(&classes, "dispatches") == count as f64, || "dispatches of classes".into());
        for key in ["flops", "bytes"] {
            let (a, b) = (sum(&classes, key), sum(&layers, key));
            failures.check(a == b && a > 0.0, || format!("{key}: {a} by class, {b} by layer"));
        }
        let (ms, us) = (sum(&classes, "ms"), sum(&layers, "us"));
        failures.check((ms * 1e3 - us).abs() < 1e-3 * us && us > 0.0, || format!("{ms} ms, {us} us"));
        failures.check(classes.iter().any(|c| c["class"] == class), || format!("no {class} in {flags:?}"));
    }
    let (out, _) = tiny(folder.path(), &["--profile", "--model", "vae", "--layers", "3"], 0);
    // The device's line goes elsewhere; a title, a table of classes, a table of three layers.
    let tables: Vec<&str> = out.split("\n\n").collect();
    failures.check(tables.len() == 3 && tables[2].lines().count() == 4, || out.clone());
    failures.finish();
}

#[test]
fn shapes_and_sweep_print_numbers() {
    let Some(folder) = folder() else { return };
    let (out, _) = tiny(folder.path(), &["--shapes"], 0);
    assert_eq!(out.lines().count(), 1 + shapes::all(true).len(), "{out}");
    let (out, _) = tiny(folder.path(), &["--shapes", "--json", "--only", "conv"], 0);
    let measured: Vec<Value> = events(out.as_bytes());
    assert!(measured.len() == 2 && measured[1]["tflops"].as_f64().is_some_and(|t| t > 0.0), "{out}");
    let (out, _) = tiny(folder.path(), &["--sweep", "--json"], 0);
    let points: Vec<Value> = events(out.as_bytes()).into_iter().skip(1).collect();
    assert_eq!(points.len(), sweep::steps(true).len());
    for point in &points {
        for key in ["ms_per_call", "ms_per_picture", "peak_bytes"] {
            assert!(point[key].as_f64().is_some_and(|v| v > 0.0), "{key} of {point}");
        }
    }
    let (out, _) = tiny(folder.path(), &["--sweep", "--json", "--only", "size"], 0);
    assert!(out.lines().count() == 3 && out.matches(r#""axis":"size""#).count() == 2, "{out}");
}

#[test]
fn rows_can_be_chosen() {
    let Some(folder) = folder() else { return };
    let (out, err) =
        tiny(folder.path(), &["--rows", "--only", "UNet b1 GPU", "--only", "CLIP", "--n", "4"], 0);
    let names: Vec<&str> = out.lines().map(|l| cells(l)[0]).collect();
    if !err.contains(rows::NO_CLOCK) {
        assert_eq!(
            names,
            ["ROW tiny SD1.5 UNet b1 GPU", "ROW tiny CLIP b2", "ROW tiny CLIP b2 GPU"],
            "{err}"
        );
    }
    let counts: Vec<&str> = out.lines().map(|l| cells(l)[4]).collect();
    assert!(counts.iter().all(|n| ["3", "4"].contains(n)), "{out}");
    let (out, err) = tiny(folder.path(), &["--rows", "--deadline", "0.000001"], 0);
    assert!(out.is_empty() && err.matches("SKIP (deadline)").count() == rows::names(true).len(), "{err}");
    let (_, err) = tiny(folder.path(), &["--rows", "--only", "nothing"], 2);
    assert!(err.contains("SD1.5 UNet b16 GPU"), "{err}");
}

#[test]
fn bad_flags_exit_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: &[&[&str]] = &[
        &[],
        &["--rows", "--sweep"],
        &["--rows", "--n", "0"],
        &["--rows", "--deadline", "nan"],
        &["--rows", "--force"],
        &["--sweep", "--model", "vae"],
        &["--profile", "--tflops", "0"],
        &["--profile", "--rows-per-call", "-1"],
        &["--profile", "--deadline", "1"],
        &["--sweep", "--only", "b1"],
        &["--shapes", "--runs", "2"],
    ];
    let mut failures = Failures::default();
    for flags in cases {
        // Small networks, in case one of them runs after all.
        let code = run(folder.path(), &[flags, &["--tiny"][..]].concat()).status.code();
        failures.check(code == Some(2), || format!("{flags:?}: {code:?}"));
    }
    failures.finish();
}

/// An app's device without timestamps: wall times are there, GPU times are skipped, and what needs
/// only GPU times is refused.
#[test]
fn a_device_that_counts_no_time() {
    let Some((device, queue)) = crate::common::default_device() else { return };
    let (gpu, cancel) = (Gpu::from_device(device, queue), AtomicBool::new(false));
    let bench = Bench { gpu: &gpu, precision: None, tiny: true, effort: Effort::least(), cancel: &cancel };
    let choice = Choice { only: vec!["CLIP".into(), "step GPU".into()], deadline: None };
    let (mut measured, mut skipped) = (Vec::new(), Vec::new());
    rows::measure(&bench, &choice, &mut |outcome| match outcome {
        Outcome::Measured(row) => measured.push(row.name),
        Outcome::Skipped { name, why } => skipped.push((name, why)),
        other => panic!("{other:?}"),
    })
    .expect("measured");
    assert_eq!(measured, ["tiny CLIP b2"]);
    let steps = ["tiny CFG step GPU", "tiny SAG step GPU"].into_iter();
    let embedded = ["tiny embedded model CFG step GPU", "tiny embedded model SAG step GPU"].into_iter();
    let embedded = embedded.filter(|_| cfg!(feature = "embedded-model"));
    let names = steps.chain(["tiny CLIP b2 GPU"]).chain(embedded);
    assert_eq!(skipped, names.map(|n| (n.to_owned(), rows::NO_CLOCK)).collect::<Vec<_>>());
    let refused = profile(&bench, Network::Clip, 1).expect_err("no clock");
    assert_eq!(refused.kind(), ErrorKind::Device, "{refused}");
    let refused = shapes::measure_all(&bench, &shapes::all(true), &mut |_, _| {}).expect_err("no clock");
    assert_eq!(refused.kind(), ErrorKind::Device, "{refused}");

    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    let stopped = rows::measure(&bench, &choice, &mut |outcome| panic!("{outcome:?}")).expect_err("stopped");
    assert_eq!(stopped.kind(), ErrorKind::Cancelled, "{stopped}");
}
