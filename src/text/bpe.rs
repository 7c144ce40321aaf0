//! Byte-pair encoding: a word's bytes are joined, best pair first, into the symbols of CLIP's
//! vocabulary.
//!
//! The order of `merges.txt` is the vocabulary. Ids 0..256 are the bytes, 256..512 the bytes
//! at the end of a word (`</w>`), and line `r` of the list makes id `512 + r` out of two older ones.
//! So the id of a merge is also its rank: the smaller, the sooner.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// OpenAI's list for CLIP (MIT licence), as published with the model: a header line, then one pair
/// of symbols a line.
const MERGES: &str = include_str!("merges.txt");

/// How far the id of a byte moves when it ends a word.
const WORD_END: u16 = 256;

/// No neighbour: the edge of a word.
const EDGE: usize = usize::MAX;

/// The id of a symbol that was joined to its left neighbour; no merge knows it.
const JOINED: u16 = u16::MAX;

/// CLIP's merges, ready to use.
#[derive(Clone)]
pub(super) struct Bpe {
    /// The id of each byte inside a word.
    bytes: [u16; 256],
    /// The id that a pair of ids becomes.
    merges: HashMap<(u16, u16), u16>,
}

/// A symbol of the word being encoded, and its living neighbours.
struct Symbol {
    id: u16,
    left: usize,
    right: usize,
}

impl Bpe {
    #[expect(
        clippy::indexing_slicing,
        reason = "the list of merges is part of the program, and a test reads all of it"
    )]
    pub(super) fn new() -> Self {
        let mut bytes = [0; 256];
        let mut ids = HashMap::new();
        for (id, (byte, letter)) in (0..).zip(alphabet()) {
            bytes[usize::from(byte)] = id;
            ids.insert(letter.to_string(), id);
            ids.insert(format!("{letter}</w>"), id + WORD_END);
        }
        let mut merges = HashMap::new();
        let pairs = MERGES.lines().skip(1).filter_map(|line| line.split_once(' '));
        for (id, (left, right)) in (2 * WORD_END..).zip(pairs) {
            // Both exist: a line only names bytes and what earlier lines made.
            merges.insert((ids[left], ids[right]), id);
            ids.insert(format!("{left}{right}"), id);
        }
        Bpe { bytes, merges }
    }

    /// Appends the ids of one word to `out`.
    ///
    /// A queue of candidate pairs instead of a search per merge keeps this at O(n log n): a word may
    /// be a megabyte of emoji.
    pub(super) fn encode(&self, word: &str, out: &mut Vec<u32>) {
        let mut symbols = self.symbols(word);
        let mut queue: BinaryHeap<_> = (0..symbols.len()).filter_map(|at| self.pair(&symbols, at)).collect();
        // Of equal ranks the leftmost goes first, which is how "aaa" becomes "aa a".
        while let Some(Reverse((id, at))) = queue.pop() {
            if self.pair(&symbols, at) != Some(Reverse((id, at))) {
                continue; // A neighbour was joined since this pair was queued.
            }
            join(&mut symbols, at, id);
            queue.extend(self.pair(&symbols, at));
            queue.extend(symbols.get(at).and_then(|symbol| self.pair(&symbols, symbol.left)));
        }
        out.extend(symbols.iter().filter(|s| s.id != JOINED).map(|s| u32::from(s.id)));
    }

    /// One symbol a byte, the last one marked as the end of the word.
    #[expect(clippy::indexing_slicing, reason = "there is an id for each byte")]
    fn symbols(&self, word: &str) -> Vec<Symbol> {
        let byte = |(at, byte): (usize, u8)| Symbol {
            id: self.bytes[usize::from(byte)],
            left: at.checked_sub(1).unwrap_or(EDGE),
            right: at + 1,
        };
        let mut symbols: Vec<Symbol> = word.bytes().enumerate().map(byte).collect();
        if let Some(last) = symbols.last_mut() {
            last.id += WORD_END;
            last.right = EDGE;
        }
        symbols
    }

    /// What the symbol at `left` and its right neighbour may become: (id, `left`), in queue order.
    fn pair(&self, symbols: &[Symbol], left: usize) -> Option<Reverse<(u16, usize)>> {
        let first = symbols.get(left)?;
        let second = symbols.get(first.right)?;
        self.merges.get(&(first.id, second.id)).map(|&id| Reverse((id, left)))
    }
}

/// Makes the symbol at `at` and its right neighbour one symbol, `id`.
#[expect(clippy::indexing_slicing, reason = "`pair` has found both symbols")]
fn join(symbols: &mut [Symbol], at: usize, id: u16) {
    let gone = symbols[at].right;
    let right = symbols[gone].right;
    symbols[gone].id = JOINED;
    symbols[at].id = id;
    symbols[at].right = right;
    if let Some(neighbour) = symbols.get_mut(right) {
        neighbour.left = at;
    }
}

/// The 256 bytes in the order of their ids, each with its letter in the list:
/// first the printable characters of Latin-1, as themselves, then the others, from U+0100 on.
fn alphabet() -> impl Iterator<Item = (u8, char)> {
    let (printable, other): (Vec<u8>, Vec<u8>) =
        (0..=255).partition(|byte| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff));
    let printable = printable.into_iter().map(|byte| (byte, char::from(byte)));
    printable.chain(other.into_iter().zip('\u{100}'..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        Bpe::new().encode(word, &mut ids);
        ids
    }

    #[test]
    fn every_line_is_a_merge() {
        let bpe = Bpe::new();
        assert_eq!(bpe.merges.len(), 48_894);
        assert_eq!(bpe.merges.values().max(), Some(&49_405));
    }

    #[test]
    fn bytes_have_the_ids_of_the_vocabulary() {
        assert_eq!(encode("!"), [256]);
        assert_eq!(encode("~"), [256 + 93]);
        assert_eq!(encode("\0"), [256 + 188]);
        assert!(encode("").is_empty());
    }

    #[test]
    fn equal_pairs_join_from_the_left() {
        assert_eq!(encode("cat"), [2368]);
        assert_eq!(encode("xxx").len(), 1);
        assert_eq!(
            encode("donaudampfschifffahrtsgesellschaftskapitänsmütze"),
            [
                1067, 627, 1880, 16680, 13731, 1021, 778, 4810, 2290, 619, 10279, 45588, 83, 909, 688, 529,
                42787, 978, 6522, 83, 1298
            ]
        );
    }
}
