//! Kernels that a driver computes wrong, or slowly, are found at the first start and not used.

use std::cell::Cell;
use std::path::Path;

use crate::common::gpu;
use crate::common::warnings::warnings;
use sagittal::Gpu;
use sagittal::gpu::OpenOptions;
use sagittal::internals::graph::{Graph, Shape};
use sagittal::internals::kernels::Const;
use sagittal::internals::plan::{Plan, PlanOptions};
use sagittal::internals::trust;

fn open(folder: &Path) -> Gpu {
    let choice = std::env::var("SAGITTAL_DEVICE").ok();
    let options = OpenOptions { adapter: choice.as_deref(), cache: Some(folder), ..Default::default() };
    Gpu::open_with(&options).expect("adapter")
}

/// Kernels and cores of a product and of an attention on `gpu`.
fn kernels(gpu: &Gpu) -> Vec<String> {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::tokens(64, 320));
    let qkv = g.linear("linear", x, 960, true).expect("a product");
    let (y, _) = g.self_attention("attention", qkv, 8, false, false).expect("an attention");
    g.output("y", y);
    let (storage, device) = (gpu.usual_precision().into(), gpu.profile().clone());
    let plan = Plan::new(&g, &PlanOptions { rows: 1, storage, device, guard: 0 }).expect("a plan");
    let name = |v: &sagittal::internals::kernels::Variant| v.core.map_or(v.kernel.name(), |core| core.name());
    plan.dispatches.iter().map(|d| name(&d.variant).to_owned()).collect()
}

/// An attention that leaves out keys.
fn wrong(plan: &mut Plan) {
    for d in plan.dispatches.iter_mut().filter(|d| d.variant.kernel.name().starts_with("attention")) {
        for c in &mut d.variant.consts {
            if matches!(c, Const::Bool("CAUSAL", _)) {
                *c = Const::Bool("CAUSAL", true);
            }
        }
    }
}

/// A product that is computed many times.
fn slow(plan: &mut Plan) {
    if plan.dispatches.iter().any(|d| d.variant.core.is_some()) {
        plan.dispatches = plan.dispatches.iter().cycle().take(40 * plan.dispatches.len()).cloned().collect();
    }
}

#[test]
fn wrong_and_slow_kernels_are_found_at_the_first_start_and_not_used() {
    let Some(gpu) = gpu() else { return };
    let own = kernels(&gpu);
    if !gpu.profile().has_simd() && !gpu.profile().uses_matrices() {
        println!("this device takes plain kernels alone: {own:?}");
        return;
    }
    let [core, attention] =
        ["gemm", "attention"].map(|what| own.iter().find(|name| name.starts_with(what)).expect("a kernel"));
    for (fault, name, found) in
        [(wrong as fn(&mut Plan), attention, "wrong"), (slow, core, "times slower than the plain kernel")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let asked = Cell::new(0);
        let start = |gpu: Gpu, fault: Option<fn(&mut Plan)>| {
            asked.set(0);
            let plant = |plan: &mut Plan| {
                asked.set(asked.get() + 1);
                if let Some(fault) = fault {
                    fault(plan);
                }
            };
            warnings(|| trust::check_with(gpu, &plant))
        };
        let (first, said) = start(open(folder.path()), Some(fault));
        assert!(asked.get() > 0);
        let line = said.iter().find(|line| line.starts_with(&format!("{name} is not used")));
        assert!(line.is_some_and(|line| line.contains(found)), "{said:?}");
        assert!(!kernels(&first).contains(name), "{:?}", kernels(&first));
        let all = first.checked_kernels();
        assert!(all.iter().any(|(n, words, used)| n == name && words.contains(found) && !used), "{all:?}");

        // The second start knows it, asks nothing and says nothing.
        let (second, said) = start(open(folder.path()), None);
        assert_eq!((asked.get(), said), (0, Vec::new()));
        assert_eq!(kernels(&second), kernels(&first));

        // A file that is damaged is as none.
        let files = std::fs::read_dir(folder.path()).expect("a folder").map(|e| e.expect("an entry").path());
        for file in files.filter(|path| path.extension().is_some_and(|e| e == "json")) {
            std::fs::write(file, "{").expect("written");
        }
        let (third, said) = start(open(folder.path()), None);
        assert!(asked.get() > 0);
        // Nothing is wrong now; on a busy machine something may still be measured as slow.
        assert!(said.iter().all(|line| line.contains("slower")), "{said:?}");
        if said.is_empty() {
            assert_eq!(kernels(&third), own);
        }
    }
}

#[test]
fn nothing_is_checked_without_a_folder() {
    let Some(gpu) = gpu() else { return };
    let same = trust::check_with(gpu.clone(), &|_| panic!("a check"));
    assert_eq!(same.profile(), gpu.profile());
    assert!(same.checked_kernels().is_empty());
}
