//! `sagittal run`: a workflow of ComfyUI from a file to pictures in files. It is checked completely, and every file
//! it reads is opened, before a driver is loaded; then its memory is checked, before anything runs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use sagittal::internals::folder::Folder;
use sagittal::pipeline::{self, DeviceContext};
use sagittal::workflow::spec::{Class, Kind, Slot};
use sagittal::workflow::{self, Event, Folders, LocalTime, Node, Options, Ready, Saved, SavedKind, Workflow};
use sagittal::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::support::device;
use crate::support::flags::Flags;
use crate::support::interrupt;
use crate::support::progress::{Reporter, speed};
use crate::support::terminal;

const EXAMPLES: &str = "\
Examples:
  A workflow saved or exported by ComfyUI, with models in ./models laid out as in ComfyUI:
    sagittal run workflow.json
  With the folders of a ComfyUI installation:
    sagittal run workflow.json --models-dir ~/ComfyUI/models --input-dir ~/ComfyUI/input
  The workflow in a picture, with another seed and the built-in model:
    sagittal run ComfyUI_00001_.png --set KSampler.seed=7 --set 4.ckpt_name=tiny-emoji.safetensors
  Check it without running it:
    sagittal run workflow.json --dry-run";

/// Run a workflow of ComfyUI.
///
/// Reads the API format, the UI format, or a picture that contains one of them. The whole workflow is checked
/// before anything runs: nodes, inputs, ranges, links, files, memory. Output files are numbered as in ComfyUI,
/// and existing ones are never replaced; they contain the workflow, so ComfyUI can open them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
pub struct Args {
    /// Workflow: JSON in API or UI format, or a picture that contains one
    #[arg(value_name = "WORKFLOW", required_unless_present = "nodes", conflicts_with = "nodes")]
    workflow: Option<PathBuf>,
    /// Set an input of a node, named by id, title or class: 3.seed=7; may be repeated
    #[arg(long, value_name = "NODE.INPUT=VALUE")]
    set: Vec<String>,

    /// Output folder; previews go to its subfolder temp
    #[arg(long, value_name = "DIR", default_value = "output", help_heading = "Folders")]
    output_dir: PathBuf,
    /// Models folder laid out like ComfyUI's: checkpoints, loras, vae, text_encoders, embeddings, ...
    #[arg(long, value_name = "DIR", default_value = "models", help_heading = "Folders")]
    models_dir: PathBuf,
    /// Folder of pictures and latents to load
    #[arg(long, value_name = "DIR", default_value = "input", help_heading = "Folders")]
    input_dir: PathBuf,
    /// List of more model folders [default: extra_model_paths.yaml in or beside --models-dir]
    #[arg(long, value_name = "FILE.yaml", help_heading = "Folders")]
    extra_model_paths: Vec<PathBuf>,

    /// Ignore tensors that no layer uses (adapters, gates, extra biases) instead of rejecting the file
    #[arg(long)]
    ignore_extra: bool,
    #[command(flatten)]
    compute: device::Compute,

    /// Check everything, list the nodes that would run, and exit
    #[arg(long)]
    dry_run: bool,
    /// List the supported nodes with their inputs, and exit
    #[arg(long)]
    nodes: bool,
    /// Print events on stdout, one JSON object per line; messages stay on stderr
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// Any of the library's.
pub fn run(args: &Args) -> Result<()> {
    let Some(file) = &args.workflow else {
        list_nodes(args.json);
        return Ok(());
    };
    let mut workflow = Workflow::open(file)?;
    for assignment in &args.set {
        workflow.set(assignment).map_err(|e| e.at(format!("--set {assignment}")))?;
    }
    let folders = folders(args)?;
    let options = Options { model: args.compute.options(None), limits: args.compute.limits(), now: now() };
    let mut ready = workflow.check(&folders, &options)?;
    if args.dry_run {
        check_memory(args, &mut ready)?;
        report_plan(args, file, &ready);
        return Ok(());
    }
    let samplers = ready.samplers();
    let context = DeviceContext::new(args.compute.device.open()?)?;
    context.engine().trace_nonfinite(args.compute.trace_nonfinite);
    announce(args, file, &context, ready.nodes().count(), samplers);
    let cancel = interrupt::token();
    let began = Instant::now();
    let mut reporter = WorkflowReporter {
        json: args.json,
        progress: Reporter::new(args.json, 1, samplers.max(1), None),
        sampler: 0,
    };
    let done = ready.run(context.clone(), &mut |event| reporter.report(&event), cancel.flag());
    // The bar is removed before anything else is printed, the error included.
    reporter.progress.end();
    let saved = done?;
    // Ctrl-C may have come after the last work on the device.
    if cancel.is_cancelled() && saved.is_empty() {
        return Err(Error::cancelled());
    }
    conclude(args, &context, began, &reporter.progress, saved.len());
    Ok(())
}

/// The folders from the flags, with those of the lists of further folders.
fn folders(args: &Args) -> Result<Folders> {
    let given = Flags::typed().given::<Args>()?;
    for (id, folder) in [("models_dir", &args.models_dir), ("input_dir", &args.input_dir)] {
        if given.contains(id) {
            Folder::open(folder).map_err(|e| e.at(format!("--{}", id.replace('_', "-"))))?;
        }
    }
    let mut folders = Folders::new(&args.models_dir, &args.input_dir, &args.output_dir);
    let usual = ["", ".."].map(|beside| args.models_dir.join(beside).join("extra_model_paths.yaml"));
    let found = usual.iter().filter(|list| args.extra_model_paths.is_empty() && list.is_file());
    for list in args.extra_model_paths.iter().chain(found) {
        folders.models.add_extra(list)?;
    }
    if args.ignore_extra {
        folders.models.ignore_extra();
    }
    Ok(folders)
}

/// The local time.
fn now() -> LocalTime {
    let now = jiff::ZonedDateTime::now();
    let part = |n: i8| u32::try_from(n).unwrap_or(0);
    LocalTime {
        year: u32::try_from(now.year()).unwrap_or(0),
        month: part(now.month()),
        day: part(now.day()),
        hour: part(now.hour()),
        minute: part(now.minute()),
        second: part(now.second()),
    }
}

/// `--dry-run`: whether it fits the device. Where there is none, all else was checked.
fn check_memory(args: &Args, ready: &mut Ready<'_>) -> Result<()> {
    match args.compute.device.open() {
        Ok(gpu) => ready.check_memory(&DeviceContext::new(gpu)?),
        Err(e) if e.kind() == ErrorKind::Device => {
            log::warn!("whether the models fit the memory is not known: {e}");
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// `--dry-run`: what would run.
fn report_plan(args: &Args, file: &Path, ready: &Ready<'_>) {
    if !args.json {
        ready.nodes().for_each(|node| terminal::result(node.to_string()));
        return;
    }
    let as_json = |node: &Node| json!({ "id": node.id, "class": node.class, "title": node.title });
    let rest = json!({
        "workflow": file.display().to_string(), "samplers": ready.samplers(),
        "nodes": ready.nodes().map(as_json).collect::<Vec<_>>(),
        "resting": ready.resting().map(as_json).collect::<Vec<_>>(),
    });
    terminal::event("plan", rest);
}

/// `--nodes`: the classes of nodes that run here.
fn list_nodes(json: bool) {
    for class in workflow::classes() {
        if json {
            terminal::event("class", class_as_json(class));
            continue;
        }
        let inputs: Vec<&str> = class.inputs.iter().map(|slot| slot.name).collect();
        terminal::result(format!("{:<30} {}", class.name, inputs.join(", ")));
    }
}

fn class_as_json(class: &Class) -> Value {
    let inputs: Vec<Value> = class.inputs.iter().map(slot_as_json).collect();
    let outputs: Vec<&str> = class.outputs.iter().map(|of| of.name()).collect();
    json!({ "class": class.name, "output": class.is_output, "inputs": inputs, "outputs": outputs })
}

/// An input: ComfyUI's name of its type, and its range or choices.
fn slot_as_json(slot: &Slot) -> Value {
    let rest = match slot.kind {
        Kind::Socket(of) => json!({ "type": of.name() }),
        Kind::Int { min, max, step, .. } => {
            json!({ "type": "INT", "min": whole(min), "max": whole(max), "step": whole(step) })
        }
        Kind::Float { min, max, .. } => json!({ "type": "FLOAT", "min": min, "max": max }),
        Kind::Bool { .. } => json!({ "type": "BOOLEAN" }),
        Kind::Text { .. } => json!({ "type": "STRING" }),
        Kind::Choice(choices) => json!({ "type": "COMBO", "choices": choices.names() }),
        Kind::File(of) => json!({ "type": "FILE", "file": of.what() }),
    };
    let mut object = json!({ "name": slot.name, "optional": slot.optional });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
        object.extend(slot.default().map(|default| ("default".to_owned(), default)));
    }
    object
}

/// A whole number of 64 bits, with a sign or without: no other is a limit.
fn whole(number: i128) -> Value {
    let signed = i64::try_from(number).map(Value::from);
    signed.or_else(|_| u64::try_from(number).map(Value::from)).unwrap_or_default()
}

fn announce(args: &Args, file: &Path, context: &DeviceContext, nodes: usize, samplers: usize) {
    let info = context.engine().gpu().device().adapter_info();
    let precision = args.compute.precision.precision().unwrap_or(context.engine().gpu().usual_precision());
    terminal::say(format!(
        "{}: {}, {}, on {}, {}",
        file.display(),
        terminal::count(nodes, "node"),
        terminal::count(samplers, "sampler"),
        info.name,
        precision.name()
    ));
    if args.json {
        let rest = json!({
            "version": env!("CARGO_PKG_VERSION"), "workflow": file.display().to_string(), "device": info.name,
            "precision": precision.name(), "nodes": nodes, "samplers": samplers,
        });
        terminal::event("start", rest);
    }
}

/// Prints the time, the speed and the number of files.
fn conclude(args: &Args, context: &DeviceContext, began: Instant, progress: &Reporter, saved: usize) {
    let (seconds, rate, peak) =
        (began.elapsed().as_secs_f64(), progress.steps_per_second(), context.engine().peak_bytes());
    let sampling = if rate > 0.0 { format!(", sampling at {}", speed(rate).trim()) } else { String::new() };
    terminal::say(format!(
        "done in {seconds:.1} s{sampling}, {}, {} of device memory",
        terminal::count(saved, "file"),
        terminal::size(peak)
    ));
    if args.json {
        let rest = json!({
            "seconds": seconds, "steps_per_second": rate, "peak_mib": terminal::to_mib(peak), "saved": saved,
        });
        terminal::event("done", rest);
    }
}

/// Reports what happens while a workflow runs.
struct WorkflowReporter {
    json: bool,
    progress: Reporter,
    /// Samplers that have begun.
    sampler: usize,
}

impl WorkflowReporter {
    fn report(&mut self, event: &Event<'_>) {
        match event {
            Event::Node { id, class, title, number, total } => {
                self.progress.message(&format!("{number}/{total} {}", title.unwrap_or(class)));
                if self.json {
                    let rest =
                        json!({ "id": id, "class": class, "title": title, "number": number, "nodes": total });
                    terminal::event("node", rest);
                }
            }
            Event::Work(event) => {
                if let pipeline::Progress::Sampling { step: 0, .. } = event {
                    self.progress.begin(self.sampler);
                    self.sampler += 1;
                }
                self.progress.observe(event);
            }
            Event::Saved(saved) => self.saved(saved),
            _ => (),
        }
    }

    fn saved(&self, saved: &Saved) {
        let kind = match saved.kind {
            SavedKind::Picture => "picture",
            SavedKind::Preview => "preview",
            SavedKind::Latent => "latent",
        };
        let path = saved.path.display().to_string();
        self.progress.say(&path);
        if self.json {
            terminal::event(
                "saved",
                json!({ "kind": kind, "path": path, "node": saved.node, "index": saved.index }),
            );
        }
    }
}
