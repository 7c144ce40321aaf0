//! Compiled kernels by variant, one set for all that runs on a device: a second model compiles only what
//! the first had no use for.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::kernels::Variant;
use crate::{Error, Result};

/// Every variant compiled so far, without checks and with them.
#[derive(Debug, Default)]
pub struct Pipelines {
    known: [Mutex<Known>; 2],
}

type Known = HashMap<Variant, wgpu::ComputePipeline>;

impl Pipelines {
    /// Those of `variants` that were not compiled yet, each once.
    pub fn missing<'a>(
        &self,
        checked: bool,
        variants: impl Iterator<Item = &'a Variant>,
    ) -> Vec<&'a Variant> {
        let known = self.lock(checked);
        let mut missing: Vec<&Variant> = Vec::new();
        for variant in variants {
            if !known.contains_key(variant) && !missing.contains(&variant) {
                missing.push(variant);
            }
        }
        missing
    }

    /// Adds pipelines that were compiled.
    pub fn add(&self, checked: bool, compiled: Vec<(Variant, wgpu::ComputePipeline)>) {
        self.lock(checked).extend(compiled);
    }

    /// The pipeline of a variant that was compiled before.
    pub fn get(&self, checked: bool, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        let known = self.lock(checked).get(variant).cloned();
        known.ok_or_else(|| Error::internal(format!("{variant} was not compiled")))
    }

    fn lock(&self, checked: bool) -> std::sync::MutexGuard<'_, Known> {
        // A panic elsewhere leaves the map whole: entries are added in one step.
        self.known[usize::from(checked)].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
