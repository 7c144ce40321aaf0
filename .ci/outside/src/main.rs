//! An app that uses the library without features draws a picture with a checkpoint from a file.

use sagittal::{Checkpoint, Gpu, Model, ModelOptions, Request, Size};

fn main() -> sagittal::Result<()> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-emoji/tiny-emoji.safetensors");
    let model = Model::new(Gpu::open(None)?, Checkpoint::open(file)?, ModelOptions::default())?;
    let drawn = model.generate(&Request::new("fox, 3d style", Size::square(64)).with_steps(2))?;
    let picture = &drawn.pictures[0];
    let (least, most) = (picture.rgb.iter().min(), picture.rgb.iter().max());
    println!("{}x{}, from {least:?} to {most:?}", picture.width, picture.height);
    assert!(least < most, "the picture is of one colour");
    Ok(())
}
