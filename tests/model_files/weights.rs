//! Weights on their way to the device: every type that a file may hold, odd shapes, and what is
//! larger than a staging buffer, against the conversion of the `half` crate.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use crate::common::{Failures, Rng, default_device, gpu, kept_rows, stored};
use half::{bf16, f16};
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::gpu::Gpu;
use sagittal::internals::engine::{Engine, KeptTensors, PlanRun, WeightSource};
use sagittal::internals::graph::{Graph, Layout, Shape, Weight};
use sagittal::internals::kernels::Precision;
use sagittal::internals::kernels::repack::Stored;
use sagittal::internals::model::{ModelConfig, unet};
use sagittal::internals::plan::{Plan, PlanOptions};
use sagittal::{Error, ErrorKind, Result};

/// A UNet with streamed weights gives what it gives with all of them on the device, run after
/// run, in whatever share of the memory.
#[test]
fn streamed_weights_change_nothing() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let manifest = Manifest::parse(crate::common::MANIFESTS[0].1).expect("manifest");
    let model = Checkpoint::synthetic(&manifest, 3, Dtype::F16).expect("checkpoint");
    let config = ModelConfig::infer(&model).expect("known");
    let build = unet::Options { size: (8, 6), tokens: 77, record: true, ..Default::default() };
    let g = unet::build(&config.unet, &build).expect("unet");
    let precision = Precision::F16;
    let device = engine.gpu().profile().clone();
    let cancel = AtomicBool::new(false);
    let data: Vec<(String, Vec<f32>)> = g
        .inputs()
        .iter()
        .map(|(name, t)| {
            let shape = g.shape(*t);
            (name.clone(), Rng(5).values(2 * shape.positions() * shape.channels, precision))
        })
        .collect();
    let inputs: Vec<(&str, &[f32])> = data.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let storage = engine.storage(g.weights(), &model, precision);
    let all = engine.weight_bytes(g.weights(), &storage, None).expect("sizes");
    let mut first = None;
    for most in [None, Some(all * 3 / 4), Some(all / 2), Some(all / 3)] {
        let weights = engine.upload(g.weights(), &model, &storage, most, &cancel).expect("upload");
        if let Some(most) = most {
            let held = engine.weight_bytes(g.weights(), &storage, Some(most)).expect("sizes");
            assert_eq!(held, weights.bytes());
            println!("{} of {all} bytes, {held} held with the road", most);
        }
        let options = PlanOptions { rows: 2, storage: storage.clone(), device: device.clone(), guard: 0 };
        let plan = Plan::new(&g, &options).expect("plan");
        let arena = engine.arena(&plan).expect("arena");
        let prepared = engine.prepare(plan, &weights, &arena).expect("prepare");
        let kept = kept_rows(&engine, &prepared, &inputs);
        let kept: Vec<&KeptTensors> = kept.iter().collect();
        for _ in 0..2 {
            let run = PlanRun::new(&inputs, &cancel).with_streamed(&weights, &model).on(&kept);
            let results = engine.run(&prepared, &run).expect("a run");
            assert!(*first.get_or_insert(results.clone()) == results, "{most:?}");
        }
    }
    let error = engine.weight_bytes(g.weights(), &storage, Some(1000)).expect_err("too little");
    assert_eq!(error.kind(), ErrorKind::Memory);
}

/// One tensor, whatever its name.
struct File {
    stored: Stored,
    bytes: Vec<u8>,
}

impl File {
    /// The number that the file holds at `i`.
    fn value(&self, i: usize) -> f32 {
        let b = &self.bytes[i * self.stored.bytes()..];
        match self.stored {
            Stored::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Stored::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Stored::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Stored::F8E4m3 => eight_bits(b[0], 3, 7),
            Stored::F8E5m2 => eight_bits(b[0], 2, 15),
        }
    }

    fn values(&self) -> Vec<f32> {
        (0..self.bytes.len() / self.stored.bytes()).map(|i| self.value(i)).collect()
    }
}

/// OCP 8-bit floats by their definition.
fn eight_bits(b: u8, mantissa: i32, bias: i32) -> f32 {
    let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(b & 0x7f) >> mantissa, i32::from(b) & ((1 << mantissa) - 1));
    let one = 1 << mantissa;
    match exponent {
        0 => sign * fraction as f32 / one as f32 * 2f32.powi(1 - bias),
        _ if mantissa == 3 && b & 0x7f == 0x7f => f32::NAN,
        31 if mantissa == 2 => sign * if fraction == 0 { f32::INFINITY } else { f32::NAN },
        _ => sign * (1.0 + fraction as f32 / one as f32) * 2f32.powi(exponent - bias),
    }
}

impl WeightSource for File {
    fn read(&self, name: &str, _: &[usize]) -> Result<Vec<f32>> {
        let values = self.values();
        match values.iter().find(|v| !v.is_finite()) {
            None => Ok(values),
            Some(v) => {
                Err(Error::new(ErrorKind::Model, "not finite").at(name.to_owned()).found(v.to_string()))
            }
        }
    }

    fn raw(&self, _: &str, _: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        Ok(Some((self.stored, &self.bytes)))
    }

    fn fits_f16(&self, _: &str) -> bool {
        matches!(self.stored, Stored::F16 | Stored::F8E4m3 | Stored::F8E5m2)
    }
}

/// What a network of one result makes of `x` with weights from `source`.
fn result(
    engine: &Engine,
    g: &Graph,
    source: &dyn WeightSource,
    x: &[f32],
    precision: Precision,
) -> Result<Vec<f32>> {
    let device = engine.gpu().profile().clone();
    let cancel = AtomicBool::new(false);
    let storage = engine.storage(g.weights(), source, precision);
    let weights = engine.upload(g.weights(), source, &storage, None, &cancel)?;
    let plan = Plan::new(g, &PlanOptions { rows: 1, storage, device, guard: 0 })?;
    let arena = engine.arena(&plan)?;
    let prepared = engine.prepare(plan, &weights, &arena)?;
    Ok(engine.run(&prepared, &PlanRun::new(&[("x", x)], &cancel))?.remove(0).1)
}

/// The weight `[out, inp]` as the device holds it, seen through a product with unit vectors, row by
/// row of `rows`.
fn on_device(
    engine: &Engine,
    file: &File,
    [out, inp]: [usize; 2],
    rows: std::ops::Range<usize>,
    precision: Precision,
) -> Result<Vec<f32>> {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::tokens(rows.len(), inp));
    let y = g.linear("l", x, out, false)?;
    g.output("y", y);
    let unit: Vec<f32> =
        rows.clone().flat_map(|r| (0..inp).map(move |i| f32::from(u8::from(i == r)))).collect();
    result(engine, &g, file, &unit, precision)
}

#[test]
fn every_type_and_odd_shapes() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let mut failures = Failures::default();
    for kind in Stored::ALL {
        for precision in [Precision::F32, Precision::F16] {
            for [out, inp] in [[1, 1], [3, 5], [61, 37], [64, 256]] {
                let mut rng = Rng(out as u64 * 7 + 1);
                let count = out * inp;
                // Every bit pattern of small types that is a number; wild exponents of f32.
                let mut file = File { stored: kind, bytes: Vec::new() };
                while file.bytes.len() < count * kind.bytes() {
                    let wild = match kind {
                        Stored::F32 => {
                            (rng.value() * 2f32.powi(rng.range(0, 50) as i32 - 36)).to_bits().to_le_bytes()
                        }
                        _ => (rng.next() as u32).to_le_bytes(),
                    };
                    let one = File { stored: kind, bytes: wild[..kind.bytes()].to_vec() };
                    let v = one.value(0);
                    if v.abs() < 65504.0 && (precision == Precision::F32 || v.abs() > 1e-30 || v == 0.0) {
                        file.bytes.extend(one.bytes);
                    }
                }
                let got = on_device(&engine, &file, [out, inp], 0..inp, precision).expect("upload");
                for (i, g) in got.iter().enumerate() {
                    let want = stored(file.value(i % out * inp + i / out), precision);
                    failures.check(*g == want, || {
                        format!("{kind:?} to {precision:?} [{out}, {inp}] at {i}: {g:e}, not {want:e}")
                    });
                }
            }
        }
    }
    failures.finish();
}

/// Random numbers of f16 for the weights of a graph, in f16 or in f32.
struct Named {
    stored: Stored,
    bytes: HashMap<String, Vec<u8>>,
}

impl Named {
    fn new(g: &Graph, stored: Stored) -> Self {
        let mut rng = Rng(8);
        let mut bytes = HashMap::new();
        for (name, shape) in g.weights().iter().flat_map(|w| w.sources.iter().zip(&w.shapes)) {
            let numbers = (0..shape.iter().product()).map(|_| f16::from_f32(rng.value()));
            let of = match stored {
                Stored::F16 => numbers.flat_map(f16::to_le_bytes).collect(),
                _ => numbers.flat_map(|v| v.to_f32().to_le_bytes()).collect(),
            };
            bytes.insert(name.clone(), of);
        }
        Self { stored, bytes }
    }
}

impl WeightSource for Named {
    fn read(&self, name: &str, _: &[usize]) -> Result<Vec<f32>> {
        unreachable!("{name} is read as it is")
    }

    fn raw(&self, name: &str, _: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        Ok(Some((self.stored, &self.bytes[name])))
    }

    fn fits_f16(&self, _: &str) -> bool {
        self.stored == Stored::F16
    }
}

/// On a CPU driver weights in f16 take half the memory in f32 too, and give the same to the last bit, whether
/// lanes share what they load or, on a device without features, each has its own.
#[test]
fn halves_stay_halves() {
    let (Some(shared), Some((device, queue))) = (gpu(), default_device()) else { return };
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(5, 7, 6));
    let y = g.conv3x3("wide", x, 50, 1, 1).expect("a layer");
    let y = g.linear_merged("merged", y, &[("q", 12), ("k", 8)], false).expect("a layer");
    let y = g.conv3x3_doubled("doubled", y, (9, 14), 4).expect("a layer");
    let y = g.conv3x3("narrow", y, 3, 2, 0).expect("a layer");
    g.output("y", y);
    let values = Rng(2).values(5 * 7 * 6, Precision::F32);
    let [halves, whole] = [Stored::F16, Stored::F32].map(|stored| Named::new(&g, stored));
    for engine in [shared, Gpu::from_device(device, queue)].map(|gpu| Engine::new(gpu).expect("engine")) {
        let [in_halves, as_whole] =
            [&halves, &whole].map(|s| result(&engine, &g, s, &values, Precision::F32).expect("a result"));
        assert_eq!(in_halves, as_whole);
        let bytes = |source| {
            let storage = engine.storage(g.weights(), source, Precision::F32);
            engine.weight_bytes(g.weights(), &storage, None).expect("sizes")
        };
        let device = engine.gpu().profile().clone();
        let expected = |w: &Weight| {
            let own = matches!(w.layout, Layout::Vector | Layout::Conv3x3Doubled) || !device.has_simd();
            (w.device_len() as u64 * if own { 4 } else { 2 }).next_multiple_of(device.alignment)
        };
        assert_eq!(bytes(&halves), g.weights().iter().map(expected).sum::<u64>());
        assert!(!device.has_simd() || bytes(&halves) < bytes(&whole));
    }
}

/// A window's weight; the bias is zero.
struct Window(File);

impl WeightSource for Window {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if name.ends_with(".bias") { Ok(vec![0.0; shape[0]]) } else { self.0.read(name, shape) }
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        if name.ends_with(".bias") { Ok(None) } else { self.0.raw(name, shape) }
    }

    fn fits_f16(&self, name: &str) -> bool {
        self.0.fits_f16(name)
    }
}

/// A convolution of an upsampled map (x2 of `[4, 3, 1]`), which is zero but for a one at its position [2, 1].
fn upsampled(engine: &Engine, file: File, out: usize, precision: Precision) -> Result<Vec<f32>> {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(4, 3, 1));
    let y = g.conv3x3_doubled("c", x, (8, 6), out)?;
    g.output("y", y);
    let one: Vec<f32> = (0..12).map(|i| f32::from(u8::from(i == 7))).collect();
    result(engine, &g, &Window(file), &one, precision)
}

/// In an upsampled map (x2), taps that see the same stored position are added before they are rounded.
#[test]
fn taps_of_an_upsampled_map_are_added() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let out = 5;
    let f16s = |values: &[f32]| values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let mut rng = Rng(4);
    let values: Vec<f32> = (0..9 * out).map(|_| rng.value()).collect();
    for precision in [Precision::F32, Precision::F16] {
        let file = File { stored: Stored::F16, bytes: f16s(&values) };
        let taps = file.values();
        let got = upsampled(&engine, file, out, precision).expect("upload");
        for (at, got) in got.iter().enumerate() {
            let (line, column, n) = (at / out / 6, at / out % 6, at % out);
            // The upsampled position is at rows 4 and 5, columns 2 and 3.
            let sees = |tap: &usize| {
                let (y, x) = (line + tap / 3, column + tap % 3);
                (y == 5 || y == 6) && (x == 3 || x == 4)
            };
            let want = stored((0..9).filter(sees).map(|tap| taps[9 * n + tap]).sum(), precision);
            assert_eq!(*got, want, "{precision:?} at line {line}, column {column}, channel {n}");
        }
    }
    let large = File { stored: Stored::F16, bytes: f16s(&vec![40_000.0; 9 * out]) };
    let error = upsampled(&engine, large, out, Precision::F16).expect_err("80,000 is no f16");
    assert!(error.kind() == ErrorKind::Model && error.to_string().contains("c.weight"), "{error}");
    let mut broken = values;
    broken[13] = f32::NAN;
    let broken = File { stored: Stored::F16, bytes: f16s(&broken) };
    let error = upsampled(&engine, broken, out, Precision::F32).expect_err("not a number");
    assert!(error.to_string().contains("NaN"), "{error}");
}

#[test]
fn a_weight_larger_than_a_staging_buffer() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let [out, inp] = [2501, 2600];
    let mut rng = Rng(1);
    let bytes = (0..out * inp).flat_map(|_| rng.value().to_le_bytes()).collect();
    let file = File { stored: Stored::F32, bytes };
    for rows in [0..3, 2590..2600] {
        let got = on_device(&engine, &file, [out, inp], rows.clone(), Precision::F32).expect("upload");
        for (i, g) in got.iter().enumerate() {
            assert_eq!(*g, file.value(i % out * inp + rows.start + i / out), "at {i}");
        }
    }
}

#[test]
fn what_is_not_finite_or_too_large_is_named() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let with = |v: f32| {
        let bytes = (0..40).flat_map(|i| if i == 17 { v } else { 0.5 }.to_le_bytes()).collect();
        File { stored: Stored::F32, bytes }
    };
    for (v, precision, expected) in [
        (f32::NAN, Precision::F32, "NaN"),
        (f32::NEG_INFINITY, Precision::F16, "-inf"),
        (70000.0, Precision::F16, "70000"),
    ] {
        let error = on_device(&engine, &with(v), [8, 5], 0..5, precision).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Model, "{error}");
        assert!(error.to_string().contains(expected) && error.to_string().contains("l.weight"), "{error}");
    }
    on_device(&engine, &with(70000.0), [8, 5], 0..5, Precision::F32).expect("f32 holds it");
    on_device(&engine, &with(65504.0), [8, 5], 0..5, Precision::F16).expect("f16 holds it");
}
