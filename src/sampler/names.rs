//! A sampler and a scheduler in one name, as other programs write them.

use super::lookup::words;
use super::{Sampler, Scheduler};
use crate::Result;
pub use crate::nearest_name::{edit_distance, nearest_to};

/// A sampler, and the scheduler at the end of its name, if there is one: "DPM++ 2M Karras" in A1111 before version 1.9,
/// "dpm++2m karras" in stable-diffusion.cpp, "dpmpp_2m_k" in InvokeAI.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) with the names nearest to the part that is unknown.
pub fn with_scheduler(name: &str) -> Result<(Sampler, Option<Scheduler>)> {
    let of_all = match name.parse::<Sampler>() {
        Ok(sampler) => return Ok((sampler, None)),
        Err(error) => error,
    };
    let (words, is_schedule) = (words(name), beginning(name).is_some());
    let mut of_part = None;
    for at in (1..words.len()).rev() {
        let (first, last) = words.split_at(at);
        match (first.join("_").parse::<Sampler>(), last.join("_").parse::<Scheduler>()) {
            (Ok(sampler), Ok(scheduler)) => return Ok((sampler, Some(scheduler))),
            // One part is known, so the error is about the other.
            (Ok(_), Err(error)) if is_schedule => of_part = of_part.or(Some(error)),
            (Err(error), Ok(_)) => of_part = of_part.or(Some(error)),
            (_, Err(_)) => {}
        }
    }
    Err(of_part.unwrap_or(of_all))
}

/// The sampler that a name begins with, if the rest is not a scheduler of ours. None if the rest means another
/// sampler: "DDIM CFG++" is not DDIM.
pub fn beginning(name: &str) -> Option<Sampler> {
    const VARIANTS: [&str; 9] = ["cfg", "cfgpp", "pp", "multipass", "substep", "stability", "tu", "v2", "v3"];
    let words = words(name);
    let longest = (1..words.len()).rev().find_map(|at| Some((at, words[..at].join("_").parse().ok()?)));
    let (at, sampler) = longest?;
    // The rest ends with a scheduler of ours.
    let ends_well = (at + 1..words.len()).any(|at| words[at..].join("_").parse::<Scheduler>().is_ok());
    (!ends_well && !VARIANTS.contains(&words[at].as_str())).then_some(sampler)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A1111's, stable-diffusion.cpp's, ComfyUI's, InvokeAI's, NovelAI's and diffusers' spellings.
    #[test]
    fn samplers_with_schedulers_as_programs_write_them() {
        let cases = [
            ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
            ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde_heun", "exponential"),
            ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", "karras"),
            ("DPM++ 2M SGM Uniform", "dpmpp_2m", "sgm_uniform"),
            ("DPM2 a Karras", "dpm_2_ancestral", "karras"),
            ("LMS Karras", "lms", "karras"),
            ("dpm++2m karras", "dpmpp_2m", "karras"),
            ("euler_a discrete", "euler_ancestral", "normal"),
            ("dpm++2s_a exponential", "dpmpp_2s_ancestral", "exponential"),
            ("euler kl_optimal", "euler", "kl_optimal"),
            ("euler_a default", "euler_ancestral", "normal"),
            ("dpmpp_2m_sde_gpu karras", "dpmpp_2m_sde", "karras"),
            ("k_dpmpp_2m_ka", "dpmpp_2m", "karras"),
            ("dpmpp_3m_sde_k", "dpmpp_3m_sde", "karras"),
            ("kdpm_2_a_k", "dpm_2_ancestral", "karras"),
            ("DDIM Uniform", "ddim", "normal"),
        ];
        for (name, sampler, scheduler) in cases {
            let (a, b) = with_scheduler(name).unwrap();
            assert_eq!((a.name(), b.map(Scheduler::name)), (sampler, Some(scheduler)), "{name}");
        }
        for (name, sampler) in [
            ("k_euler_ancestral", "euler_ancestral"),
            ("k_lms", "lms"),
            ("sample_euler", "euler"),
            ("Euler A CFG++", "euler_ancestral_cfg_pp"),
            ("DPM++ (2M) SDE", "dpmpp_2m_sde"),
            ("euler_ge", "gradient_estimation"),
            ("EulerAncestralDiscreteScheduler", "euler_ancestral"),
            ("DPMSolverMultistepScheduler", "dpmpp_2m"),
            ("UniPC", "uni_pc"),
            ("Heun++", "heunpp2"),
        ] {
            let (found, none) = with_scheduler(name).unwrap();
            assert_eq!((found.name(), none), (sampler, None), "{name}");
        }
    }

    #[test]
    fn the_unknown_part_is_named() {
        for (name, words) in [
            ("DPM++ 2M Karas", "unknown scheduler \"karas\", did you mean karras"),
            ("euler gits", "unknown scheduler \"gits\""),
            ("DDIM CFG++", "unknown sampler \"DDIM CFG++\""),
            ("euler_cfg_pp gits", "unknown scheduler \"gits\""),
            ("DPM++ 2M v2 Karras", "unknown sampler"),
            ("DPM++ 2M alt Karras", "unknown sampler \"dpmpp_2m_alt\""),
            ("Euler A Substep", "unknown sampler \"Euler A Substep\""),
            ("Restart", "unknown sampler \"Restart\""),
            ("dpm++2mv2 karras", "unknown sampler \"dpmpp2mv2\", did you mean dpmpp_2m"),
            ("", "unknown sampler \"\""),
            ("k", "unknown sampler \"k\""),
        ] {
            let error = with_scheduler(name).unwrap_err().to_string();
            assert!(error.starts_with(words), "{name}: {error}");
        }
    }
}
