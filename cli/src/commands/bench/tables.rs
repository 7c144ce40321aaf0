//! What `sagittal bench` prints, as text and as JSON.

use sagittal::internals::bench::Timing;
use sagittal::internals::bench::profile::{Ceiling, ClassSum, Layer, Profile};
use sagittal::internals::bench::rows::Row;
use sagittal::internals::bench::shapes::Measured;
use sagittal::internals::bench::sweep::{Axis, Point};
use sagittal::wgpu::AdapterInfo;
use serde_json::{Value, json};

use crate::support::terminal::to_mib;

/// Name and driver.
pub fn device(info: &AdapterInfo) -> String {
    format!("{} ({} {}, {:?})", info.name, info.driver, info.driver_info, info.backend)
}

/// The device as JSON.
pub fn device_as_json(info: &AdapterInfo, precision: &str) -> Value {
    json!({
        "name": info.name, "driver": info.driver, "driver_info": info.driver_info,
        "backend": format!("{:?}", info.backend).to_lowercase(), "precision": precision,
    })
}

/// `ROW name | ms | min | max | n | MiB`, which programs parse.
pub fn row(row: &Row) -> String {
    format!("ROW {}", cells(row))
}

/// The same without the word.
pub fn cells(row: &Row) -> String {
    let Timing { ms, min, max, n } = row.timing;
    format!("{} | {ms:.3} | {min:.3} | {max:.3} | {n} | {:.0}", row.name, to_mib(row.peak_bytes).ceil())
}

/// A row as JSON.
pub fn row_as_json(row: &Row) -> Value {
    let Timing { ms, min, max, n } = row.timing;
    json!({
        "name": row.name, "ms": ms, "min": min, "max": max, "n": n, "peak_bytes": row.peak_bytes,
    })
}

/// The header above an axis of the sweep.
pub fn sweep_head(axis: Axis) -> String {
    let name = axis.name();
    format!("{name:>10}  rows/call  calls    ms/call  ms/picture  GPU ms/picture        MiB")
}

/// A point of the sweep.
pub fn point(p: &Point) -> String {
    format!(
        "{:>10}  {:>9}  {:>5}  {:>9.3}  {:>10.3}  {:>14}  {:>9.1}",
        p.step.value(),
        p.step.rows,
        p.step.calls(),
        p.ms_per_call(),
        p.ms_per_picture(),
        gpu_per_picture(p).map_or("-".into(), |ms| format!("{ms:.3}")),
        to_mib(p.peak_bytes)
    )
}

/// GPU time per picture, ms.
pub fn gpu_per_picture(p: &Point) -> Option<f64> {
    p.gpu.map(|gpu| gpu.ms / p.step.batch as f64)
}

/// A point as JSON.
pub fn point_as_json(p: &Point) -> Value {
    json!({
        "axis": p.step.axis.name(), "value": p.step.value(), "side": p.step.side, "batch": p.step.batch,
        "rows_per_call": p.step.rows, "calls": p.step.calls(), "ms_per_call": p.ms_per_call(),
        "ms_per_picture": p.ms_per_picture(), "gpu_ms_per_picture": gpu_per_picture(p),
        "peak_bytes": p.peak_bytes,
    })
}

/// The tables of a profile.
pub fn profile(p: &Profile, ceiling: &Ceiling, layers: usize) -> Vec<String> {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let mut lines = vec![
        format!(
            "{} rows, {} dispatches: {:.3} ms in one pass, {:.3} ms by dispatch",
            p.rows,
            p.layers.len(),
            p.total.ms,
            ms(p.sum())
        ),
        String::new(),
        format!(
            "{:<12} {:>10} {:>10} {:>7} {:>10} {:>8} {:>9} {:>8} {:>11}",
            "class", "dispatches", "ms", "share", "GFLOP", "TFLOP/s", "GB", "GB/s", "of peak"
        ),
    ];
    let sum = ms(p.sum());
    for c in p.classes(ceiling) {
        let (tflops, gbps) = rates(c.flops, c.bytes, c.time.as_secs_f64());
        lines.push(format!(
            "{:<12} {:>10} {:>10.3} {:>6.1}% {:>10.3} {tflops:>8.3} {:>9.4} {gbps:>8.1} {:>10.1}%",
            c.class.name(),
            c.dispatches,
            ms(c.time),
            100.0 * ratio(ms(c.time), sum),
            c.flops as f64 / 1e9,
            c.bytes as f64 / 1e9,
            100.0 * of_ceiling(&c)
        ));
    }
    lines.push(String::new());
    let all = p.longest();
    let width = all.iter().take(layers).map(|l| l.path.len()).max().unwrap_or(0);
    lines.push(format!("{:>9} {:>8} {:>8}  {:<width$}  groups, kernel", "us", "TFLOP/s", "GB/s", "layer"));
    lines.extend(all.into_iter().take(layers).map(|l| layer(l, width)));
    lines
}

fn layer(l: &Layer, width: usize) -> String {
    let seconds = l.time.as_secs_f64();
    let (tflops, gbps) = rates(l.flops, l.bytes, seconds);
    let [x, y, z] = l.groups;
    let (path, variant) = (&l.path, &l.variant);
    format!("{:>9.1} {tflops:>8.3} {gbps:>8.1}  {path:<width$}  {x}x{y}x{z}, {variant}", seconds * 1e6)
}

/// TFLOP/s and GB/s.
fn rates(flops: u64, bytes: u64, seconds: f64) -> (f64, f64) {
    (ratio(flops as f64 / 1e12, seconds), ratio(bytes as f64 / 1e9, seconds))
}

/// Some devices' clocks are so coarse that short work takes no time.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn of_ceiling(c: &ClassSum) -> f64 {
    ratio(c.floor.as_secs_f64(), c.time.as_secs_f64())
}

/// Events of a profile: the totals, its classes, its layers in order.
pub fn profile_as_json(p: &Profile, ceiling: &Ceiling) -> Vec<(&'static str, Value)> {
    let totals = json!({
        "rows": p.rows, "dispatches": p.layers.len(), "ms": p.total.ms, "ms_by_dispatch": p.sum().as_secs_f64() * 1e3,
    });
    let class = |c: ClassSum| {
        json!({
            "class": c.class.name(), "dispatches": c.dispatches, "ms": c.time.as_secs_f64() * 1e3,
            "flops": c.flops, "bytes": c.bytes, "of_ceiling": of_ceiling(&c),
        })
    };
    let layer = |l: &Layer| {
        json!({
            "layer": l.path, "class": l.class.name(), "kernel": l.variant, "groups": l.groups,
            "us": l.time.as_secs_f64() * 1e6, "flops": l.flops, "bytes": l.bytes,
        })
    };
    let mut events = vec![("profile", totals)];
    events.extend(p.classes(ceiling).into_iter().map(|c| ("class", class(c))));
    events.extend(p.layers.iter().map(|l| ("layer", layer(l))));
    events
}

/// The header of the table of shapes.
pub fn shapes_head() -> String {
    format!("{:<44} {:>10} {:>9} {:>9} {:>9} {:>7}", "shape", "us", "TFLOP/s", "no sum", "expected", "ratio")
}

/// A shape: its time and speed, and the speed without the summation of split-K, beside the expected one.
pub fn shape(m: &Measured) -> String {
    let expected = m.shape.expected;
    format!(
        "{:<44} {:>10.2} {:>9.3} {:>9.3} {:>9} {:>7}",
        m.shape.to_string(),
        m.time.as_secs_f64() * 1e6,
        m.tflops(),
        m.tflops_alone(),
        expected.map_or("-".into(), |e| format!("{e:.0}")),
        expected.map_or("-".into(), |e| format!("{:.2}", m.tflops_alone() / e))
    )
}

/// A shape as JSON.
pub fn shape_as_json(m: &Measured) -> Value {
    json!({
        "name": m.shape.to_string(), "us": m.time.as_secs_f64() * 1e6, "flops": m.flops,
        "us_alone": m.alone.as_secs_f64() * 1e6,
        "tflops": m.tflops(), "tflops_alone": m.tflops_alone(), "expected_tflops": m.shape.expected,
    })
}
