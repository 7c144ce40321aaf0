//! What kernels cost on a device, and the choice among several ways to compute an operation.
//!
//! A [`CostTable`] is data: one for GPUs and one for CPUs are compiled in, and `sagittal bench --tune` measures one of
//! an adapter. The same table makes the same choices, so that pictures have the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::{DeviceProfile, Form};
use crate::{Error, ErrorKind, Result};

/// What kernels cost on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct CostTable {
    /// What it was measured on, for people.
    pub about: String,
    /// Cores that run workgroups beside each other.
    pub cores: u32,
    /// Microseconds of a wave of workgroups beside what depends on the inner dimension.
    pub wave: f32,
    /// Microseconds of adding the parts of split-K, and for each of the sums, which are written and read.
    pub merge: [f32; 2],
    /// By kernel and tile, such as `gemm_cooperative 128x160`.
    pub kernels: BTreeMap<String, KernelCost>,
    /// Measured microseconds by operation and by way to compute it; these are believed rather than the formula.
    pub measured: BTreeMap<String, BTreeMap<String, f32>>,
}

/// What a kernel costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelCost {
    /// Workgroups that a core runs beside each other,
    pub beside: u32,
    /// and the microseconds that they take for 1280 steps of the inner dimension.
    pub micros: f32,
}

/// The inner dimension that costs are for.
const INNER: f32 = 1280.0;

/// A way to compute an operation, and what it costs.
pub(super) struct Candidate<W> {
    pub way: W,
    pub name: WayName,
    pub form: Form,
    /// Microseconds by the formula.
    pub time: f32,
}

/// What was asked of a chooser while networks were planned: see [`DeviceProfile::asked`].
#[derive(Debug, Default)]
pub struct Asked(Mutex<Vec<Question>>);

/// An operation of a network and the ways to compute it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The layer's path.
    pub path: String,
    /// The operation's name in [`CostTable::measured`].
    pub operation: String,
    /// The ways by name, with their microseconds by the formula.
    pub ways: Vec<(String, f32)>,
}

impl Asked {
    /// All questions so far, in order.
    pub fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, question: Question) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(question);
    }
}

/// Profiles are the same whoever listens.
impl PartialEq for Asked {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// The name of a way: a kernel, its tile and the parts of split-K.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WayName {
    /// The kernel, or the core of one.
    pub kernel: &'static str,
    /// What tells it from the kernel's other ways; may be empty.
    pub tile: &'static str,
    /// Of split-K.
    pub parts: u32,
}

impl fmt::Display for WayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, tile, parts } = self;
        f.write_str(kernel)?;
        if !tile.is_empty() {
            write!(f, " {tile}")?;
        }
        if *parts > 1 { write!(f, " in {parts} parts") } else { Ok(()) }
    }
}

impl DeviceProfile {
    /// The cheapest of `candidates` that can run here and are trusted, the first of equals; `operation` names what is
    /// computed at `path`.
    pub(super) fn cheapest<W>(
        &self,
        path: &str,
        operation: impl Fn() -> String,
        candidates: impl IntoIterator<Item = Candidate<W>>,
    ) -> Option<W> {
        let mut usable: Vec<_> =
            candidates.into_iter().filter(|c| self.takes(c.name.kernel, c.form)).collect();
        if self.prefers_matrices && usable.iter().any(|c| c.form == Form::Cooperative) {
            usable.retain(|c| c.form == Form::Cooperative);
        }
        if let Some(asked) = &self.asked
            && !path.is_empty()
        {
            let ways = usable.iter().map(|c| (c.name.to_string(), c.time)).collect();
            asked.add(Question { path: path.to_owned(), operation: operation(), ways });
        }
        if !self.costs.measured.is_empty()
            && let Some(measured) = self.costs.measured.get(&operation())
        {
            let known = |c: &Candidate<W>| measured.get(&c.name.to_string()).copied();
            let least = usable.iter().filter_map(known).reduce(f32::min);
            if let Some(least) = least {
                return usable.into_iter().find(|c| known(c) == Some(least)).map(|c| c.way);
            }
        }
        usable.into_iter().reduce(|best, c| if c.time < best.time { c } else { best }).map(|c| c.way)
    }
}

impl CostTable {
    /// That of GPUs that have no table of their own.
    pub fn of_gpus() -> Arc<Self> {
        static TABLE: LazyLock<Arc<CostTable>> =
            LazyLock::new(|| compiled_in(include_str!("costs/gpu.json")));
        TABLE.clone()
    }

    /// That of CPUs.
    pub fn of_cpus() -> Arc<Self> {
        static TABLE: LazyLock<Arc<CostTable>> =
            LazyLock::new(|| compiled_in(include_str!("costs/cpu.json")));
        TABLE.clone()
    }

    /// Whether it is one of those that are compiled in.
    pub fn is_compiled_in(&self) -> bool {
        *self == *Self::of_gpus() || *self == *Self::of_cpus()
    }

    /// What `kernel` costs with `tile`; much if the table does not know it.
    pub(super) fn of(&self, kernel: &'static str, tile: &'static str) -> KernelCost {
        self.find(&WayName { kernel, tile, parts: 1 }.to_string())
    }

    /// What the kernel of `name` costs for heads of up to `dim` channels.
    pub(super) fn of_heads(&self, name: WayName, dim: u32) -> KernelCost {
        self.find(&format!("{name} of {dim}"))
    }

    fn find(&self, name: &str) -> KernelCost {
        self.kernels.get(name).copied().unwrap_or(KernelCost { beside: 1, micros: 1e9 })
    }

    /// Microseconds of `groups` workgroups at `cost` that go through `inner` steps each: a device takes as many waves as
    /// its cores need for all workgroups.
    pub(super) fn waves(&self, cost: KernelCost, groups: u32, inner: u32) -> f32 {
        let waves = groups.div_ceil(self.cores.saturating_mul(cost.beside).max(1)) as f32;
        waves * (self.wave + cost.micros * inner as f32 / INNER)
    }

    /// The same where cores are never idle: of small parts of work.
    pub(super) fn steady(&self, cost: KernelCost, groups: f32, inner: u32) -> f32 {
        groups / (self.cores * cost.beside) as f32 * cost.micros * inner as f32 / INNER
    }

    /// Microseconds of adding `sums` sums of parts.
    pub(super) fn merging(&self, sums: f32) -> f32 {
        self.merge[0] + sums * self.merge[1]
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) if the text is not a table of this version.
    pub fn parse(text: &str) -> Result<Self> {
        let root: Value = serde_json::from_str(text)
            .map_err(|e| Error::new(ErrorKind::File, format!("not a cost table: {e}")))?;
        let number = |of: &Value, name: &str| {
            let found = of.get(name).and_then(Value::as_f64);
            found.filter(|n| n.is_finite() && *n >= 0.0).map(|n| n as f32).ok_or_else(|| wrong(name, of))
        };
        let whole = |of: &Value, name: &str| {
            let found = of.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
            found.filter(|n| *n > 0).ok_or_else(|| wrong(name, of))
        };
        if root.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(Error::new(ErrorKind::File, "not a cost table of this version")
                .at("format")
                .expected(FORMAT)
                .found(root.get("format").map_or("nothing".into(), Value::to_string)));
        }
        let object = |of: &'_ Value, name: &str| -> Result<Map<String, Value>> {
            of.get(name).and_then(Value::as_object).cloned().ok_or_else(|| wrong(name, of))
        };
        let kernels = object(&root, "kernels")?
            .into_iter()
            .map(|(name, of)| {
                let cost = KernelCost { beside: whole(&of, "beside")?, micros: number(&of, "micros")? };
                Ok((name, cost))
            })
            .collect::<Result<_>>()?;
        let measured = object(&root, "measured")?
            .into_iter()
            .map(|(operation, ways)| {
                let ways_of = ways.as_object().ok_or_else(|| wrong(&operation, &ways))?;
                let each = ways_of.keys().map(|way| Ok((way.clone(), number(&ways, way)?)));
                Ok((operation, each.collect::<Result<_>>()?))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            about: root.get("about").and_then(Value::as_str).unwrap_or_default().to_owned(),
            cores: whole(&root, "cores")?,
            wave: number(&root, "wave")?,
            merge: [number(&root, "merge")?, number(&root, "merge_each")?],
            kernels,
            measured,
        })
    }

    /// The table in `file`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) if it cannot be read, or is none of this version.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "cannot read the costs", e))?;
        Self::parse(&text).map_err(|e| e.file(file))
    }

    /// Its text, which [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        let kernels: Map<_, _> = self
            .kernels
            .iter()
            .map(|(name, cost)| (name.clone(), json!({ "beside": cost.beside, "micros": cost.micros })))
            .collect();
        let root = json!({
            "format": FORMAT,
            "about": self.about,
            "cores": self.cores,
            "wave": self.wave,
            "merge": self.merge[0],
            "merge_each": self.merge[1],
            "kernels": kernels,
            "measured": self.measured,
        });
        format!("{root:#}\n")
    }

    /// Ten hexadecimal digits that name what it says of costs: of the SHA-256 of its text without what it was measured
    /// on.
    pub fn hash(&self) -> String {
        use sha2::Digest;
        let text = Self { about: String::new(), ..self.clone() }.to_text();
        let digest = sha2::Sha256::digest(text);
        digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a file of costs begins with.
const FORMAT: &str = "sagittal costs 1";

fn wrong(name: &str, of: &Value) -> Error {
    let found = of.get(name).map_or("nothing".to_owned(), Value::to_string);
    Error::new(ErrorKind::File, "not a cost table: a value is missing or of the wrong kind")
        .at(name)
        .found(found)
}

/// A table of the program, which tests read.
fn compiled_in(text: &str) -> Arc<CostTable> {
    let empty = || CostTable {
        about: String::new(),
        cores: 1,
        wave: 0.0,
        merge: [0.0; 2],
        kernels: BTreeMap::new(),
        measured: BTreeMap::new(),
    };
    Arc::new(CostTable::parse(text).unwrap_or_else(|_| empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let mut table = CostTable::clone(&CostTable::of_gpus());
        table
            .measured
            .insert("f16 64 positions, 8 to 8".into(), [("gemm_tile 64x64 in 2 parts".into(), 3.25)].into());
        let read = CostTable::parse(&table.to_text()).unwrap();
        assert_eq!(read, table);
        // What it was measured on does not matter.
        let other = CostTable { about: "another".into(), ..table.clone() };
        assert_eq!(other.hash(), table.hash());
        assert_ne!(CostTable::of_gpus().hash(), table.hash());
        assert!(CostTable::of_gpus().is_compiled_in() && !table.is_compiled_in());
    }

    #[test]
    fn the_compiled_in_tables_know_the_same_kernels() {
        let [gpu, cpu] = [CostTable::of_gpus(), CostTable::of_cpus()];
        assert!(gpu.kernels.len() > 40);
        assert!(gpu.kernels.keys().eq(cpu.kernels.keys()));
    }

    #[test]
    fn what_is_no_table_is_an_error_that_says_where() {
        let good = CostTable::of_gpus().to_text();
        for (from, to, at) in [
            ("\"cores\": 128", "\"cores\": 0", "cores"),
            ("\"wave\": 2.0", "\"wave\": \"two\"", "wave"),
            ("\"measured\": {}", "\"measured\": {\"a\": {\"b\": -1}}", "b"),
            ("\"measured\": {}", "\"other\": {}", "measured"),
            ("sagittal costs 1", "sagittal costs 9", "format"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = CostTable::parse(&good.replace(from, to)).unwrap_err();
            assert_eq!((error.kind(), error.place()), (ErrorKind::File, Some(at)), "{error}");
        }
        for text in ["", "[]", "null", "{", "{}"] {
            assert_eq!(CostTable::parse(text).unwrap_err().kind(), ErrorKind::File);
        }
    }

    #[test]
    fn what_is_measured_is_believed() {
        let candidate = |tile, time| Candidate {
            way: tile,
            name: WayName { kernel: "gemm_tile", tile, parts: 1 },
            form: Form::Plain,
            time,
        };
        let choose = |measured: &[(&str, f32)]| {
            let mut costs = CostTable::clone(&CostTable::of_gpus());
            let ways = measured.iter().map(|(way, time)| (format!("gemm_tile {way}"), *time)).collect();
            costs.measured.insert("it".into(), ways);
            let device = DeviceProfile { costs: Arc::new(costs), ..DeviceProfile::gpu() };
            device.cheapest(
                "",
                || "it".into(),
                [candidate("a", 1.0), candidate("b", 1.0), candidate("c", 2.0)],
            )
        };
        assert_eq!(choose(&[]), Some("a"));
        assert_eq!(choose(&[("c", 9.0)]), Some("c"));
        assert_eq!(choose(&[("c", 9.0), ("b", 8.0)]), Some("b"));
        // Of a way that there is not.
        assert_eq!(choose(&[("d", 0.0)]), Some("a"));
    }
}
