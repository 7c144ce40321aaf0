//! A picture in thirty lines: `cargo run --release --example generate -- model.safetensors "a fox"`.

use std::path::Path;

use sagittal::image::png;
use sagittal::{Checkpoint, Gpu, Model, ModelOptions, Progress, Request, Size};

fn main() -> sagittal::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "models/tiny-emoji/tiny-emoji.safetensors".into());
    let prompt = args.next().unwrap_or_else(|| "fox, 3d style".into());

    let model = Model::new(Gpu::open(None)?, Checkpoint::open(&path)?, ModelOptions::default())?;
    let request = Request::new(prompt, Size::square(256)).with_cfg(3.5);

    let progress = |event| {
        if let Progress::Sampling { step, total, .. } = event {
            println!("step {step} of {total}");
        }
    };
    let made = model.run(&request).on_event(progress).generate()?;
    png::write(Path::new("generated.png"), &png::encode(&made.pictures[0], &[])?, true)
}
