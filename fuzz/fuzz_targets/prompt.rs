//! Whatever is typed as a prompt: chunks of 77 ids that the text encoder knows.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sagittal::internals::text::prompt::{CHUNK, chunks_with, parse};
use sagittal::internals::text::tokenizer::{END, START, VOCABULARY};
use sagittal::internals::text::{Embeddings, Tokenizer, Vectors, compose};
use sagittal::lora::tags;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// As many vectors as the name has bytes.
#[derive(Debug)]
struct Learned;

impl Vectors for Learned {
    fn find(&self, name: &str) -> sagittal::Result<Option<Vec<Vec<f32>>>> {
        Ok((name.len() % 4 > 0).then(|| vec![vec![0.5; 2]; name.len() % 200]))
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let ids = TOKENIZER.encode(&text);
    assert!(ids.iter().all(|id| *id < VOCABULARY));
    for segment in parse(&text) {
        assert!(!segment.text.is_empty());
    }
    for part in compose::parts(&text) {
        assert!(part.strength.is_finite());
    }
    if let Ok((rest, tags)) = tags::take(&text) {
        assert!(rest.len() <= text.len());
        assert!(tags.iter().all(|t| t.text.is_finite() && t.unet.is_finite() && !t.name.is_empty()));
    }
    let broken = compose::breaks(&text);
    for (text, pad, embeddings) in [
        (&*text, END, Embeddings::Named),
        (&*text, 0, Embeddings::Text),
        (broken.as_str(), END, Embeddings::Found(&Learned)),
    ] {
        let tokens = chunks_with(&TOKENIZER, text, pad, embeddings).unwrap();
        assert!(!tokens.chunks.is_empty());
        let last = VOCABULARY as usize + tokens.vectors.len();
        for chunk in &tokens.chunks {
            assert_eq!(chunk.ids.len(), CHUNK);
            assert_eq!(chunk.ids[0], START);
            assert!(chunk.ids.contains(&END));
            assert!(chunk.ids.iter().all(|id| (*id as usize) < last));
        }
    }
});
