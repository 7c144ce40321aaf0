//! The known names that are nearest to a mistyped one.

/// The names that `plain` could be a misspelling of: at most two, nearest first. Case is ignored.
pub fn nearest_to<'a>(plain: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let plain = plain.to_lowercase();
    let distance = |name: &str| edit_distance(&plain, &name.to_lowercase());
    let mut distances: Vec<_> = names.into_iter().map(|name| (distance(name), name)).collect();
    distances.sort();
    let slip = plain.chars().count().div_ceil(2);
    distances.iter().filter(|&&(distance, _)| distance <= slip).map(|&(_, name)| name).take(2).collect()
}

/// The Levenshtein distance: how many letters to insert, delete or replace.
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
