//! Looking up a sampler or a scheduler by a name that a person typed, or that another program wrote.

use crate::nearest_name::nearest_to;
use crate::{Error, Remedy, Result};

/// A value with its name, and its names in other programs.
pub(super) struct Named<T> {
    pub value: T,
    pub name: &'static str,
    pub aliases: &'static [&'static str],
}

/// The value of the entry of `table` with the name `wanted`; names are compared by their [`words`], so "Euler a",
/// "euler_a" and "k_euler_ancestral" are the same.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) with the nearest names, and all names;
/// `what` is "sampler" or "scheduler".
pub(super) fn find<T>(what: &str, wanted: &str, table: impl IntoIterator<Item = Named<T>>) -> Result<T> {
    let key = |name: &str| words(name).concat();
    let plain = key(wanted);
    let mut names = Vec::new();
    for entry in table {
        if key(entry.name) == plain || entry.aliases.iter().any(|alias| key(alias) == plain) {
            return Ok(entry.value);
        }
        names.push(entry.name);
    }
    let near = nearest_to(&words(wanted).join("_"), names.iter().copied());
    let error =
        Error::usage(format!("unknown {what} {wanted:?}")).expected(format!("one of {}", names.join(", ")));
    Err(match near.is_empty() {
        true => error,
        false => error.remedy(Remedy::DidYouMean(near.into_iter().map(str::to_owned).collect())),
    })
}

/// The words of a name in lower case, as ComfyUI spells them: `++` becomes `pp`, `a` becomes `ancestral`; a prefix `k_`
/// or `sample_` and a suffix `_gpu` are ignored.
pub(super) fn words(name: &str) -> Vec<String> {
    let plain = name.trim().to_lowercase().replace("++", "pp");
    let all: Vec<&str> =
        plain.split(|c: char| c.is_whitespace() || "_-()\"".contains(c)).filter(|w| !w.is_empty()).collect();
    let all = match all.as_slice() {
        ["k" | "sample", rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let all = match all {
        [first @ .., "gpu"] if !first.is_empty() => first,
        all => all,
    };
    all.iter().map(|word| if *word == "a" { "ancestral" } else { word }.to_owned()).collect()
}
