//! A request's settings as the text of a picture; its public path is [`image::parameters`](crate::image::parameters).
//! It is here because `image` does not depend on requests.

use super::Request;
use crate::families::LATENT_CELL;
use crate::guidance::Term;
use crate::image::infotext::{Infotext, RAW_NEGATIVE, RAW_PROMPT};
use crate::model::unet::Perturbation;
use crate::sampler::Sampler;

/// What a picture's settings contain beside the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The model's name, without directories.
    pub model: &'a str,
    /// The first ten digits of the SHA-256 of its file, as A1111 and others write it.
    pub hash: Option<&'a str>,
    /// Further pairs of name and value, such as the VAE's name or what the picture was started from.
    pub further: &'a [(&'static str, String)],
}

/// The text for picture `picture` (from 0) of the batch that `request` makes, for the chunk
/// [`KEYWORD`](crate::image::parameters::KEYWORD) of a PNG:
///
/// ```
/// use sagittal::image::parameters::{KEYWORD, Origin, parameters};
/// use sagittal::{Picture, Request, Size, image::png};
///
/// let request = Request::new("a fox", Size::square(512));
/// let settings = parameters(&request, &Origin { model: "v1-5", ..Origin::default() }, 0);
/// assert!(settings.starts_with("a fox\nSteps: 20"));
/// # let picture = Picture { width: 1, height: 1, rgb: vec![0; 3] };
/// let png = png::encode(&picture, &[(KEYWORD, &settings)])?;
/// # Ok::<(), sagittal::Error>(())
/// ```
pub fn parameters(request: &Request, origin: &Origin<'_>, picture: usize) -> String {
    let mut text = request.prompt.clone();
    // Entries are averaged in a canonical order, so their order must not matter here either.
    let mut negative: Vec<&str> = request.negative.iter().map(String::as_str).collect();
    negative.sort_unstable();
    // No negative prompt is an empty one.
    if negative == [""] {
        negative.clear();
    }
    let shown: Vec<&str> = negative.iter().copied().filter(|n| !n.is_empty()).collect();
    if !shown.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&shown.join(" AND "));
    }
    let line = |settings: Vec<(&'static str, String)>| {
        let pair = |(name, value)| format!("{name}: {}", quoted(value));
        settings.into_iter().map(pair).collect::<Vec<_>>().join(", ")
    };
    let plain = format!("{text}\n{}", line(settings(request, origin, picture))).trim().to_owned();
    let read = Infotext::parse(&plain);
    let (prompt, negatives) = (read.prompt == request.prompt, read.negative == negative);
    if prompt && negatives {
        return plain;
    }
    let mut all = settings(request, origin, picture);
    let version = all.pop();
    if !prompt {
        all.push((RAW_PROMPT, serde_json::Value::from(request.prompt.as_str()).to_string()));
    }
    if !negatives {
        all.push((RAW_NEGATIVE, serde_json::Value::from(negative).to_string()));
    }
    all.extend(version);
    format!("{text}\n{}", line(all)).trim().to_owned()
}

fn settings(request: &Request, origin: &Origin<'_>, picture: usize) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("Steps", request.schedule.steps.to_string()),
        ("Sampler", label(SAMPLERS, request.solver.sampler.name())),
        ("Schedule type", label(SCHEDULERS, request.schedule.scheduler.name())),
        ("CFG scale", request.guidance.cfg.to_string()),
        ("Seed", request.seed.to_string()),
        ("Size", request.size.to_string()),
    ];
    all.extend(origin.hash.map(|hash| ("Model hash", hash.to_owned())));
    all.push(("Model", origin.model.to_owned()));
    if request.start.is_some() || request.schedule.denoise < 1.0 {
        all.push(("Denoising strength", request.schedule.denoise.to_string()));
    }
    if let Some(skip) = request.clip_skip {
        all.push(("Clip skip", skip.to_string()));
    }
    if request.batch > 1 && (picture > 0 || needs_batch(request)) {
        all.push(("Batch size", request.batch.to_string()));
        all.push(("Batch pos", picture.to_string()));
    }
    if request.solver.sampler.adds_noise() {
        let usual = |value: f32| value == 1.0;
        let noise = [("Eta", request.solver.eta), ("Sigma noise", request.solver.s_noise)];
        all.extend(noise.iter().filter(|(_, v)| !usual(*v)).map(|(name, v)| (*name, v.to_string())));
    }
    all.extend(request.guidance.rescale.map(|share| ("CFG Rescale", share.to_string())));
    // The seed is that of PyTorch's CPU generator.
    all.push(("RNG", "CPU".into()));
    let sag = request.guidance.sag();
    if sag.is_on() {
        all.push(("SAG Guidance Enabled", "True".into()));
        all.push(("SAG Guidance Scale", sag.scale.to_string()));
        all.push(("SAG Mask Threshold", sag.threshold.to_string()));
        all.push(("SAG Blur Sigma", sag.blur_sigma.to_string()));
        all.extend(range(["SAG Start", "SAG End"], sag.start, sag.end));
        if sag.cond_at_cfg_1 {
            all.push(("SAG Attention", "cond at CFG 1".into()));
        }
    }
    for p in request.guidance.perturbed().filter(|p| p.is_on()) {
        match p.attention {
            Perturbation::None => {}
            Perturbation::Identity => {
                all.push(("PAG Scale", p.scale.to_string()));
                all.extend(range(["PAG Start", "PAG End"], p.start, p.end));
            }
            Perturbation::BlurredQueries(width) => {
                all.push(("SEG Scale", p.scale.to_string()));
                all.push(("SEG Blur Sigma", width.sigma().to_string()));
                all.extend(range(["SEG Start", "SEG End"], p.start, p.end));
            }
        }
    }
    // It cannot be reproduced from the text, but the picture must not look like one without it.
    for term in &request.guidance.terms {
        if let Term::Own(own) = term {
            all.push(("Own guidance", format!("{own:?}")));
        }
    }
    if let Some(sizes) = request.sizes {
        all.push(("Original size", sizes.original.to_string()));
        all.push(("Crop", format!("{}/{}", sizes.crop_top, sizes.crop_left)));
        all.push(("Target size", sizes.target.to_string()));
    }
    all.extend(origin.further.iter().cloned());
    all.push(("Version", concat!("sagittal ", env!("CARGO_PKG_VERSION")).into()));
    all
}

/// The range of the sampling in which a guidance acts, if that is not all of it.
fn range(names: [&'static str; 2], start: f64, end: f64) -> Vec<(&'static str, String)> {
    match (start, end) {
        (0.0, 1.0) => Vec::new(),
        _ => names.into_iter().zip([start, end].map(|share| share.to_string())).collect(),
    }
}

/// Whether even the first picture of a batch differs from that of a batch of one: where noise is
/// drawn for the whole batch again at each step, or the generator's blocks of 16 values reach
/// across pictures.
#[doc(hidden)]
pub fn needs_batch(request: &Request) -> bool {
    // Its step size depends on the error of the whole batch.
    let shares_steps = request.solver.sampler == Sampler::DpmAdaptive;
    let [height, width] = [request.size.height, request.size.width].map(|side| side / LATENT_CELL);
    let whole_blocks = height.saturating_mul(width).is_multiple_of(4);
    request.solver.sampler.adds_noise() || shares_steps || !whole_blocks
}

/// Text with a comma, colon or line break is put in quotes, as JSON writes it.
/// So does what would lose space at its ends, or be taken for a text in quotes.
fn quoted(value: String) -> String {
    let bare = !value.is_empty() && value.trim() == value && !value.starts_with('"');
    if !bare || value.contains([',', ':', '\n']) { serde_json::Value::from(value).to_string() } else { value }
}

type Labels = &'static [(&'static str, &'static str)];

/// A1111's label of ComfyUI's name; other names are kept.
fn label(labels: Labels, name: &str) -> String {
    labels.iter().find(|(own, _)| *own == name).map_or(name, |(_, label)| label).to_owned()
}

const SAMPLERS: Labels = &[
    ("euler", "Euler"),
    ("euler_ancestral", "Euler a"),
    ("heun", "Heun"),
    ("dpm_2", "DPM2"),
    ("dpm_2_ancestral", "DPM2 a"),
    ("lms", "LMS"),
    ("dpm_fast", "DPM fast"),
    ("dpm_adaptive", "DPM adaptive"),
    ("dpmpp_2s_ancestral", "DPM++ 2S a"),
    ("dpmpp_sde", "DPM++ SDE"),
    ("dpmpp_2m", "DPM++ 2M"),
    ("dpmpp_2m_sde", "DPM++ 2M SDE"),
    ("dpmpp_3m_sde", "DPM++ 3M SDE"),
    ("lcm", "LCM"),
    ("ddim", "DDIM"),
    ("uni_pc", "UniPC"),
];

const SCHEDULERS: Labels = &[
    ("normal", "Normal"),
    ("karras", "Karras"),
    ("simple", "Simple"),
    ("sgm_uniform", "SGM Uniform"),
    ("exponential", "Exponential"),
    ("ddim_uniform", "DDIM"),
    ("beta", "Beta"),
    ("kl_optimal", "KL Optimal"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Size;
    use crate::guidance::term::{At, GuidanceTerm, GuidedStep, Wants};
    use crate::guidance::{Guidance, Perturbed, Sag};
    use crate::latent::Value;
    use crate::pipeline::Schedule;
    use crate::sampler::Scheduler;

    #[test]
    fn as_a1111_writes_it() {
        let mut request = Request::new("a fox, <b>", Size::new(512, 768));
        request.negative = vec!["ugly".into(), "blurry".into()];
        request.seed = 42;
        request.clip_skip = Some(2);
        assert_eq!(
            parameters(
                &request,
                &Origin { model: "v1-5", hash: Some("0123456789"), ..Default::default() },
                0
            ),
            format!(
                "a fox, <b>\nNegative prompt: blurry AND ugly\nSteps: 20, Sampler: Euler, \
                 Schedule type: Normal, CFG scale: 7, Seed: 42, Size: 512x768, \
                 Model hash: 0123456789, Model: v1-5, Clip skip: 2, \
                 RNG: CPU, SAG Guidance Enabled: True, SAG Guidance Scale: 0.5, SAG Mask Threshold: 1, \
                 SAG Blur Sigma: 2, Raw negative prompts: \"[\\\"blurry\\\",\\\"ugly\\\"]\", \
                 Version: sagittal {}",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[derive(Debug)]
    struct Nothing {
        #[allow(dead_code)]
        much: u32,
    }

    impl GuidanceTerm for Nothing {
        fn wants(&self, _: &At<'_>) -> Option<Wants> {
            None
        }

        fn pull(&self, _: &mut GuidedStep<'_>) -> crate::Result<Option<Value>> {
            Ok(None)
        }
    }

    #[test]
    fn only_what_matters_is_written() {
        let plain = |change: fn(&mut Request)| {
            let mut request = Request::new("", Size::square(64));
            change(&mut request);
            parameters(&request, &Origin { model: "m, n", ..Default::default() }, 0)
        };
        let off = plain(|r| r.guidance.set_sag(Sag::off()));
        let others = plain(|r| {
            let of = [Perturbed::pag(3.0), Perturbed::seg(0.0, 2.0), Perturbed::seg(1.5, f32::INFINITY)];
            r.guidance.terms.extend(of.map(Term::from));
        });
        assert!(others.contains("SAG Blur Sigma: 2, PAG Scale: 3, SEG Scale: 1.5, SEG Blur Sigma: inf, "));
        let late = plain(|r| r.guidance.terms.push(Perturbed { start: 0.25, ..Perturbed::pag(2.0) }.into()));
        assert!(late.contains("PAG Scale: 2, PAG Start: 0.25, PAG End: 1, "), "{late}");
        let own = plain(|r| r.guidance.terms.push(Term::own(Nothing { much: 3 })));
        assert!(own.contains("Own guidance: \"Nothing { much: 3 }\""), "{own}");
        assert!(
            off.starts_with("Steps: 20") && !off.contains("SAG") && off.contains("Model: \"m, n\""),
            "{off}"
        );
        assert_eq!(off, plain(|r| r.guidance.set_sag(Sag { blur_sigma: 0.0, ..Sag::default() })));
        assert_eq!(plain(|_| ()), plain(|r| r.batch = 4));
        assert!(
            plain(|r| (r.batch, r.solver.sampler) = (4, Sampler::EulerAncestral)).contains("Batch pos: 0")
        );
    }

    /// Texts of what the grammar minds, and any others.
    fn text() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "fox",
            " ",
            "\n",
            "\r",
            "\t",
            ",",
            ":",
            "\"",
            "\\",
            "Negative prompt:",
            "Steps: 1, Seed: 2, Size: 3x4",
            "<lora:a:1>",
            " AND ",
            "BREAK",
            "é",
            "🦊",
            "\u{1f}",
            "\u{a0}",
            "(a:1.2)",
            "Raw prompt: \"x\"",
            "[",
            "]",
        ];
        let some = proptest::collection::vec(proptest::sample::select(PIECES), 0..12);
        prop_oneof![some.prop_map(|pieces| pieces.concat()), any::<String>()]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            prompt in text(),
            mut negative in proptest::collection::vec(text(), 0..4),
            (model, further) in (text(), text()),
            (seed, cfg, denoise) in (any::<u64>(), -100.0f32..100.0, 0.0f64..=1.0),
            (sampler, scheduler) in (0..Sampler::ALL.len(), 0..Scheduler::ALL.len()),
        ) {
            let request = Request {
                negative: negative.clone(), seed,
                guidance: Guidance { cfg, ..Guidance::default() },
                solver: Sampler::ALL[sampler].into(),
                schedule: Schedule { scheduler: Scheduler::ALL[scheduler], denoise, ..Schedule::default() },
                ..Request::new(prompt.clone(), Size::new(512, 768))
            };
            let pairs = [("Init image", further.clone())];
            let text = parameters(&request, &Origin { model: &model, further: &pairs, ..Default::default() }, 0);
            let read = Infotext::parse(&text);
            negative.sort_unstable();
            if negative == [""] {
                negative.clear();
            }
            prop_assert_eq!((&read.prompt, &read.negative), (&prompt, &negative));
            prop_assert_eq!(read.sampler(), Some(request.solver.sampler));
            prop_assert_eq!(read.scheduler(), Some(request.schedule.scheduler));
            let number = |name| read.get(name).unwrap_or_default();
            prop_assert_eq!(number("Seed").parse(), Ok(seed));
            prop_assert_eq!(number("CFG scale").parse(), Ok(cfg));
            prop_assert_eq!(number("Denoising strength").parse().unwrap_or(1.0), denoise);
            prop_assert_eq!((number("Model"), number("Init image")), (model.as_str(), further.as_str()));
        }

        #[test]
        fn any_text_can_be_read(text in text()) {
            Infotext::parse(&text);
        }
    }
}
