//! Whatever is passed as a workflow: an error, or steps that could run; nothing is written by looking.
//!
//! Up to the first NUL the input is a workflow, behind it a `NODE.INPUT=VALUE` for `--set`.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sagittal::image::{Picture, png};
use sagittal::workflow::{Folders, Options, Workflow};
use tempfile::TempDir;

/// Folders with a picture and a latent to load.
static HOME: LazyLock<TempDir> = LazyLock::new(|| {
    let home = tempfile::tempdir().unwrap();
    let input = home.path().join("input");
    fs::create_dir_all(&input).unwrap();
    let picture = Picture { width: 8, height: 8, rgb: vec![7; 192] };
    fs::write(input.join("a.png"), png::encode(&picture, &[]).unwrap()).unwrap();
    let latent =
        sagittal::latent::file::encode(&sagittal::VaeLatent::new(sagittal::Latent::zeros(1, 4, 8, 8)), &[])
            .unwrap();
    fs::write(input.join("a.latent"), latent).unwrap();
    home
});

fuzz_target!(|data: &[u8]| {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let (text, set) = (halves.next().unwrap_or_default(), halves.next());
    let Ok(mut workflow) = Workflow::parse("fuzz", text) else { return };
    // What is written into pictures is read again as the same; without nodes there are none.
    if !workflow.graph().nodes().is_empty() {
        let written = workflow.graph().to_api().to_string();
        let again = Workflow::parse("again", written.as_bytes());
        assert_eq!(again.map(|w| w.graph().to_api().to_string()).ok().as_deref(), Some(written.as_str()));
    }
    if let Some(set) = set.and_then(|set| std::str::from_utf8(set).ok()) {
        let _ = workflow.set(set);
    }
    let at = |name: &str| HOME.path().join(name);
    let (folders, options) = (Folders::new(at("models"), at("input"), at("output")), Options::default());
    if let Ok(ready) = workflow.check(&folders, &options) {
        assert!(ready.nodes().count() > 0);
    }
    assert!(!at("output").exists());
});
