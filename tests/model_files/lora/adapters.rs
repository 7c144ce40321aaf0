//! Adapters of every kind against weights that ComfyUI has merged, and against the formats' own definitions where
//! ComfyUI departs from them: see tests/golden/README.md.

use std::sync::atomic::AtomicBool;

use crate::common::Failures;
use sagittal::internals::verify::{Options, Set, Verifier};
use sagittal::{Error, ErrorKind};

#[test]
fn adapters_of_every_kind_merge_as_their_definitions_say() {
    let mut failures = Failures::default();
    for (name, compared) in [("adapters", 222), ("adapters-f64", 109)] {
        let file = crate::common::root().join(format!("tests/golden/{name}.json"));
        let set = Set::open(file).expect("a set");
        let (open, cancel) = (|| Err(Error::new(ErrorKind::Device, "no device")), AtomicBool::new(false));
        let mut observe = |finding: &sagittal::internals::verify::Finding| {
            failures.check(finding.holds(), || format!("{name}: {finding:?}"));
        };
        let report =
            Verifier::new(&open, Options::default(), &cancel).verify(&set, &mut observe).expect(name);
        failures.check(report.findings.len() == compared, || format!("{name}: {}", report.findings.len()));
        // What is saved has the set's own names.
        let saved = report
            .tensors
            .iter()
            .filter(|(tensor, _)| tensor.contains(".merged") || tensor.contains(".truth"));
        failures.check(saved.count() > 80, || format!("{name}: {} tensors", report.tensors.len()));
    }
    failures.finish();
}
