//! Previews compared with the pictures that the autoencoder decodes from the same latents.

use crate::common::{gpu, synthetic};
use sagittal::Size;
use sagittal::internals::families::PreviewFactors;
use sagittal::internals::image::preview::preview;
use sagittal::internals::model::Family;
use sagittal::{Model, ModelOptions, Picture, Request, embedded};

/// The mean difference, 0 to 255, between a preview and the mean of the picture's pixels in each cell.
fn off(preview: &Picture, picture: &Picture) -> f64 {
    let mean = |x: usize, y: usize, k: usize| {
        let pixels = (0..64).map(|i| ((y * 8 + i / 8) * picture.width + x * 8 + i % 8) * 3 + k);
        pixels.map(|at| f64::from(picture.rgb[at])).sum::<f64>() / 64.0
    };
    let differences = preview.rgb.iter().enumerate().map(|(i, v)| {
        let (cell, k) = (i / 3, i % 3);
        (f64::from(*v) - mean(cell % preview.width, cell / preview.width, k)).abs()
    });
    differences.sum::<f64>() / preview.rgb.len() as f64
}

/// The embedded model's colours were fitted to its autoencoder; those of SD 1 belong to another. These prompts were not
/// used for the fit.
#[test]
fn the_embedded_models_previews_look_like_its_pictures() {
    let Some(gpu) = gpu() else { return };
    let checkpoint = embedded::checkpoint().expect("embedded");
    let own = embedded::preview_factors(&checkpoint, Family::Sd1);
    assert_eq!(own, embedded::PREVIEW);
    let m = Model::new(gpu, checkpoint, ModelOptions::default()).expect("model");
    let mut last = None;
    for prompt in ["koala, flat style", "owl, noto style, on an orange background"] {
        let mut request = Request::new(prompt, Size::square(256)).with_cfg(embedded::CFG).with_steps(6);
        request.guidance.terms.clear();
        let mut observe = |event: sagittal::Progress| {
            if let sagittal::Progress::Sampling { step: 6, preview, .. } = event {
                last = preview;
            }
        };
        let made = m.run(&request).preview_every(3).on_event(&mut observe).generate().expect("a picture");
        let z = made.latent.scaled(m.config().latent_scale);
        let by = |factors: &PreviewFactors| off(&preview(&z, factors), &made.pictures[0]);
        let (fitted, of_family) = (by(&own), by(&Family::Sd1.facts().preview));
        println!("{prompt}: {fitted:.1} of 255 off, with SD 1's colours {of_family:.1}");
        assert!(fitted < 20.0 && fitted < 0.4 * of_family, "{prompt}: {fitted} and {of_family}");
        // The previews of a run are those.
        let shown = off(last.as_ref().expect("a preview"), &made.pictures[0]);
        assert!(shown < 20.0, "{prompt}: {shown} in the run");
    }
}

/// The colours of ComfyUI's latent formats; all files but the embedded model have those of their family.
#[test]
fn families_have_the_colours_of_their_autoencoders() {
    let sdxl = Family::Sdxl.facts().preview;
    assert_eq!((sdxl[0], sdxl[3]), ([0.3651, 0.4232, 0.4341], [-0.3165, -0.2492, -0.2188]));
    assert_eq!(sdxl[4], [0.1084, -0.0175, -0.0011]);
    assert_eq!(Family::Sd1.facts().preview, Family::Sd2.facts().preview);
    for (name, family) in [("tiny-sd1", Family::Sd1), ("tiny-sd2", Family::Sd2), ("tiny-sdxl", Family::Sdxl)]
    {
        assert_eq!(embedded::preview_factors(&synthetic(name), family), family.facts().preview);
    }
}
