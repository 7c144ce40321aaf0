//! Noise levels: the table, its inverse, and the sigmas of every scheduler.

use super::case::Case;
use super::compare::{Comparison, Findings, Yardstick};
use super::set::Set;
use super::tensor::Tensor;
use super::tolerance::SIGMAS;
use crate::Result;
use crate::sampler::{Discrete, Scheduler};

pub(super) fn verify(set: &Set, findings: &mut Findings<'_>) -> Result<()> {
    let root = set.root();
    let table = Discrete::stable_diffusion();
    if root.get("sigmas").is_some() {
        compare(findings, "sigmas", table.sigmas(), &root.numbers("sigmas")?);
    }
    for (sigma, expected) in root.pairs("timestep_of_sigma") {
        // Timesteps are whole numbers, and have to be the same ones.
        let fault = f64::from(table.timestep(sigma as f32)) != expected;
        findings.compared(&format!("timestep_of_sigma.{sigma}"), Comparison::of_faults(fault.into()));
    }
    for (timestep, expected) in root.pairs("sigma_of_timestep") {
        let found = table.sigma(timestep as f32).into();
        let comparison = Comparison::of_relative(found, expected, SIGMAS);
        findings.compared(&format!("sigma_of_timestep.{timestep}"), comparison);
    }
    for (percent, expected) in root.pairs("percent_to_sigma") {
        let found = table.percent_to_sigma(percent).into();
        let comparison = Comparison::of_relative(found, expected, SIGMAS);
        findings.compared(&format!("percent_to_sigma.{percent}"), comparison);
    }
    for case in root.list("schedules") {
        schedule(&case, &table, findings)?;
    }
    Ok(())
}

/// The sigmas of one schedule, as many and as large as expected.
fn schedule(case: &Case<'_>, table: &Discrete, findings: &mut Findings<'_>) -> Result<()> {
    let (scheduler, steps, denoise) = (case.text("scheduler")?, case.size("steps")?, case.number("denoise")?);
    let discard = case.flag("discard_penultimate");
    let name = format!("{scheduler}.{steps}.{denoise}{}", if discard { ".discard" } else { "" });
    let scheduler: Scheduler = match scheduler.parse() {
        Ok(scheduler) => scheduler,
        Err(e) => {
            findings.unsupported(&name, e.to_string());
            return Ok(());
        }
    };
    match scheduler.sigmas(table, steps, denoise, discard) {
        Err(e) => findings.failed(&name, e.to_string()),
        // Where ComfyUI divides 0 by 0 there is nothing to match, but sense to be made.
        Ok(found) if case.get("sigmas").is_none() => {
            let faults = found.iter().filter(|s| !s.is_finite()).count();
            findings.compared(&format!("{name} (finite)"), Comparison::of_faults(faults));
        }
        Ok(found) => compare(findings, &name, &found, &case.numbers("sigmas")?),
    }
    Ok(())
}

fn compare(findings: &mut Findings<'_>, name: &str, found: &[f32], expected: &[f64]) {
    // The set's numbers are f32, written out in full.
    let expected = Tensor::f32(&[expected.len()], expected.iter().map(|v| *v as f32).collect());
    let found = Tensor::f32(&[found.len()], found.to_vec());
    findings.compare(name, found, &expected, Yardstick::relative(SIGMAS));
}
