//! Nodes that write files: what a workflow is run for.

use super::node_class::Function::Working;
use super::node_class::{Hooks, NodeClass};
use crate::Result;
use crate::image::{Picture, parameters, png};
use crate::latent::{self, VaeLatent};
use crate::workflow::files::Files;
use crate::workflow::output_folder::{NumberedFiles, PREFIX, REPLACED, TEMP, usable};
use crate::workflow::run::context::{RunContext, SavedKind};
use crate::workflow::spec::{Class, Type, socket, words};
use crate::workflow::value::{Arguments, Images, Value};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "SaveImage",
            title: "Save Image",
            category: "image",
            inputs: &[socket("images", Type::Image), words(PREFIX, "ComfyUI")],
            outputs: &[Type::Image],
            is_output: true,
            ..Class::BLANK
        },
        run: Working(image),
        hooks: Hooks { check: Some(check_prefix), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "PreviewImage",
            title: "Preview Image",
            category: "image",
            inputs: &[socket("images", Type::Image)],
            outputs: &[Type::Image],
            is_output: true,
            ..Class::BLANK
        },
        run: Working(preview),
        hooks: Hooks { check: Some(check_temp), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "SaveLatent",
            title: "Save Latent",
            category: "_for_testing",
            inputs: &[socket("samples", Type::Latent), words(PREFIX, "latents/ComfyUI")],
            outputs: &[],
            is_output: true,
            ..Class::BLANK
        },
        run: Working(save_latent),
        hooks: Hooks { check: Some(check_prefix), ..Hooks::NONE },
    },
];

fn check_prefix(args: &Arguments<'_>, files: &mut Files<'_>) -> Result<()> {
    match args.text(PREFIX) {
        Ok(prefix) => usable(NumberedFiles::new(prefix, &files.folders().output)?.folder()),
        Err(_) => Ok(()),
    }
}

fn check_temp(_: &Arguments<'_>, files: &mut Files<'_>) -> Result<()> {
    usable(&files.folders().output.join(TEMP))
}

fn image(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    pictures(work, args, args.text(PREFIX)?, SavedKind::Picture)
}

/// ComfyUI keeps previews in a folder that it empties; here they are beside what is saved.
fn preview(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    pictures(work, args, &format!("{TEMP}/ComfyUI_temp"), SavedKind::Preview)
}

fn pictures(
    work: &mut RunContext<'_>,
    args: &Arguments<'_>,
    prefix: &str,
    kind: SavedKind,
) -> Result<Vec<Value>> {
    let images = args.image("images")?;
    let output = work.files.folders().output.clone();
    let mut target = NumberedFiles::new(&filled(work, prefix, images), &output)?;
    for (i, frame) in images.frames.iter().enumerate() {
        let settings = work.metadata.parameters(&args.node.id, (images.width, images.height), i);
        let mut texts = work.metadata.texts();
        texts.extend(settings.iter().map(|text| (parameters::KEYWORD, text.as_str())));
        let bytes = png::encode(&images.picture(frame), &texts)?;
        let path = target.write(&i.to_string(), "png", &bytes)?;
        work.report_saved(args.node, kind, (i, path));
    }
    Ok(vec![Value::Image(images.clone())])
}

/// The prefix with what only the pictures and the clock know.
fn filled(work: &RunContext<'_>, prefix: &str, images: &Images) -> String {
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

fn save_latent(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = VaeLatent::new(args.latent("samples")?.samples.clone());
    let none = Images { width: 0, height: 0, frames: Vec::new() };
    let output = work.files.folders().output.clone();
    let mut target = NumberedFiles::new(&filled(work, args.text(PREFIX)?, &none), &output)?;
    let bytes = latent::file::encode(&samples, &work.metadata.texts())?;
    let path = target.write("0", "latent", &bytes)?;
    work.report_saved(args.node, SavedKind::Latent, (0, path));
    Ok(Vec::new())
}

impl Images {
    /// A picture in 8 bits, truncated as ComfyUI does.
    fn picture(&self, frame: &[f32]) -> Picture {
        let rgb = frame.iter().map(|v| (255.0 * v).clamp(0.0, 255.0) as u8).collect();
        Picture { width: self.width, height: self.height, rgb }
    }
}
