//! Names and checksums of the files that a picture was made from, for its settings. The checksum of a large model
//! takes seconds, so it is computed while the picture is drawn.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sagittal::internals::checkpoint::digest;
use sagittal::lora::LoraUse;
use sagittal::pipeline::report::Report;
use sagittal::pipeline::{Model, Tiling};
use sagittal::{Result, embedded};

use crate::support::args::Args;

/// Name of the built-in model.
pub const EMBEDDED: &str = "tiny-emoji";
/// The picture to start from: its file's name and checksum.
pub const START: &str = "Init image";
pub const START_HASH: &str = "Init image hash";
/// The mask, likewise.
pub const MASK: &str = "Mask image";
pub const MASK_HASH: &str = "Mask image hash";
/// Text encoders from separate files.
pub const TEXT_ENCODER: &str = "Text encoder";
/// The table of what kernels cost, where it is not a built-in one.
pub const COSTS: &str = "Kernel costs";
/// Kernels that the device computes wrong or slowly.
pub const DISTRUSTED: &str = "Kernels not used";
/// Tensors that no layer uses.
pub const EXTRA: &str = "Extra tensors";

/// Digits of a checksum in the settings, as in A1111: of models, and of LoRAs.
const DIGITS: usize = 10;
const LORA_DIGITS: usize = 12;

/// The model's name in the settings of its pictures.
pub fn name_of(args: &Args) -> String {
    args.model.as_ref().map_or_else(|| EMBEDDED.into(), |path| model_name(path))
}

/// A name as in A1111: the file's, without folder and extension.
pub fn model_name(path: &Path) -> String {
    // A folder's name may hold a version, which is no extension.
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// The first digits of a file's checksum; None for a folder.
///
/// # Errors
/// Those of [`digest::file`].
pub fn file_hash(path: &Path) -> Result<Option<String>> {
    if path.is_dir() {
        return Ok(None);
    }
    whole_hash(path).map(|digits| Some(cut(digits, DIGITS)))
}

/// All digits of a file's checksum, computed once: what is compared here is written to the new picture.
///
/// # Errors
/// Those of [`digest::file`].
pub fn whole_hash(path: &Path) -> Result<String> {
    cached(path, HashedPart::WholeFile, &AtomicBool::new(false))
}

/// The first digits of a LoRA's checksum, over its tensors alone, as in A1111.
///
/// # Errors
/// Those of [`digest::tensors`].
pub fn lora_hash(path: &Path) -> Result<String> {
    cached(path, HashedPart::Tensors, &AtomicBool::new(false)).map(|digits| cut(digits, LORA_DIGITS))
}

/// The first digits of a checksum.
fn cut(mut digits: String, length: usize) -> String {
    digits.truncate(length);
    digits
}

/// What a checksum is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashedPart {
    WholeFile,
    Tensors,
}

/// A checksum, computed once for each file: a grid asks for every cell.
fn cached(path: &Path, part: HashedPart, stop: &AtomicBool) -> Result<String> {
    static KNOWN: Mutex<Vec<(PathBuf, HashedPart, String)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., digits)) = known.iter().find(|(p, of, _)| p == path && *of == part) {
        return Ok(digits.clone());
    }
    let digits = match part {
        HashedPart::WholeFile => digest::file(path, stop)?,
        HashedPart::Tensors => digest::tensors(path, stop)?,
    };
    known.push((path.to_owned(), part, digits.clone()));
    Ok(digits)
}

type Pairs = Vec<(&'static str, String)>;

/// The model's digits, and pairs for the other files.
type Sums = (Option<String>, Pairs);

/// Checksums that are being computed.
pub struct Checksums {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sums>>>,
}

impl Checksums {
    /// Begins with those of the files that `args` name and of `loras`.
    pub fn begin(args: &Args, loras: &[LoraUse]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, model) = (stop.clone(), args.model.clone());
        let files = [("VAE hash", &args.vae), (START_HASH, &args.init_img), (MASK_HASH, &args.mask)];
        let files: Vec<(&str, PathBuf)> =
            files.into_iter().filter_map(|(n, f)| Some((n, f.clone()?))).collect();
        let loras: Vec<(String, PathBuf)> =
            loras.iter().map(|l| (l.lora.name(), l.lora.file().to_owned())).collect();
        let work = move || -> Result<Sums> {
            let mut pairs = Pairs::new();
            for (name, path) in files.into_iter().filter(|(_, path)| path.is_file()) {
                pairs.push((name, cut(cached(&path, HashedPart::WholeFile, &stopped)?, DIGITS)));
            }
            let mut hashes = Vec::new();
            for (name, path) in loras {
                hashes.push(format!(
                    "{name}: {}",
                    cut(cached(&path, HashedPart::Tensors, &stopped)?, LORA_DIGITS)
                ));
            }
            if !hashes.is_empty() {
                pairs.push(("Lora hashes", hashes.join(", ")));
            }
            let digits = match &model {
                None => embedded::digest(),
                Some(path) if path.is_file() => Some(cached(path, HashedPart::WholeFile, &stopped)?),
                Some(_) => None,
            };
            Ok((digits.map(|digits| cut(digits, DIGITS)), pairs))
        };
        Self { stop, thread: Some(std::thread::spawn(work)) }
    }

    /// Waits for them: the model's digits, and pairs for the rest. What cannot be read any more is left
    /// out, so that the picture is saved all the same.
    pub fn finish(mut self) -> Sums {
        let done = self.thread.take().and_then(|thread| thread.join().ok());
        match done {
            Some(Ok(done)) => done,
            Some(Err(e)) => {
                log::warn!("the picture is saved without checksums: {e}");
                Default::default()
            }
            None => Default::default(),
        }
    }
}

impl Drop for Checksums {
    /// A run that ends early does not wait for gigabytes.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The pairs that `args` add to a picture's settings: what its bytes depend on beside the request.
pub fn pairs(args: &Args, model: &Model, report: &Report, scaled: bool) -> Pairs {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut pairs = Pairs::new();
    pairs.extend(args.vae.as_ref().map(|path| ("VAE", model_name(path))));
    if !args.text_encoder.is_empty() {
        let names: Vec<String> = args.text_encoder.iter().map(|path| model_name(path)).collect();
        pairs.push((TEXT_ENCODER, names.join(", ")));
    }
    pairs.extend(args.init_img.as_ref().map(|path| (START, name(path))));
    if scaled {
        pairs.push(("Resize mode", "Just resize".into()));
    }
    pairs.extend(args.mask.as_ref().map(|path| (MASK, name(path))));
    if let Some(prediction) = args.prediction.as_ref().and_then(clap::ValueEnum::to_possible_value) {
        pairs.push(("Prediction", prediction.get_name().to_owned()));
    }
    let usual = model.engine().gpu().usual_precision();
    if model.precision() != usual {
        pairs.push(("Precision", model.precision().name().to_owned()));
    }
    let usual = model.config().family.facts().vae_precision(model.precision());
    if model.vae_precision() != usual {
        pairs.push(("VAE precision", model.vae_precision().name().to_owned()));
    }
    // Tiles change a picture slightly; if they were chosen for memory, the limit matters.
    match args.compute.vae_tile {
        Tiling::Side(side) => pairs.push(("VAE tile", side.to_string())),
        Tiling::Off => {}
        _ if report.decoder_tiles.max(report.encoder_tiles) > 1 => {
            pairs.extend(args.compute.max_memory.map(|bytes| ("Max memory", (bytes >> 20).to_string())));
        }
        _ => {}
    }
    if args.ignore_extra {
        pairs.push((EXTRA, "ignored".into()));
    }
    let matrices = args.compute.device.matrices().map(|on| if on { "on" } else { "off" });
    pairs.extend(matrices.map(|choice| ("Matrices", choice.into())));
    // Both choose kernels, whose results differ by rounding.
    let profile = model.gpu().profile();
    if !profile.costs.is_compiled_in() {
        pairs.push((COSTS, profile.costs.hash()));
    }
    if !profile.distrusted.is_empty() {
        let names: Vec<&str> = profile.distrusted.iter().map(String::as_str).collect();
        pairs.push((DISTRUSTED, names.join(" ")));
    }
    pairs
}
