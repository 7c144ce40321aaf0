//! Token ids and weights of prompts, compared with ComfyUI 0.16.4, and the time that hostile prompts take.

use proptest::prelude::*;
use sagittal::internals::text::{CHUNK, Chunk, Embeddings, Tokenizer, prompt, tokenizer};
use serde_json::Value;
use std::time::{Duration, Instant};

const GOLDEN: &str = include_str!("../golden/tokens.json");

/// The golden data was made without a folder of embeddings, so `embedding:name` is text.
fn chunks(tokenizer: &Tokenizer, text: &str, pad: u32) -> Vec<Chunk> {
    prompt::chunks_with(tokenizer, text, pad, Embeddings::Text).unwrap().chunks
}

#[test]
fn prompts_have_comfyuis_ids_and_weights() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let prompts = golden["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 62);
    let tokenizer = Tokenizer::new();
    let failures: Vec<String> = prompts.iter().filter_map(|case| check(&tokenizer, case)).collect();
    assert!(failures.is_empty(), "{} of 62 prompts differ:\n{}", failures.len(), failures.join("\n"));
}

/// What is wrong with one prompt, if anything.
fn check(tokenizer: &Tokenizer, case: &Value) -> Option<String> {
    let text = case["prompt"].as_str().unwrap();
    let padded = chunks(tokenizer, text, tokenizer::END);
    let zero_padded = chunks(tokenizer, text, 0);
    let ids = ids(&case["ids"]);
    let ids_pad0 = case.get("ids_pad0").map_or_else(|| with_zeros(&ids), self::ids);
    let weights = weights(&case["weights"], ids.len());
    let mut wrong = Vec::new();
    for (what, chunks, ids) in [("ids", &padded, &ids), ("zero-padded ids", &zero_padded, &ids_pad0)] {
        if !chunks.iter().map(|chunk| &chunk.ids[..]).eq(ids.iter().map(|ids| &ids[..])) {
            wrong.push(what);
        }
        // NaN is a weight too, so the bits are compared; all NaNs count as equal.
        let bits = |weight: &f32| if weight.is_nan() { f32::NAN.to_bits() } else { weight.to_bits() };
        let found = chunks.iter().flat_map(|chunk| &chunk.weights);
        if !found.map(bits).eq(weights.iter().map(bits)) {
            wrong.push("weights");
        }
    }
    (!wrong.is_empty()).then(|| format!("{text:?}: {}", wrong.join(", ")))
}

fn ids(value: &Value) -> Vec<Vec<u32>> {
    let chunk = |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    value.as_array().unwrap().iter().map(chunk).collect()
}

/// The padding of the other families: 0 after the first end of a chunk.
fn with_zeros(ids: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut ids = ids.to_vec();
    for chunk in &mut ids {
        let end = chunk.iter().position(|&id| id == tokenizer::END).unwrap();
        chunk[end + 1..].fill(0);
    }
    ids
}

/// The weights of all chunks in a row, from runs of [weight, count].
fn weights(value: &Value, chunks: usize) -> Vec<f32> {
    let Some(runs) = value.as_array() else {
        assert_eq!(value, "all 1.0");
        return vec![1.0; chunks * CHUNK];
    };
    let number = |weight: &Value| match weight.as_str() {
        Some(text) => text.parse().unwrap(),
        None => weight.as_f64().unwrap() as f32,
    };
    let run = |run: &Value| vec![number(&run[0]); run[1].as_u64().unwrap() as usize];
    runs.iter().flat_map(|chunk| chunk.as_array().unwrap()).flat_map(run).collect()
}

proptest! {
    #[test]
    fn any_prompt_gives_complete_chunks(text in r#"([()\\\\:,.\[< ]|1\.5|cat|embedding:|<\|endoftext\|>|\PC|\p{M}|\p{Cc}){0,200}"#) {
        let tokenizer = shared();
        let tokens = prompt::chunks(tokenizer, &text, 0).unwrap();
        prop_assert!(!tokens.chunks.is_empty());
        for chunk in &tokens.chunks {
            prop_assert_eq!(chunk.ids[0], tokenizer::START);
            prop_assert!(chunk.ids[1..].contains(&tokenizer::END));
            prop_assert!(chunk.ids.iter().all(|&id| id < tokenizer::VOCABULARY));
        }
        for segment in prompt::parse(&text) {
            prop_assert!(!segment.text.is_empty());
        }
    }
}

/// One vocabulary for all cases of a property.
fn shared() -> &'static Tokenizer {
    static TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    TOKENIZER.get_or_init(Tokenizer::new)
}

/// A megabyte of each takes well under a second; reading it in quadratic time takes ten and more.
#[test]
fn hostile_prompts_take_linear_time() {
    const MEGABYTE: usize = 1 << 20;
    let repeat = |text: &str| text.repeat(MEGABYTE / text.len());
    let half = MEGABYTE / 2;
    let prompts = [
        ("opening parentheses", repeat("(")),
        ("closing parentheses", repeat(")")),
        ("opening, then closing", format!("{}{}", "(".repeat(half), ")".repeat(half))),
        ("nested words", format!("{}{}", "(a ".repeat(half / 3), "b:1)".repeat(half / 4))),
        ("nested, never closed", format!("{}x)", repeat("(a"))),
        ("empty groups", repeat("()")),
        ("escapes", repeat("\\(")),
        ("colons", format!("({})", repeat(":"))),
        ("one long number", format!("(a:{})", repeat("1"))),
        ("one letter", repeat("a")),
        ("one long word", repeat("abcdefghij")),
        ("Chinese without spaces", repeat("一只猫坐在垫子上")),
        ("emoji", repeat("😂🐈\u{200d}⬛❤️")),
        ("control characters", repeat("\0\u{1}\u{2}\u{7f}\u{85}")),
        ("lone combining marks", repeat("\u{301}\u{327}\u{308}")),
        ("one letter's combining marks", format!("a{}", repeat("\u{327}\u{301}"))),
        ("apostrophes", repeat("'")),
        ("special tokens", repeat("<|endoftext|><|startoftext|>")),
        ("embeddings", repeat(" embedding:")),
        ("spaces", repeat(" \u{3000}")),
    ];
    let tokenizer = Tokenizer::new();
    let mut slow = Vec::new();
    for (name, text) in prompts {
        let start = Instant::now();
        let tokens = prompt::chunks(&tokenizer, &text, 0).unwrap();
        assert!(tokens.chunks.iter().all(|chunk| chunk.ids[0] == tokenizer::START), "{name}");
        let took = start.elapsed();
        if took > Duration::from_secs(5) {
            slow.push(format!("{name}: {took:?}"));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
