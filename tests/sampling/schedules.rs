//! Schedules, the table of sigmas and its inverse, compared with those of ComfyUI.

use sagittal::sampler::{Discrete, Scheduler};
use serde_json::Value;

/// Relative, for sigmas.
const TOLERANCE: f64 = 2e-6;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/schedules.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn close(got: f32, want: f64) -> bool {
    (f64::from(got) - want).abs() <= TOLERANCE * want.abs()
}

/// The largest relative difference; an error if it is too large, or the number of sigmas differs.
fn compare(got: &[f32], want: &[f64]) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("{} sigmas for {}", got.len(), want.len()));
    }
    let worst = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| if w == 0.0 { f64::from(g) } else { (f64::from(g) / w - 1.0).abs() })
        .fold(0.0, f64::max);
    if worst <= TOLERANCE { Ok(worst) } else { Err(format!("off by {worst:.1e}")) }
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_schedule_equals_that_of_comfyui() {
    let table = Discrete::stable_diffusion();
    let (mut failures, mut worst, mut count) = (Vec::new(), 0.0f64, 0);
    for case in golden()["schedules"].as_array().unwrap() {
        let scheduler: Scheduler = case["scheduler"].as_str().unwrap().parse().unwrap();
        let steps = usize::try_from(case["steps"].as_u64().unwrap()).unwrap();
        let denoise = case["denoise"].as_f64().unwrap();
        let discard = case["discard_penultimate"].as_bool().unwrap();
        // One step of kl_optimal is 0/0 in ComfyUI; here it is as with the other schedulers.
        let want = match &case["sigmas"] {
            Value::Null => vec![f64::from(table.sigma_max()), 0.0],
            sigmas => numbers(sigmas),
        };
        match compare(&scheduler.sigmas(&table, steps, denoise, discard).unwrap(), &want) {
            Ok(difference) => worst = worst.max(difference),
            Err(text) => failures.push(format!("{scheduler} {steps} steps, {denoise}, {discard}: {text}")),
        }
        count += 1;
    }
    report(&failures);
    assert_eq!(count, 180);
    println!("{count} schedules, largest relative difference {worst:.1e}");
}

#[test]
fn the_table_of_sigmas_equals_that_of_comfyui() {
    let table = Discrete::stable_diffusion();
    let worst = compare(table.sigmas(), &numbers(&golden()["sigmas"])).unwrap();
    println!("largest relative difference {worst:.1e}");
    assert_eq!((table.sigma_min(), table.sigma_max()), (table.sigmas()[0], table.sigmas()[999]));
}

/// The pairs of a list in the golden file for which `f` disagrees.
fn failing_pairs(list: &str, f: impl Fn(f64, f64) -> Option<String>) -> Vec<String> {
    let golden = golden();
    let pairs = golden[list].as_array().unwrap();
    assert!(pairs.len() > 5);
    let check = |pair: &Value| f(pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
    pairs.iter().filter_map(check).collect()
}

#[test]
fn timesteps_equal_those_of_comfyui() {
    let table = Discrete::stable_diffusion();
    report(&failing_pairs("timestep_of_sigma", |sigma, want| {
        let got = table.timestep(sigma as f32);
        (f64::from(got) != want).then(|| format!("sigma {sigma}: {got} for {want}"))
    }));
    report(&failing_pairs("sigma_of_timestep", |timestep, want| {
        let got = table.sigma(timestep as f32);
        (!close(got, want)).then(|| format!("timestep {timestep}: {got} for {want}"))
    }));
}

#[test]
fn percents_equal_those_of_comfyui() {
    let table = Discrete::stable_diffusion();
    report(&failing_pairs("percent_to_sigma", |percent, want| {
        let got = table.percent_to_sigma(percent);
        (!close(got, want)).then(|| format!("{percent}: {got} for {want}"))
    }));
}
