//! The text side: a prompt becomes weighted segments, token ids and 77-token chunks, exactly as in
//! ComfyUI.
//!
//! ```text
//! prompt::parse      "a (red:1.3) cat"  →  segments with a weight each
//! embedding          "embedding:name"   →  set apart from the words of a segment
//! Tokenizer::encode  words              →  ids, through byte-pair merges
//! prompt::chunks     ids and weights    →  chunks of 77, what a CLIP text encoder reads
//! ```
//!
//! ```
//! use sagittal::internals::text::{Tokenizer, prompt, tokenizer};
//! let tokens = prompt::chunks(&Tokenizer::new(), "a (red:1.3) cat", tokenizer::END)?;
//! assert_eq!(tokens.chunks[0].ids[..5], [49406, 320, 736, 2368, 49407]);
//! assert_eq!(tokens.chunks[0].weights[..4], [1.0, 1.0, 1.3, 1.0]);
//! # Ok::<(), sagittal::Error>(())
//! ```

mod bpe;
pub mod clip;
pub mod compose;
pub mod embedding;
pub mod embedding_files;
pub mod encode;
pub mod prompt;
pub mod syntax;
pub mod tokenizer;
mod weight;

pub use embedding::{Embeddings, Vectors};
pub use prompt::{CHUNK, Chunk, Segment, Tokens};
pub use tokenizer::Tokenizer;
