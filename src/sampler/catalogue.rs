//! The samplers by name: each has an entry here, and a function in the file of its family.

use std::fmt;
use std::str::FromStr;

use super::lookup::{self, Named};
use super::sampler_run::SamplerRun;
use super::{
    adams, deis, dpm_solver, dpmpp, dpmpp_sde, er_sde, euler, gradient_estimation, heun, renoise,
    res_multistep, sa_solver, seeds, uni_pc,
};
use crate::latent::Value;
use crate::{Error, Result};

pub(super) type SamplerFn = fn(&mut SamplerRun<'_>, Value, &[f32]) -> Result<Value>;

/// The facts about a sampler.
pub(super) struct SamplerEntry {
    /// ComfyUI's name.
    name: &'static str,
    /// Names in other programs that do not follow from ComfyUI's name: see [`lookup`].
    aliases: &'static [&'static str],
    pub run: SamplerFn,
    noisy: bool,
    between_sigmas: bool,
    unprompted: bool,
}

const fn entry(name: &'static str, aliases: &'static [&'static str], run: SamplerFn) -> SamplerEntry {
    SamplerEntry { name, aliases, run, noisy: false, between_sigmas: false, unprompted: false }
}

impl SamplerEntry {
    /// It adds noise after the start.
    const fn noisy(self) -> Self {
        Self { noisy: true, ..self }
    }

    /// It evaluates between two sigmas, and its schedule omits the penultimate sigma.
    const fn between_sigmas(self) -> Self {
        Self { between_sigmas: true, ..self }
    }

    /// It needs the prediction without the prompt (CFG++).
    const fn unprompted(self) -> Self {
        Self { unprompted: true, ..self }
    }
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $sampler:ident => $entry:expr;)*) => {
        /// A numerical method that follows a schedule of noise levels down to 0. Formulas and sources are in the source
        /// file of each method.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "String", into = "String"))]
        #[non_exhaustive]
        pub enum Sampler {
            $($(#[$doc])* $sampler,)*
        }

        impl Default for Sampler {
            fn default() -> Self {
                Self::Euler
            }
        }

        impl Sampler {
            /// Every sampler.
            pub const ALL: &'static [Self] = &[$(Sampler::$sampler),*];

            pub(super) const fn entry(self) -> SamplerEntry {
                match self { $(Sampler::$sampler => $entry,)* }
            }
        }
    };
}

catalogue! {
    /// Euler's method.
    Euler => entry("euler", &["EulerDiscreteScheduler"], euler::euler);
    /// Euler's method with CFG++ (Chung et al. 2024, arXiv 2406.08070): guidance changes the picture, not the noise.
    EulerCfgPp => entry("euler_cfg_pp", &[], euler::euler_cfg_pp).unprompted();
    /// Euler's method with new noise after every step.
    EulerAncestral =>
        entry("euler_ancestral", &["EulerAncestralDiscreteScheduler"], euler::euler_ancestral).noisy();
    /// Euler's method with new noise after every step, with CFG++.
    EulerAncestralCfgPp =>
        entry("euler_ancestral_cfg_pp", &[], euler::euler_ancestral_cfg_pp)
            .noisy()
            .unprompted();
    /// Heun's method: the mean of the slopes at both ends of a step.
    Heun => entry("heun", &["HeunDiscreteScheduler"], heun::heun);
    /// Heun's method with up to three slopes.
    Heunpp2 => entry("heunpp2", &["heun++"], heun::heunpp2);
    /// Heun's method for the exponential integrator.
    ExpHeun2X0 => entry("exp_heun_2_x0", &[], seeds::exp_heun_2_x0);
    /// Heun's method for the exponential integrator of the reverse SDE.
    ExpHeun2X0Sde => entry("exp_heun_2_x0_sde", &[], seeds::exp_heun_2_x0_sde).noisy();
    /// The midpoint method (DPM-Solver-2).
    Dpm2 => entry("dpm_2", &["kdpm_2", "KDPM2DiscreteScheduler"], heun::dpm_2).between_sigmas();
    /// The midpoint method with new noise after every step.
    Dpm2Ancestral =>
        entry("dpm_2_ancestral", &["kdpm_2_a", "KDPM2AncestralDiscreteScheduler"], heun::dpm_2_ancestral)
            .noisy()
            .between_sigmas();
    /// The linear multistep method of fourth order.
    Lms => entry("lms", &["LMSDiscreteScheduler"], adams::lms);
    /// DPM-Solver with its own steps, and as many predictions as the schedule has steps.
    DpmFast => entry("dpm_fast", &[], dpm_solver::dpm_fast);
    /// DPM-Solver with adaptive steps, chosen by an estimate of the error.
    DpmAdaptive => entry("dpm_adaptive", &[], dpm_solver::dpm_adaptive);
    /// DPM-Solver++ 2S with new noise after every step.
    Dpmpp2sAncestral =>
        entry("dpmpp_2s_ancestral", &["dpmpp_2sa"], dpmpp::dpmpp_2s_ancestral).noisy();
    /// DPM-Solver++ 2S with new noise after every step, with CFG++.
    Dpmpp2sAncestralCfgPp =>
        entry("dpmpp_2s_ancestral_cfg_pp", &[], dpmpp::dpmpp_2s_ancestral_cfg_pp).noisy().unprompted();
    /// DPM-Solver++ for the reverse SDE, two predictions a step.
    DpmppSde => entry("dpmpp_sde", &["DPMSolverSDEScheduler"], dpmpp_sde::dpmpp_sde).noisy();
    /// DPM-Solver++ 2M, the second-order multistep method.
    Dpmpp2m => entry("dpmpp_2m", &["DPMSolverMultistepScheduler"], dpmpp::dpmpp_2m);
    /// DPM-Solver++ 2M with CFG++.
    Dpmpp2mCfgPp => entry("dpmpp_2m_cfg_pp", &[], dpmpp::dpmpp_2m_cfg_pp).unprompted();
    /// DPM-Solver++ 2M for the reverse SDE.
    Dpmpp2mSde =>
        entry("dpmpp_2m_sde", &["dpm++2m_sde_bt"], dpmpp_sde::dpmpp_2m_sde).noisy();
    /// DPM-Solver++ 2M for the reverse SDE, weighted as in Heun's method.
    Dpmpp2mSdeHeun => entry("dpmpp_2m_sde_heun", &[], dpmpp_sde::dpmpp_2m_sde_heun).noisy();
    /// DPM-Solver++ 3M for the reverse SDE.
    Dpmpp3mSde =>
        entry("dpmpp_3m_sde", &[], dpmpp_sde::dpmpp_3m_sde).noisy();
    /// DDPM: the reverse steps of the diffusion (Ho et al. 2020, arXiv 2006.11239).
    Ddpm => entry("ddpm", &["DDPMScheduler"], renoise::ddpm).noisy();
    /// LCM, for consistency models: the prediction under new noise (Luo et al. 2023, arXiv 2310.04378).
    Lcm => entry("lcm", &["LCMScheduler"], renoise::lcm).noisy();
    /// iPNDM: Adams-Bashforth with the weights for steps of equal length (arXiv 2204.13902).
    Ipndm => entry("ipndm", &[], adams::ipndm);
    /// iPNDM for steps of different length.
    IpndmV => entry("ipndm_v", &[], adams::ipndm_v);
    /// DEIS, third order (Zhang and Chen 2022, arXiv 2204.13902).
    Deis => entry("deis", &["DEISMultistepScheduler"], deis::deis);
    /// The refined exponential solver, second-order multistep (Zhang et al. 2023, arXiv 2308.02157).
    ResMultistep => entry("res_multistep", &[], res_multistep::res_multistep);
    /// The refined exponential solver with CFG++.
    ResMultistepCfgPp => entry("res_multistep_cfg_pp", &[], res_multistep::res_multistep_cfg_pp).unprompted();
    /// The refined exponential solver with new noise after every step.
    ResMultistepAncestral =>
        entry("res_multistep_ancestral", &[], res_multistep::res_multistep_ancestral)
            .noisy();
    /// The refined exponential solver with new noise after every step, with CFG++.
    ResMultistepAncestralCfgPp =>
        entry("res_multistep_ancestral_cfg_pp", &[], res_multistep::res_multistep_ancestral_cfg_pp)
            .noisy()
            .unprompted();
    /// Gradient estimation: Euler's method along an extrapolated slope (Permenter and Yuan 2023, arXiv 2306.04848).
    GradientEstimation =>
        entry("gradient_estimation", &["euler_ge"], gradient_estimation::gradient_estimation);
    /// Gradient estimation with CFG++.
    GradientEstimationCfgPp =>
        entry("gradient_estimation_cfg_pp", &[], gradient_estimation::gradient_estimation_cfg_pp)
            .unprompted();
    /// The extended reverse-time SDE solver, third order (Cui et al. 2023, arXiv 2309.06169).
    ErSde => entry("er_sde", &[], er_sde::er_sde).noisy();
    /// SEEDS with two stages (Gonzalez et al. 2023, arXiv 2305.14267).
    Seeds2 => entry("seeds_2", &[], seeds::seeds_2).noisy();
    /// SEEDS with three stages.
    Seeds3 => entry("seeds_3", &[], seeds::seeds_3).noisy();
    /// The stochastic Adams solver (Xue et al. 2023, arXiv 2309.05019).
    SaSolver => entry("sa_solver", &[], sa_solver::sa_solver).noisy();
    /// The stochastic Adams solver with a second prediction after each correction.
    SaSolverPece => entry("sa_solver_pece", &[], sa_solver::sa_solver_pece).noisy();
    /// DDIM. Without added noise it is Euler's method in σ. In ComfyUI the two differ only in the noise outside of an
    /// inpainting mask: see [`inpaint_noise`](Self::inpaint_noise).
    Ddim => entry("ddim", &["DDIMScheduler"], euler::euler);
    /// UniPC, third order (Zhao et al. 2023, arXiv 2302.04867).
    UniPc => entry("uni_pc", &["UniPCMultistepScheduler"], uni_pc::uni_pc).between_sigmas();
    /// UniPC with `B(h) = e^h - 1`.
    UniPcBh2 => entry("uni_pc_bh2", &[], uni_pc::uni_pc_bh2).between_sigmas();
}

impl Sampler {
    /// The name, as in ComfyUI.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether the schedule of this sampler omits the last sigma before 0 (see
    /// [`Scheduler::sigmas`](super::Scheduler::sigmas)), as ComfyUI does for methods that evaluate between two sigmas.
    #[doc(hidden)]
    pub fn discard_penultimate(self) -> bool {
        self.entry().between_sigmas
    }

    /// Whether it adds noise after the start. That noise is drawn for all images of the batch together.
    pub fn adds_noise(self) -> bool {
        self.entry().noisy
    }

    /// Whether it needs [`Denoised::uncond`](super::Denoised::uncond) (CFG++).
    pub fn needs_uncond(self) -> bool {
        self.entry().unprompted
    }
}

impl FromStr for Sampler {
    type Err = Error;

    /// By name, as ComfyUI or another program spells it. A name that also contains a scheduler is an error.
    fn from_str(name: &str) -> Result<Self> {
        let entry = |s: &Self| Named { value: *s, name: s.name(), aliases: s.entry().aliases };
        let table: Vec<_> = Self::ALL.iter().map(entry).collect();
        lookup::find("sampler", name, table)
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for Sampler {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

#[cfg(feature = "serde")]
impl From<Sampler> for String {
    fn from(value: Sampler) -> Self {
        value.name().to_owned()
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_go_both_ways() {
        let mut names = std::collections::BTreeSet::new();
        for sampler in Sampler::ALL.iter().copied() {
            assert_eq!(sampler.name().parse::<Sampler>().unwrap(), sampler);
            assert!(names.insert(sampler.name()), "{sampler}");
            for alias in sampler.entry().aliases {
                assert_eq!(alias.parse::<Sampler>().unwrap(), sampler);
                assert!(names.insert(alias), "{alias}");
            }
        }
        for (label, sampler) in [
            ("Euler a", Sampler::EulerAncestral),
            ("DPM++ 2M", Sampler::Dpmpp2m),
            ("DPM++ 2S a", Sampler::Dpmpp2sAncestral),
            ("DPM++ 2M SDE Heun", Sampler::Dpmpp2mSdeHeun),
            ("DPM2 a", Sampler::Dpm2Ancestral),
            ("UniPC", Sampler::UniPc),
        ] {
            assert_eq!(label.parse::<Sampler>().unwrap(), sampler);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_nearest() {
        let error = "dpmpp_3m".parse::<Sampler>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("did you mean dpmpp_2m"), "{error}");
    }
}
