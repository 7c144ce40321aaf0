//! Many generations in one process, without other tests, whose memory would be counted.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

mod common;

use std::time::Instant;

use common::own_gpu;
use sagittal::Size;
use sagittal::internals::kernels::Precision;
use sagittal::{Model, ModelOptions, Request, Sag, embedded, wgpu};

/// Pictures after which all permanent memory is allocated.
const WARM: usize = 20;

/// KiB of memory of the process; None if the system does not report it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    size.trim().trim_end_matches(" kB").parse().ok()
}

#[test]
fn a_hundred_generations_let_neither_buffers_nor_host_memory_grow() {
    let Some(gpu) = own_gpu() else { return };
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let m = Model::new(gpu.clone(), embedded::checkpoint().expect("embedded"), options).expect("model");
    let (mut buffers, mut host) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for seed in 0..100 {
        let mut r = Request::new("fox, 3d style", Size::square(64));
        (r.schedule.steps, r.guidance.cfg, r.seed) = (1, 1.0, seed);
        // Most with one row, some with SAG.
        if seed % 10 == 0 {
            r.guidance.cfg = 3.5;
        } else {
            r.guidance.set_sag(Sag::off());
        }
        m.generate(&r).expect("a picture");
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("a device");
        buffers.push(gpu.buffer_bytes());
        host.extend(resident());
    }
    println!("100 pictures in {:.1?}; {} bytes of buffers", began.elapsed(), buffers[99]);
    let last = buffers[WARM..].iter().max().expect("some");
    assert_eq!(*last, buffers[WARM], "bytes of buffers grew: {buffers:?}");
    if host.is_empty() {
        return println!("the system does not report host memory");
    }
    let most = |of: &[u64]| *of.iter().max().expect("some") as f64;
    let (early, late) = (most(&host[WARM..WARM + 20]), most(&host[80..]));
    println!("host memory: {early} KiB, then {late} KiB, {:+.2} %", 100.0 * (late / early - 1.0));
    assert!(late <= 1.01 * early, "host memory grew: {host:?}");
}
