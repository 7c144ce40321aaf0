//! Tensors that one plan leaves on the device and others read: keys and values of a prompt, which are computed once
//! and read at every step.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Most combinations of rows that stay bound: those of a step, and of the next if the two alternate.
pub const MOST_ROWS: usize = 16;

/// The results that a plan of one row has left on the device, by name.
pub struct KeptTensors(Arc<Vec<(String, wgpu::Buffer)>>);

impl KeptTensors {
    /// Of these buffers.
    pub(super) fn new(tensors: Vec<(String, wgpu::Buffer)>) -> Self {
        Self(Arc::new(tensors))
    }

    /// By name, in the order of the plan's results.
    pub(super) fn buffers(&self) -> &[(String, wgpu::Buffer)] {
        &self.0
    }
}

/// The bindings of a plan to the persistent tensors of its rows, joined into one buffer for each input.
pub struct RowBindings {
    /// The tensors of each row.
    of: Vec<Weak<Vec<(String, wgpu::Buffer)>>>,
    /// By dispatch.
    groups: HashMap<usize, wgpu::BindGroup>,
}

impl RowBindings {
    /// The bind groups of dispatches to the tensors of each row.
    pub(super) fn new(kept: &[&KeptTensors], groups: HashMap<usize, wgpu::BindGroup>) -> Self {
        Self { of: kept.iter().map(|kept| Arc::downgrade(&kept.0)).collect(), groups }
    }

    /// The bind group of dispatch `i`.
    pub(super) fn group(&self, i: usize) -> Option<&wgpu::BindGroup> {
        self.groups.get(&i)
    }

    /// Whether they are those of these rows.
    pub(super) fn is_of(&self, kept: &[&KeptTensors]) -> bool {
        let same = |(a, b): (&Weak<_>, &&KeptTensors)| std::ptr::eq(a.as_ptr(), Arc::as_ptr(&b.0));
        self.of.len() == kept.len() && self.of.iter().zip(kept).all(same)
    }

    /// Whether all tensors still exist.
    pub(super) fn is_alive(&self) -> bool {
        self.of.iter().all(|of| of.strong_count() > 0)
    }
}
