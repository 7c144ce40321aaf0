//! A cache of plans for all samplings of a model: planning the calls of a step takes longer than a fast device takes for
//! the step.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RowKind;
use crate::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Storage};

/// Most plans of the cache: enough for many sizes of pictures.
const MOST: usize = 64;

/// The graphs and plans of a UNet for one storage of its values.
pub struct Plans {
    storage: Storage,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    graphs: HashMap<RowKind, Arc<Graph>>,
    /// By kind and number of rows.
    calls: HashMap<(RowKind, usize), Arc<Plan>>,
    /// By number of tokens.
    conditionings: HashMap<usize, Arc<Plan>>,
}

impl Plans {
    /// An empty cache of plans for `storage`.
    pub fn new(storage: Storage) -> Self {
        Self { storage, known: Mutex::default() }
    }

    /// The storage that the plans are for.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(super) fn graph(&self, kind: RowKind, make: impl FnOnce() -> Result<Graph>) -> Result<Arc<Graph>> {
        self.get(|known| &mut known.graphs, kind, make)
    }

    pub(super) fn call(
        &self,
        (kind, rows): (RowKind, usize),
        make: impl FnOnce() -> Result<Plan>,
    ) -> Result<Arc<Plan>> {
        self.get(|known| &mut known.calls, (kind, rows), make)
    }

    pub(super) fn conditioning(
        &self,
        tokens: usize,
        make: impl FnOnce() -> Result<Plan>,
    ) -> Result<Arc<Plan>> {
        self.get(|known| &mut known.conditionings, tokens, make)
    }

    /// The value of `key`, made by `make` if it is not in the cache. Two threads may make the same value at once.
    fn get<K: Hash + Eq, T>(
        &self,
        of: impl Fn(&mut Known) -> &mut HashMap<K, Arc<T>>,
        key: K,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        if let Some(known) = of(&mut self.lock()).get(&key) {
            return Ok(known.clone());
        }
        let made = Arc::new(make()?);
        let mut known = self.lock();
        let map = of(&mut known);
        if map.len() >= MOST {
            map.clear();
        }
        map.insert(key, made.clone());
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Entries are complete before they are added.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
