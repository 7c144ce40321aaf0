//! A picture in thirty lines: `cargo run --release --example generate -- model.safetensors "a fox"`.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use sagittal::Size;
use sagittal::checkpoint::Checkpoint;
use sagittal::gpu::Gpu;
use sagittal::image::png;
use sagittal::pipeline::{Event, Model, ModelOptions, Request};

fn main() -> sagittal::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "models/tiny-emoji/tiny-emoji.safetensors".into());
    let prompt = args.next().unwrap_or_else(|| "fox, 3d style".into());

    let model = Model::new(Gpu::open(None)?, Checkpoint::open(&path)?, ModelOptions::default())?;
    let mut request = Request::new(prompt, Size::square(256));
    request.guidance.cfg = 3.5;

    let mut progress = |event: Event<'_>| {
        if let Event::Sampling { step, total, .. } = event {
            println!("step {step} of {total}");
        }
    };
    let made = model.generate(&request, &mut progress, &AtomicBool::new(false))?;
    png::write(Path::new("generated.png"), &png::encode(&made.pictures[0], &[])?, true)
}
