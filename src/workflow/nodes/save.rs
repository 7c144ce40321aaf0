//! Nodes that write files: what a workflow is run for.

use super::super::run::{SavedKind, Work};
use super::super::save::{PREFIX, REPLACED, TEMP, Target};
use super::super::value::{Arguments, Images, Value};
use super::Function::Working;
use super::{Class, Type, socket, words};
use crate::Result;
use crate::image::{Picture, parameters, png};
use crate::latent;

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "SaveImage",
        inputs: &[socket("images", Type::Image), words(PREFIX, "ComfyUI")],
        outputs: &[Type::Image],
        is_output: true,
        run: Working(image),
    },
    Class {
        name: "PreviewImage",
        inputs: &[socket("images", Type::Image)],
        outputs: &[Type::Image],
        is_output: true,
        run: Working(preview),
    },
    Class {
        name: "SaveLatent",
        inputs: &[socket("samples", Type::Latent), words(PREFIX, "latents/ComfyUI")],
        outputs: &[],
        is_output: true,
        run: Working(save_latent),
    },
];

fn image(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    pictures(work, args, args.text(PREFIX)?, SavedKind::Picture)
}

/// ComfyUI keeps previews in a folder that it empties; here they are beside what is saved.
fn preview(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    pictures(work, args, &format!("{TEMP}/ComfyUI_temp"), SavedKind::Preview)
}

fn pictures(work: &mut Work<'_>, args: &Arguments<'_>, prefix: &str, kind: SavedKind) -> Result<Vec<Value>> {
    let images = args.image("images")?;
    let output = work.files.places().output.clone();
    let mut target = Target::new(&filled(work, prefix, images), &output)?;
    for (i, frame) in images.frames.iter().enumerate() {
        let settings = work.notes.parameters(&args.node.id, (images.width, images.height), i);
        let mut texts = work.notes.texts();
        texts.extend(settings.iter().map(|text| (parameters::KEYWORD, text.as_str())));
        let bytes = png::encode(&images.picture(frame), &texts)?;
        let path = target.write(&i.to_string(), "png", &bytes)?;
        work.tell_saved(args.node, kind, (i, path));
    }
    Ok(vec![Value::Image(images.clone())])
}

/// The prefix with what only the pictures and the clock tell.
fn filled(work: &Work<'_>, prefix: &str, images: &Images) -> String {
    let now = work.options.now;
    let two = |n: u32| format!("{n:02}");
    let [width, height, year] = [images.width.to_string(), images.height.to_string(), now.year.to_string()];
    let values = [width, height, year]
        .into_iter()
        .chain([now.month, now.day, now.hour, now.minute, now.second].map(two));
    REPLACED
        .iter()
        .zip(values)
        .fold(prefix.to_owned(), |text, (name, value)| text.replace(&format!("%{name}%"), &value))
}

fn save_latent(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = &args.latent("samples")?.samples;
    let none = Images { width: 0, height: 0, frames: Vec::new() };
    let output = work.files.places().output.clone();
    let mut target = Target::new(&filled(work, args.text(PREFIX)?, &none), &output)?;
    let bytes = latent::file::encode(samples, &work.notes.texts())?;
    let path = target.write("0", "latent", &bytes)?;
    work.tell_saved(args.node, SavedKind::Latent, (0, path));
    Ok(Vec::new())
}

impl Images {
    /// A picture in 8 bits, truncated as ComfyUI does.
    fn picture(&self, frame: &[f32]) -> Picture {
        let rgb = frame.iter().map(|v| (255.0 * v).clamp(0.0, 255.0) as u8).collect();
        Picture { width: self.width, height: self.height, rgb }
    }
}
