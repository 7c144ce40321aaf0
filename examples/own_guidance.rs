//! Custom guidance on the device: a term that acts beside SAG, requests its own prediction of the network, and records
//! maps.
//!
//! `cargo run --release --example own_guidance`
//!
//! The term looks back: it adds some of the noise that the network has just removed to the latent again and predicts
//! once more. What comes from the prompt alone stays, the rest differs; the result is moved along that difference. All
//! of it is a few dispatches on the device. To print how far the term moves the picture, this example requests
//! evaluations, which are read from the device; without them no latent would be read.

use sagittal::Size;
use sagittal::guidance::Term;
use sagittal::guidance::term::{At, GuidanceTerm, GuidedStep, Side, Wants};
use sagittal::image::png;
use sagittal::latent::Value;
use sagittal::{Error, Gpu, Model, ModelOptions, Progress, Request, Result, embedded};

/// `scale · (D_c - L)`, where L is the prediction with the prompt for `x + share · (x - D_c)`.
#[derive(Debug)]
struct LookBack {
    scale: f32,
    share: f32,
}

impl GuidanceTerm for LookBack {
    fn check(&self) -> Result<()> {
        match self.scale.is_finite() && (0.0..=1.0).contains(&self.share) {
            true => Ok(()),
            false => Err(Error::usage("a setting of the look back is outside its range")
                .expected("a finite scale, and a share from 0 to 1")
                .found(format!("{self:?}"))),
        }
    }

    /// It acts in the first two thirds of the sampling. The prediction with the prompt is always computed.
    fn wants(&self, at: &At<'_>) -> Option<Wants> {
        (self.scale != 0.0 && at.is_within(0.0, 0.66)).then(Wants::default)
    }

    fn pull(&self, step: &mut GuidedStep<'_>) -> Result<Option<Value>> {
        let Some(cond) = step.cond().cloned() else { return Ok(None) };
        // Sums are not computed until they are needed.
        let noise = step.x().minus(&cond);
        let noisier = step.x().plus(self.share, &noise);
        let again = step.predict(Side::Cond, &noisier)?;
        let pull = cond.minus(&again).scaled(self.scale);
        step.note("look back", &pull);
        Ok(Some(pull))
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let model = Model::new(Gpu::open(None)?, embedded::checkpoint()?, ModelOptions::default())?;
    let mut request = Request::new("a smiling face", Size::square(256));
    (request.guidance.cfg, request.seed) = (embedded::CFG, 7);
    // Beside SAG, which is on by default.
    request.guidance.terms.push(Term::own(LookBack { scale: 0.6, share: 0.2 }));
    // Evaluations are read from the device only on request.
    request.evaluations = true;
    let observe = |event| {
        let Progress::Evaluated { sigma, evaluation, .. } = event else { return };
        for (name, map) in &evaluation.own {
            let mean = map.data().iter().map(|v| v.abs()).sum::<f32>() / map.data().len() as f32;
            println!("sigma {sigma:7.3}: {name} moves a value by {mean:.4}");
        }
    };
    let made = model.run(&request).on_event(observe).generate()?;
    let path = std::env::args().nth(1).unwrap_or_else(|| "own-guidance.png".into());
    png::write(path.as_ref(), &png::encode(&made.pictures[0], &[])?, true)?;
    println!("{path}");
    Ok(())
}
