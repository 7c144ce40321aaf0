//! Guidance: several predictions of the network combined linearly in denoised space.
//!
//! A step is a list of rows (picture × conditioning entry × perturbation). The [`Network`]
//! evaluates rows in whatever portions it likes; [`Guided`] combines their results in a canonical
//! order, so that neither the portions nor the order of entries can change a bit of the result.
//!
//! CFG:  R = D_u + (D_c - D_u) · cfg
//! SAG:  R + (D_g - S) · scale, with D_g = D_u blurred where attention is high, and S the
//!       prediction for D_g under the same noise (Hong et al. 2022, arXiv 2210.00939).
//! PAG, SEG:  R + (D_c - P) · scale, with P the prediction with the prompt of a network whose
//!       self-attention is perturbed.

mod compose;
pub mod entry;
mod perturbed;
mod rescale;
pub mod sag;
mod weighted;

use std::cmp::Ordering;

pub use entry::{Area, Conditioning, Entry};
pub use perturbed::Perturbed;
pub use sag::Sag;
use weighted::Weighted;

use crate::latent::Latent;
use crate::model::unet::Perturbation;
use crate::sampler::{Denoised, Denoiser, Discrete};
use crate::{Error, Result};

/// One evaluation of the network: a picture under one entry.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The conditioning.
    pub entry: &'a Entry,
    /// The noisy latent of one picture, cropped to the entry's area.
    pub x: Latent,
    /// Its noise level.
    pub sigma: f32,
    /// Whether the column sums of the middle block's self-attention are wanted.
    pub record: bool,
    /// What is done to the self-attentions of the middle block; rows with one record nothing.
    pub perturbation: Perturbation,
}

/// What the network says of a row.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// The prediction of the picture under the noise, of the row's shape.
    pub denoised: Latent,
    /// The column sums, if they were wanted.
    pub columns: Option<Columns>,
}

/// Attention received at each position of the middle block's map; the mean over positions is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// True height of the map.
    pub height: usize,
    /// True width of the map.
    pub width: usize,
    /// `[height, width]`.
    pub values: Vec<f32>,
}

/// A network that predicts rows.
pub trait Network {
    /// Predicts each row by itself: a result may depend on its row alone, not on its company.
    ///
    /// # Errors
    /// Whatever stops the network.
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>>;
}

/// A noisy latent's prediction under guidance, with all that led to it. Latents are of the
/// input's shape.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Prediction with the prompt.
    pub cond: Latent,
    /// Prediction with the negative prompt, if it was evaluated.
    pub uncond: Option<Latent>,
    /// After classifier-free guidance.
    pub cfg: Latent,
    /// What SAG did, if it was active.
    pub sag: Option<SagEvaluation>,
    /// The predictions of those perturbed networks that were asked, in the order of the settings.
    pub perturbed: Vec<Latent>,
    /// The result.
    pub result: Latent,
}

/// The inner values of a SAG step.
#[derive(Debug, Clone)]
pub struct SagEvaluation {
    /// Column sums, one for each picture and recorded entry, in canonical order of entries.
    pub columns: Vec<Columns>,
    /// 1 where the prediction is blurred, `[batch, height, width]`.
    pub mask: Vec<u8>,
    /// The prediction with the masked parts blurred.
    pub degraded: Latent,
    /// The same under the noise of the step: what the third row sees.
    pub input: Latent,
    /// The prediction for `input`.
    pub sag: Latent,
}

/// A [`Network`] under guidance, as samplers want it.
pub struct Guided<'a> {
    network: &'a mut dyn Network,
    positive: Vec<&'a Entry>,
    negative: Vec<&'a Entry>,
    cfg: f32,
    rescale: Option<f32>,
    sag: Sag,
    perturbed: Vec<Perturbed>,
    discrete: &'a Discrete,
    /// Whether the negative is predicted although it may have no weight.
    keep_uncond: bool,
}

impl<'a> Guided<'a> {
    /// Guides `network` by `conditioning`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a setting is outside its range or a side
    /// of the conditioning is empty.
    pub fn new(
        network: &'a mut dyn Network,
        conditioning: &'a Conditioning,
        discrete: &'a Discrete,
        cfg: f32,
        sag: Sag,
    ) -> Result<Self> {
        sag.check()?;
        if !cfg.is_finite() {
            return Err(Error::usage("the CFG scale must be a number").found(cfg.to_string()));
        }
        let sorted = |side: &'a [Entry], name: &str| {
            if side.is_empty() {
                return Err(Error::usage(format!("the {name} conditioning is empty"))
                    .expected("at least one entry; an empty prompt is one"));
            }
            side.iter().try_for_each(Entry::check)?;
            let mut entries: Vec<&Entry> = side.iter().collect();
            entries.sort_by(|a, b| a.canonical_order(b));
            Ok(entries)
        };
        let positive = sorted(&conditioning.positive, "positive")?;
        let negative = sorted(&conditioning.negative, "negative")?;
        let (rescale, perturbed, keep_uncond) = (None, Vec::new(), false);
        Ok(Self { network, positive, negative, cfg, rescale, sag, perturbed, discrete, keep_uncond })
    }

    /// Takes back so much, 0 to 1, of the contrast that classifier-free guidance adds (Lin et al. 2023,
    /// arXiv 2305.08891, section 3.4), as ComfyUI's *RescaleCFG* does; SAG comes after it.
    pub fn rescaled(self, multiplier: Option<f32>) -> Self {
        Self { rescale: multiplier, ..self }
    }

    /// Guides away from perturbed networks as well; what has no effect is left out.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a setting is outside its range.
    pub fn perturbed(self, perturbed: &[Perturbed]) -> Result<Self> {
        perturbed.iter().try_for_each(Perturbed::check)?;
        Ok(Self { perturbed: perturbed.iter().filter(|p| p.is_on()).copied().collect(), ..self })
    }

    /// Evaluates all rows of a step and combines them.
    pub fn evaluate(&mut self, x: &Latent, sigma: f32) -> Result<Evaluation> {
        self.evaluate_with(x, sigma, None)
    }

    /// [`evaluate`](Self::evaluate) with a mask that SAG takes instead of its own, `[batch, height,
    /// width]`: for masks of one's own making, and for comparing what follows from a mask between
    /// implementations, where rounding may flip a bit of it.
    pub fn evaluate_with(&mut self, x: &Latent, sigma: f32, mask: Option<&[u8]>) -> Result<Evaluation> {
        let [batch, _, height, width] = x.shape();
        if let Some(mask) = mask.filter(|m| m.len() != batch * height * width) {
            return Err(Error::usage("the mask does not fit the latent")
                .expected(format!("{batch} masks of {height}x{width}"))
                .found(format!("{} values", mask.len())));
        }
        if batch * height * width == 0 {
            return Err(Error::usage("an empty latent").found(format!("{:?}", x.shape())));
        }
        for entry in self.positive.iter().chain(&self.negative) {
            entry.check_mask(x)?;
        }
        let active = self.sag.acts_on(x) && self.discrete.is_within(sigma, self.sag.start, self.sag.end);
        let on_cond = active && self.cfg == 1.0 && self.sag.cond_at_cfg_1;
        // At cfg 1 the negative has no weight; only SAG or the sampler may need it.
        let with_uncond = self.cfg != 1.0 || self.keep_uncond || (active && !on_cond);
        let positive = self.active(&self.positive, sigma);
        let negative = if with_uncond { self.active(&self.negative, sigma) } else { Vec::new() };
        // A side without an active entry predicts 0, as in ComfyUI; but attention and differences need one.
        let looked_at = if on_cond { &positive } else { &negative };
        if (active && looked_at.is_empty()) || (positive.is_empty() && negative.is_empty()) {
            return Err(Error::usage("no conditioning is active at this point of the sampling")
                .at(format!("sigma {sigma}"))
                .hint("let the timestep ranges of the entries cover all of the sampling, or of SAG's part of it"));
        }
        // One list for both sides lets the network compute them together.
        let plain = Perturbation::None;
        let mut rows = rows(&positive, x, sigma, (active && on_cond, plain));
        rows.extend(self::rows(&negative, x, sigma, (active && !on_cond, plain)));
        let perturbed: Vec<Perturbed> = self
            .perturbed
            .iter()
            .filter(|p| !positive.is_empty() && self.discrete.is_within(sigma, p.start, p.end))
            .copied()
            .collect();
        for p in &perturbed {
            rows.extend(self::rows(&positive, x, sigma, (false, p.attention)));
        }
        let results = self.predict(&rows)?;
        let side = positive.len() * x.batch();
        let (cond_results, results) = results.split_at(side);
        let (uncond_results, perturbed_results) = results.split_at(negative.len() * x.batch());

        let weighted = Weighted::new(&positive, x);
        let cond = weighted.denoised(cond_results);
        let uncond = with_uncond.then(|| Weighted::new(&negative, x).denoised(uncond_results));
        let cfg = match &uncond {
            Some(uncond) if let Some(multiplier) = self.rescale => {
                rescale::combined((&cond, uncond), x, sigma, (self.cfg, multiplier))
            }
            Some(uncond) => uncond.zip(&cond, |u, c| u + (c - u) * self.cfg),
            None => cond.clone(),
        };
        let sag = if active {
            let (entries, results) =
                if on_cond { (&positive, cond_results) } else { (&negative, uncond_results) };
            let base = uncond.as_ref().unwrap_or(&cond);
            self.sag_step(x, sigma, (base, mask), entries, results)?
        } else {
            None
        };
        let mut result = match &sag {
            Some(s) => {
                let pull = s.degraded.zip(&s.sag, |g, s| g - s);
                cfg.zip(&pull, |r, d| r + d * self.sag.scale)
            }
            None => cfg.clone(),
        };
        let worse: Vec<Latent> =
            perturbed_results.chunks(side.max(1)).map(|r| weighted.denoised(r)).collect();
        for (p, worse) in perturbed.iter().zip(&worse) {
            let pull = cond.zip(worse, |c, w| c - w);
            result = result.zip(&pull, |r, d| r + d * p.scale);
        }
        Ok(Evaluation { cond, uncond, cfg, sag, perturbed: worse, result })
    }

    /// The third row: blur where attention is high, keep the noise, predict again.
    fn sag_step(
        &mut self,
        x: &Latent,
        sigma: f32,
        (base, mask): (&Latent, Option<&[u8]>),
        entries: &[&Entry],
        results: &[RowResult],
    ) -> Result<Option<SagEvaluation>> {
        let missing = || Error::internal("the network recorded no attention");
        let columns: Vec<Columns> =
            results.iter().map(|r| r.columns.clone().ok_or_else(missing)).collect::<Result<_>>()?;
        // A map of one position has nothing that stands out.
        if columns.iter().all(|c| c.values.len() == 1) {
            return Ok(None);
        }
        let mask =
            mask.map_or_else(|| self.mask(&Weighted::new(entries, x).scores(&columns)), <[u8]>::to_vec);
        let degraded = sag::degrade(base, &mask, self.sag.blur_sigma);
        let input = Latent::combine(&[(1.0, &degraded), (1.0, x), (-1.0, base)]);
        let results = self.predict(&rows(entries, &input, sigma, (false, Perturbation::None)))?;
        let sag = Weighted::new(entries, x).denoised(&results);
        Ok(Some(SagEvaluation { columns, mask, degraded, input, sag }))
    }

    fn mask(&self, scores: &[f32]) -> Vec<u8> {
        scores.iter().map(|s| u8::from(*s > self.sag.threshold)).collect()
    }

    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let results = self.network.predict(rows)?;
        let fits = |(row, result): (&Row<'_>, &RowResult)| {
            let whole = |c: &Columns| !c.values.is_empty() && c.values.len() == c.height * c.width;
            result.denoised.shape() == row.x.shape() && result.columns.as_ref().is_none_or(whole)
        };
        if results.len() != rows.len() || !rows.iter().zip(&results).all(fits) {
            return Err(Error::usage("the network's results do not fit its rows")
                .expected("a prediction of each row's shape, and column sums of the map's size"));
        }
        Ok(results)
    }

    /// Entries whose range of sampling holds `sigma`.
    fn active(&self, entries: &[&'a Entry], sigma: f32) -> Vec<&'a Entry> {
        let inside = |e: &&Entry| self.discrete.is_within(sigma, e.start, e.end);
        entries.iter().copied().filter(inside).collect()
    }
}

impl From<Evaluation> for Denoised {
    /// What a sampler takes of an evaluation.
    fn from(evaluation: Evaluation) -> Self {
        Self { denoised: evaluation.result, uncond: evaluation.uncond }
    }
}

impl Denoiser for Guided<'_> {
    fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised> {
        self.evaluate(x, sigma).map(Denoised::from)
    }

    fn keep_uncond(&mut self) {
        self.keep_uncond = true;
    }
}

/// All rows of a side: entry by entry, picture by picture.
fn rows<'e>(
    entries: &[&'e Entry],
    x: &Latent,
    sigma: f32,
    (record, perturbation): (bool, Perturbation),
) -> Vec<Row<'e>> {
    let of_entry = |entry: &&'e Entry| {
        let entry = *entry;
        let area = entry.area_in(x);
        let row = move |i| Row { entry, x: area.crop(&x.row(i)), sigma, record, perturbation };
        (0..x.batch()).map(row).collect::<Vec<_>>()
    };
    entries.iter().flat_map(of_entry).collect()
}

/// Order of two lists of f32 by their bits: a total order that any two machines agree on.
fn order_of_bits(a: &[f32], b: &[f32]) -> Ordering {
    a.iter().map(|v| v.to_bits()).cmp(b.iter().map(|v| v.to_bits()))
}
