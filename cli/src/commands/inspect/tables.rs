//! What `sagittal inspect` prints: one fact per line, or one JSON object.

use sagittal::Result;
use sagittal::inspect::{
    EmbeddingFacts, Inspected, LatentFacts, LoraFacts, ModelFacts, PictureFacts, Spread, Tally, WorkflowFacts,
};
use sagittal::internals::families::LATENT_CELL;
use sagittal::internals::model::config::TextConfig;
use sagittal::pipeline::report::Report;
use serde_json::{Map, Value, json};

use crate::commands::inspect::Memory;
use crate::support::remedy;
use crate::support::terminal;
use crate::support::terminal::{size, to_mib};

/// Longer texts are cut in plain output; JSON has all of them.
const LONGEST: usize = 200;

/// The facts as plain text.
pub fn as_text(inspected: &Inspected, memory: Option<&Memory>) -> Vec<String> {
    match inspected {
        Inspected::Model(facts) => model_text(facts, memory),
        Inspected::Lora(facts) => lora_text(facts),
        Inspected::Embedding(facts) => embedding_text(facts),
        Inspected::Picture(facts) => picture_text(facts),
        Inspected::Latent(facts) => latent_text(facts),
        _ => vec!["a kind of file that this program does not show".into()],
    }
}

fn line(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<16}{value}")
}

/// A text from a file on one line, cut: such texts may contain anything.
fn short(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{plain}…") } else { plain }
}

fn tally(tally: &Tally) -> String {
    let stored: Vec<String> = match tally.dtypes.len() {
        1 => tally.dtypes.keys().cloned().collect(),
        _ => {
            let share = |n: &u64| 100.0 * *n as f64 / tally.parameters.max(1) as f64;
            tally.dtypes.iter().map(|(name, n)| format!("{name} {:.1} %", share(n))).collect()
        }
    };
    let (tensors, parameters, size) = (tally.tensors, millions(tally.parameters), size(tally.bytes));
    format!("{tensors} tensors, {parameters} parameters, {size}, {}", stored.join(", "))
}

fn millions(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        _ => format!("{:.1} million", n as f64 / 1e6),
    }
}

fn model_text(facts: &ModelFacts, memory: Option<&Memory>) -> Vec<String> {
    let mut lines = vec![line("model", facts.file.display())];
    if let Some(d) = &facts.diffusion {
        lines.push(line("family", format!("{}, {}, {}", d.family, d.variant, d.prediction)));
        lines.push(line(
            "UNet input",
            format!("{} channels, {} values per token of the prompt", d.unet.in_channels, d.unet.context_dim),
        ));
    }
    if let Some(vae) = &facts.vae {
        let scale = facts.config.as_ref().map_or(String::new(), |c| format!(", scale {}", c.latent_scale));
        lines.push(line("latent", format!("{} channels, 1/{}{scale}", vae.latent_channels, vae.scale())));
    }
    lines.extend(facts.text.iter().map(|text| line("text encoder", encoder(text))));
    lines.push(line("all", tally(&facts.all)));
    lines.extend(facts.parts.iter().map(|part| format!("  {:<22}{}", part.name, tally(&part.tally))));
    lines.extend(
        facts.metadata.iter().map(|(name, text)| line("metadata", format!("{name}: {}", short(text)))),
    );
    if let Some(obstacle) = &facts.obstacle {
        lines.push(line("does not run", obstacle));
    }
    let Some(memory) = memory else { return lines };
    let pictures = terminal::count(memory.batch, "picture");
    lines.push(format!("device memory for {pictures} on {}, {}", memory.device, memory.precision));
    for need in &memory.needs {
        let [with, without] = need.plans.each_ref().map(plan_text);
        lines.push(format!(
            "  {:<12}with SAG: {with}; without SAG: {without}",
            format!("{}x{}", need.width, need.height)
        ));
    }
    lines
}

fn encoder(text: &TextConfig) -> String {
    let (layers, heads) = (terminal::count(text.layers, "layer"), terminal::count(text.heads, "head"));
    format!("{:?}, {layers}, {heads} each, {} values per token", text.tower, text.width)
}

fn plan_text(plan: &Result<Report>) -> String {
    match plan {
        Ok(report) => {
            let streamed = if report.weights_in_turn { ", weights streamed" } else { "" };
            let tiles = match report.decoder_tiles {
                0 | 1 => String::new(),
                n => format!(", VAE in {n} tiles"),
            };
            let rows = terminal::count(report.rows_per_step(), "row");
            format!("{} ({rows} per step{streamed}{tiles})", size(report.peak_bytes))
        }
        Err(e) => remedy::text(e),
    }
}

fn lora_text(facts: &LoraFacts) -> Vec<String> {
    let ranks: Vec<String> = facts.ranks.iter().map(|(rank, n)| format!("{rank} ({n} modules)")).collect();
    let kinds: Vec<String> = facts.kinds.iter().map(|(kind, n)| format!("{kind} ({n})")).collect();
    let changes = match facts.changes {
        (true, true) => "UNet and text encoder",
        (false, _) => "text encoder",
        (true, false) => "UNet",
    };
    let mut lines = vec![
        line("LoRA", facts.file.display()),
        line("made for", facts.family.unwrap_or("unknown")),
        line("changes", format!("{} modules of {changes}", facts.modules)),
        line("kinds", kinds.join(", ")),
        line("ranks", ranks.join(", ")),
        line("all", tally(&facts.all)),
        line("use", format!("--lora {}:1, or <lora:{}:1> in the prompt", facts.file.display(), facts.name)),
    ];
    lines.extend(facts.embeddings.iter().map(|name| line("embedding", format!("embedding:{name}"))));
    lines.extend(facts.warnings.iter().map(|warning| line("warning", warning)));
    lines.extend(
        facts.metadata.iter().map(|(name, text)| line("metadata", format!("{name}: {}", short(text)))),
    );
    lines
}

fn embedding_text(facts: &EmbeddingFacts) -> Vec<String> {
    let mut lines =
        vec![line("embedding", facts.file.display()), line("made for", facts.family.unwrap_or("unknown"))];
    let vectors = |(name, count, width): &(String, usize, usize)| {
        line("vectors", format!("{count} of {width} values ({name})"))
    };
    lines.extend(facts.vectors.iter().map(vectors));
    lines.push(line("all", tally(&facts.all)));
    lines.push(line("use", format!("embedding:{} in the prompt, with --embedding-dir", facts.name)));
    lines
}

fn picture_text(facts: &PictureFacts) -> Vec<String> {
    let samples = ["", "grey", "grey and alpha", "RGB", "RGBA"].get(facts.samples).unwrap_or(&"");
    let frames = if facts.frames > 1 { format!(", {} frames", facts.frames) } else { String::new() };
    let size = format!("{}x{}, {} bit {samples}{frames}", facts.width, facts.height, facts.bits);
    let mut lines = vec![line("picture", size)];
    lines.extend(facts.damage.as_ref().map(|damage| line("damaged", damage)));
    lines.extend(facts.program.map(|program| line("program", program)));
    if let Some(settings) = &facts.settings {
        lines.extend(settings.prompt.lines().map(|text| line("prompt", text)));
        lines.extend(
            settings.negative.iter().flat_map(|n| n.lines()).map(|text| line("negative prompt", text)),
        );
        lines.extend(settings.settings.iter().map(|(name, value)| format!("  {name:<22}{}", short(value))));
    }
    match &facts.workflow {
        Some(Ok(workflow)) => lines.extend(workflow_text(workflow)),
        Some(Err(fault)) => lines.push(line("workflow", fault)),
        None => {}
    }
    let other = |keyword: &str| !["parameters", "prompt", "workflow"].contains(&keyword);
    let others = facts.texts.iter().filter(|(keyword, _)| other(keyword));
    lines.extend(others.map(|(keyword, bytes)| line("text", format!("{} of {bytes} bytes", short(keyword)))));
    if facts.settings.is_none() && facts.workflow.is_none() {
        let why = match facts.program {
            Some(_) => "not supported for this program",
            None => "none; image editors often remove them",
        };
        lines.push(line("settings", why));
    }
    lines
}

fn workflow_text(workflow: &WorkflowFacts) -> Vec<String> {
    let forms = match (workflow.has_prompt, workflow.has_screen) {
        (true, true) => "chunks prompt and workflow",
        (true, false) => "chunk prompt",
        _ => "chunk workflow",
    };
    let mut lines =
        vec![line("ComfyUI", format!("{}, {forms}", terminal::count(workflow.nodes.len(), "node")))];
    for node in &workflow.nodes {
        let title =
            node.title.as_ref().filter(|t| **t != node.class).map_or(String::new(), |t| format!(" \"{t}\""));
        let values: Vec<String> = node.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.push(format!(
            "  {:<4}{}{}  {}",
            short(&node.id),
            short(&node.class),
            short(&title),
            short(&values.join(", "))
        ));
    }
    lines
}

fn latent_text(facts: &LatentFacts) -> Vec<String> {
    let [batch, channels, height, width] = facts.shape;
    let pixels = format!(
        "{batch} of {channels}x{height}x{width} (pictures of {}x{})",
        width * LATENT_CELL,
        height * LATENT_CELL
    );
    let mut lines = vec![line("latent", pixels)];
    let spread = |(i, s): (usize, &Spread)| {
        let Spread { least, most, mean, deviation } = s;
        let name = format!("channel {i}");
        line(&name, format!("{least:.3} to {most:.3}, mean {mean:.3}, deviation {deviation:.3}"))
    };
    lines.extend(facts.channels.iter().enumerate().map(spread));
    lines.extend(facts.texts.iter().map(|(name, text)| line("text", format!("{name}: {}", short(text)))));
    lines
}

/// The facts as JSON.
pub fn as_json(inspected: &Inspected, memory: Option<&Memory>) -> Value {
    match inspected {
        Inspected::Model(facts) => {
            let mut object = model_json(facts);
            object["memory"] = memory.map_or(Value::Null, memory_json);
            object
        }
        Inspected::Lora(facts) => json!({
            "kind": "lora", "file": facts.file.display().to_string(), "name": facts.name,
            "family": facts.family, "modules": facts.modules, "kinds": facts.kinds, "ranks": facts.ranks,
            "unet": facts.changes.0, "text_encoder": facts.changes.1, "embeddings": facts.embeddings,
            "warnings": facts.warnings, "all": tally_json(&facts.all),
            "metadata": facts.metadata,
        }),
        Inspected::Embedding(facts) => json!({
            "kind": "embedding", "file": facts.file.display().to_string(), "name": facts.name,
            "family": facts.family, "all": tally_json(&facts.all),
            "vectors": facts.vectors.iter().map(|(name, count, width)| json!({
                "tensor": name, "vectors": count, "width": width,
            })).collect::<Vec<_>>(),
        }),
        Inspected::Picture(facts) => picture_json(facts),
        Inspected::Latent(facts) => json!({
            "kind": "latent", "shape": facts.shape, "texts": facts.texts,
            "channels": facts.channels.iter().map(|s| json!({
                "min": s.least, "max": s.most, "mean": s.mean, "deviation": s.deviation,
            })).collect::<Vec<_>>(),
        }),
        _ => json!({ "kind": "unknown" }),
    }
}

fn tally_json(tally: &Tally) -> Value {
    json!({
        "tensors": tally.tensors, "parameters": tally.parameters, "bytes": tally.bytes, "dtypes": tally.dtypes,
    })
}

fn model_json(facts: &ModelFacts) -> Value {
    let parts: Map<String, Value> =
        facts.parts.iter().map(|part| (part.name.to_owned(), tally_json(&part.tally))).collect();
    let text: Vec<Value> = facts
        .text
        .iter()
        .map(|t| json!({ "tower": format!("{:?}", t.tower), "layers": t.layers, "heads": t.heads, "width": t.width }))
        .collect();
    let of = facts.diffusion.as_ref();
    json!({
        "kind": "model", "file": facts.file.display().to_string(),
        "family": of.map(|d| d.family.to_string()), "variant": of.map(|d| d.variant.to_string()),
        "prediction": of.map(|d| d.prediction.to_string()), "whole": facts.config.is_some(),
        "latent_scale": facts.config.as_ref().map(|c| crate::support::terminal::decimal(c.latent_scale)),
        "text_encoders": text, "all": tally_json(&facts.all), "parts": parts,
        "obstacle": facts.obstacle, "metadata": facts.metadata,
    })
}

fn memory_json(memory: &Memory) -> Value {
    let plan = |plan: &Result<Report>| match plan {
        Ok(r) => json!({
            "peak_mib": to_mib(r.peak_bytes), "weights_mib": to_mib(r.all_weight_bytes()),
            "arena_mib": to_mib(r.arena_bytes), "rows_per_step": r.rows_per_step(),
            "rows_per_chunk": r.rows_per_call(), "weights_in_turn": r.weights_in_turn,
            "decoder_tiles": r.decoder_tiles,
        }),
        Err(e) => json!({ "error": terminal::as_json(e) }),
    };
    let needs: Vec<Value> = memory
        .needs
        .iter()
        .map(|need| {
            let [with, without] = need.plans.each_ref().map(plan);
            json!({ "width": need.width, "height": need.height, "sag": with, "no_sag": without })
        })
        .collect();
    json!({ "device": memory.device, "precision": memory.precision, "batch_size": memory.batch, "sizes": needs })
}

fn picture_json(facts: &PictureFacts) -> Value {
    let settings = facts.settings.as_ref().map(|s| {
        let pairs: Map<String, Value> =
            s.settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({ "prompt": s.prompt, "negative_prompts": s.negative, "settings": pairs })
    });
    let workflow = facts.workflow.as_ref().map(|workflow| match workflow {
        Err(fault) => json!({ "error": fault }),
        Ok(workflow) => {
            let node = |n: &sagittal::inspect::NodeFacts| {
                let values: Map<String, Value> =
                    n.values.iter().map(|(name, v)| (name.clone(), json!(v))).collect();
                json!({ "id": n.id, "class": n.class, "title": n.title, "values": values })
            };
            json!({
                "prompt": workflow.has_prompt, "workflow": workflow.has_screen,
                "nodes": workflow.nodes.iter().map(node).collect::<Vec<_>>(),
            })
        }
    });
    let texts: Map<String, Value> =
        facts.texts.iter().map(|(keyword, bytes)| (keyword.clone(), json!(bytes))).collect();
    json!({
        "kind": "picture", "width": facts.width, "height": facts.height, "bits": facts.bits,
        "samples": facts.samples, "frames": facts.frames, "damage": facts.damage, "program": facts.program,
        "parameters": settings, "workflow": workflow, "text_bytes": texts,
    })
}
