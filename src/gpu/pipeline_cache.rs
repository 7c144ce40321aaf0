//! A cache of compiled pipelines on disk, so that the next start does not compile them again: a driver takes a tenth
//! of a second to a second for each, and a network has dozens.
//!
//! A file is the data of wgpu in a frame (magic number, length, CRC-32). wgpu's own header names adapter, driver version
//! and pointer width. The frame detects truncated files and flipped bits, which drivers are not known to check. A
//! problem with the cache costs only time, so it is never an error: it is logged, and the pipelines are compiled.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{Error, atomic_file};

/// Magic number and version of the format.
const MARK: &[u8; 8] = b"sagpipe1";

/// Magic number, length of the data (u64) and its CRC-32 (u32), little-endian.
const FRAME: usize = MARK.len() + 8 + 4;

/// A larger file is replaced by an empty cache: otherwise kernels of old versions would never leave it.
const MOST: usize = 256 << 20;

/// A driver's cache of pipelines, and its file.
#[derive(Debug)]
pub struct Cache {
    pipelines: wgpu::PipelineCache,
    /// Whether it was used since it was made or saved.
    used: AtomicBool,
    file: Option<CacheFile>,
}

#[derive(Debug)]
struct CacheFile {
    path: PathBuf,
    /// Bytes of data in the file. Entries are only added, so the same number of bytes means the same entries.
    holds: AtomicUsize,
}

impl Cache {
    /// A cache of the app, which the app saves itself.
    pub fn of_app(pipelines: wgpu::PipelineCache) -> Self {
        Self { pipelines, used: AtomicBool::new(false), file: None }
    }

    /// The cache of `device` from the file in `folder`, or an empty one if there is no such file; None if the device
    /// does not support caches.
    pub fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(&device.adapter_info())?;
        let path = folder.join(format!("{key}-{}.pipelines", env!("CARGO_PKG_VERSION")));
        let data = read(&path);
        match &data {
            Ok(data) => log::debug!("{}: {} bytes of compiled pipelines", path.display(), data.len()),
            Err(why) => log::debug!("{}: no compiled pipelines: {why}", path.display()),
        }
        let data = data.ok();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data: data.as_deref(),
            // wgpu ignores data of another driver.
            fallback: true,
        };
        // SAFETY: the data must come from `PipelineCache::get_data`. It does, as far as a file can tell:
        // it lies in the user's folder of such files, its name and frame are those of this module, and its
        // checksum is right. An attacker who can write there could as well replace the program.
        let pipelines = unsafe { device.create_pipeline_cache(&descriptor) };
        let holds = AtomicUsize::new(data.map_or(0, |d| d.len()));
        Some(Self { pipelines, used: AtomicBool::new(false), file: Some(CacheFile { path, holds }) })
    }

    /// The cache, to look up and add pipelines.
    pub fn pipelines(&self) -> &wgpu::PipelineCache {
        self.used.store(true, Ordering::Relaxed);
        &self.pipelines
    }

    /// Writes the file if the cache holds more than the file.
    pub fn save(&self) {
        let Some(CacheFile { path, holds }) = &self.file else { return };
        // Two threads of one process would use the same name for the temporary file.
        static WRITING: Mutex<()> = Mutex::new(());
        let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.used.swap(false, Ordering::Relaxed) {
            return;
        }
        // A lost device returns no data.
        let Some(data) = self.pipelines.get_data().filter(|d| d.len() != holds.load(Ordering::Relaxed))
        else {
            return;
        };
        match write(path, &data) {
            Ok(()) => {
                holds.store(data.len(), Ordering::Relaxed);
                log::debug!("{}: {} bytes of compiled pipelines kept", path.display(), data.len());
            }
            Err(why) => log::debug!("{}: compiled pipelines are not kept: {why}", path.display()),
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.save();
    }
}

/// The data of the file at `path`, or why it cannot be used.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| e.to_string();
    let file = File::open(path).map_err(text)?;
    let meta = file.metadata().map_err(text)?;
    if !meta.is_file() || meta.len() > (MOST + FRAME) as u64 {
        return Err(format!("not a file of at most {MOST} bytes"));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take((MOST + FRAME) as u64).read_to_end(&mut bytes).map_err(text)?;
    let frame = bytes.get(..FRAME).ok_or("the file is cut short")?;
    if frame != self::frame(&bytes[FRAME..]) {
        return Err("another format, or damaged".into());
    }
    bytes.drain(..FRAME);
    Ok(bytes)
}

/// Writes `data` in its frame to `path`, and makes the folder if it does not exist.
fn write(path: &Path, data: &[u8]) -> Result<(), String> {
    if data.len() > MOST {
        return Err(format!("{} bytes are more than {MOST}", data.len()));
    }
    write_private(path, &[&frame(data), data].concat()).map_err(|e| e.to_string())
}

/// Writes a file, which may be there already, completely or not at all. Its folder is made if it does not exist, such
/// that only its owner can read it: a driver trusts the data in its cache.
///
/// # Errors
/// Those of [`atomic_file::write`].
pub fn write_private(path: &Path, bytes: &[u8]) -> crate::Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.is_dir()) {
        make_private(folder).map_err(|e| Error::io(folder, "the folder cannot be made", e))?;
    }
    atomic_file::write(path, bytes, true)
}

fn make_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn frame(data: &[u8]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (mark, rest) = frame.split_at_mut(MARK.len());
    let (length, sum) = rest.split_at_mut(8);
    mark.copy_from_slice(MARK);
    length.copy_from_slice(&(data.len() as u64).to_le_bytes());
    sum.copy_from_slice(&crc32fast::hash(data).to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.pipelines");
        let data: Vec<u8> = (0..1000u32).map(|i| (i * i) as u8).collect();
        write(&path, &data).unwrap();
        assert_eq!(read(&path).unwrap(), data);
        let good = std::fs::read(&path).unwrap();
        let mut faults: Vec<Vec<u8>> = [0, 1, 7, 8, 19, 20, 21, 500, 1019].map(|n| good[..n].to_vec()).into();
        for at in [0, 7, 8, 15, 16, 19, 20, 600, 1019] {
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            faults.push(flipped);
        }
        faults.push([good.as_slice(), &[0]].concat());
        faults.push(vec![0xff; 4096]);
        for fault in faults {
            std::fs::write(&path, &fault).unwrap();
            assert!(read(&path).is_err(), "{} bytes", fault.len());
        }
        write(&path, &[]).unwrap();
        assert!(read(&path).unwrap().is_empty());
        assert!(read(folder.path()).is_err() && read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn an_enormous_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pipelines");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("new/a.pipelines"), b"x").unwrap();
        let mode = std::fs::metadata(folder.path().join("new")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
