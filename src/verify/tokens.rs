//! Prompts to token ids and weights, chunk by chunk.

use serde_json::Value;

use super::case::Case;
use super::compare::{Comparison, Findings};
use super::set::Set;
use crate::text::{CHUNK, Chunk, Embeddings, Tokenizer, prompt, tokenizer};
use crate::{Error, ErrorKind, Result};

pub(super) fn verify(set: &Set, findings: &mut Findings<'_>) -> Result<()> {
    let tokenizer = Tokenizer::new();
    for (i, case) in set.root().list("prompts").iter().enumerate() {
        verify_prompt(set, case, &tokenizer, &format!("tokens.{i}"), findings)?;
    }
    Ok(())
}

/// Ids with either padding, and weights, of one prompt.
fn verify_prompt(
    set: &Set,
    case: &Case<'_>,
    tokenizer: &Tokenizer,
    name: &str,
    findings: &mut Findings<'_>,
) -> Result<()> {
    let damaged =
        || Error::new(ErrorKind::File, "the golden set's tokens are damaged").file(set.file()).at(name);
    // The sets are made without a directory of embeddings, where `embedding:name` is plain text.
    let chunks = |pad| prompt::chunks_with(tokenizer, case.text("prompt")?, pad, Embeddings::Text);
    let (padded, zeros) = (chunks(tokenizer::END)?.chunks, chunks(0)?.chunks);
    let ids = case.get("ids").and_then(ids).ok_or_else(damaged)?;
    let ids_pad0 = match case.get("ids_pad0") {
        Some(given) => self::ids(given).ok_or_else(damaged)?,
        None => with_zeros(&ids),
    };
    let weights = weights(case.get("weights"), ids.len()).ok_or_else(damaged)?;
    for (what, chunks, ids) in [("ids", &padded, &ids), ("ids_pad0", &zeros, &ids_pad0)] {
        let found: Vec<u32> = chunks.iter().flat_map(|c: &Chunk| c.ids).collect();
        findings.compared(&format!("{name}.{what}"), faults(&found, &ids.concat()));
    }
    // NaN is a weight too, and any NaN equals any other.
    let bits = |w: f32| if w.is_nan() { f32::NAN.to_bits() } else { w.to_bits() };
    let found: Vec<u32> = padded.iter().flat_map(|c| c.weights).map(bits).collect();
    let expected: Vec<u32> = weights.into_iter().map(bits).collect();
    findings.compared(&format!("{name}.weights"), faults(&found, &expected));
    Ok(())
}

/// How many elements of two lists differ, missing ones counted.
fn faults(found: &[u32], expected: &[u32]) -> Comparison {
    let wrong = found.iter().zip(expected).filter(|(f, e)| f != e).count();
    Comparison::of_faults(wrong + found.len().abs_diff(expected.len()))
}

/// One list of ids a chunk.
fn ids(value: &Value) -> Option<Vec<Vec<u32>>> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let chunk = |chunk: &Value| chunk.as_array()?.iter().map(id).collect();
    value.as_array()?.iter().map(chunk).collect()
}

/// The padding of CLIP-G and CLIP-H: 0 for whatever follows the first end of a chunk.
fn with_zeros(ids: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut ids = ids.to_vec();
    for chunk in &mut ids {
        if let Some(end) = chunk.iter().position(|id| *id == tokenizer::END) {
            chunk[end + 1..].fill(0);
        }
    }
    ids
}

/// The weights of all chunks in a row: "all 1.0", or for each chunk runs of `[weight, count]`,
/// the weight a text where JSON has no number for it.
fn weights(value: Option<&Value>, chunks: usize) -> Option<Vec<f32>> {
    let Some(runs) = value?.as_array() else { return Some(vec![1.0; chunks * CHUNK]) };
    let mut weights = Vec::new();
    for run in runs.iter().map(Value::as_array).collect::<Option<Vec<_>>>()?.into_iter().flatten() {
        let weight = match run.get(0)? {
            Value::String(text) => text.parse().ok()?,
            number => number.as_f64()? as f32,
        };
        let count = usize::try_from(run.get(1)?.as_u64()?).ok().filter(|n| *n <= CHUNK)?;
        weights.extend(std::iter::repeat_n(weight, count));
    }
    Some(weights)
}
