//! What a batching program can get wrong with SAG, as recorded of ComfyUI: several entries,
//! prompts of unequal length, entries that count in some place or time only, odd sizes.
//!
//! Where ComfyUI works, the samples must be the same. Where it fails, silently or with an error,
//! this implementation must do something sensible instead: other samples, finite ones, or an
//! error that says what is wrong.

use super::case::Case;
use super::compare::{Comparison, Yardstick, spread};
use super::context::Context;
use super::tensor::Tensor;
use crate::guidance::{Area, Conditioning, Entry, Guidance, Sag};
use crate::latent::{Latent, VaeLatent};
use crate::pipeline::{Limits, Sampling, Schedule};
use crate::plan::chunk::ChunkPolicy;
use crate::sampler::Scheduler;
use crate::sampler::noise::noise;
use crate::{ErrorKind, Result};

/// The sets do not write down what all these runs share: CFG 7, euler on the karras schedule, and
/// this seed. A case may give another.
const SEED: u64 = 90;
const CFG: f32 = 7.0;

/// What must come of a run.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    /// ComfyUI's samples.
    Same,
    /// Finite samples, not ComfyUI's.
    Other,
    /// Finite samples where ComfyUI has none.
    Finite,
    /// A usage error.
    Refused,
}

/// A run by its name in the sets.
struct Scenario {
    name: &'static str,
    /// Batch, height, width.
    size: [usize; 3],
    steps: usize,
    positive: &'static [&'static str],
    negative: &'static [&'static str],
    /// Scale and blur of SAG.
    sag: (f32, f32),
    chunk: ChunkPolicy,
    /// What is special about the last negative entry.
    limit: fn(&mut Entry),
    expect: Expect,
}

/// One picture of 16×20 cells in three steps, one prompt on each side, that comes out right.
const USUAL: Scenario = Scenario {
    name: "normal",
    size: [1, 16, 20],
    steps: 3,
    positive: &["pos"],
    negative: &["neg"],
    sag: (0.75, 2.0),
    chunk: ChunkPolicy::Auto,
    limit: |_| (),
    expect: Expect::Same,
};
/// Two negatives at once: ComfyUI goes by the attention of one of them.
const TWO: Scenario = Scenario { negative: &["neg", "neg2"], expect: Expect::Other, ..USUAL };
const TWO_PLAIN: Scenario = Scenario { sag: (0.0, 2.0), expect: Expect::Same, ..TWO };
/// An unusual size or setting.
const ODD: Scenario = Scenario { steps: 2, sag: (0.5, 2.0), ..USUAL };
const SWAPPED: &[&str] = &["neg2", "neg"];
const ONE_ROW: ChunkPolicy = ChunkPolicy::Rows(1);

const SCENARIOS: [Scenario; 22] = [
    USUAL,
    Scenario { name: "split_calls", chunk: ONE_ROW, ..USUAL },
    Scenario { name: "batch2_split_calls", size: [2, 16, 20], chunk: ChunkPolicy::Rows(2), ..USUAL },
    Scenario { name: "two_negatives", ..TWO },
    Scenario { name: "two_negatives_split", chunk: ONE_ROW, ..TWO },
    Scenario { name: "two_negatives_swapped", negative: SWAPPED, ..TWO },
    Scenario { name: "two_negatives_plain", ..TWO_PLAIN },
    Scenario { name: "two_negatives_plain_swapped", negative: SWAPPED, ..TWO_PLAIN },
    Scenario { name: "two_negatives_plain_split", chunk: ONE_ROW, ..TWO_PLAIN },
    Scenario { name: "two_negatives_batch2", size: [2, 16, 20], ..TWO },
    Scenario { name: "two_positives", positive: &["pos", "neg2"], ..USUAL },
    Scenario { name: "unequal_lengths", positive: &["long_pos"], ..USUAL },
    Scenario { name: "unequal_lengths_3", positive: &["long77"], negative: &["long_pos"], ..USUAL },
    Scenario {
        name: "negative_area",
        limit: |e| e.area = Some(Area { y: 0, x: 0, height: 16, width: 12 }),
        ..TWO
    },
    Scenario { name: "negative_timestep_range", limit: |e| e.start = 0.5, expect: Expect::Refused, ..USUAL },
    Scenario {
        name: "negative_timestep_range_early",
        limit: |e| e.end = 0.4,
        expect: Expect::Refused,
        ..USUAL
    },
    Scenario { name: "no_negative", negative: &[], expect: Expect::Refused, ..USUAL },
    Scenario { name: "sigma0", sag: (0.5, 0.0), expect: Expect::Finite, ..ODD },
    Scenario { name: "side4", size: [1, 4, 24], ..ODD },
    Scenario { name: "side5", size: [1, 5, 24], ..ODD },
    Scenario { name: "shape_guess_crash", size: [1, 25, 5], expect: Expect::Finite, ..ODD },
    Scenario { name: "shape_guess_wrong", size: [1, 23, 13], expect: Expect::Other, ..ODD },
];

pub(super) fn verify(context: &mut Context<'_, '_>, case: &Case<'_>) -> Result<()> {
    let name = case.name()?;
    let tensor = format!("comfyui.{name}.samples");
    let Some(scenario) = SCENARIOS.iter().find(|s| s.name == name) else {
        context.findings.unsupported(&tensor, "a case of an unknown name");
        return Ok(());
    };
    context.case(&tensor, |c| judge(c, case, scenario, &tensor))
}

fn judge(context: &mut Context<'_, '_>, case: &Case<'_>, scenario: &Scenario, tensor: &str) -> Result<()> {
    let found = match (scenario.expect, run(context, case, scenario)) {
        (Expect::Refused, Err(e)) if e.kind() == ErrorKind::Usage => {
            context.findings.compared(&format!("{tensor} (refused)"), Comparison::of_faults(0));
            return Ok(());
        }
        (Expect::Refused, Ok(_)) => {
            context.findings.failed(&format!("{tensor} (refused)"), "it ran");
            return Ok(());
        }
        (_, found) => found?,
    };
    let expected = context.set.find(tensor).cloned();
    let found = Tensor::from(&found);
    match (scenario.expect, expected) {
        (Expect::Same, Some(expected)) => compare(context, case, tensor, found, &expected),
        // In f16 a failure may lie within the limit of what is right.
        (Expect::Other, Some(expected)) if !context.tolerances.masks_may_flip() => {
            let close = yardstick(context, &expected).compare(&found, &expected);
            let same = found.len() != expected.len() || close.holds() || close.difference.is_infinite();
            context.findings.compared(&format!("{tensor} (another)"), Comparison::of_faults(same.into()));
            context.findings.keep(tensor, found);
        }
        _ => {
            let faults = found.numbers().iter().filter(|v| !v.is_finite()).count();
            context.findings.compared(&format!("{tensor} (finite)"), Comparison::of_faults(faults));
        }
    }
    Ok(())
}

fn yardstick(context: &Context<'_, '_>, expected: &Tensor) -> Yardstick {
    let s = spread(&expected.numbers());
    // f16 has no pointwise limit here; its own error is far below a whole spread.
    Yardstick::spread_of(s, context.tolerances.run(CFG.into(), s, 0.0).unwrap_or(1.0))
}

fn compare(context: &mut Context<'_, '_>, case: &Case<'_>, name: &str, found: Tensor, expected: &Tensor) {
    let by = yardstick(context, expected);
    let assumed = case.get("seed").is_none();
    if assumed && found.len() == expected.len() && !by.compare(&found, expected).holds() {
        context.findings.keep(name, found);
        let why = "the set does not give the seed, and the usual one does not lead to its samples";
        return context.findings.unsupported(name, why);
    }
    context.findings.compare(name, found, expected, by);
}

fn run(context: &Context<'_, '_>, case: &Case<'_>, scenario: &Scenario) -> Result<Latent> {
    let side = |names: &[&str]| {
        let [_, height, width] = scenario.size;
        names.iter().map(|n| context.entry(n, (height, width))).collect::<Result<Vec<_>>>()
    };
    let mut negative = side(scenario.negative)?;
    if let Some(last) = negative.last_mut() {
        (scenario.limit)(last);
    }
    let conditioning = Conditioning { positive: side(scenario.positive)?, negative };
    let ([batch, height, width], (scale, blur_sigma)) = (scenario.size, scenario.sag);
    let seed = case.integer("seed").unwrap_or(SEED);
    let noise = noise(seed, [batch, context.model.config().unet.out_channels, height, width]);
    let run = Sampling {
        guidance: Guidance::new(CFG).with(Sag { scale, blur_sigma, ..Sag::default() }),
        seed,
        levels: Schedule::new(Scheduler::Karras, scenario.steps).into(),
        limits: Limits { chunk: scenario.chunk, memory: None },
        ..Sampling::new(noise)
    };
    context.model.sample(&conditioning, &run, &mut |_| {}, context.cancel).map(VaeLatent::into_inner)
}
