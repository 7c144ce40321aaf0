//! A graph on a device with weights made from their names, watched for stray writes.

use std::sync::atomic::AtomicBool;

use super::{Rng, kept_rows, stored, to_f64};
use sagittal::internals::engine::{Engine, KeptTensors, PlanRun, WeightSource};
use sagittal::internals::graph::{Graph, Shape};
use sagittal::internals::kernels::{DeviceProfile, Precision};
use sagittal::internals::plan::{Bound, Plan, PlanOptions, Storage};

const SENTINEL: u32 = 0x7FC0_BEEF;

/// Weights made from their names, numbers of a precision.
pub struct Weights(pub Precision);

impl WeightSource for Weights {
    fn read(&self, name: &str, shape: &[usize]) -> sagittal::Result<Vec<f32>> {
        let seed = name.bytes().fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(b));
        // Vectors stay f32 on the device.
        let precision = if shape.len() == 1 { Precision::F32 } else { self.0 };
        // Networks of any depth keep values of about one.
        let scale = 1.7 / (shape[1..].iter().product::<usize>() as f32).sqrt();
        let mut rng = Rng(seed);
        Ok((0..shape.iter().product()).map(|_| stored(rng.value() * scale, precision)).collect())
    }

    fn fits_f16(&self, _: &str) -> bool {
        self.0 == Precision::F16
    }
}

impl Weights {
    pub fn f64(&self, name: &str, shape: &[usize]) -> Vec<f64> {
        to_f64(&self.read(name, shape).expect("made from its name"))
    }

    /// A product's weight as the reference wants it: `[tap][in][out]`.
    pub fn product(&self, name: &str, out: usize, inp: usize, taps: usize) -> Vec<f64> {
        let shape = if taps == 9 { vec![out, inp, 3, 3] } else { vec![out, inp] };
        let file = self.f64(name, &shape);
        let mut w = vec![0.0; file.len()];
        for o in 0..out {
            for i in 0..inp {
                for t in 0..taps {
                    w[(t * inp + i) * out + o] = file[(o * inp + i) * taps + t];
                }
            }
        }
        w
    }
}

pub struct Bench<'a> {
    pub engine: &'a Engine,
    /// Which kernels are planned; its limits are the device's.
    pub profile: DeviceProfile,
    pub precision: Precision,
    /// Of the weights; f16 in a network of f32 is for CPU drivers.
    pub weights: Precision,
    pub rows: usize,
    /// Bytes that one binding may have; None is the device's limit.
    pub most: Option<u64>,
}

impl<'a> Bench<'a> {
    /// Weights in the precision of the values, and bindings of the device's limit.
    pub fn new(engine: &'a Engine, profile: &DeviceProfile, precision: Precision, rows: usize) -> Self {
        Self { engine, profile: profile.clone(), precision, weights: precision, rows, most: None }
    }
}

impl Bench<'_> {
    pub fn storage(&self, graph: &Graph) -> Storage {
        let fits = |name: &str| Weights(self.weights).fits_f16(name);
        Storage::of(graph.weights(), self.precision, &self.profile, fits)
    }

    pub fn plan(&self, graph: &Graph) -> Plan {
        let own = self.engine.gpu().profile();
        let device = DeviceProfile {
            max_binding: self.most.unwrap_or(own.max_binding),
            max_buffer: own.max_buffer,
            alignment: own.alignment,
            ..self.profile.clone()
        };
        let options = PlanOptions { rows: self.rows, storage: self.storage(graph), device, guard: 4096 };
        Plan::new(graph, &options).expect("plan")
    }

    /// Runs `graph` on `inputs` and checks that nothing outside the tensors was written.
    pub fn run(&self, graph: &Graph, inputs: &[(&str, &[f32])]) -> Vec<Vec<f32>> {
        self.run_for_words(graph, inputs).0
    }

    /// The same, with all that the arena holds afterwards.
    pub fn run_for_words(&self, graph: &Graph, inputs: &[(&str, &[f32])]) -> (Vec<Vec<f32>>, Vec<Vec<u32>>) {
        let plan = self.plan(graph);
        let weights = self
            .engine
            .upload(graph.weights(), &Weights(self.weights), &plan.storage, None, &AtomicBool::new(false))
            .expect("upload");
        let arena = self.engine.arena(&plan).expect("arena");
        let prepared = self.engine.prepare(plan, &weights, &arena).expect("prepare");
        self.engine.fill_arena(&prepared, SENTINEL);
        let kept = kept_rows(self.engine, &prepared, inputs);
        let kept: Vec<&KeptTensors> = kept.iter().collect();
        let cancel = AtomicBool::new(false);
        let results = self.engine.run(&prepared, &PlanRun::new(inputs, &cancel).on(&kept)).expect("run");
        let plan = prepared.plan();
        let all = self.engine.arena_words(&prepared).expect("read the arena");
        let mut words = all.clone();
        let bound = plan.dispatches.iter().flat_map(|d| &d.bindings).filter_map(|b| match b {
            Bound::Arena(r) => Some(*r),
            _ => None,
        });
        // Of an input that others slice, not all need be bound.
        for r in bound.chain(plan.inputs.iter().filter(|i| !i.kept).map(|i| i.region)) {
            let at = r.offset as usize / 4;
            words[r.slab][at..at + (r.bytes as usize).div_ceil(4)].fill(SENTINEL);
        }
        let stray = words.iter().flatten().filter(|w| **w != SENTINEL).count();
        assert_eq!(stray, 0, "words written outside of all tensors by {:?}", plan.variants());
        (results.into_iter().map(|(_, v)| v).collect(), all)
    }

    pub fn values(&self, rng: &mut Rng, shape: Shape) -> Vec<f32> {
        rng.values(self.rows * shape.positions() * shape.channels, self.precision)
    }

    /// Splits `values` into rows of f64.
    pub fn rows(&self, values: &[f32]) -> Vec<Vec<f64>> {
        values.chunks(values.len() / self.rows).map(to_f64).collect()
    }
}
