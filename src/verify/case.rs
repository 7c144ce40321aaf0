//! Reading a set's JSON: members by name, with errors that say where something is missing.

use std::path::Path;

use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// No list or tensor of a golden set has more elements: larger sizes are damage, and would only
/// fill the memory.
const MOST: u64 = 1 << 28;

/// An object of a set's JSON.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    file: &'a Path,
    value: &'a Value,
}

impl<'a> Case<'a> {
    pub(super) fn new(file: &'a Path, value: &'a Value) -> Self {
        Self { file, value }
    }

    /// A member that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str> {
        self.get(key).and_then(Value::as_str).ok_or_else(|| self.lacks(key, "a text"))
    }

    pub(super) fn number(&self, key: &str) -> Result<f64> {
        self.get(key).and_then(Value::as_f64).ok_or_else(|| self.lacks(key, "a number"))
    }

    pub(super) fn integer(&self, key: &str) -> Result<u64> {
        self.get(key).and_then(Value::as_u64).ok_or_else(|| self.lacks(key, "a whole number"))
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.get(key).and_then(to_size).ok_or_else(|| self.lacks(key, "a size"))
    }

    pub(super) fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let list = self.get(key).and_then(Value::as_array);
        let sizes = list.and_then(|l| l.iter().map(to_size).collect::<Option<Vec<_>>>());
        sizes.ok_or_else(|| self.lacks(key, "a list of sizes"))
    }

    /// A shape of four sizes.
    pub(super) fn shape(&self, key: &str) -> Result<[usize; 4]> {
        let sizes = <[usize; 4]>::try_from(self.sizes(key)?).ok();
        let fits = |s: &[usize; 4]| {
            s.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)).is_some_and(|n| n <= MOST)
        };
        sizes.filter(fits).ok_or_else(|| self.lacks(key, "four sizes"))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        let list = self.get(key).and_then(Value::as_array);
        let numbers = list.and_then(|l| l.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers.ok_or_else(|| self.lacks(key, "a list of numbers"))
    }

    /// Whether a member is `true`; it may be absent.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A member that is an object.
    pub(super) fn object(&self, key: &str) -> Option<Case<'a>> {
        self.get(key).filter(|v| v.is_object()).map(|value| Case { value, ..*self })
    }

    /// The elements of a member that is a list; none if it is absent or something else.
    pub(super) fn list(&self, key: &str) -> Vec<Case<'a>> {
        let list = self.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().map(|value| Case { value, ..*self }).collect()
    }

    /// The texts of a member that is a list of texts; none if it is absent or something else.
    pub(super) fn texts(&self, key: &str) -> Vec<&'a str> {
        let list = self.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Value::as_str).collect()
    }

    /// The pairs of a member that is a list of pairs of numbers.
    pub(super) fn pairs(&self, key: &str) -> Vec<(f64, f64)> {
        let list = self.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|p| Some((p.get(0)?.as_f64()?, p.get(1)?.as_f64()?))).collect()
    }

    pub(super) fn name(&self) -> Result<&'a str> {
        self.text("name")
    }

    fn lacks(&self, key: &str, expected: &str) -> Error {
        let case = self.value.get("name").and_then(Value::as_str).map(|n| format!("case {n}, "));
        Error::new(ErrorKind::File, "the golden set is not complete")
            .file(self.file)
            .at(format!("{}{key}", case.unwrap_or_default()))
            .expected(expected)
    }
}

fn to_size(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| *n <= MOST).and_then(|n| usize::try_from(n).ok())
}
