//! `--dry-run`: memory and work of a run, as the planner computes them. The device is opened, because its features
//! decide which kernels run, but nothing is loaded and nothing runs.

use sagittal::internals::model::ModelConfig;
use sagittal::pipeline::report::{Call, Purpose, Report, Work};
use sagittal::pipeline::{Model, Request};
use serde_json::{Value, json};

use crate::support::terminal::{self, size, to_mib};

/// Prints `report` on stdout.
pub fn print(model: &Model, request: &Request, report: &Report, json: bool) {
    if json {
        terminal::event("plan", as_json(model, request, report));
    } else {
        as_text(model, request, report).iter().for_each(terminal::result);
    }
}

/// A table: one fact per line; with -v the kernels last because they are many.
fn as_text(model: &Model, request: &Request, report: &Report) -> Vec<String> {
    let info = model.engine().gpu().device().adapter_info();
    let ModelConfig { family, prediction, .. } = model.config();
    let (schedule, sampler, steps) = (request.schedule, request.solver.sampler, steps(request));
    let calls: Vec<String> =
        report.calls.iter().map(|c| format!("{} {}", c.rows, named(c.purpose))).collect();
    let weights: Vec<String> =
        report.weight_bytes.iter().map(|(part, bytes)| format!("{part} {}", size(*bytes))).collect();
    let mut lines = vec![
        format!("model           {}, {family}, {prediction}", model.checkpoint().file().display()),
        format!("device          {} ({:?}), {}", info.name, info.backend, model.precision().name()),
        format!("pictures        {} of {}x{}", request.batch, request.size.width, request.size.height),
        format!("sampling        {}, {}, {}", terminal::count(steps, "step"), sampler, schedule.scheduler),
        format!(
            "rows per step   {} in {}: {}",
            report.rows_per_step(),
            terminal::count(calls.len(), "call"),
            joined(&calls)
        ),
        format!("rows per chunk  {}", report.rows_per_call()),
        format!(
            "activations     {} (VAE {})",
            size(report.arena_bytes),
            size(report.decoder_arena_bytes.max(report.encoder_arena_bytes))
        ),
        format!("weights         {} ({})", size(report.all_weight_bytes()), weights.join(", ")),
        format!("device memory   {} at most", size(report.peak_bytes)),
        format!(
            "dispatches      {} per step, {:.1} GFLOP; latents take {}",
            report.dispatches_per_step(),
            report.flops_per_step() as f64 / 1e9,
            size(report.latent_bytes),
        ),
    ];
    if report.weights_in_turn {
        lines.push("the UNet's weights do not fit and are streamed at every call".to_owned());
    }
    let tiles = report.decoder_tiles.max(report.encoder_tiles);
    if tiles > 1 {
        lines.push(format!("the VAE works in {tiles} tiles"));
    }
    lines.extend(report.unused.iter().map(|what| format!("unused          {what}")));
    if !terminal::verbose() {
        let kernels = report.variants.len();
        lines.push(format!(
            "kernels         {kernels} different; -v lists them, and the dispatches of a step in order"
        ));
        return lines;
    }
    lines.push("a step, in order: dispatches, and the bytes they are bound to".to_owned());
    lines.extend(report.step.iter().map(|work| match work {
        Work::Network(Call { purpose, rows, dispatches, bytes, .. }) => {
            format!("  {dispatches:>5}  network, {rows} rows for {purpose}, {}", size(*bytes))
        }
        Work::Latents { path, bytes } => format!("      1  {path}, {:.1} KiB", *bytes as f64 / 1024.0),
    }));
    lines.push("kernel variants, and the dispatches of each in a step".to_owned());
    lines.extend(report.variants.iter().map(|(variant, count)| format!("  {count:>5}  {variant}")));
    lines
}

/// What rows are for.
fn named(purpose: Purpose) -> String {
    purpose.to_string().replace("sag", "SAG")
}

/// The first of a long list.
fn joined(calls: &[String]) -> String {
    const MOST: usize = 6;
    let shown = calls.get(..MOST).filter(|_| calls.len() > MOST + 1).unwrap_or(calls);
    let more = calls.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{}, and {more} more", shown.join(", ")) }
}

/// The steps that run: none if nothing is redrawn.
fn steps(request: &Request) -> usize {
    if request.schedule.denoise == 0.0 { 0 } else { request.schedule.steps }
}

/// The same facts as JSON. Sizes are in MiB, not rounded.
fn as_json(model: &Model, request: &Request, report: &Report) -> Value {
    let info = model.engine().gpu().device().adapter_info();
    let call = |c: &Call| {
        let purpose = c.purpose.to_string();
        json!({
            "rows": c.rows, "purpose": purpose, "dispatches": c.dispatches, "flops": c.flops, "bytes": c.bytes,
        })
    };
    let work = |work: &Work| match work {
        Work::Network(c) => call(c),
        Work::Latents { path, bytes } => json!({ "kernel": path, "dispatches": 1, "bytes": bytes }),
    };
    let weights: serde_json::Map<String, Value> =
        report.weight_bytes.iter().map(|(part, bytes)| ((*part).to_owned(), json!(to_mib(*bytes)))).collect();
    json!({
        "model": model.checkpoint().file().display().to_string(),
        "family": model.config().family.to_string(),
        "device": info.name,
        "precision": model.precision().name(),
        "width": request.size.width,
        "height": request.size.height,
        "batch_size": request.batch,
        "steps": steps(request),
        "rows_per_step": report.rows_per_step(),
        "rows_per_chunk": report.rows_per_call(),
        "calls": report.calls.iter().map(call).collect::<Vec<_>>(),
        "step": report.step.iter().map(work).collect::<Vec<_>>(),
        "latents_mib": to_mib(report.latent_bytes),
        "arena_mib": to_mib(report.arena_bytes),
        "decoder_arena_mib": to_mib(report.decoder_arena_bytes),
        "encoder_arena_mib": to_mib(report.encoder_arena_bytes),
        "weights_mib": to_mib(report.all_weight_bytes()),
        "weights": weights,
        "peak_mib": to_mib(report.peak_bytes),
        "weights_in_turn": report.weights_in_turn,
        "decoder_tiles": report.decoder_tiles,
        "dispatches_per_step": report.dispatches_per_step(),
        "flops_per_step": report.flops_per_step(),
        "variants": report.variants,
        "unused": report.unused,
    })
}
