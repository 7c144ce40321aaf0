//! Looking up a sampler or scheduler by a name that a person typed.

use crate::{Error, Remedy, Result};

/// Something with one name of its own and other programs' names for it.
pub(super) struct Named<T> {
    pub value: T,
    pub name: &'static str,
    pub aliases: &'static [&'static str],
}

/// The entry of `table` that is called `wanted`, whatever its case and with spaces or dashes for
/// underscores ("Euler a", "SGM Uniform").
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) with the nearest names and all names;
/// `what` is "sampler" or "scheduler".
pub(super) fn find<T>(what: &str, wanted: &str, table: impl IntoIterator<Item = Named<T>>) -> Result<T> {
    let plain = wanted.trim().to_lowercase().replace([' ', '-'], "_");
    let mut names = Vec::new();
    for entry in table {
        if entry.name == plain || entry.aliases.contains(&plain.as_str()) {
            return Ok(entry.value);
        }
        names.push(entry.name);
    }
    let error = Error::usage(format!("unknown {what}"))
        .expected(format!("one of {}", names.join(", ")))
        .found(format!("{wanted:?}"));
    Err(match nearest_to(&plain, names) {
        near if near.is_empty() => error,
        near => error.remedy(Remedy::DidYouMean(near.into_iter().map(str::to_owned).collect())),
    })
}

/// The names that `plain` could be a slip of the pen for: at most two, nearest first.
pub fn nearest_to<'a>(plain: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distances: Vec<_> = names.into_iter().map(|name| (edit_distance(plain, name), name)).collect();
    distances.sort();
    let slip = plain.chars().count().div_ceil(2);
    distances.iter().filter(|&&(distance, _)| distance <= slip).map(|&(_, name)| name).take(2).collect()
}

/// Levenshtein's distance: how many letters to insert, delete or replace.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [("", "", 0), ("", "abc", 3), ("karas", "karras", 1), ("euler", "elder", 2)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (d, d), "{a} {b}");
        }
    }
}
