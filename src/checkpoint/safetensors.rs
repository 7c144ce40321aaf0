//! The safetensors format: eight bytes of length, a JSON header, then the data.
//!
//! What the `safetensors` crate opens opens here, and what it refuses is refused. It reads what one
//! header entry says; the frame around it is checked here, because the crate does not say which tensor
//! is at fault and takes the last of several of one name without a word. Two limits alone are narrower:
//! the number of tensors, and the length of an entry. Alignment does not matter: decoding reads bytes.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::collections::BTreeMap;
use std::ops::Range;

use ::safetensors::tensor::TensorInfo as Entry;

use super::header::{
    Header, MAX_TENSORS, SeenNames, StoredTensor, TensorInfo, byte_size, damaged, describe, too_many_tensors,
};
use super::{header, other_formats};
use crate::{Error, ErrorKind, Result};

/// The format's own limit. SDXL's header has 0.3 MB; training notes in the metadata may be long.
const MAX_HEADER: u64 = 100_000_000;
/// Real ones have about 70 bytes. Longer ones are lists of sizes that are not worth the reading.
const MAX_ENTRY: usize = 4096;
const METADATA: &str = "__metadata__";

/// Reads and checks the header of a whole file. Errors do not name the file: the caller does.
pub(super) fn parse(bytes: &[u8]) -> Result<Header> {
    let (json, data_start) = split(bytes)?;
    let mut names = SeenNames::default();
    let mut metadata = None;
    let mut tensors: Vec<StoredTensor> = Vec::new();
    // One more shows a header that has too many, before any of them is parsed.
    let members = members(json, MAX_TENSORS + 1)?;
    if members.len() > MAX_TENSORS {
        return Err(too_many_tensors());
    }
    for (name, value) in members {
        if name == METADATA {
            let texts: Option<BTreeMap<String, String>> = serde_json::from_str(value)
                .map_err(|e| damaged("the metadata is not a list of texts").at(METADATA).cause(e))?;
            if metadata.replace(texts.unwrap_or_default()).is_some() {
                return Err(damaged("the header has two lists of metadata").at(METADATA));
            }
            continue;
        }
        let stored = tensor(name, value)?;
        match names.admit(&stored.name, tensors.len()) {
            None => tensors.push(stored),
            Some(before) => {
                if let Some(place) = tensors.get_mut(before) {
                    *place = stored;
                }
            }
        }
    }
    tensors.iter().try_for_each(check_size)?;
    place(&mut tensors, data_start, bytes.len())?;
    let unusable = |t: &StoredTensor| !header::is_usable(&t.name);
    let mut warnings = names.warnings();
    warnings.extend(tensors.iter().filter(|t| unusable(t)).map(|t| header::unusable(&t.name)));
    tensors.retain(|t| !unusable(t));
    Ok(Header { tensors, metadata: metadata.unwrap_or_default(), warnings })
}

/// The header's JSON text, and where the data starts.
fn split(bytes: &[u8]) -> Result<(&str, usize)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(other_formats::not_a_model(bytes));
    };
    let length = u64::from_le_bytes(*length);
    // Other formats fail here or at the length, which is then some text or magic number read as an
    // enormous integer. The format demands the brace at once; its readers allow space before it.
    let first = rest.iter().find(|b| !b" \t\r\n".contains(b));
    if first != Some(&b'{') || (length > MAX_HEADER && other_formats::recognise(bytes).is_some()) {
        return Err(other_formats::not_a_model(bytes));
    }
    if length > MAX_HEADER {
        return Err(damaged("the header's length is impossible")
            .expected(format!("at most {MAX_HEADER} bytes"))
            .found(length.to_string()));
    }
    let length = length as usize;
    let Some(json) = rest.get(..length) else {
        return Err(truncated("the file ends inside its header", 8 + length, bytes.len()));
    };
    let json = std::str::from_utf8(json).map_err(|e| damaged("the header is not UTF-8 text").cause(e))?;
    Ok((json, 8 + length))
}

/// One header entry; its offsets still count from the start of the data.
fn tensor(name: String, value: &str) -> Result<StoredTensor> {
    if value.len() > MAX_ENTRY {
        return Err(damaged("a tensor's description is too long")
            .at(header::shown(&name))
            .expected(format!("at most {MAX_ENTRY} bytes"))
            .found(value.len().to_string()));
    }
    let entry: Entry = match serde_json::from_str(value) {
        Ok(entry) => entry,
        Err(e) => {
            return Err(damaged("a tensor's description is not valid").at(header::shown(&name)).cause(e));
        }
    };
    let (start, end) = entry.data_offsets;
    let info = TensorInfo { shape: entry.shape, dtype: entry.dtype };
    Ok(StoredTensor { name, info, bytes: start..end })
}

/// Demands as many bytes of a tensor as its shape has.
fn check_size(tensor: &StoredTensor) -> Result<()> {
    let Range { start, end } = tensor.bytes;
    let size = byte_size(&tensor.name, &tensor.info)?;
    match end.checked_sub(start) {
        Some(found) if found == size => Ok(()),
        _ => Err(damaged("a tensor's offsets do not fit its shape")
            .at(header::shown(&tensor.name))
            .expected(format!("{size} bytes for {}", describe(&tensor.info)))
            .found(format!("offsets {start} to {end}"))),
    }
}

/// Sorts by offset, demands that the tensors fill the data without gap or overlap, and makes the
/// offsets count from the start of the file.
fn place(tensors: &mut [StoredTensor], data_start: usize, file_len: usize) -> Result<()> {
    tensors.sort_by_key(|t| (t.bytes.start, t.bytes.end));
    let mut cursor = 0;
    for tensor in &*tensors {
        if tensor.bytes.start != cursor {
            let what = if tensor.bytes.start < cursor {
                "two tensors overlap"
            } else {
                "there is a gap between tensors"
            };
            return Err(damaged(what)
                .at(header::shown(&tensor.name))
                .expected(format!("offset {cursor}"))
                .found(tensor.bytes.start.to_string()));
        }
        cursor = tensor.bytes.end;
    }
    match data_start.checked_add(cursor) {
        Some(expected) if expected == file_len => {}
        Some(expected) if expected < file_len => {
            return Err(damaged("the file goes on after its last tensor")
                .expected(format!("{expected} bytes"))
                .found(file_len.to_string()));
        }
        expected => {
            return Err(truncated("the file ends inside its data", expected.unwrap_or(usize::MAX), file_len));
        }
    }
    for tensor in tensors {
        tensor.bytes = tensor.bytes.start + data_start..tensor.bytes.end + data_start;
    }
    Ok(())
}

fn truncated(what: &str, expected: usize, found: usize) -> Error {
    Error::new(ErrorKind::File, what)
        .expected(format!("at least {expected} bytes"))
        .found(found.to_string())
        .hint("the download or copy was cut short: fetch it again")
}

/// Splits a JSON object into its names and the text of each value. JSON parsers keep the last of
/// two equal names without a word; here both are seen. The values are parsed by the caller.
fn members(json: &str, limit: usize) -> Result<Vec<(String, &str)>> {
    let mut scan = Scan { json, at: 0 };
    let mut members = Vec::new();
    scan.expect(b'{')?;
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        while members.len() < limit {
            let key = scan.string()?;
            let name = serde_json::from_str(key).map_err(|e| damaged("a name is not valid JSON").cause(e))?;
            scan.expect(b':')?;
            members.push((name, scan.value()?));
            if scan.peek() != Some(b',') {
                scan.expect(b'}')?;
                break;
            }
            scan.at += 1;
        }
    }
    match scan.peek() {
        Some(_) if members.len() < limit => Err(scan.fault("the end of the header")),
        _ => Ok(members),
    }
}

/// A place in JSON text. It only ever stops at ASCII bytes, so slices fall on characters.
struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The text from `start` to here.
    fn since(&self, start: usize) -> &'a str {
        self.json.get(start..self.at).unwrap_or_default()
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.json.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(self.fault(&format!("`{}`", byte as char)));
        }
        self.at += 1;
        Ok(())
    }

    /// A string with its quotes.
    fn string(&mut self) -> Result<&'a str> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("a name in quotes"));
        }
        let start = self.at;
        self.skip_string()?;
        Ok(self.since(start))
    }

    /// Any value, up to the `,` or `}` that ends it.
    fn value(&mut self) -> Result<&'a str> {
        self.peek();
        let start = self.at;
        let mut depth = 0usize;
        while let Some(&byte) = self.json.as_bytes().get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b',' | b'}' if depth == 0 => return Ok(self.since(start)),
                b'{' | b'[' => depth += 1,
                // A bracket too many is left for the parser of the value.
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
        }
        Err(self.fault("the end of a value"))
    }

    /// From the opening quote to behind the closing one.
    fn skip_string(&mut self) -> Result<()> {
        let bytes = self.json.as_bytes();
        let mut at = self.at + 1;
        while let Some(&byte) = bytes.get(at) {
            at += match byte {
                b'\\' => 2,
                b'"' => {
                    self.at = at + 1;
                    return Ok(());
                }
                _ => 1,
            };
        }
        self.at = bytes.len();
        Err(self.fault("a closing quote"))
    }

    fn fault(&self, expected: &str) -> Error {
        let found = match self.json.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?} at byte {}", self.at),
            None => "the end of the header".into(),
        };
        damaged("the header is not valid JSON").expected(expected).found(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_split_at_the_top_level_only() {
        let json = r#" { "a" : {"x":[1,{"y":"},{"}]} , "b\"c":2, "a":"\\" }  "#;
        let found = members(json, 9).unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.trim())).collect();
        assert_eq!(found, [("a", r#"{"x":[1,{"y":"},{"}]}"#), ("b\"c", "2"), ("a", r#""\\""#)]);
        assert!(members("{}", 9).unwrap().is_empty());
    }

    #[test]
    fn broken_json_is_an_error() {
        for json in [
            "",
            "[]",
            "{",
            "{\"a",
            "{\"a\\",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{a:1}",
            "{\"a\" 1}",
            "{,}",
        ] {
            assert!(members(json, 9).is_err(), "{json}");
        }
    }
}
