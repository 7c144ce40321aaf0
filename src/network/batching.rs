//! Which rows go into which network call, and the plans of these calls.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DenoisingNetwork, Plans, RowKind};
use crate::graph::{Graph, Perturbation};
use crate::kernels::DeviceProfile;
use crate::kernels::Precision;
use crate::model::unet::COLUMNS;
use crate::plan::chunk::{ChunkPolicy, rows_per_call};
use crate::plan::{Plan, PlanOptions};
use crate::{Error, Result};

/// What the calls of a network are planned with.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The network.
    pub network: &'a dyn DenoisingNetwork,
    /// The device.
    pub device: &'a DeviceProfile,
    /// Plans made before for the same network and device, and the storage that they are for.
    pub plans: &'a Plans,
}

impl Planner<'_> {
    /// Storage of activations.
    pub fn precision(&self) -> Precision {
        self.plans.storage().precision()
    }

    /// The graph for rows of `kind`.
    pub fn graph(&self, kind: RowKind) -> Result<Arc<Graph>> {
        self.plans.graph(kind, || self.network.graph(kind))
    }

    /// The plan of a call of `rows` rows of `kind`.
    pub fn plan(&self, kind: RowKind, rows: usize) -> Result<Arc<Plan>> {
        self.plans.call((kind, rows), || self.plan_of(&*self.graph(kind)?, rows))
    }

    /// The plan that computes, once for each prompt of `tokens`, the tensors that rows read at every step.
    pub fn conditioning(&self, tokens: usize) -> Result<Arc<Plan>> {
        self.plans.conditioning(tokens, || self.plan_of(&self.network.conditioning(tokens)?, 1))
    }

    fn plan_of(&self, graph: &Graph, rows: usize) -> Result<Plan> {
        let storage = self.plans.storage().clone();
        Plan::new(graph, &PlanOptions { rows, storage, device: self.device.clone(), guard: 0 })
    }
}

/// Groups the rows of a step into network calls.
pub struct Batching<'a> {
    planner: Planner<'a>,
    policy: ChunkPolicy,
    budget: Option<u64>,
    /// Rows per call, by kind and number of rows: every step needs the same numbers, and each takes several plans.
    sizes: HashMap<(RowKind, usize), usize>,
}

impl<'a> Batching<'a> {
    /// Calls by `policy`, each with an arena of at most `budget` bytes.
    pub fn new(planner: Planner<'a>, policy: ChunkPolicy, budget: Option<u64>) -> Self {
        Self { planner, policy, budget, sizes: HashMap::new() }
    }

    /// The calls for rows of these kinds: the kind of each call, and the indices of its rows.
    pub fn calls(&mut self, rows: &[RowKind]) -> Result<Vec<(RowKind, Vec<usize>)>> {
        // All rows of a step record, or none: a network that records has other kernels, and the result of a row must not
        // depend on the other rows of its chunk.
        let recorded = rows.iter().any(|r| r.record);
        let mut groups: Vec<(RowKind, Vec<usize>)> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let record = recorded && row.perturbation == Perturbation::None;
            let kind = RowKind { record, ..*row };
            match groups.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, members)) => members.push(i),
                None => groups.push((kind, vec![i])),
            }
        }
        let mut calls = Vec::new();
        for (kind, members) in groups {
            let size = match self.sizes.get(&(kind, members.len())) {
                Some(size) => *size,
                None => {
                    let plan = |rows| self.plan(kind, rows);
                    let size = rows_per_call(self.policy, members.len(), self.budget, plan)?;
                    self.sizes.insert((kind, members.len()), size);
                    size
                }
            };
            calls.extend(members.chunks(size).map(|chunk| (kind, chunk.to_vec())));
        }
        Ok(calls)
    }

    /// The plan of a call that [`calls`](Self::calls) gave.
    pub fn plan(&self, kind: RowKind, rows: usize) -> Result<Arc<Plan>> {
        self.planner.plan(kind, rows)
    }

    /// Height and width of the attention map of a recording call, positions.
    pub fn map_size(&self, kind: RowKind) -> Result<(usize, usize)> {
        let graph = self.planner.graph(kind)?;
        let columns = graph.outputs().iter().find(|(n, _)| n == COLUMNS);
        let (_, tensor) =
            columns.ok_or_else(|| Error::usage("the graph of the network does not record attention"))?;
        let shape = graph.shape(*tensor);
        Ok((shape.height, shape.width))
    }
}
