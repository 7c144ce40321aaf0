//! What a device's kernels were found to do when they were checked, and the file that keeps it from one start to the
//! next: see [`trust`](crate::trust).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::pipeline_cache::write_private;

/// What was found of each kernel or core that was checked, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdicts {
    pub kernels: BTreeMap<String, Verdict>,
}

/// What was found of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Mean square of the distance from the results of plain kernels in f32, over that of these results. Infinite if a
    /// result is not a number, or if the kernel failed.
    pub apart: f64,
    /// How many times faster it is than the plain kernel; infinite if that was not measured.
    pub faster: f64,
}

/// The most that a kernel of f16 may be apart: the tests hold it to 1e-6.
const MOST_APART: f64 = 1e-5;

/// Below this a kernel is slower, and not just as fast: what a busy machine adds to a measurement is not to decide
/// which kernels draw a picture.
const SLOWER: f64 = 0.8;

/// Whether a kernel that is `faster` times as fast as the plain one is not worth its use.
pub fn is_slower(faster: f64) -> bool {
    faster < SLOWER
}

impl Verdict {
    /// Whether it computes what the plain kernel computes.
    pub fn is_right(&self) -> bool {
        self.apart <= MOST_APART
    }

    /// Whether the kernel is used.
    pub fn is_trusted(&self) -> bool {
        self.is_right() && !is_slower(self.faster)
    }

    /// What was found, in words.
    pub fn words(&self) -> String {
        match self {
            v if v.apart.is_infinite() => "fails".into(),
            v if !v.is_right() => format!("wrong: results are apart by {:.1e}", v.apart),
            v if v.faster.is_infinite() => "right".into(),
            v if is_slower(v.faster) => {
                format!("right, but {:.1} times slower than the plain kernel", 1.0 / v.faster)
            }
            v => format!("right, {:.1} times as fast as the plain kernel", v.faster),
        }
    }
}

/// What the file begins with.
const FORMAT: &str = "sagittal kernels 1";

impl Verdicts {
    /// Kernels that are not to be used.
    pub fn distrusted(&self) -> BTreeSet<String> {
        self.kernels.iter().filter(|(_, v)| !v.is_trusted()).map(|(name, _)| name.clone()).collect()
    }

    /// Those of the file at `path`, if it is there and of these kernels, which `fingerprint` names.
    pub fn read(path: &Path, fingerprint: &str) -> Option<Self> {
        let root: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        if root.get("format")?.as_str()? != FORMAT || root.get("kernels_of")?.as_str()? != fingerprint {
            return None;
        }
        // JSON has no infinity.
        let number = |of: &Value, name: &str| of.get(name).map(|n| n.as_f64().unwrap_or(f64::INFINITY));
        let each = root.get("kernels")?.as_object()?.iter().map(|(name, of)| {
            Some((name.clone(), Verdict { apart: number(of, "apart")?, faster: number(of, "faster")? }))
        });
        Some(Self { kernels: each.collect::<Option<_>>()? })
    }

    /// Writes them to `path`, for `adapter`. An error costs only time at the next start: it is logged.
    pub fn write(&self, path: &Path, fingerprint: &str, adapter: &str) {
        let kernels: Map<_, _> = self
            .kernels
            .iter()
            .map(|(name, v)| {
                (name.clone(), json!({ "apart": v.apart, "faster": v.faster, "found": v.words() }))
            })
            .collect();
        let root =
            json!({ "format": FORMAT, "adapter": adapter, "kernels_of": fingerprint, "kernels": kernels });
        if let Err(why) = write_private(path, format!("{root:#}\n").as_bytes()) {
            log::debug!("{}: what was found of kernels is not kept: {why}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/kernels.json");
        let of = |apart, faster| Verdict { apart, faster };
        let kernels = [
            ("fast", of(1e-8, 3.5)),
            ("slow", of(1e-8, 0.5)),
            ("wrong", of(0.5, 9.0)),
            ("broken", of(f64::INFINITY, 1.0)),
            ("untimed", of(0.0, f64::INFINITY)),
        ];
        let all = Verdicts { kernels: kernels.map(|(name, v)| (name.to_owned(), v)).into() };
        all.write(&path, "a", "adapter");
        assert_eq!(Verdicts::read(&path, "a"), Some(all.clone()));
        assert_eq!(Verdicts::read(&path, "b"), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "the folder of pipelines is private, whoever makes it");
        }
        assert_eq!(all.distrusted(), ["slow", "wrong", "broken"].map(str::to_owned).into());
        for text in ["", "{}", "[]", r#"{"format": "sagittal kernels 1"}"#] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Verdicts::read(&path, "a"), None);
        }
    }
}
