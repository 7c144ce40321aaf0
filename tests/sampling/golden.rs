//! Tensors computed by ComfyUI, compared with those of this implementation: every kind of golden set, and every part of
//! the small SD 1 family in f32 and, where it makes sense, in f16.

use std::sync::atomic::AtomicBool;

use sagittal::internals::kernels::Precision;
use sagittal::internals::verify::{Finding, Kind, Options, Outcome, Report, Set, Verifier, compact_sets};
use sagittal::{Error, ErrorKind, Result};

fn set(name: &str) -> Set {
    let path = crate::common::root().join("tests/golden").join(name).with_extension("json");
    Set::open(path).unwrap()
}

/// The report on `set`; None if it needs a GPU and there is none.
fn verify(set: &Set, precision: Precision) -> Option<Report> {
    let needs_gpu = matches!(set.kind(), Kind::Model | Kind::Chunk);
    if needs_gpu && crate::common::gpu().is_none() {
        return None;
    }
    let open =
        || -> Result<_> { crate::common::gpu().ok_or_else(|| Error::new(ErrorKind::Device, "no GPU")) };
    let (options, cancel) = (Options { precision, ..Options::default() }, AtomicBool::new(false));
    Some(Verifier::new(&open, options, &cancel).verify(set, &mut |_| {}).unwrap())
}

/// Lists the failures. `compared` is the required number of comparisons, since a test of nothing would pass. Names that
/// start with `not_yet` may be unsupported.
fn check(report: Option<Report>, compared: usize, not_yet: &str) {
    let Some(report) = report else { return };
    let excused = |f: &Finding| f.is_unsupported() && !not_yet.is_empty() && f.name.starts_with(not_yet);
    let wrong = report.findings.iter().filter(|f| !f.holds() && !excused(f));
    let failures: Vec<_> = wrong.map(describe).collect();
    assert!(failures.is_empty(), "{} findings do not hold:\n{}", failures.len(), failures.join("\n"));
    let count = report.findings.iter().filter(|f| f.holds()).count();
    assert_eq!(count, compared, "number of comparisons");
    let shares = report.findings.iter().filter_map(|f| match f.outcome {
        Outcome::Compared(c) => Some((c.share(), f.name.as_str())),
        _ => None,
    });
    if let Some((share, name)) = shares.max_by(|a, b| a.0.total_cmp(&b.0)) {
        println!("{count} hold; the most of a tolerance, {:.1} %, by {name}", 100.0 * share);
    }
}

fn describe(finding: &Finding) -> String {
    match &finding.outcome {
        Outcome::Compared(c) => {
            format!(
                "{}: {} {:.2e}, tolerance {:.1e}",
                finding.name,
                c.measure.name(),
                c.difference,
                c.tolerance
            )
        }
        Outcome::Failed(why) => format!("{}: {why}", finding.name),
        Outcome::Unsupported(why) => format!("{}: unsupported, {why}", finding.name),
    }
}

fn part(name: &str, precision: Precision) -> Option<Report> {
    verify(&set("tiny-sd1").only(&[name]), precision)
}

#[test]
fn text_encoder() {
    check(part("text", Precision::F32), 14, "");
}

#[test]
fn unet() {
    check(part("unet", Precision::F32), 22, "");
}

#[test]
fn vae() {
    check(part("vae", Precision::F32), 6, "");
}

#[test]
fn guided_steps() {
    check(part("step", Precision::F32), 58, "");
}

#[test]
fn whole_runs() {
    check(part("run", Precision::F32), 259, "");
}

#[test]
fn parts_in_f16() {
    let report = verify(&set("tiny-sd1").only(&["text", "unet", "vae", "step"]), Precision::F16);
    check(report, 100, "");
}

/// What differs from SD 1: text encoders, prediction, SDXL's vector.
#[test]
fn other_families() {
    for (family, f32, f16) in [("tiny-sd2", 96, 90), ("tiny-sdxl", 97, 91)] {
        check(verify(&set(family), Precision::F32), f32, "");
        check(verify(&set(family), Precision::F16), f16, "");
    }
}

/// PAG and SEG alone, at CFG scale 1, and together with SAG, against an independent network in f64.
#[test]
fn perturbed_guidance() {
    for family in ["perturbed-sd1", "perturbed-sdxl"] {
        check(verify(&set(family), Precision::F32), 31, "");
        check(verify(&set(family), Precision::F16), 31, "");
    }
}

#[test]
fn sag_node() {
    check(verify(&set("sag_node"), Precision::F32), 95, "");
}

#[test]
fn chunked_batches() {
    check(verify(&set("chunk"), Precision::F32), 37, "");
}

#[test]
fn noise() {
    check(verify(&set("noise"), Precision::F32), 225, "");
}

#[test]
fn schedules() {
    check(verify(&set("schedules"), Precision::F32), 224, "");
}

#[test]
fn tokens() {
    check(verify(&set("tokens"), Precision::F32), 186, "");
}

#[test]
fn the_sets_inside_the_program() {
    for (set, compared) in compact_sets().unwrap().iter().zip([28, 18, 46, 79, 45]) {
        check(verify(set, Precision::F32), compared, "");
    }
}
