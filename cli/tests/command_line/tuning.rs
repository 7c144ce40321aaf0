//! `bench --tune`, the table that it writes, and commands that choose by one.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::gpu_is_off;
use crate::program::program;
use crate::schema::event;

fn run(folder: &Path, flags: &[&str]) -> Output {
    // With a folder of its own for what is kept.
    program(folder, flags).env("SAGITTAL_CACHE", folder.join("cache")).output().expect("the program starts")
}

fn good(folder: &Path, flags: &[&str]) -> Output {
    let output = run(folder, flags);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{flags:?}: {said}");
    output
}

const SMALL: [&str; 11] = ["generate", "-p", "fox", "--seed", "7", "-W", "64", "-H", "64", "--steps", "2"];

#[test]
fn a_table_is_written_kept_and_named_in_pictures() {
    if gpu_is_off() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let table = event(&good(folder, &["bench", "--tune", "--tiny", "--json"]).stdout, "table");
    let file = folder
        .join("cache")
        .join(Path::new(table["file"].as_str().expect("a path")).file_name().expect("a name"));
    // On a busy machine nothing may gain: another number makes it a table of its own in any case.
    let text = fs::read_to_string(&file).expect("the table");
    let mut costs: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    costs["wave"] = 21.5.into();
    fs::write(&file, costs.to_string()).expect("written");

    // Commands choose by the table that is kept, and by the same from elsewhere: the same bytes.
    let draw = |to: &str, more: &[&str]| {
        good(folder, &[&SMALL[..], &["-o", to], more].concat());
        fs::read(folder.join(to)).expect("a picture")
    };
    let kept = draw("kept.png", &[]);
    fs::rename(&file, folder.join("own.json")).expect("moved");
    let named = draw("named.png", &["--table", "own.json"]);
    assert!(kept == named, "the same table gives other bytes");
    let text = String::from_utf8_lossy(&kept).into_owned();
    let (_, rest) = text.split_once("Kernel costs: ").expect("the settings name the table");
    let hash = rest.get(..10).expect("digits");
    assert!(hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash}");
    let usual = draw("usual.png", &[]);
    assert!(!String::from_utf8_lossy(&usual).contains("Kernel costs"));

    // Who repeats the picture without the table is told.
    let repeat = |more: &[&str]| {
        let output = good(folder, &[&["generate", "--from", "kept.png", "--dry-run"], more].concat());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(repeat(&[]).contains(&format!("made with the kernel costs {hash}")), "{}", repeat(&[]));
    assert!(
        !repeat(&["--table", "own.json"]).contains("kernel costs"),
        "{}",
        repeat(&["--table", "own.json"])
    );

    // A file is not replaced without --force, and what is no table is an error.
    let taken = run(folder, &["bench", "--tune", "--tiny", "--table", "own.json"]);
    assert_eq!(taken.status.code(), Some(2), "{}", String::from_utf8_lossy(&taken.stderr));
    fs::write(folder.join("bad.json"), "{}").expect("written");
    let bad = run(folder, &[&SMALL[..], &["-o", "x.png", "--table", "bad.json"]].concat());
    assert_eq!(bad.status.code(), Some(3), "{}", String::from_utf8_lossy(&bad.stderr));
}
