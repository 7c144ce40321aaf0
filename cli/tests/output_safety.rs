//! Safety of file access: a full, read-only or missing disk, and workflows whose names try to leave their folders.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![cfg(unix)]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use common::{Failures, Rng, gpu};
use sagittal::image::{Picture, png, read};
use sagittal::pipeline::DeviceContext;
use sagittal::workflow::{Folders, Options, Workflow};
use serde_json::json;
use tempfile::TempDir;

/// All files and folders below `folder`; links are not followed.
fn all(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(all(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

/// The program in `folder`, where a shell has run `before`.
fn after(before: &str, folder: &Path, flags: &[&str]) -> Output {
    let program = assert_cmd::cargo::cargo_bin!("sagittal");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\"")]).arg(program).args(flags);
    if let Ok(device) = std::env::var("SAGITTAL_DEVICE") {
        command.args(["--device", &device]);
    }
    command.arg("--no-pipeline-cache").current_dir(folder).env_remove("SAGITTAL_LOG");
    command.output().expect("a shell")
}

const GENERATE: [&str; 12] =
    ["generate", "-p", "fox", "-s", "1", "--steps", "1", "-W", "64", "-H", "64", "--sag-scale=0"];

/// A small tmpfs, or None if it cannot be mounted.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4096", "tmpfs"]).arg(at);
        let done = mount.output().is_ok_and(|o| o.status.success());
        done.then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_partial_file() {
    if gpu().is_none() {
        return;
    }
    let home = TempDir::new().expect("a folder");
    let mut failures = Failures::default();
    let mut judge = |what: &str, output: &Output, folder: &Path| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("{what}: {}", stderr.lines().last().unwrap_or_default());
        let right = output.status.code() == Some(3) && stderr.contains("cannot be written");
        failures.check(right && !stderr.contains("panicked"), || {
            format!("{what}: {:?}, {stderr}", output.status)
        });
        failures.check(all(folder).is_empty(), || format!("{what} left {:?}", all(folder)));
    };
    // Files may have 4 KiB, which a picture of this model exceeds.
    let limited = "trap '' XFSZ; ulimit -f 8;";
    let out = home.path().join("out");
    fs::create_dir(&out).expect("a folder");
    let workflow = json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": "noise.png" } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    });
    fs::write(home.path().join("w.json"), workflow.to_string()).expect("a file");
    fs::create_dir(home.path().join("input")).expect("a folder");
    let mut rng = Rng(1);
    let noise = Picture { width: 64, height: 64, rgb: (0..64 * 64 * 3).map(|_| rng.next() as u8).collect() };
    fs::write(home.path().join("input/noise.png"), png::encode(&noise, &[]).expect("a PNG")).expect("a file");
    let save = ["run", "w.json", "--output-dir"];
    let generate = after(limited, home.path(), &[&GENERATE[..], &["-o", "out/x.png"]].concat());
    judge("a limited file", &generate, &out);
    judge("a limited workflow", &after(limited, home.path(), &[&save[..], &["out"]].concat()), &out);
    let small = home.path().join("small");
    match Small::mount(&small) {
        None => println!("no tmpfs may be mounted here"),
        Some(mounted) => {
            let generate = after("", home.path(), &[&GENERATE[..], &["-o", "small/x.png"]].concat());
            judge("a full disk", &generate, &small);
            judge("a full workflow", &after("", home.path(), &[&save[..], &["small"]].concat()), &small);
            drop(mounted);
        }
    }
    failures.finish();
}

#[test]
fn unusable_folders_are_reported_before_the_sampling() {
    if gpu().is_none() {
        return;
    }
    let home = TempDir::new().expect("a folder");
    fs::write(home.path().join("taken"), "keep me").expect("a file");
    let before = all(home.path());
    let mut failures = Failures::default();
    let mut refused = |output: &str, latent: &[&str]| {
        let flags = [&GENERATE[..], &["-o", output], latent].concat();
        let done = after("", home.path(), &flags);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        println!("{output} {latent:?}: {}", stderr.lines().last().unwrap_or_default());
        let right = matches!(done.status.code(), Some(2 | 3)) && stderr.contains("output folder");
        failures.check(right && !stderr.contains("it/s") && !stderr.contains("panicked"), || {
            format!("{output} {latent:?}: {:?}, {stderr}", done.status)
        });
    };
    refused("taken/x.png", &[]);
    refused("x.png", &["--save-latent", "taken/x.latent"]);
    // The kernel's own folder takes no files, not even root's.
    if cfg!(target_os = "linux") {
        refused("/proc/x.png", &[]);
    }
    failures.check(all(home.path()) == before, || format!("{:?}", all(home.path())));
    failures.finish();
}

/// Names made of parts that try to leave the folder.
fn names(seed: u64, last: &str) -> Vec<String> {
    const PIECES: [&str; 20] = [
        "..",
        ".",
        "/",
        "/",
        "\\",
        "a",
        "b c",
        "~",
        "C:",
        "%date:yyyy%",
        "%1.image%",
        "%../%",
        "\0",
        "\n",
        "é",
        "link",
        "loop",
        "round",
        "...",
        " ",
    ];
    let mut rng = Rng(seed);
    let name = |rng: &mut Rng| {
        let count = rng.range(1, 7);
        (0..count).map(|_| PIECES[rng.range(0, PIECES.len() - 1)]).collect::<String>()
    };
    (0..400).flat_map(|_| [name(&mut rng), format!("{}/{last}", name(&mut rng))]).collect()
}

/// A workflow's folders, and around them files that it must not touch. Links lead out of both.
fn fenced() -> TempDir {
    let home = TempDir::new().expect("a folder");
    let at = |name: &str| home.path().join(name);
    for folder in ["input/a", "output/a", "secret/a", "models"] {
        fs::create_dir_all(at(folder)).expect("a folder");
    }
    let grey = |value: u8| {
        let picture = Picture { width: 16, height: 16, rgb: vec![value; 768] };
        png::encode(&picture, &[]).expect("a PNG")
    };
    for name in ["input/ok.png", "input/a/ok.png"] {
        fs::write(at(name), grey(10)).expect("a file");
    }
    for name in ["secret/ok.png", "secret/a/ok.png", "ok.png"] {
        fs::write(at(name), grey(200)).expect("a file");
    }
    for folder in ["input", "output"] {
        symlink(at("secret"), at(&format!("{folder}/link"))).expect("a link");
        symlink("..", at(&format!("{folder}/loop"))).expect("a link");
        symlink("a", at(&format!("{folder}/round"))).expect("a link");
        symlink(at("secret/ok.png"), at(&format!("{folder}/link.png"))).expect("a link");
    }
    home
}

#[test]
fn no_name_leads_a_workflow_out_of_its_folders() {
    let Some(gpu) = gpu() else { return };
    let home = fenced();
    let folders =
        Folders::new(home.path().join("models"), home.path().join("input"), home.path().join("output"));
    let outside = || -> BTreeSet<PathBuf> {
        all(home.path()).into_iter().filter(|p| !p.starts_with(home.path().join("output"))).collect()
    };
    let before = outside();
    let device_context = DeviceContext::new(gpu).expect("device_context");
    let (options, go) = (Options::default(), AtomicBool::new(false));
    let run = |image: &str, prefix: &str| {
        let json = json!({
            "1": { "class_type": "LoadImage", "inputs": { "image": image } },
            "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": prefix } },
        });
        let workflow = Workflow::parse("fenced", json.to_string().as_bytes())?;
        workflow.check(&folders, &options)?.run(device_context.clone(), &mut |_| {}, &go)
    };
    let mut failures = Failures::default();
    let (mut written, mut loaded) = (0, 0);
    for prefix in names(1, "x") {
        if let Ok(saved) = run("ok.png", &prefix) {
            written += saved.len();
            for file in saved {
                let real = file.path.canonicalize().expect("it was written");
                failures
                    .check(real.starts_with(&folders.output), || format!("{prefix:?}: {}", real.display()));
            }
        }
    }
    failures.check(outside() == before, || format!("written outside: {:?}", outside()));
    let mut tried = names(2, "ok.png");
    let fixed = ["link.png", "link/ok.png", "loop/ok.png", "loop/secret/ok.png", "round/ok.png", "a/ok.png"];
    tried.extend(
        fixed.iter().flat_map(|n| ["", " [input]", " [output]", " [temp]"].map(|p| format!("{n}{p}"))),
    );
    for image in tried {
        let Ok(saved) = run(&image, "read") else { continue };
        for file in saved {
            loaded += 1;
            let picture = read::picture(&file.path).expect("a picture");
            failures.check(picture.rgb[0] == 10, || format!("{image:?} gave a picture from outside"));
        }
    }
    println!("{written} files written by their prefixes, {loaded} read by their names; the rest refused");
    failures.check(written > 50 && loaded > 5, || format!("{written} written and {loaded} loaded: too few"));
    failures.finish();
}
