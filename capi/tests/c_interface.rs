//! The C interface as C sees it: the header is up to date, C programs compile against it without a warning, link,
//! and work as documented.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sagittal::Size;
use sagittal::{Gpu, Model, ModelOptions, Request, Sag, embedded};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn here(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Set to write the header instead of comparing it.
const WRITE: &str = "SAGITTAL_WRITE_HEADER";

#[test]
fn the_header_is_what_cbindgen_writes() {
    let config = cbindgen::Config::from_file(here("cbindgen.toml")).expect("the settings of cbindgen");
    let builder = cbindgen::Builder::new().with_config(config).with_src(here("src/lib.rs"));
    let mut header = Vec::new();
    builder.generate().expect("bindings").write(&mut header);
    // Rust's heading for the caller's obligations.
    let header = String::from_utf8(header).expect("text").replace("// # Safety", "// Needed:");
    let path = Path::new(ROOT).join("include/sagittal.h");
    if std::env::var_os(WRITE).is_some() {
        return fs::write(&path, header).expect("the header is written");
    }
    let found = fs::read_to_string(&path).expect("the header");
    assert!(
        found == header,
        "include/sagittal.h is not that of capi/src: run {WRITE}=1 cargo test --release -p sagittal-capi header"
    );
}

/// Where cargo puts the libraries that belong to this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    test.parent().expect("its folder").to_path_buf()
}

/// Compiles a C program against the header and the library.
fn compile(source: &str, into: &Path, library: &[&str]) -> PathBuf {
    let program = into.join("program");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_POSIX_C_SOURCE=200809L"])
        .arg(here(source))
        .arg(format!("-I{ROOT}/include"))
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", libraries().display()))
        .arg(format!("-Wl,-rpath,{}", libraries().display()))
        .args(library)
        .output()
        .expect("a C compiler called cc");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    program
}

/// A C program's outcome on the tests' adapter; None if tests must not use one.
fn run(program: &Path, arguments: &[&str]) -> Option<Output> {
    if std::env::var("SAGITTAL_TEST_GPU").is_ok_and(|v| v == "off") {
        eprintln!("SAGITTAL_TEST_GPU=off: tests that need an adapter are not run");
        return None;
    }
    let mut command = Command::new(program);
    // Cargo's own path begins with a folder in which an older `cargo build` may have left its library.
    for path in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
        command.env(path, libraries());
    }
    Some(command.args(arguments).output().expect("the program runs"))
}

#[test]
fn a_c_program_draws_the_librarys_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = compile("examples/generate.c", folder.path(), &["-lsagittal_capi"]);
    let png = folder.path().join("fox.png");
    let Some(output) = run(&program, &["fox, 3d style", png.to_str().expect("text"), "", "64", "3"]) else {
        return;
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("step 3 of 3") && stdout.contains("64 x 64"), "{stdout}");

    let mut request = Request::new("fox, 3d style", Size::square(64));
    (request.schedule.steps, request.seed, request.guidance.cfg) = (3, 7, embedded::CFG);
    request.guidance.set_sag(Sag { scale: 0.75, ..Sag::default() });
    let gpu = Gpu::open(None).expect("an adapter");
    let model = Model::new(gpu, embedded::checkpoint().expect("the model"), ModelOptions::default());
    let made = model.expect("a model").generate(&request).expect("a picture");
    let file = fs::read(&png).expect("the picture");
    assert_eq!(sagittal::image::read::picture(&png).expect("a PNG"), made.pictures[0]);
    let settings = "Seed: 7, Size: 64x64, Model: tiny-emoji";
    assert!(file.windows(settings.len()).any(|w| w == settings.as_bytes()), "no settings in the picture");
}

#[test]
fn a_c_program_tells_what_went_wrong_and_exits_with_its_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = compile("examples/generate.c", folder.path(), &["-lsagittal_capi"]);
    let Some(output) = run(&program, &["fox", "fox.png", "nowhere.safetensors"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("nowhere.safetensors"), "{stderr}");
}

#[test]
fn misuse_is_an_error_and_cancel_leaves_the_model_usable() {
    let folder = tempfile::tempdir().expect("a folder");
    // The static library, with the system libraries that Rust's std needs.
    let archive = libraries().join("libsagittal_capi.a");
    let system: &[&str] = if cfg!(target_os = "macos") {
        &[
            "-framework",
            "Foundation",
            "-framework",
            "Metal",
            "-framework",
            "QuartzCore",
            "-framework",
            "CoreGraphics",
        ]
    } else {
        &["-lpthread", "-ldl", "-lm", "-lgcc_s"]
    };
    let library: Vec<&str> =
        [archive.to_str().expect("text")].into_iter().chain(system.iter().copied()).collect();
    let program = compile("tests/misuse.c", folder.path(), &library);
    let png = folder.path().join("two.png");
    let Some(output) = run(&program, &[png.to_str().expect("text")]) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(png.is_file());
}
