//! Compiled pipelines on disk: kept for the next start, and never in the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use crate::common::gpu;
use sagittal::gpu::OpenOptions;
use sagittal::internals::kernels::Precision;
use sagittal::wgpu::{Features, PipelineCacheDescriptor};
use sagittal::{Gpu, Model, ModelOptions, embedded};

/// A device with its pipelines in `folder`; None where none can be kept.
fn open(folder: &Path) -> Option<Gpu> {
    gpu()?;
    let choice = std::env::var("SAGITTAL_DEVICE").ok();
    let options = OpenOptions { adapter: choice.as_deref(), cache: Some(folder), ..Default::default() };
    let gpu = Gpu::open_with(&options).expect("adapter");
    if !gpu.device().features().contains(Features::PIPELINE_CACHE) {
        println!("this adapter keeps no pipelines: nothing to test");
        return None;
    }
    Some(gpu)
}

/// The prompt through the text encoder: a dozen of kernels.
fn work(gpu: Gpu) -> Vec<f32> {
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let model = Model::new(gpu, embedded::checkpoint().expect("embedded"), options).expect("model");
    model.encode_text("fox", None, false, &AtomicBool::new(false)).expect("text").context
}

/// Files in `folder` besides what was found of kernels.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let all = entries.map(|e| e.expect("an entry").path());
    all.filter(|path| !path.to_string_lossy().ends_with(".kernels.json")).collect()
}

#[test]
fn pipelines_are_kept_and_a_file_that_holds_them_all_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    // Made when there is something to keep.
    let inner = folder.path().join("a/b");
    let Some(gpu) = open(&inner) else { return };
    drop(gpu);
    assert!(files(&inner).is_empty(), "nothing is written before there is anything");
    let first = work(open(&inner).expect("adapter"));
    let [file] = files(&inner).try_into().expect("one file");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.contains(env!("CARGO_PKG_VERSION")) && name.ends_with(".pipelines"), "{name}");
    let before = fs::read(&file).expect("the file");
    fs::File::open(&file).expect("the file").set_modified(SystemTime::UNIX_EPOCH).expect("a time");

    assert_eq!(work(open(&inner).expect("adapter")), first);
    let modified = fs::metadata(&file).expect("the file").modified().expect("a time");
    assert_eq!(modified, SystemTime::UNIX_EPOCH, "written anew, with nothing new to write");
    assert_eq!(fs::read(&file).expect("the file"), before);
}

#[test]
fn a_damaged_file_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(gpu) = open(folder.path()) else { return };
    let first = work(gpu);
    let [file] = files(folder.path()).try_into().expect("one file");
    let good = fs::read(&file).expect("the file");
    let half = good[..good.len() / 2].to_vec();
    for damaged in [vec![], b"no pipelines at all".to_vec(), half, vec![0xff; 1 << 16]] {
        fs::write(&file, &damaged).expect("written");
        assert_eq!(work(open(folder.path()).expect("adapter")), first);
        let again = fs::read(&file).expect("the file");
        assert_eq!(again.len(), good.len(), "{} bytes were not replaced", damaged.len());
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("written");
    let Some(gpu) = open(&file.join("inside")) else { return };
    work(gpu);
    assert_eq!(fs::read(&file).expect("the file"), b"not a folder");
    assert_eq!(files(folder.path()), [file]);
}

#[test]
fn several_at_once_leave_one_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    if open(folder.path()).is_none() {
        return;
    }
    let results: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..3).map(|_| scope.spawn(|| work(open(folder.path()).expect("adapter")))).collect();
        all.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert!(results.iter().all(|r| *r == results[0]));
    let [file] = files(folder.path()).try_into().expect("one file, and no parts");
    fs::File::open(&file).expect("the file").set_modified(SystemTime::UNIX_EPOCH).expect("a time");
    work(open(folder.path()).expect("adapter"));
    let modified = fs::metadata(&file).expect("the file").modified().expect("a time");
    assert_eq!(modified, SystemTime::UNIX_EPOCH, "the file was not whole");
}

/// The app's own cache is filled, and nothing is written.
#[test]
fn an_app_may_bring_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(gpu) = open(folder.path()) else { return };
    let descriptor = PipelineCacheDescriptor { label: None, data: None, fallback: true };
    // SAFETY: there is no data.
    let cache = unsafe { gpu.device().create_pipeline_cache(&descriptor) };
    work(gpu.with_pipeline_cache(cache.clone()));
    assert!(cache.get_data().is_some_and(|d| !d.is_empty()));
}
