//! The UNet by itself: its output, the column sums of the attention that SAG reads, and the
//! results of modules on the way, which show where an implementation departs.

use super::case::Case;
use super::compare::{Yardstick, masked};
use super::context::Context;
use super::tensor::Tensor;
use crate::engine::{KeptTensors, PlanRun, WeightSource};
use crate::latent::Latent;
use crate::model::unet::{self, COLUMNS};
use crate::plan::{self, Plan};
use crate::{Error, Result};

/// Inputs of one call, `[row, position, channel]`.
struct Inputs {
    x: Vec<f32>,
    time: Vec<f32>,
    context: Vec<f32>,
    y: Vec<f32>,
    rows: usize,
    size: (usize, usize),
    tokens: usize,
}

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    for case in context.set.root().list("unet") {
        let name = format!("unet.{}", case.name()?);
        context.case(&name, |c| verify_call(c, &case, &name))?;
    }
    Ok(())
}

/// Output, column sums and modules of one call of all rows together.
fn verify_call(context: &mut Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<()> {
    let set = context.set;
    let inputs = inputs(context, case, name)?;
    let [columns, attention] = ["colsum", "attn"].map(|n| set.find(&format!("{name}.{n}")));
    let record = columns.or(attention).is_some();
    let results = call(context, &inputs, record, Vec::new())?;
    let out_name = format!("{name}.out");
    let expected = set.tensor(&out_name)?;
    let by = Yardstick::spread(&expected.numbers(), context.tolerances.unet);
    let found = planes(result(&results, "out")?, inputs.rows, inputs.size);
    context.findings.compare(&out_name, found, expected, by);
    if record {
        let values = result(&results, COLUMNS)?;
        let found = Tensor::f32(&[inputs.rows, values.len() / inputs.rows], values.to_vec());
        let by = Yardstick::absolute(context.tolerances.columns);
        if let Some(expected) = columns {
            context.findings.compare(&format!("{name}.colsum"), found.clone(), expected, by);
        }
        if let Some(attention) = attention {
            // Probabilities never exist here as a whole; their column sums do.
            let sums = column_sums(&attention.numbers(), inputs.rows, values.len() / inputs.rows);
            let comparison = by.compare(&found, &Tensor::f32(&found.shape, sums));
            context.findings.compared(&format!("{name}.attn (column sums)"), comparison);
        }
    }
    verify_trace(context, case, name, &inputs)
}

/// Modules are looked at in a call of their own: a result that is read out is not fused with what
/// follows, and the call above must run as it always does.
fn verify_trace(context: &mut Context<'_, '_>, case: &Case<'_>, name: &str, inputs: &Inputs) -> Result<()> {
    let modules = case.texts("trace");
    let stored = |module: &str| format!("{name}.trace.{module}");
    let modules: Vec<_> = modules.into_iter().filter(|m| context.set.find(&stored(m)).is_some()).collect();
    if modules.is_empty() {
        return Ok(());
    }
    let results = call(context, inputs, false, modules.iter().map(|m| (*m).to_owned()).collect())?;
    for module in modules {
        let name = stored(module);
        let Ok(values) = result(&results, module) else {
            context.findings.unsupported(&name, "this module's result cannot be read out");
            continue;
        };
        let expected = context.set.tensor(&name)?;
        // Traces are of row 0 alone, as maps or as lists of tokens.
        let first = values[..values.len() / inputs.rows].to_vec();
        let found = match *expected.shape.as_slice() {
            [1, _, height, width] => planes(&first, 1, (height, width)),
            _ => Tensor::f32(&[first.len()], first),
        };
        let by = Yardstick::spread(&expected.numbers(), context.tolerances.unet);
        context.findings.compare(&name, found, expected, by);
    }
    Ok(())
}

/// The inputs of a case as the device wants them. `x` is scaled for the network already.
fn inputs(context: &Context<'_, '_>, case: &Case<'_>, name: &str) -> Result<Inputs> {
    let (set, config) = (context.set, &context.model.config().unet);
    let tensor = |what: &str| format!("{name}.{what}");
    let x = set.latent(&tensor("x"))?;
    let rows = x.batch();
    let timesteps = set.numbers(&tensor("timestep"))?;
    if x.shape()[1] != config.in_channels || timesteps.len() != rows {
        let expected = format!("[batch, {}, height, width] and as many timesteps", config.in_channels);
        return Err(set.misshapen(&tensor("x"), expected));
    }
    let (values, tokens) = conditioning(context, case, name, rows)?;
    Ok(Inputs {
        time: timesteps.iter().flat_map(|t| unet::time_embedding(*t, config.model_channels)).collect(),
        context: values,
        y: set.find(&tensor("y")).map(Tensor::numbers).unwrap_or_default(),
        rows,
        size: (x.height(), x.width()),
        tokens,
        x: positions(&x),
    })
}

/// The conditioning of all rows and its number of tokens: a tensor of the case's own, or those
/// that it names.
fn conditioning(
    context: &Context<'_, '_>,
    case: &Case<'_>,
    name: &str,
    rows: usize,
) -> Result<(Vec<f32>, usize)> {
    let own = format!("{name}.context");
    let names = if context.set.find(&own).is_some() { vec![own.as_str()] } else { case.texts("context") };
    let mut values = Vec::new();
    for name in &names {
        values.extend(context.set.numbers(name)?);
    }
    let width = context.model.config().unet.context_dim;
    let tokens = values.len() / rows / width;
    if tokens == 0 || values.len() != rows * tokens * width {
        let expected = format!("{rows} rows of tokens of {width} values");
        return Err(context.set.misshapen(names.first().copied().unwrap_or(&own), expected));
    }
    Ok((values, tokens))
}

/// Results by name, `[row, position, channel]`.
type Results = Vec<(String, Vec<f32>)>;

/// Runs the network, with modules in `trace` read out as well.
fn call(context: &Context<'_, '_>, inputs: &Inputs, record: bool, trace: Vec<String>) -> Result<Results> {
    let (model, engine) = (context.model, context.model.engine());
    let options =
        unet::Options { size: inputs.size, tokens: inputs.tokens, record, trace, ..Default::default() };
    let graph = unet::build(&model.config().unet, &options)?;
    let device = engine.gpu().profile().clone();
    let weights = model.unet_weights(context.cancel)?;
    let storage = weights.storage().clone();
    let plan = Plan::new(&graph, &plan::PlanOptions { rows: inputs.rows, storage, device, guard: 0 })?;
    let arena = engine.arena(&plan)?;
    let prepared = engine.prepare(plan, &weights, &arena)?;
    let unet = model.unet(&weights);
    let plan = unet.planner.conditioning(inputs.tokens)?;
    let arena = engine.arena(&plan)?;
    let reader = engine.prepare(plan, &weights, &arena)?;
    let from = (unet.weights, &unet.source as &dyn WeightSource);
    let read = |row: usize| {
        let of_row = |values: &'_ [f32]| {
            let each = values.len() / inputs.rows;
            values[row * each..][..each].to_vec()
        };
        let (prompt, vector) = (of_row(&inputs.context), of_row(&inputs.y));
        let values = [("context", prompt.as_slice()), (unet::VECTOR, &vector)];
        engine
            .run_and_keep(&reader, &PlanRun { streamed: Some(from), ..PlanRun::new(&values, context.cancel) })
    };
    let kept: Vec<KeptTensors> = (0..inputs.rows).map(read).collect::<Result<_>>()?;
    let values = [("x", &inputs.x[..]), ("time", &inputs.time)];
    let kept: Vec<&KeptTensors> = kept.iter().collect();
    engine
        .run(&prepared, &PlanRun { streamed: Some(from), ..PlanRun::new(&values, context.cancel).on(&kept) })
}

fn result<'r>(results: &'r Results, name: &str) -> Result<&'r [f32]> {
    let found = results.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
    found.ok_or_else(|| Error::internal(format!("the UNet gave no {name}")))
}

/// `[row, channel, position]` to `[row, position, channel]`.
pub(super) fn positions(x: &Latent) -> Vec<f32> {
    let [batch, channels, height, width] = x.shape();
    let n = height * width;
    let of_image =
        |i: usize| (0..n).flat_map(move |at| (0..channels).map(move |c| (i * channels + c) * n + at));
    (0..batch).flat_map(of_image).map(|at| x.data()[at]).collect()
}

/// `[row, position, channel]` to `[row, channel, height, width]`.
pub(super) fn planes(values: &[f32], rows: usize, (height, width): (usize, usize)) -> Tensor {
    let n = height * width;
    let channels = values.len() / (rows * n).max(1);
    let of_row =
        |r: usize| (0..channels).flat_map(move |c| (0..n).map(move |at| (r * n + at) * channels + c));
    let values = (0..rows).flat_map(of_row).map(|at| values[at]).collect();
    Tensor::f32(&[rows, channels, height, width], values)
}

/// Column sums of probabilities `[rows · heads, keys, keys]`: the mean over heads, summed over
/// queries.
pub(super) fn column_sums(probabilities: &[f32], rows: usize, keys: usize) -> Vec<f32> {
    let heads = probabilities.len() / (rows * keys * keys).max(1);
    let sum = |row: usize, key: usize| {
        let lines = row * heads * keys..(row + 1) * heads * keys;
        let total: f64 = lines.map(|line| f64::from(probabilities[line * keys + key])).sum();
        (total / heads as f64) as f32
    };
    (0..rows).flat_map(|row| (0..keys).map(move |key| (row, key))).map(|(row, key)| sum(row, key)).collect()
}

/// Holds a mask against the set's, bit by bit where `columns`, if given, are further than the
/// margin from the threshold.
pub(super) fn compare_mask(
    context: &mut Context<'_, '_>,
    name: &str,
    found: Tensor,
    expected: &Tensor,
    columns: Option<&[f32]>,
) {
    let margin = context.tolerances.mask_margin;
    let columns = columns.filter(|c| c.len() == expected.len() && found.len() == expected.len());
    match columns {
        Some(columns) if margin > 0.0 => {
            let counted: Vec<bool> = columns.iter().map(|c| f64::from((c - 1.0).abs()) > margin).collect();
            let comparison =
                Yardstick::equal().compare(&masked(&found, &counted), &masked(expected, &counted));
            context.findings.compared(name, comparison);
            context.findings.keep(name, Tensor { shape: expected.shape.clone(), ..found });
        }
        _ => context.findings.compare(name, found, expected, Yardstick::equal()),
    }
}
