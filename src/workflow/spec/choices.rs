//! Inputs that take one of some words.

use crate::sampler::{Sampler, Scheduler};

/// The words that an input takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choices {
    /// These.
    Of(&'static [&'static str]),
    /// ComfyUI's names of samplers.
    Samplers,
    /// ComfyUI's names of schedulers.
    Schedulers,
}

/// ComfyUI's names that only say where noise is drawn; here it is drawn as on the CPU.
const GPU_SAMPLERS: [&str; 4] =
    ["dpmpp_sde_gpu", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde_gpu"];

/// What the oldest names of samplers begin with: they were functions of a library.
const FUNCTION: &str = "sample_";

impl Choices {
    /// The words.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Self::Of(names) => names.to_vec(),
            Self::Samplers => Sampler::ALL.iter().map(|s| s.name()).chain(GPU_SAMPLERS).collect(),
            Self::Schedulers => Scheduler::ALL.iter().map(|s| s.name()).collect(),
        }
    }

    /// Today's name of a choice that an older version of ComfyUI, or a program beside it, calls `word`; None where
    /// there is none.
    pub(crate) fn name_today(self, word: &str) -> Option<&'static str> {
        match self {
            Choices::Of(_) => None,
            Choices::Samplers => {
                let plain = word.trim().strip_prefix(FUNCTION).unwrap_or(word);
                let named = self.names().into_iter().find(|name| *name == plain);
                named.or_else(|| plain.parse::<Sampler>().ok().map(|sampler| sampler.name()))
            }
            Choices::Schedulers => word.parse::<Scheduler>().ok().map(|scheduler| scheduler.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_of_older_versions() {
        for (old, now) in [
            ("sample_euler", Some("euler")),
            ("sample_dpmpp_2m", Some("dpmpp_2m")),
            ("sample_dpmpp_sde_gpu", Some("dpmpp_sde_gpu")),
            ("Euler a", Some("euler_ancestral")),
            ("sample_", None),
            ("eulr", None),
        ] {
            assert_eq!(Choices::Samplers.name_today(old), now, "{old:?}");
        }
        assert_eq!(Choices::Schedulers.name_today("Karras"), Some("karras"));
        assert_eq!(Choices::Schedulers.name_today("karas"), None);
        assert_eq!(Choices::Of(&["enable"]).name_today("Enable"), None);
    }
}
