//! `sagittal grid`: pictures over two or three options in one labelled sheet. All cells are checked before the first
//! is drawn; equal ones are drawn once; one row of pictures is in memory at a time.

pub mod axis;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sagittal::image::parameters::{self, Origin, parameters};
use sagittal::image::{png, read};
use sagittal::internals::folder::Folder;
use sagittal::internals::image::sheet::{CellPlace, Sheet, Side};
use sagittal::internals::model::{ModelConfig, Prediction};
use sagittal::lora::{LoraUse, Patches};
use sagittal::pipeline::report::Report;
use sagittal::{CancelToken, Checkpoint, Error, Model, Request, Result};
use serde_json::json;

use crate::commands::generate;
use crate::commands::grid::axis::Axis;
use crate::support::args::Args as Generate;
use crate::support::flags::Flags;
use crate::support::from_picture::{self, Repeat};
use crate::support::init_image::Start;
use crate::support::interrupt;
use crate::support::loras;
use crate::support::notes;
use crate::support::origin::{self, Checksums};
use crate::support::output::{Series, check_png, make_folder, refuse_taken};
use crate::support::progress::Reporter;
use crate::support::terminal;
use crate::support::value::Seed;

/// Most cells of a grid.
const MOST_CELLS: usize = 10_000;
/// Most characters of the prompt above the sheet.
const PROMPT: usize = 160;

const EXAMPLES: &str = "\
Examples:
  SAG by scale and blur:
    sagittal grid --x sag-scale=0:1.5[4] --y sag-blur=0,1,2 -p \"fox, 3d style\" -s 3 -o grid.png
  Prompts by sampler, with a panel for each seed:
    sagittal grid --x prompt=fox,owl,frog --y sampler=euler,dpmpp_2m --z seed=1,2 -p \"fox, noto style\" -o grid.png
  Variations of a picture:
    sagittal grid --from fox.png --x cfg-scale=1:7[4] --y steps=10,20 -o near.png";

/// Draw pictures over one to three options in one labelled sheet
///
/// An axis is NAME=VALUES. The name is that of any option of `generate` that changes a picture (steps,
/// cfg-scale, seed, sag-scale, sampler, strength, ...), `prompt` (the first value is text of the prompt,
/// the others replace it), or `lora-weight` (of all, or lora-weight.NAME). Values are separated by
/// commas, in quotes if they contain one; FROM:TO[COUNT] is that many evenly spaced numbers. All other
/// options are those of `generate` and apply to every cell. Each picture is also saved with its settings
/// in a folder beside the sheet; equal ones are drawn once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
#[command(mut_args(own_help))]
pub struct Args {
    /// What changes from left to right
    #[arg(long, value_name = "NAME=VALUES", help_heading = "Axes", allow_hyphen_values = true)]
    x: Axis,
    /// What changes from top to bottom
    #[arg(long, value_name = "NAME=VALUES", help_heading = "Axes", allow_hyphen_values = true)]
    y: Option<Axis>,
    /// What changes from panel to panel; panels are stacked vertically
    #[arg(long, value_name = "NAME=VALUES", help_heading = "Axes", allow_hyphen_values = true)]
    z: Option<Axis>,
    /// Folder for the single pictures [default: the sheet's name without .png]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    cells: Option<PathBuf>,
    #[command(flatten)]
    pub generate: Generate,
}

/// A picture to draw, and its places in the sheet.
struct Job {
    args: Generate,
    /// Flags without effect on it.
    idle: Vec<notes::IdleFlag>,
    places: Vec<CellPlace>,
}

/// The request of a cell's flags, checked.
struct CellRequest {
    request: Request,
    uses: Vec<LoraUse>,
    /// The prompt with a tag for each LoRA.
    shown: String,
    scaled: bool,
}

/// The options of `generate` as the help of a grid has them: some are for single pictures.
fn own_help(arg: clap::Arg) -> clap::Arg {
    const REFUSED: [&str; 8] = [
        "batch_size",
        "batch_count",
        "save_latent",
        "save_attention",
        "compare",
        "animate",
        "preview",
        "preview_every",
    ];
    match arg.get_id().as_str() {
        "output" => arg
            .help("PNG file of the sheet [default: grid.png]")
            .long_help("PNG file of the sheet [default: grid.png]"),
        "dry_run" => {
            arg.help("Report the number of pictures, the size of the sheet and the memory, and exit")
        }
        id if REFUSED.contains(&id) => arg.hide(true),
        _ => arg,
    }
}

/// Runs the command.
///
/// # Errors
/// Any of the library's; an error in a value of an axis names both.
pub fn run(args: &Args) -> Result<()> {
    let (flags, Repeat { position, own }) = flags(args)?;
    let base = flags.parse::<Args>()?.generate;
    let axes = [Some(&args.x), args.y.as_ref(), args.z.as_ref()];
    check_axes(&axes, &flags)?;
    let side = |axis: Option<&Axis>| {
        axis.map_or_else(Side::default, |a| Side { name: a.name.clone(), values: a.values.clone() })
    };
    let [columns, rows, panels] = axes.map(side);
    let mut sheet = Sheet { columns, rows, panels, ..Sheet::default() };
    let cells = sheet.places().count();
    if cells > MOST_CELLS {
        return Err(Error::usage("the grid has too many pictures")
            .expected(format!("at most {MOST_CELLS}"))
            .found(cells.to_string()));
    }
    let pattern = base.output.clone().unwrap_or_else(|| PathBuf::from("grid.png"));
    check_png(&pattern)?;
    let files = Files {
        folder: args.cells.clone().unwrap_or_else(|| pattern.with_extension("")),
        sheet: Series::new(pattern, 1, base.force),
        axes: axes.map(|axis| axis.is_some()),
    };
    files.check(&base, &sheet)?;
    let checkpoint = generate::open(&base)?;
    let config = ModelConfig::infer(&checkpoint)?;
    config.runnable(checkpoint.file())?;
    let prepare = |args: &Generate| ready(args, position, &config);
    let (jobs, first) = jobs(&flags, &axes, &mut sheet, &checkpoint, &config, &prepare)?;
    warn_of_flags(&base, &axes, &jobs, own)?;
    sheet.title = title(&first, &base, &axes);
    sheet.check()?;
    let options = base.compute.options(base.prediction.map(Prediction::from));
    let mut model = Model::new(base.compute.device.open()?, checkpoint, options)?;
    model.set_embedding_folder(base.embedding_dir.as_ref().map(Folder::open).transpose()?);
    let mut peak = 0;
    for job in &jobs {
        peak = peak.max(model.report(&prepare(&job.args)?.request)?.peak_bytes);
    }
    let plan = json!({
        "axes": axes.iter().flatten().map(|a| json!({ "name": a.name, "values": a.values })).collect::<Vec<_>>(),
        "cells": cells, "pictures": jobs.len(), "width": sheet.width(), "height": sheet.height(),
        "peak_mib": terminal::to_mib(peak),
    });
    let summary = format!(
        "{}, {} to draw, a sheet of {}x{}; {} of device memory at most",
        terminal::count(cells, "cell"),
        terminal::count(jobs.len(), "picture"),
        sheet.width(),
        sheet.height(),
        terminal::size(peak)
    );
    if base.dry_run {
        if base.json {
            terminal::event("plan", plan);
        } else {
            terminal::result(summary);
        }
        return Ok(());
    }
    terminal::say(summary);
    if base.json {
        terminal::event("start", plan);
    }
    GridRun { base: &base, axes: &axes, sheet, files, model, prepare: &prepare }.all(&jobs, &first)
}

/// The flags of all cells: those from a picture, those that were typed, and one seed.
fn flags(args: &Args) -> Result<(Flags, Repeat)> {
    let (mut flags, mut repeat) = (Flags::typed(), Repeat::default());
    if let Some(picture) = &args.generate.from {
        let before;
        (before, repeat) = from_picture::settings(&args.generate, picture, &flags.given::<Args>()?)?;
        flags = flags.with(&before, &[]);
        flags.parse::<Args>().map_err(|e| from_picture::unusable(picture, e))?;
    }
    if flags.parse::<Args>()?.generate.seed == Seed::Random {
        flags = flags.with(&[], &[format!("--seed={}", generate::random_seed()).into()]);
    }
    let base = flags.parse::<Args>()?.generate;
    if repeat.position.is_none() && (base.batch_size, base.batch_count) != (1, 1) {
        return Err(Error::usage("a cell of a grid is one picture")
            .found(format!("--batch-size {} --batch-count {}", base.batch_size, base.batch_count))
            .hint("make the seed an axis: --z seed=1,2,3"));
    }
    for (flag, given) in [
        ("--save-latent", base.save_latent.is_some()),
        ("--save-attention", base.save_attention.is_some()),
        ("--compare", base.compare.is_some()),
        ("--animate", base.animate.is_some()),
        ("--preview", base.preview.is_some()),
    ] {
        if given {
            return Err(Error::usage("a grid saves only pictures")
                .found(flag)
                .hint("run `generate` for that cell"));
        }
    }
    Ok((flags, repeat))
}

/// Checks each value of each axis alone, so that an error names both.
fn check_axes(axes: &[Option<&Axis>; 3], flags: &Flags) -> Result<()> {
    for (i, axis) in axes.iter().flatten().enumerate() {
        if let Some(other) = axes.iter().flatten().take(i).find(|other| other.is_like(axis)) {
            return Err(Error::usage("two axes change the same option")
                .found(format!("{} and {}", other.name, axis.name))
                .hint("put all its values on one axis"));
        }
        for at in 0..axis.values.len() {
            let behind: Vec<OsString> = axis.flag(at)?.into_iter().collect();
            let mut cell = flags.with(&[], &behind).parse::<Args>().map_err(|e| axis.wrong(at, e))?.generate;
            if cell.seed == Seed::Random {
                return Err(axis.wrong(at, Error::usage("the seeds of an axis must not be random")));
            }
            axis.apply(at, &mut cell)?;
        }
    }
    Ok(())
}

fn ready(args: &Generate, position: Option<(usize, usize)>, config: &ModelConfig) -> Result<CellRequest> {
    let start = Start::read(args)?;
    let scaled = start.as_ref().is_some_and(Start::scaled);
    let asked = loras::gather(&args.prompt.join(" AND "), args)?;
    let Seed::Given(seed) = args.seed else { return Err(Error::internal("a cell without a seed")) };
    let mut request = generate::request(args, seed, asked.prompt, start, config)?;
    generate::alone(&mut request, position);
    if request.batch > 1 {
        return Err(Error::usage("the picture is one of a batch that shares its noise")
            .hint("draw the grid with --batch-size 1, which gives another picture"));
    }
    request.check()?;
    Ok(CellRequest { request, uses: asked.uses, shown: asked.shown, scaled })
}

type Prepare<'a> = dyn Fn(&Generate) -> Result<CellRequest> + 'a;

/// The cells, equal ones together, in an order in which LoRAs rarely change; and the request of the first cell in
/// reading order. Sets the size of the sheet's cells.
fn jobs(
    flags: &Flags,
    axes: &[Option<&Axis>; 3],
    sheet: &mut Sheet,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    prepare: &Prepare<'_>,
) -> Result<(Vec<Job>, CellRequest)> {
    let typed = Flags::typed();
    let mut found: Vec<(String, String, Job)> = Vec::new();
    let mut first = None;
    for place in sheet.places().collect::<Vec<_>>() {
        let at = [place.column, place.row, place.panel];
        let here = || axes.iter().zip(at).filter_map(|(axis, at)| Some(((*axis)?, at)));
        let behind: Vec<OsString> =
            here().filter_map(|(axis, at)| axis.flag(at).transpose()).collect::<Result<_>>()?;
        let mut args = flags.with(&[], &behind).parse::<Args>()?.generate;
        here().try_for_each(|(axis, at)| axis.apply(at, &mut args))?;
        typed.with(&[], &behind).parse::<Args>()?.generate.check_schedulers()?;
        let fault = |e: Error| {
            let values: Vec<String> =
                here().map(|(axis, at)| format!("{}={}", axis.name, axis.values[at])).collect();
            match e.kind() {
                sagittal::ErrorKind::Usage => {
                    Error::usage(format!("the cell {} cannot be drawn", values.join(", "))).cause(e)
                }
                _ => e,
            }
        };
        let ready = prepare(&args).map_err(fault)?;
        let written = Request { prompt: ready.shown.clone(), ..ready.request.clone() };
        // A picture depends on its settings and on the folders of its files.
        let key =
            format!("{}{:?}{:?}", parameters(&written, &Origin::default(), 0), args.init_img, args.mask);
        sheet.cell = (sheet.cell.0.max(written.size.width), sheet.cell.1.max(written.size.height));
        if let Some((.., job)) = found.iter_mut().find(|(known, ..)| *known == key) {
            job.places.push(place);
            continue;
        }
        Patches::new(config, checkpoint, &ready.uses).map_err(fault)?;
        let idle = notes::idle_flags(&args, &ready.request);
        found.push((key, weights(&ready.uses), Job { args, idle, places: vec![place] }));
        first.get_or_insert(ready);
    }
    found.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
    let first = first.ok_or_else(|| Error::internal("a grid without cells"))?;
    Ok((found.into_iter().map(|(.., job)| job).collect(), first))
}

/// Warns of prompt syntax in any cell, of flags that an axis replaces, and of flags without effect in all cells.
fn warn_of_flags(base: &Generate, axes: &[Option<&Axis>; 3], jobs: &[Job], own: bool) -> Result<()> {
    notes::warn_of_prompt_syntax(base.json, jobs.iter().map(|job| &job.args), own);
    let Some((first, others)) = jobs.split_first() else { return Ok(()) };
    let everywhere =
        |idle: &&notes::IdleFlag| others.iter().all(|job| job.idle.iter().any(|other| other.0 == idle.0));
    let given = Flags::typed().given::<Args>()?;
    for axis in axes.iter().flatten().filter(|axis| axis.replaces()) {
        if let Some(id) = given.iter().find(|id| notes::long_name(id) == axis.option()) {
            notes::warn_of_idle_flag(base.json, id, "an axis sets it");
        }
    }
    let idle: Vec<notes::IdleFlag> = first.idle.iter().filter(everywhere).cloned().collect();
    notes::warn_of_idle_flags(base.json, &idle, &given);
    Ok(())
}

/// Files and weights of LoRAs, as a key.
fn weights(uses: &[LoraUse]) -> String {
    let one = |u: &LoraUse| format!("{} {} {}", u.lora.file().display(), u.unet, u.text);
    uses.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The title of the sheet: what the cells have in common.
fn title(first: &CellRequest, base: &Generate, axes: &[Option<&Axis>; 3]) -> String {
    let r = &first.request;
    let varies = |names: &[&str]| axes.iter().flatten().any(|axis| names.contains(&axis.option()));
    let mut facts = vec![origin::name_of(base)];
    let mut add = |names: &[&str], fact: String| {
        if !varies(names) {
            facts.push(fact);
        }
    };
    add(&["seed"], format!("seed {}", r.seed));
    add(&["steps"], terminal::count(r.schedule.steps, "step"));
    add(&["sampling-method"], r.solver.sampler.to_string());
    // A sampler's name may end in a scheduler.
    let both =
        axes.iter().flatten().any(|axis| axis.option() == "sampling-method" && axis.names_schedulers());
    if !both {
        add(&["scheduler"], r.schedule.scheduler.to_string());
    }
    add(&["cfg-scale"], format!("CFG {}", r.guidance.cfg));
    let sag = r.guidance.sag();
    if sag.is_on() || varies(&["sag-scale", "sag-blur"]) {
        add(&["sag-scale"], format!("SAG {}", sag.scale));
        add(&["sag-blur"], format!("blur {}", sag.blur_sigma));
    }
    let prompt: String =
        if varies(&["prompt"]) { String::new() } else { first.shown.chars().take(PROMPT).collect() };
    format!("{}\n{}", prompt.replace('\n', " "), facts.join(", ")).trim().to_owned()
}

/// The files that a grid writes.
struct Files {
    folder: PathBuf,
    sheet: Series,
    /// Which axes there are.
    axes: [bool; 3],
}

impl Files {
    fn cell(&self, place: CellPlace) -> PathBuf {
        let numbers = [('x', place.column), ('y', place.row), ('z', place.panel)];
        let name: Vec<String> = numbers
            .iter()
            .zip(self.axes)
            .filter(|(_, there)| *there)
            .map(|((axis, at), _)| format!("{axis}{}", at + 1))
            .collect();
        self.folder.join(format!("{}.png", name.join("-")))
    }

    /// Checks that all can be written, now.
    fn check(&self, args: &Generate, sheet: &Sheet) -> Result<()> {
        self.sheet.check()?;
        let cells = || sheet.places().map(|place| self.cell(place));
        generate::spare_models(args, self.sheet.paths().chain(cells()))?;
        // The first cell checks the folder; whether files exist is checked for all together.
        Series::new(self.cell(CellPlace { column: 0, row: 0, panel: 0 }), 1, true).check()?;
        if args.force { Ok(()) } else { refuse_taken(cells()) }
    }
}

/// A run of the command, with everything it needs, checked.
struct GridRun<'a> {
    base: &'a Generate,
    axes: &'a [Option<&'a Axis>; 3],
    sheet: Sheet,
    files: Files,
    model: Model,
    prepare: &'a Prepare<'a>,
}

impl GridRun<'_> {
    /// Draws cell after cell, then the sheet; finished cells stay if a later one fails.
    fn all(mut self, jobs: &[Job], first: &CellRequest) -> Result<()> {
        let (cancel, began) = (interrupt::token(), Instant::now());
        let mut progress = Reporter::new(self.base.json, first.request.schedule.steps, jobs.len(), None);
        let mut known = String::new();
        let mut hash = None;
        for (number, job) in jobs.iter().enumerate() {
            progress.begin(number);
            let drawn = self.cell(job, &mut known, &mut progress, &cancel);
            hash = drawn.inspect_err(|_| progress.end())?;
        }
        progress.message("putting the sheet together");
        let written = self.write_sheet(first, hash.as_deref());
        progress.end();
        let path = written?;
        self.saved("grid", &path, &progress, None);
        let (seconds, peak) = (began.elapsed().as_secs_f64(), self.model.engine().peak_bytes());
        terminal::say(format!(
            "done in {seconds:.1} s, {}, {} of device memory",
            terminal::count(jobs.len(), "picture"),
            terminal::size(peak)
        ));
        if self.base.json {
            let rest =
                json!({ "seconds": seconds, "pictures": jobs.len(), "peak_mib": terminal::to_mib(peak) });
            terminal::event("done", rest);
        }
        Ok(())
    }

    /// Draws a picture and writes it to all its places; returns the model's checksum.
    fn cell(
        &mut self,
        job: &Job,
        known: &mut String,
        progress: &mut Reporter,
        cancel: &CancelToken,
    ) -> Result<Option<String>> {
        let CellRequest { request, uses, shown, scaled } = (self.prepare)(&job.args)?;
        let now = weights(&uses);
        if now != *known {
            self.model.set_loras(&uses)?;
            *known = now;
        }
        let report: Report = self.model.report(&request)?;
        let checksums = Checksums::begin(&job.args, &uses);
        let made =
            self.model.run(&request).on_event(|event| progress.observe(&event)).cancel(cancel).generate()?;
        if cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let (hash, sums) = checksums.finish();
        let mut further = origin::pairs(&job.args, &self.model, &report, scaled);
        further.extend(sums);
        let name = origin::name_of(&job.args);
        let written = Request { prompt: shown, batch: job.args.batch_size, ..request };
        let at = match &written.noise {
            sagittal::pipeline::Noise::Pictures(at) => at.first().copied().unwrap_or(0),
            _ => 0,
        };
        let text =
            parameters(&written, &Origin { model: &name, hash: hash.as_deref(), further: &further }, at);
        let picture = made.pictures.first().ok_or_else(|| Error::internal("no picture was drawn"))?;
        let bytes = png::encode(picture, &[(parameters::KEYWORD, &text)])?;
        for place in &job.places {
            let path = self.files.cell(*place);
            make_folder(&path)?;
            png::write(&path, &bytes, self.base.force)?;
            self.saved("cell", &path, progress, Some((*place, written.seed, at)));
        }
        Ok(hash)
    }

    /// Joins the cells, which are read from their files again.
    fn write_sheet(&self, first: &CellRequest, hash: Option<&str>) -> Result<PathBuf> {
        let mut further: Vec<(&'static str, String)> = vec![("Script", "X/Y/Z plot".into())];
        let names = [("X Type", "X Values"), ("Y Type", "Y Values"), ("Z Type", "Z Values")];
        for ((name, values), axis) in names.into_iter().zip(self.axes).filter_map(|(n, a)| Some((n, (*a)?))) {
            further.extend([(name, axis.name.clone()), (values, axis.values.join(", "))]);
        }
        let model = origin::name_of(self.base);
        let written = Request { prompt: first.shown.clone(), ..first.request.clone() };
        let text = parameters(&written, &Origin { model: &model, hash, further: &further }, 0);
        let bytes = self
            .sheet
            .encode(&[(parameters::KEYWORD, &text)], &mut |place| read::picture(&self.files.cell(place)))?;
        self.files.sheet.write(0, &bytes)
    }

    /// Reports a file; of a cell also its place, its seed and its number in a batch of that seed.
    fn saved(&self, kind: &str, path: &Path, progress: &Reporter, cell: Option<(CellPlace, u64, usize)>) {
        let path = path.display().to_string();
        progress.say(&path);
        if !self.base.json {
            return;
        }
        let mut rest = json!({ "kind": kind, "path": path });
        if let Some((place, seed, index)) = cell {
            rest["column"] = json!(place.column + 1);
            rest["row"] = json!(place.row + 1);
            rest["panel"] = json!(place.panel + 1);
            rest["seed"] = json!(seed);
            rest["index"] = json!(index);
        }
        terminal::event("saved", rest);
    }
}
