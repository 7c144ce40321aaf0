//! Initial, ancestral and Brownian noise: torch's CPU generator and torchsde's tree.

use super::case::Case;
use super::compare::{Comparison, Findings, Yardstick};
use super::set::Set;
use super::tensor::Tensor;
use super::tolerance::{BROWNIAN, NOISE};
use crate::sampler::noise::{AncestralNoise, BrownianNoise, noise, noise_for};
use crate::{Error, Result};

/// Values at each end that are stored of a long stream.
const ENDS: usize = 64;

pub(super) fn verify(set: &Set, findings: &mut Findings<'_>) -> Result<()> {
    let root = set.root();
    for case in root.list("cases") {
        initial(set, &case, findings)?;
    }
    for case in root.list("noise_inds") {
        let got = noise_for(case.integer("seed")?, &case.sizes("noise_inds")?, case.shape("shape")?);
        compare(set, findings, case.name()?, got?.data())?;
    }
    for case in root.list("ancestral") {
        let mut stream = AncestralNoise::new(case.integer("seed")?)?;
        let shape = case.shape("shape")?;
        let draws: Vec<f32> =
            (0..case.size("draws")?).flat_map(|_| stream.draw(shape).data().to_vec()).collect();
        compare(set, findings, case.name()?, &draws)?;
    }
    for case in root.list("brownian") {
        brownian(set, &case, findings)?;
    }
    Ok(())
}

/// Noise of steps between pairs of sigmas.
fn brownian(set: &Set, case: &Case<'_>, findings: &mut Findings<'_>) -> Result<()> {
    let (name, sigma) = (case.name()?, |key| Ok::<_, Error>(case.number(key)? as f32));
    let mut path = BrownianNoise::new(
        case.integer("seed")?,
        case.shape("shape")?,
        sigma("sigma_min")?,
        sigma("sigma_max")?,
    );
    let steps = case.pairs("pairs_in_call_order").into_iter();
    let draws: Vec<f32> =
        steps.flat_map(|(sigma, next)| path.between(sigma as f32, next as f32).data().to_vec()).collect();
    let found = Tensor::f32(&[draws.len()], draws);
    findings.compare(name, found, set.tensor(name)?, Yardstick::absolute(BROWNIAN));
    Ok(())
}

/// Noise that a run starts from: all of it, or its ends and sums.
fn initial(set: &Set, case: &Case<'_>, findings: &mut Findings<'_>) -> Result<()> {
    let name = case.name()?;
    let got = noise(case.integer("seed")?, case.shape("shape")?);
    let got = got.data();
    if set.find(name).is_some() {
        compare(set, findings, name, got)?;
    } else {
        let ends = got.first_chunk::<ENDS>().zip(got.last_chunk::<ENDS>());
        let (first, last) = ends.ok_or_else(|| {
            Error::new(crate::ErrorKind::File, "the golden set stores only the ends of short noise")
                .file(set.file())
                .at(name)
        })?;
        compare(set, findings, &format!("{name}.first"), first)?;
        compare(set, findings, &format!("{name}.last"), last)?;
    }
    // Values that the set does not hold still count in its sums. Errors have either sign and
    // cancel, as in a random walk.
    let allowed = 3.0 * NOISE * (got.len() as f64).sqrt();
    for (key, power) in [("sum_f64", 1), ("sum_squares_f64", 2)] {
        if let Ok(expected) = case.number(key) {
            let sum = got.iter().map(|v| f64::from(*v).powi(power)).sum();
            findings.compared(&format!("{name}.{key}"), Comparison::of_absolute(sum, expected, allowed));
        }
    }
    Ok(())
}

fn compare(set: &Set, findings: &mut Findings<'_>, name: &str, got: &[f32]) -> Result<()> {
    let expected = set.tensor(name)?;
    findings.compare(name, Tensor::f32(&[got.len()], got.to_vec()), expected, Yardstick::absolute(NOISE));
    Ok(())
}
