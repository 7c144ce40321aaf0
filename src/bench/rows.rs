//! The measurements that are compared between programs: a network call, a step, a complete generation.

use std::time::{Duration, Instant};

use super::presets::Preset;
use super::ready::{Ready, upload};
use super::{Bench, Timing};
use crate::Size;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, Weights};
use crate::families::LATENT_CELL;
use crate::graph::Graph;
use crate::guidance::{Guidance, Sag};
use crate::model::config::UnetConfig;
use crate::model::{unet, vae};
use crate::pipeline::{Model, ModelOptions, Progress, Request};
use crate::text::{CHUNK, clip};
use crate::{Error, ErrorKind, Result};

/// A measured row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was measured. GPU times end in ` GPU`, sampling alone in ` per step`.
    pub name: String,
    /// How long it took.
    pub timing: Timing,
    /// The most bytes of buffers on the device meanwhile, as wgpu counts them: including weights, without their upload.
    pub peak_bytes: u64,
}

/// The outcome of a row.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It was measured.
    Measured(Row),
    /// It was skipped, which is not an error.
    Skipped {
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// It failed.
    Failed {
        /// Its name.
        name: String,
        /// Why.
        error: Error,
    },
}

/// Which rows to measure.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Parts of names; all rows if empty.
    pub only: Vec<String>,
    /// Rows that would begin after it are skipped.
    pub deadline: Option<Instant>,
}

/// Why rows with GPU times may be skipped.
pub const NO_CLOCK: &str = "this device has no timestamps";

/// Why rows at the end may be skipped.
pub const TOO_LATE: &str = "deadline";

/// Measurements that share weights on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// A complete SD 1.5.
    Sd15,
    Vae,
    Clip,
    /// SDXL's UNet.
    Sdxl,
    /// The small model that is part of the program.
    Embedded,
}

/// One measurement, which gives one or two rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// A network call with this number of rows: its wall time and its GPU time.
    Call(usize),
    /// A step within a sampling: its wall time, and its GPU time.
    Step { sag: bool },
    /// Complete generations of a batch of pictures: wall time of all, and of a sampling step.
    Pictures { sag: bool, batch: usize },
}

struct Item {
    group: Group,
    what: What,
    /// The names of its rows.
    names: Vec<String>,
}

/// The sizes that small and large networks are measured at.
struct Scale {
    prefix: &'static str,
    sd: Preset,
    xl: Preset,
    /// Steps of a generation.
    steps: usize,
}

impl Scale {
    fn of(tiny: bool) -> Self {
        match tiny {
            false => Self { prefix: "", sd: Preset::Sd15, xl: Preset::Sdxl, steps: 20 },
            true => Self { prefix: "tiny ", sd: Preset::TinySd1, xl: Preset::TinySdxl, steps: 2 },
        }
    }

    /// All measurements, grouped.
    fn items(&self) -> Vec<Item> {
        let Scale { prefix, sd, xl, steps } = *self;
        let (side, large) = (LATENT_CELL * sd.side(), xl.side());
        let mut items = Vec::new();
        let mut call = |group, rows, name: String| {
            let names = vec![format!("{prefix}{name}"), format!("{prefix}{name} GPU")];
            items.push(Item { group, what: What::Call(rows), names });
        };
        for rows in [1, 2, 8, 16] {
            call(Group::Sd15, rows, format!("SD1.5 UNet b{rows}"));
        }
        call(Group::Vae, 1, format!("VAE decode {side}"));
        call(Group::Clip, 2, "CLIP b2".into());
        call(Group::Sdxl, 2, format!("SDXL UNet {large}x{large} b2"));
        let step = |group, of: &str, sag| {
            let name = format!("{prefix}{of}{} step", if sag { "SAG" } else { "CFG" });
            Item { group, what: What::Step { sag }, names: vec![name.clone(), format!("{name} GPU")] }
        };
        let pictures = |(sag, batch)| {
            let guidance = if sag { "CFG+SAG" } else { "CFG" };
            let name = format!("{prefix}SD1.5 {steps} steps {side}x{side} euler cfg 7.5 {guidance} b{batch}");
            let names = vec![name.clone(), format!("{name} per step")];
            Item { group: Group::Sd15, what: What::Pictures { sag, batch }, names }
        };
        // The generations of a model come last: they upload its other parts, which would count as memory of the rows of
        // the UNet.
        items.extend([false, true].map(|sag| step(Group::Sd15, "", sag)));
        if crate::embedded::is_there() {
            items.extend([false, true].map(|sag| step(Group::Embedded, "embedded model ", sag)));
        }
        let batches = [1, 4, 16].into_iter();
        items.extend(batches.flat_map(|batch| [(false, batch), (true, batch)]).map(pictures));
        items
    }
}

/// Steps of a sampling whose steps are timed, and those of them that come before.
const STEPS: usize = 24;
const WARM_UP: usize = 4;

/// The names of all rows, those of small networks if `tiny` is set.
pub fn names(tiny: bool) -> Vec<String> {
    Scale::of(tiny).items().into_iter().flat_map(|i| i.names).collect()
}

/// Measures the rows of `choice`, and reports each when it is done.
///
/// # Errors
/// [`ErrorKind::Usage`] if no row has such a name, [`ErrorKind::Cancelled`]. An error of a
/// single row is reported as its [`Outcome`].
pub fn measure(bench: &Bench<'_>, choice: &Choice, tell: &mut dyn FnMut(Outcome)) -> Result<()> {
    let wanted = |name: &String| choice.only.is_empty() || choice.only.iter().any(|o| name.contains(o));
    let scale = Scale::of(bench.tiny);
    let mut items = scale.items();
    for item in &mut items {
        item.names.retain(wanted);
    }
    items.retain(|i| !i.names.is_empty());
    if items.is_empty() {
        return Err(Error::usage("no row has such a name")
            .expected(format!("a part of one of: {}", names(bench.tiny).join(", ")))
            .found(choice.only.join(", ")));
    }
    let mut session = Session { bench, scale, deadline: choice.deadline, tell };
    for group in [Group::Sd15, Group::Vae, Group::Clip, Group::Sdxl, Group::Embedded] {
        let items: Vec<&Item> = items.iter().filter(|i| i.group == group).collect();
        if !items.is_empty() {
            session.group(group, &items)?;
        }
    }
    Ok(())
}

struct Session<'a> {
    bench: &'a Bench<'a>,
    scale: Scale,
    deadline: Option<Instant>,
    tell: &'a mut dyn FnMut(Outcome),
}

impl Session<'_> {
    /// The items of one group, whose weights are uploaded once.
    fn group(&mut self, group: Group, items: &[&Item]) -> Result<()> {
        if self.late() {
            items.iter().for_each(|i| self.skip(i, TOO_LATE));
            return Ok(());
        }
        let done = match group {
            Group::Sd15 => self.model(items, self.scale.sd.checkpoint()?, self.scale.sd.side()),
            Group::Embedded => self.model(items, crate::embedded::checkpoint()?, 32),
            Group::Vae => self.vae(items),
            Group::Clip => self.clip(items),
            Group::Sdxl => self.sdxl(items),
        };
        // Nothing of the group could be measured: its weights could not be uploaded.
        done.or_else(|error| self.fail(items, error))
    }

    fn model(&mut self, items: &[&Item], checkpoint: Checkpoint, side: usize) -> Result<()> {
        let options = ModelOptions { precision: self.bench.precision, ..Default::default() };
        self.bench.settle();
        let model = Model::new(self.bench.gpu.clone(), checkpoint, options)?;
        let unets = Unets { config: &model.config().unet, side };
        for item in items {
            let measure = |session: &Self| match item.what {
                What::Call(rows) => {
                    let weights = model.unet_weights(session.bench.cancel)?;
                    session.call(item, model.engine(), &weights, &unets.graph(false)?, rows)
                }
                What::Step { sag } => session.step(item, &model, side, sag),
                What::Pictures { sag, batch } => session.pictures(item, &model, side, (sag, batch)),
            };
            self.item(item, model.engine(), measure)?;
        }
        Ok(())
    }

    fn vae(&mut self, items: &[&Item]) -> Result<()> {
        let side = self.scale.sd.side();
        let graph = vae::decoder(&self.scale.sd.config().vae, side, side)?;
        self.network(items, self.scale.sd, &graph)
    }

    fn clip(&mut self, items: &[&Item]) -> Result<()> {
        let config = self.scale.sd.config();
        let text = config.text.first().ok_or_else(|| Error::internal("a model without a text encoder"))?;
        let graph = clip::build(text, &clip::Options { skip: 1, norm: true, pooled: false })?;
        self.network(items, self.scale.sd, &graph)
    }

    fn sdxl(&mut self, items: &[&Item]) -> Result<()> {
        let config = self.scale.xl.config();
        let graph = Unets { config: &config.unet, side: self.scale.xl.side() }.graph(false)?;
        self.network(items, self.scale.xl, &graph)
    }

    /// A single network.
    fn network(&mut self, items: &[&Item], preset: Preset, graph: &Graph) -> Result<()> {
        let engine = self.bench.engine()?;
        let weights = upload(self.bench, &engine, graph, &preset.checkpoint()?)?;
        for item in items {
            let What::Call(rows) = item.what else { continue };
            self.item(item, &engine, |session| session.call(item, &engine, &weights, graph, rows))?;
        }
        Ok(())
    }

    /// Measures an item, unless the deadline has passed, and reports its rows.
    fn item(
        &mut self,
        item: &Item,
        engine: &Engine,
        measure: impl FnOnce(&Self) -> Result<Vec<(usize, Timing)>>,
    ) -> Result<()> {
        if self.late() {
            self.skip(item, TOO_LATE);
            return Ok(());
        }
        self.bench.go_on()?;
        match measure(self) {
            Ok(timings) => {
                let peak_bytes = engine.peak_bytes();
                for (at, name) in item.names.iter().enumerate() {
                    let name = name.clone();
                    (self.tell)(match timings.iter().find(|(i, _)| *i == at) {
                        Some((_, timing)) => Outcome::Measured(Row { name, timing: *timing, peak_bytes }),
                        None => Outcome::Skipped { name, why: NO_CLOCK },
                    });
                }
                Ok(())
            }
            Err(error) => self.fail(&[item], error),
        }
    }

    /// The rows of a call, by the index of their name.
    fn call(
        &self,
        item: &Item,
        engine: &Engine,
        weights: &Weights,
        graph: &Graph,
        rows: usize,
    ) -> Result<Vec<(usize, Timing)>> {
        let ready = Ready::new(self.bench, engine, graph, rows, weights)?;
        engine.forget_peak();
        let mut timings = Vec::new();
        for (at, name) in item.names.iter().enumerate() {
            match name.ends_with(" GPU") {
                false => timings.push((at, ready.wall()?)),
                true if engine.counts_time() => timings.push((at, ready.gpu()?)),
                true => {}
            }
        }
        Ok(timings)
    }

    /// A step of one picture within a sampling, while the next step is already submitted: its wall time, and its GPU
    /// time.
    fn step(&self, item: &Item, model: &Model, side: usize, sag: bool) -> Result<Vec<(usize, Timing)>> {
        let engine = model.engine();
        let request = self.request(side, sag, 1).with_steps(STEPS);
        let walls = || -> Result<Duration> {
            let mut steps = Vec::new();
            let mut observe = |event: Progress| {
                if let Progress::Sampling { .. } = event {
                    steps.push(Instant::now());
                }
            };
            model.generate_with(&request, &mut observe, self.bench.cancel)?;
            let steady = steps.get(WARM_UP..).unwrap_or(&[]);
            let (Some(first), Some(last)) = (steady.first(), steady.last()) else {
                return Ok(Duration::ZERO);
            };
            Ok((*last - *first) / (steady.len() - 1).max(1) as u32)
        };
        let effort = self.bench.effort;
        effort.warm(|| walls().map(drop))?;
        engine.forget_peak();
        let wall = Timing::of(&effort.sample(effort.runs, walls)?);
        let mut timings = vec![(0, wall)];
        if engine.counts_time() {
            engine.times();
            engine.watch_time(true)?;
            let timed = effort.sample(effort.runs, walls);
            engine.watch_time(false)?;
            timed?;
            let mut busy = Vec::new();
            for stream in engine.times() {
                // The stream of the sampling has an evaluation for each step. A slow device may have more passes than
                // there is room for timestamps: its last step is then cut.
                let sendings = stream.last().map_or(0, |passed| passed.sending + 1);
                let steps = if sendings < STEPS { sendings.saturating_sub(1) } else { STEPS };
                busy.extend((WARM_UP..steps).map(|step| {
                    let passes = stream.iter().filter(|passed| passed.sending == step);
                    passes.map(|passed| passed.end - passed.begin).sum::<Duration>()
                }));
            }
            timings.push((1, Timing::of(&busy)));
        }
        let asked = |name: &String| usize::from(name.ends_with(" GPU"));
        let of_name =
            |at: usize| timings.iter().find(|(i, _)| *i == asked(&item.names[at])).map(|(_, t)| (at, *t));
        Ok((0..item.names.len()).filter_map(of_name).collect())
    }

    fn request(&self, side: usize, sag: bool, batch: usize) -> Request {
        let side = LATENT_CELL * side;
        Request {
            negative: vec!["blurry".into()],
            batch,
            guidance: Guidance::new(7.5).with(if sag { Sag::default() } else { Sag::off() }),
            ..Request::new("a photo of a cat on a table", Size::square(side)).with_steps(self.scale.steps)
        }
    }

    /// Complete generations, and their sampling per step.
    fn pictures(
        &self,
        item: &Item,
        model: &Model,
        side: usize,
        (sag, batch): (bool, usize),
    ) -> Result<Vec<(usize, Timing)>> {
        let request = self.request(side, sag, batch);
        let once = || generation(model, &request, self.bench);
        let effort = self.bench.effort;
        effort.warm(|| once().map(drop))?;
        model.engine().forget_peak();
        let (total, sampling): (Vec<_>, Vec<_>) = effort.sample(effort.runs, once)?.into_iter().unzip();
        let per_step = Timing::of(&sampling).scaled(1.0 / self.scale.steps as f64);
        let of_name = |name: &String| if name.ends_with(" per step") { per_step } else { Timing::of(&total) };
        Ok(item.names.iter().map(of_name).enumerate().collect())
    }

    fn late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    fn skip(&mut self, item: &Item, why: &'static str) {
        for name in item.names.clone() {
            (self.tell)(Outcome::Skipped { name, why });
        }
    }

    /// Reports that `items` failed; cancelling is not a failure.
    fn fail(&mut self, items: &[&Item], error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Cancelled {
            return Err(error);
        }
        let names = items.iter().flat_map(|i| &i.names);
        let mut error = Some(error);
        for name in names {
            // The first has the error; the others failed for the same reason.
            let error = error.take().unwrap_or_else(|| Error::new(ErrorKind::Device, "as before"));
            (self.tell)(Outcome::Failed { name: name.clone(), error });
        }
        Ok(())
    }
}

/// UNet graphs at one size.
pub(super) struct Unets<'a> {
    pub config: &'a UnetConfig,
    /// Latent cells.
    pub side: usize,
}

impl Unets<'_> {
    /// For a prompt of one chunk; with column sums if `record` is set.
    pub fn graph(&self, record: bool) -> Result<Graph> {
        let size = (self.side, self.side);
        unet::build(self.config, &unet::Options { size, tokens: CHUNK, record, ..Default::default() })
    }
}

/// One generation: its wall time, and the time from the start of the first step to the end of the last.
fn generation(model: &Model, request: &Request, bench: &Bench<'_>) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let mut steps = Vec::new();
    let mut observe = |event: Progress| {
        if let Progress::Sampling { .. } = event {
            steps.push(Instant::now());
        }
    };
    model.generate_with(request, &mut observe, bench.cancel)?;
    let total = begun.elapsed();
    let sampling = match steps.as_slice() {
        [first, .., last] => *last - *first,
        _ => total,
    };
    Ok((total, sampling))
}
