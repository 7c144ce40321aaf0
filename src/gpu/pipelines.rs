//! Compiled kernels by variant, shared by all models of a device: a second model compiles only the variants that the
//! first did not need.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::kernels::Variant;
use crate::{Error, Result};

/// All variants compiled so far: without runtime checks, and with them.
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
        // A panic of another thread leaves the map intact: entries are added in one step.
        self.known[usize::from(checked)].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
