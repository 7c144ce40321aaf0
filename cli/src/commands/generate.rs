//! `sagittal generate`: from flags to pictures in files. Errors are looked for in the order of their cost: flags,
//! output files, the checkpoint's header, then the device.

pub mod attention;
pub mod compare;
pub mod dry_run;
pub mod watch;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sagittal::Size;
use sagittal::checkpoint::Checkpoint;
use sagittal::guidance::{Guidance, Perturbed, Sag};
use sagittal::image::parameters::{self, Origin, parameters};
use sagittal::image::png;
use sagittal::internals::folder::Folder;
use sagittal::internals::model::{Family, ModelConfig, Prediction};
use sagittal::lora::Patches;
use sagittal::pipeline::report::Report;
use sagittal::pipeline::{Generated, Model, Noise, Request, Schedule, Sizes, Solver};
use sagittal::{CancelToken, Error, ErrorKind, Progress, Result, embedded, latent};
use serde_json::json;

use crate::support::args::Args;
use crate::support::flags::Flags;
use crate::support::from_picture::{self, Repeat};
use crate::support::init_image::Start;
use crate::support::interrupt;
use crate::support::loras;
use crate::support::notes;
use crate::support::origin::{self, Checksums};
use crate::support::output::{self, Series, check_png};
use crate::support::progress::{Reporter, speed};
use crate::support::terminal;
use crate::support::value::Seed;
use watch::Watch;

/// Runs the command.
///
/// # Errors
/// Any of the library's.
pub fn run(args: &Args) -> Result<()> {
    let flags = Flags::typed();
    let given = flags.given::<Args>()?;
    args.check_schedulers()?;
    match &args.from {
        None => draw(args, &given, Repeat::default()),
        Some(picture) => {
            let (before, repeat) = from_picture::settings(args, picture, &given)?;
            let filled = flags.with(&before, &[]).parse().map_err(|e| from_picture::unusable(picture, e))?;
            // A value outside its range comes from the picture: flags were checked before.
            let of_picture = |e: Error| match (e.kind(), e.path()) {
                (ErrorKind::Usage, None) => from_picture::unusable(picture, e),
                _ => e,
            };
            draw(&filled, &given, repeat).map_err(of_picture)
        }
    }
}

/// The command itself; `given` are the ids of the flags that were typed.
fn draw(args: &Args, given: &BTreeSet<String>, Repeat { position, own }: Repeat) -> Result<()> {
    let seed = match args.seed {
        Seed::Given(seed) => seed,
        Seed::Random => random_seed(),
    };
    let files = Files::new(args, seed, position.is_some())?;
    files.check(args)?;
    let start = Start::read(args)?;
    // Several prompts are one prompt with AND.
    let asked = loras::gather(&args.prompt.join(" AND "), args)?;
    let embeddings = args.embedding_dir.as_ref().map(Folder::open).transpose()?;
    let checkpoint = open(args)?;
    // Reads headers only, so that a bad file is reported before a driver is loaded.
    let config = ModelConfig::infer(&checkpoint)?;
    config.runnable(checkpoint.file())?;
    Patches::new(&config, &checkpoint, &asked.uses)?;
    let scaled = start.as_ref().is_some_and(Start::scaled);
    let mut request = request(args, seed, asked.prompt, start, &config)?;
    alone(&mut request, position);
    request.check()?;
    notes::warn_of_prompt_syntax(args.json, [args], own);
    notes::warn_of_idle_flags(args.json, &notes::idle_flags(args, &request), given);
    let watch = Watch::new(args, &request)?;
    let options = args.compute.options(args.prediction.map(Prediction::from));
    let mut model = Model::new(args.compute.device.open()?, checkpoint, options)?;
    model.engine().trace_nonfinite(args.compute.trace_nonfinite);
    model.set_loras(&asked.uses)?;
    model.set_embedding_folder(embeddings);
    let report = model.report(&request)?;
    if args.dry_run {
        for prompt in std::iter::once(&request.prompt).chain(&request.negative) {
            model.look_for_embeddings(prompt)?;
        }
        dry_run::print(&model, &request, &report, args.json);
        return Ok(());
    }
    let pairs = origin::pairs(args, &model, &report, scaled);
    let checksums = Some(Checksums::begin(args, &asked.uses));
    let text = PictureText { prompt: asked.shown, position, model_hash: None, pairs };
    GenerateRun { args, files, model, request, report, text, checksums, watch }.all_batches()
}

/// Draws a picture of a batch alone, if it does not depend on the others.
pub fn alone(request: &mut Request, position: Option<(usize, usize)>) {
    if let Some((at, _)) = position
        && !parameters::needs_batch(request)
    {
        (request.batch, request.noise) = (1, Noise::Pictures(vec![at]));
    }
}

/// The checkpoint, with the parts that the flags replace.
///
/// # Errors
/// Those of [`Checkpoint::open`], or a part does not fit.
pub fn open(args: &Args) -> Result<Checkpoint> {
    let mut checkpoint = match &args.model {
        Some(path) => Checkpoint::open(path)?,
        None => embedded::checkpoint()?,
    };
    if let Some(vae) = &args.vae {
        checkpoint = checkpoint.with_vae(Checkpoint::open(vae)?)?;
    }
    for text in &args.text_encoder {
        checkpoint = checkpoint.with_text_encoder(Checkpoint::open(text)?)?;
    }
    Ok(if args.ignore_extra { checkpoint.ignoring_extra() } else { checkpoint })
}

/// The request of the first batch.
///
/// # Errors
/// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for flags that do not go together.
pub fn request(
    args: &Args,
    seed: u64,
    prompt: String,
    start: Option<Start>,
    config: &ModelConfig,
) -> Result<Request> {
    let embedded = args.model.is_none();
    let prediction = args.prediction.map_or(config.prediction, Prediction::from);
    let config = &ModelConfig { prediction, ..config.clone() };
    let side = if embedded { embedded::SIZE } else { config.native_side() };
    let (width, height) = match &start {
        Some(start) => start.size(),
        None => (args.width.unwrap_or(side), args.height.unwrap_or(side)),
    };
    let cfg = args.cfg_scale.unwrap_or(if embedded { embedded::CFG } else { 7.0 });
    let sag = Sag {
        scale: args.sag_scale,
        blur_sigma: args.sag_blur,
        threshold: args.sag_threshold,
        start: args.sag_start,
        end: args.sag_end,
        cond_at_cfg_1: args.sag_cond,
    };
    let mut request = Request {
        compose: true,
        negative: args.negative.clone(),
        batch: args.batch_size,
        seed,
        guidance: Guidance::new(cfg)
            .with(sag)
            .with(Perturbed { start: args.pag_start, end: args.pag_end, ..Perturbed::pag(args.pag_scale) })
            .with(Perturbed {
                start: args.seg_start,
                end: args.seg_end,
                ..Perturbed::seg(args.seg_scale, args.seg_blur)
            }),
        solver: Solver { sampler: args.sampling_method.sampler, eta: args.eta, s_noise: args.s_noise },
        schedule: Schedule::new(args.scheduler(), args.steps),
        clip_skip: args.clip_skip,
        limits: args.compute.limits(),
        evaluations: args.save_attention.is_some() || args.compare.is_some(),
        sizes: sizes(args, config, Sizes::of(Size::new(width, height)))?,
        ..Request::new(prompt, Size::new(width, height))
    };
    if let Some(start) = start {
        start.put_into(&mut request);
    }
    Ok(request)
}

/// SDXL's size conditioning, if a flag sets any of it; the rest is `usual`.
fn sizes(args: &Args, config: &ModelConfig, usual: Sizes) -> Result<Option<Sizes>> {
    if args.original_size.is_none() && args.crop.is_none() && args.target_size.is_none() {
        return Ok(None);
    }
    if config.family != Family::Sdxl {
        return Err(Error::usage("--original-size, --crop and --target-size are for SDXL")
            .expected("an SDXL checkpoint")
            .found(config.family.to_string())
            .hint("leave them out, or pass another checkpoint with -m"));
    }
    let size = |(height, width): (usize, usize)| Size::new(width, height);
    let (crop_top, crop_left) = args.crop.unwrap_or((usual.crop_top, usual.crop_left));
    Ok(Some(Sizes {
        original: args.original_size.map_or(usual.original, size),
        crop_top,
        crop_left,
        target: args.target_size.map_or(usual.target, size),
    }))
}

/// A seed of 32 bits: as many as the noise generator takes, and as A1111 shows.
pub fn random_seed() -> u64 {
    // The hasher's keys come from the operating system.
    RandomState::new().hash_one(std::time::SystemTime::now()) & u64::from(u32::MAX)
}

/// The files that a run writes.
struct Files {
    pictures: Series,
    latents: Option<Series>,
}

impl Files {
    /// The names from the flags; the default name contains `seed`.
    fn new(args: &Args, seed: u64, one: bool) -> Result<Self> {
        let pattern = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("sagittal-{seed}.png")));
        check_png(&pattern)?;
        for path in [Some(&pattern), args.save_latent.as_ref()].into_iter().flatten() {
            output::warn_of_percent(path, args.json);
        }
        if let Some(path) = &args.save_latent {
            output::check_latent(path)?;
        }
        let count = if one { 1 } else { args.batch_size.saturating_mul(args.batch_count) };
        let latents = args.save_latent.as_ref().map(|path| Series::new(path, args.batch_count, args.force));
        Ok(Self { pictures: Series::new(pattern, count, args.force), latents })
    }

    /// Checks that all of them can be written, now.
    fn check(&self, args: &Args) -> Result<()> {
        self.pictures.check()?;
        let written = self.pictures.paths().chain(self.latents.iter().flat_map(Series::paths));
        spare_models(args, written.chain(watch::outputs(args)))?;
        let Some(latents) = &self.latents else { return Ok(()) };
        latents.check()
    }
}

/// Rejects outputs that would replace a model that is read, even with --force.
///
/// # Errors
/// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage), naming the file.
pub fn spare_models(args: &Args, written: impl Iterator<Item = PathBuf>) -> Result<()> {
    let read: Vec<PathBuf> = args.models().map(real).collect();
    match written.map(|p| real(&p)).find(|p| read.contains(p)) {
        None => Ok(()),
        Some(both) => Err(Error::usage("an output would replace a model that is read")
            .file(both)
            .hint("choose another name with -o or --save-latent")),
    }
}

/// `path` with links and dots in its folder resolved, since two names may mean one file.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or_default())
}

/// A run of the command, with everything it needs, checked.
struct GenerateRun<'a> {
    args: &'a Args,
    files: Files,
    model: Model,
    request: Request,
    report: Report,
    text: PictureText,
    /// Until the first picture is saved.
    checksums: Option<Checksums>,
    watch: Watch<'a>,
}

/// What pictures' settings contain beside the request.
struct PictureText {
    /// The prompt, with a tag for each LoRA.
    prompt: String,
    /// Number and batch size, if one picture of a batch is drawn again.
    position: Option<(usize, usize)>,
    model_hash: Option<String>,
    pairs: Vec<(&'static str, String)>,
}

impl GenerateRun<'_> {
    /// Draws batch after batch; what is finished is kept when a later one fails.
    fn all_batches(mut self) -> Result<()> {
        let cancel = interrupt::token();
        self.request.preview_every = self.watch.preview_every();
        let began = Instant::now();
        let batches = self.args.batch_count;
        self.watch.make_folders()?;
        self.announce();
        let mut progress = Reporter::new(
            self.args.json,
            self.request.schedule.steps,
            batches,
            Some(self.report.rows_per_step()),
        );
        let first = self.request.seed;
        for batch in 0..batches {
            self.request.seed = first.wrapping_add(batch as u64);
            progress.begin(batch);
            self.watch.begin(batch);
            let watch = &mut self.watch;
            let observe = |event: Progress| {
                progress.observe(&event);
                watch.observe(&event, &cancel);
            };
            let made = self.model.run(&self.request).on_event(observe).cancel(&cancel).generate();
            // The bar is removed before anything else is printed, the error included.
            let made = made.inspect_err(|_| progress.end()).map_err(|e| self.watch.fault(e))?;
            // Ctrl-C may have come after the last work on the device: still, nothing is written.
            if cancel.is_cancelled() {
                progress.end();
                return Err(Error::cancelled());
            }
            self.save(batch, &made, &progress, &cancel)
                .and_then(|()| self.watch.attention(&self.model, cancel.flag()))
                .inspect_err(|_| progress.end())?;
        }
        progress.end();
        self.conclude(began, &progress);
        Ok(())
    }

    /// Prints the settings of the run, with the seed, which is often random.
    fn announce(&self) {
        let (r, info) = (&self.request, self.model.engine().gpu().device().adapter_info());
        let sag = r.guidance.sag();
        let sag_text =
            if sag.is_on() { format!("SAG {} blur {}", sag.scale, sag.blur_sigma) } else { "SAG off".into() };
        let names = [(self.args.pag_scale, "PAG"), (self.args.seg_scale, "SEG")];
        let others =
            names.map(|(scale, name)| if scale == 0.0 { String::new() } else { format!(", {name} {scale}") });
        let others = others.concat();
        terminal::say(format!(
            "{}x{}, {} of {} ({}), CFG {}, {sag_text}{others}, seed {}; {} of device memory at most",
            r.size.width,
            r.size.height,
            terminal::count(r.schedule.steps, "step"),
            r.solver.sampler,
            r.schedule.scheduler,
            r.guidance.cfg,
            r.seed,
            terminal::size(self.report.peak_bytes)
        ));
        log::info!("{} on {}, {}", origin::name_of(self.args), info.name, self.model.precision().name());
        log::info!(
            "{} per step, at most {} per call; activations {}, weights {}",
            terminal::count(self.report.rows_per_step(), "row"),
            self.report.rows_per_call(),
            terminal::size(self.report.arena_bytes),
            terminal::size(self.report.all_weight_bytes())
        );
        if !self.args.json {
            return;
        }
        let rest = json!({
            "version": env!("CARGO_PKG_VERSION"), "model": origin::name_of(self.args),
            "family": self.model.config().family.to_string(), "device": info.name,
            "precision": self.model.precision().name(), "seed": r.seed, "width": r.size.width, "height": r.size.height,
            "steps": r.schedule.steps, "sampler": r.solver.sampler.name(),
            "scheduler": r.schedule.scheduler.name(),
            "cfg_scale": terminal::decimal(r.guidance.cfg), "sag_scale": terminal::decimal(sag.scale),
            "sag_blur": terminal::decimal(sag.blur_sigma),
            "pag_scale": terminal::decimal(self.args.pag_scale), "seg_scale": terminal::decimal(self.args.seg_scale),
            "seg_blur": self.args.seg_blur.to_string(),
            "batch_size": r.batch, "batch_count": self.args.batch_count,
            "rows_per_step": self.report.rows_per_step(), "rows_per_chunk": self.report.rows_per_call(),
        });
        terminal::event("start", rest);
    }

    /// Writes the pictures of a batch, each with its settings, and the latent if requested.
    fn save(
        &mut self,
        batch: usize,
        made: &Generated,
        progress: &Reporter,
        cancel: &CancelToken,
    ) -> Result<()> {
        if let Some(checksums) = self.checksums.take() {
            let (hash, pairs) = checksums.finish();
            self.text.model_hash = hash;
            self.text.pairs.extend(pairs);
        }
        let name = origin::name_of(self.args);
        let PictureText { prompt, position, model_hash, pairs } = &self.text;
        let origin = Origin { model: &name, hash: model_hash.as_deref(), further: pairs };
        let seed = self.request.seed;
        let whole = position.map_or(self.request.batch, |(_, size)| size);
        let written = Request { prompt: prompt.clone(), batch: whole, ..self.request.clone() };
        // A picture has an index in its batch; a file of the whole batch has none.
        let saved = |kind: &str, path: &Path, index: Option<usize>| {
            progress.say(&format!("{} (seed {seed})", path.display()));
            if self.args.json {
                let path = path.display().to_string();
                let rest = json!({
                    "kind": kind, "path": path, "seed": seed, "batch": batch + 1, "index": index,
                });
                terminal::event("saved", rest);
            }
        };
        for (i, picture) in made.pictures.iter().enumerate() {
            let (number, file) = match *position {
                None => (i, batch * self.request.batch + i),
                Some((at, _)) if made.pictures.len() == 1 || i == at => (at, 0),
                Some(_) => continue,
            };
            let text = parameters(&written, &origin, number);
            let bytes = png::encode(picture, &[(parameters::KEYWORD, &text)])?;
            let path = self.files.pictures.write(file, &bytes)?;
            saved("picture", &path, Some(number));
        }
        let text = parameters(&written, &origin, 0);
        if let Some(path) = self.watch.finish(made, (parameters::KEYWORD, &text))? {
            saved("animation", &path, None);
        }
        if let Some(path) = self.watch.compare(&self.model, &self.request, made, &text, cancel)? {
            saved("comparison", &path, None);
        }
        if let Some(latents) = &self.files.latents {
            let bytes = latent::file::encode(&made.latent, &[(parameters::KEYWORD, &text)])?;
            saved("latent", &latents.write(batch, &bytes)?, None);
        }
        Ok(())
    }

    /// Prints the time in total, and the speed of the steps alone, which is comparable between GPUs.
    fn conclude(&self, began: Instant, progress: &Reporter) {
        let seconds = began.elapsed().as_secs_f64();
        let rate = progress.steps_per_second();
        let peak = self.model.engine().peak_bytes();
        let (speed, memory) = (speed(rate), terminal::size(peak));
        terminal::say(format!(
            "done in {seconds:.1} s, sampling at {}, {memory} of device memory",
            speed.trim()
        ));
        if self.args.json {
            let rest = json!({
                "seconds": seconds, "steps_per_second": rate, "peak_mib": terminal::to_mib(peak),
                "planned_mib": terminal::to_mib(self.report.peak_bytes),
            });
            terminal::event("done", rest);
        }
    }
}
