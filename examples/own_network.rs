//! A custom network with this crate's guidance and samplers, without a GPU: a network must return a prediction for
//! each row.
//!
//! `cargo run --release --example own_network`
//!
//! The "network" knows two pictures and computes exactly what a perfectly trained one would predict for data that
//! are one or the other: the mean of both, weighted by how likely each is under the noise. A prompt is a number
//! that makes one of them more likely, so that guidance has something to do.

use sagittal::guidance::{Conditioning, Entry, Guidance, Guided, Network, Row, RowResult};
use sagittal::latent::Latent;
use sagittal::sampler::noise::noise;
use sagittal::sampler::{Discrete, Predictor, SampleOptions, Sampler, Scheduler, initial_scale, sample_on};

/// A data distribution of two latents.
struct TwoPictures([Latent; 2]);

impl Network for TwoPictures {
    fn predict(&mut self, rows: &[Row<'_>]) -> sagittal::Result<Vec<RowResult>> {
        let one = |row: &Row<'_>| {
            // log p(picture | x): the prompt's part, and the distance in units of the noise.
            let distance = |picture: &Latent| -> f64 {
                let pairs = row.x.data().iter().zip(picture.data());
                pairs.map(|(x, p)| f64::from(x - p).powi(2)).sum::<f64>()
                    / (2.0 * f64::from(row.sigma).powi(2))
            };
            let prompt = f64::from(row.entry.context[0]);
            let odds = prompt + distance(&self.0[1]) - distance(&self.0[0]);
            let first = (1.0 / (1.0 + (-odds).exp())) as f32;
            let denoised = self.0[0].zip(&self.0[1], |a, b| first * a + (1.0 - first) * b)?;
            // A network with attention would also return its column sums, for SAG.
            Ok(RowResult { denoised, columns: None })
        };
        rows.iter().map(one).collect()
    }
}

fn main() -> sagittal::Result<()> {
    let shape = [1, 4, 16, 16];
    let mut network = TwoPictures([noise(1, shape), noise(2, shape)]);
    let pictures = network.0.clone();
    let prompt = |odds: f32| Entry::new(vec![odds], 1);
    let discrete = Discrete::stable_diffusion();
    for (name, odds, cfg) in [("the first", 1.0, 4.0), ("the second", -1.0, 4.0), ("either", 0.0, 1.0)] {
        let conditioning = Conditioning { positive: vec![prompt(odds)], negative: vec![prompt(0.0)] };
        let mut guided = Guided::new(&mut network, &conditioning, &discrete, Guidance::new(cfg))?;
        let sigmas = Scheduler::Karras.sigmas(&discrete, 20, 1.0, false)?;
        let start = guided.latents().bring(&noise(7, shape))?;
        let x = start.scaled(initial_scale(sigmas[0], discrete.sigma_max()));
        let options = SampleOptions::default();
        let end = sample_on(Sampler::Dpmpp2m, &mut guided, x, &sigmas, &options, &mut |_| Ok(()))?;
        let end = guided.latents().read(&end)?;
        let off = |picture: &Latent| -> sagittal::Result<f32> {
            let differences = end.zip(picture, |a, b| (a - b).powi(2))?;
            Ok((differences.data().iter().sum::<f32>() / differences.data().len() as f32).sqrt())
        };
        println!(
            "{name:10}: {:.3} from the first, {:.3} from the second",
            off(&pictures[0])?,
            off(&pictures[1])?
        );
    }
    Ok(())
}
