//! Text encoders: the conditioning and the pooled vector of prompts.

use super::compare::Yardstick;
use super::context::Context;
use super::tensor::Tensor;
use crate::{Error, Result};

/// A prompt, and the layer that its conditioning is taken from (-1 is the last), if not the usual.
struct Prompt<'a> {
    name: &'a str,
    text: &'a str,
    layer: Option<i64>,
}

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    let set = context.set;
    // Small families list their cases; full-size ones have their prompts at the top.
    let listed = set.root().object("text").map(|t| t.list("cases"));
    let mut prompts = Vec::new();
    for case in listed.iter().flatten() {
        let layer = case.get("layer").and_then(serde_json::Value::as_i64);
        prompts.push((case.name()?, case.text("prompt")?.to_owned(), layer));
    }
    if listed.is_none() {
        // Without a list, NAME_skip2 is the prompt NAME at layer -2.
        for name in set.cases_with("text", "cond") {
            let (prompt, layer) = match name.strip_suffix("_skip2") {
                Some(prompt) => (prompt, Some(-2)),
                None => (name, None),
            };
            prompts.push((name, context.prompt(prompt)?.to_owned(), layer));
        }
    }
    for (name, text, layer) in &prompts {
        let prompt = Prompt { name, text, layer: *layer };
        context.case(&format!("text.{name}"), |c| verify_prompt(c, &prompt))?;
    }
    Ok(())
}

/// One prompt through the encoder: all of its chunks, and the pooled vector of the first.
fn verify_prompt(context: &mut Context<'_, '_>, prompt: &Prompt<'_>) -> Result<()> {
    let name = |what: &str| format!("text.{}.{what}", prompt.name);
    let layer = |layer: i64| {
        usize::try_from(-layer).map_err(|_| {
            Error::usage("a layer counts back from the end").expected("-1 or less").found(layer.to_string())
        })
    };
    let skip = prompt.layer.map(layer).transpose()?;
    let pooled = context.set.find(&name("pooled")).is_some();
    let encoding = context.model.encode_text(prompt.text, skip, pooled, context.cancel)?;
    let width = encoding.context.len() / encoding.tokens.max(1);
    let found = [
        (name("cond"), Some(Tensor::f32(&[1, encoding.tokens, width], encoding.context))),
        (name("pooled"), encoding.pooled.map(|p| Tensor::f32(&[1, p.len()], p))),
    ];
    for (name, found) in found {
        if let (Some(found), Some(expected)) = (found, context.set.find(&name)) {
            let by = Yardstick::spread(&expected.numbers(), context.tolerances.text_and_vae);
            context.findings.compare(&name, found, expected, by);
        }
    }
    Ok(())
}
