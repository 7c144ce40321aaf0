//! The device runs out of memory while a model allocates. It is a separate process: with a CPU driver, the memory of the
//! process is limited.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::own_gpu;
use sagittal::Size;
use sagittal::guidance::Guidance;
use sagittal::internals::kernels::Precision;
use sagittal::{ErrorKind, Gpu, Model, ModelOptions, Request, embedded, wgpu};

const MIB: u64 = 1 << 20;

/// Limits the memory as long as it exists.
enum Shortage {
    /// Buffers that use up all memory.
    Taken(#[expect(dead_code, reason = "it only keeps the buffers")] Vec<wgpu::Buffer>),
    /// A limit on the address space of the process.
    Limited,
}

impl Shortage {
    /// Leaves at most `left` bytes.
    fn new(gpu: &Gpu, left: u64) -> Self {
        if !gpu.profile().cpu {
            return Self::Taken(fill_memory(gpu.device()));
        }
        let status = std::fs::read_to_string("/proc/self/status").expect("the status of the process");
        let size = status.lines().find_map(|l| l.strip_prefix("VmSize:")).expect("a size");
        let kib: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
        limit(&(kib * 1024 + left).to_string());
        Self::Limited
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        if matches!(self, Self::Limited) {
            limit("unlimited");
        }
    }
}

/// Sets the soft limit of the address space of this process.
fn limit(soft: &str) {
    let pid = std::process::id().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--as={soft}:")]).status();
    assert!(status.expect("prlimit, of util-linux").success());
}

fn fill_memory(device: &wgpu::Device) -> Vec<wgpu::Buffer> {
    let mut taken = Vec::new();
    for size in [1024 * MIB, 64 * MIB, 4 * MIB] {
        while taken.len() < 4096 {
            let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: size.min(device.limits().max_buffer_size),
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            if pollster::block_on(scope.pop()).is_some() {
                break;
            }
            taken.push(buffer);
        }
    }
    taken
}

#[test]
fn running_out_of_memory_is_an_error_and_the_same_device_generates_afterwards() {
    let Some(gpu) = own_gpu() else { return };
    let reported = Arc::new(AtomicUsize::new(0));
    let count = reported.clone();
    gpu.device().on_uncaptured_error(Arc::new(move |e| {
        eprintln!("the app's handler was called: {e}");
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let m = Model::new(gpu.clone(), embedded::checkpoint().expect("embedded"), options).expect("model");
    let run = |side: usize| {
        let mut r = Request::new("fox", Size::square(side));
        (r.schedule.steps, r.guidance) = (1, Guidance::new(1.0));
        m.generate(&r).map(|made| made.pictures)
    };
    let want = run(64).expect("a picture");
    m.engine().release_spare_memory();
    let before = gpu.buffer_bytes();
    // The activations of the UNet for one row of such a picture take more; nothing on the host does.
    let short = Shortage::new(&gpu, 96 * MIB);
    let error = run(2048).map(drop).expect_err("no memory");
    drop(short);
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Memory, "{error}");
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
    assert_eq!(gpu.buffer_bytes(), before, "bytes of buffers");
    assert!(run(64).expect("the memory is back") == want);
    assert_eq!(reported.load(Ordering::Relaxed), 0);
}
