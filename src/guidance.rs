//! Guidance: several predictions of the network combined linearly in denoised space.
//!
//! A step is a list of rows (picture × conditioning entry × perturbation). A [`Backend`] evaluates
//! them in whatever portions it likes, on the host by a [`Network`] or on the device; [`Guided`] combines
//! their results in a canonical order, so that neither the portions nor the order of entries can change a
//! bit of the result. Beside classifier-free guidance, guidance is a list of [`Term`]s, each of which adds
//! its pull.
//!
//! CFG:  R = D_u + (D_c - D_u) · cfg
//! SAG:  R + (D_g - S) · scale, with D_g = D_u blurred where attention is high, and S the
//!       prediction for D_g under the same noise (Hong et al. 2022, arXiv 2210.00939).
//! PAG, SEG:  R + (D_c - P) · scale, with P the prediction with the prompt of a network whose
//!       self-attention is perturbed.

pub(crate) mod backend;
mod compose;
pub mod entry;
mod host;
pub(crate) mod overlay;
mod perturbed;
mod rescale;
pub mod sag;
pub mod term;
pub(crate) mod weighted;

use std::cmp::Ordering;

#[doc(hidden)]
pub use backend::Backend;
use backend::Group;
pub use entry::{Area, Conditioning, Entry};
#[doc(hidden)]
pub use host::HostBackend;
pub use perturbed::Perturbed;
pub use sag::Sag;
pub use term::Term;
use term::{At, GuidedStep, Notes, Side, Wants};

use crate::latent::{Latent, Latents, Value};
use crate::model::unet::Perturbation;
use crate::sampler::{Discrete, Predicted, Predictor};
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
    /// What terms of one's own have noted, by name.
    pub own: Vec<(String, Latent)>,
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

/// An [`Evaluation`] where it is held.
pub(crate) struct Evaluated {
    cond: Value,
    uncond: Option<Value>,
    cfg: Value,
    notes: Notes,
    result: Value,
}

/// What guidance does with the predictions of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// Scale of classifier-free guidance; 1 is none.
    pub cfg: f32,
    /// How much, 0 to 1, of the contrast that classifier-free guidance adds is taken back (Lin et al. 2023,
    /// arXiv 2305.08891, section 3.4), as ComfyUI's *RescaleCFG* does; the terms come after it.
    pub rescale: Option<f32>,
    /// What is added, in this order.
    pub terms: Vec<Term>,
}

impl Default for Guidance {
    /// CFG 7, and SAG as ComfyUI's node has it.
    fn default() -> Self {
        Self::new(7.0).with(Sag::default())
    }
}

impl Guidance {
    /// Classifier-free guidance alone.
    pub fn new(cfg: f32) -> Self {
        Self { cfg, rescale: None, terms: Vec::new() }
    }

    /// With another term.
    pub fn with(mut self, term: impl Into<Term>) -> Self {
        self.terms.push(term.into());
        self
    }

    /// The settings of Self-Attention Guidance; off where it is not among the terms.
    pub fn sag(&self) -> Sag {
        let found =
            self.terms.iter().find_map(|term| if let Term::Sag(sag) = term { Some(*sag) } else { None });
        found.unwrap_or(Sag::off())
    }

    /// Sets those of the term that is there; else it becomes the first.
    pub fn set_sag(&mut self, sag: Sag) {
        match self.terms.iter_mut().find(|term| matches!(term, Term::Sag(_))) {
            Some(term) => *term = sag.into(),
            None => self.terms.insert(0, sag.into()),
        }
    }

    /// The perturbed networks that are led away from, in order.
    pub fn perturbed(&self) -> impl Iterator<Item = &Perturbed> {
        self.terms.iter().filter_map(|term| if let Term::Perturbed(of) = term { Some(of) } else { None })
    }

    /// The same whose terms act all the time, as far as it is known when they do.
    pub(crate) fn always(&self) -> Self {
        Self { terms: self.terms.iter().map(Term::always).collect(), ..self.clone() }
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        if !self.cfg.is_finite() {
            return Err(Error::usage("the CFG scale is not a number").found(self.cfg.to_string()));
        }
        if let Some(rescale) = self.rescale.filter(|r| !(0.0..=1.0).contains(r)) {
            return Err(Error::usage("the share of CFG's contrast to take back is outside its range")
                .expected("0 to 1")
                .found(rescale.to_string()));
        }
        self.terms.iter().try_for_each(|term| term.of().check())
    }
}

/// A [`Backend`] under guidance, as samplers want it.
pub struct Guided<'a> {
    backend: Box<dyn Backend + 'a>,
    positive: Vec<&'a Entry>,
    negative: Vec<&'a Entry>,
    guidance: Guidance,
    discrete: &'a Discrete,
    /// Whether the negative is predicted although it may have no weight.
    keep_uncond: bool,
    watch: Option<Box<Watch<'a>>>,
}

/// Hears of evaluations: what was evaluated, and the noise level.
pub type Watch<'a> = dyn FnMut(&Evaluation, f32) -> Result<()> + 'a;

impl<'a> Guided<'a> {
    /// Guides `network`, whose rows are predicted on the host, by `conditioning`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a setting is outside its range or a side
    /// of the conditioning is empty.
    pub fn new(
        network: &'a mut dyn Network,
        conditioning: &'a Conditioning,
        discrete: &'a Discrete,
        guidance: Guidance,
    ) -> Result<Self> {
        Self::on(Box::new(HostBackend::new(network)), conditioning, discrete, guidance)
    }

    /// Guides what `backend` predicts by `conditioning`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[doc(hidden)]
    pub fn on(
        backend: Box<dyn Backend + 'a>,
        conditioning: &'a Conditioning,
        discrete: &'a Discrete,
        guidance: Guidance,
    ) -> Result<Self> {
        guidance.check()?;
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
        Ok(Self { backend, positive, negative, guidance, discrete, keep_uncond: false, watch: None })
    }

    /// Lets `watch` hear of every evaluation, for which all its latents are read.
    pub fn watched(self, watch: Box<Watch<'a>>) -> Self {
        Self { watch: Some(watch), ..self }
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
        let x = self.backend.bring(x)?;
        let evaluated = self.evaluate_value(&x, sigma, mask)?;
        self.read(&evaluated)
    }

    /// The same where the latents are held; `x` is stored.
    pub(crate) fn evaluate_value(&mut self, x: &Value, sigma: f32, mask: Option<&[u8]>) -> Result<Evaluated> {
        let [batch, _, height, width] = x.shape();
        if batch * height * width == 0 {
            return Err(Error::usage("an empty latent").found(format!("{:?}", x.shape())));
        }
        for entry in self.positive.iter().chain(&self.negative) {
            entry.check_mask((height, width))?;
        }
        let cfg = self.guidance.cfg;
        let at = At { sigma, shape: x.shape(), cfg, discrete: self.discrete };
        let positive = self.active(&self.positive, sigma);
        // A perturbed network is asked under the prompt, so there must be one.
        let wants = |term: &Term| term.of().wants(&at).filter(|w| !positive.is_empty() || !w.needs_prompt());
        let acting: Vec<(Term, Wants)> =
            self.guidance.terms.iter().filter_map(|t| Some((t.clone(), wants(t)?))).collect();
        // At cfg 1 the negative has no weight; only a term or the sampler may need it.
        let with_uncond = cfg != 1.0 || self.keep_uncond || acting.iter().any(|(_, w)| w.uncond());
        let negative = if with_uncond { self.active(&self.negative, sigma) } else { Vec::new() };
        // A side without an active entry predicts 0, as in ComfyUI; but attention and differences need one.
        let records = |side| acting.iter().any(|(_, w)| w.record == Some(side));
        let unheard =
            records(Side::Cond) && positive.is_empty() || records(Side::Uncond) && negative.is_empty();
        if unheard || (positive.is_empty() && negative.is_empty()) {
            return Err(Error::usage("no conditioning is active at this point of the sampling")
                .at(format!("sigma {sigma}"))
                .hint("let the timestep ranges of the entries cover all of the sampling, or of SAG's part of it"));
        }
        // One list for all lets the network compute them together.
        let plain =
            |entries, side| Group { entries, record: records(side), perturbation: Perturbation::None };
        let mut groups = vec![plain(&positive, Side::Cond), plain(&negative, Side::Uncond)];
        groups.extend(acting.iter().filter_map(|(_, w)| {
            let perturbation = w.perturbation?;
            Some(Group { entries: &positive, record: false, perturbation })
        }));
        let mut predictions = self.backend.predict(x, sigma, &groups)?.into_iter();
        let missing = || Error::usage("the backend left out the prediction of a side");
        let cond = predictions.next().ok_or_else(missing)?;
        let uncond = predictions.next().ok_or_else(missing)?;
        let cfg = match (with_uncond, self.guidance.rescale) {
            (false, _) => cond.denoised.clone(),
            (true, Some(multiplier)) => {
                let sides = (&cond.denoised, &uncond.denoised);
                self.backend.rescale(sides, x, sigma, (cfg, multiplier))?
            }
            (true, None) => {
                let cfg = f64::from(cfg);
                Value::combine(&[(1.0 - cfg, &uncond.denoised), (cfg, &cond.denoised)])
            }
        };
        let uncond = with_uncond.then_some(uncond);
        let mut notes = Notes::default();
        let mut pulls = Vec::new();
        for (term, wants) in &acting {
            let own = wants.perturbation.and_then(|_| predictions.next());
            let mut step = GuidedStep {
                backend: &mut *self.backend,
                sides: [&positive, &negative],
                predictions: [Some(&cond), uncond.as_ref()],
                own: own.as_ref(),
                wants: *wants,
                x,
                sigma,
                cfg: &cfg,
                mask,
                notes: &mut notes,
            };
            pulls.extend(term.of().pull(&mut step)?);
        }
        let mut terms = vec![(1.0, &cfg)];
        terms.extend(pulls.iter().map(|pull| (1.0, pull)));
        let result = Value::combine(&terms);
        let uncond = uncond.map(|u| u.denoised);
        Ok(Evaluated { cond: cond.denoised, uncond, cfg, notes, result })
    }

    /// Reads the column sums that SAG went by, if it acted.
    pub(crate) fn read_columns(&mut self, evaluated: &Evaluated) -> Result<Option<Vec<Columns>>> {
        let sag = evaluated.notes.sag.as_ref();
        let images = evaluated.result.shape()[0];
        sag.map(|sag| self.backend.read_attention(&sag.attention, images)).transpose()
    }

    /// Reads all of an evaluation.
    fn read(&mut self, evaluated: &Evaluated) -> Result<Evaluation> {
        let Evaluated { cond, uncond, cfg, notes, result } = evaluated;
        let backend = &mut self.backend;
        let sag = match &notes.sag {
            Some(sag) => Some(SagEvaluation {
                columns: backend.read_attention(&sag.attention, result.shape()[0])?,
                mask: backend.read_mask(&sag.mask)?,
                degraded: backend.read(&sag.degraded)?,
                input: backend.read(&sag.input)?,
                sag: backend.read(&sag.prediction)?,
            }),
            None => None,
        };
        let perturbed = notes.perturbed.iter().map(|p| backend.read(p)).collect::<Result<_>>()?;
        let own = notes.own.iter().map(|(name, v)| Ok((name.clone(), backend.read(v)?)));
        Ok(Evaluation {
            own: own.collect::<Result<_>>()?,
            cond: backend.read(cond)?,
            uncond: uncond.as_ref().map(|u| backend.read(u)).transpose()?,
            cfg: backend.read(cfg)?,
            sag,
            perturbed,
            result: backend.read(result)?,
        })
    }

    /// Entries whose range of sampling holds `sigma`.
    fn active(&self, entries: &[&'a Entry], sigma: f32) -> Vec<&'a Entry> {
        let inside = |e: &&Entry| self.discrete.is_within(sigma, e.start, e.end);
        entries.iter().copied().filter(inside).collect()
    }
}

impl From<Evaluated> for Predicted {
    /// What a sampler takes of an evaluation.
    fn from(evaluated: Evaluated) -> Self {
        Self { denoised: evaluated.result, uncond: evaluated.uncond }
    }
}

impl Predictor for Guided<'_> {
    fn latents(&mut self) -> &mut dyn Latents {
        &mut *self.backend
    }

    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted> {
        let evaluated = self.evaluate_value(x, sigma, None)?;
        if let Some(mut watch) = self.watch.take() {
            let heard = self.read(&evaluated).and_then(|e| watch(&e, sigma));
            self.watch = Some(watch);
            heard?;
        }
        Ok(evaluated.into())
    }

    fn keep_uncond(&mut self) {
        self.keep_uncond = true;
    }

    /// Who hears of evaluations hears of each step before the next.
    fn ahead(&mut self) -> u64 {
        if self.watch.is_some() { 0 } else { self.backend.ahead() }
    }
}

/// Order of two lists of f32 by their bits: a total order that any two machines agree on.
fn order_of_bits(a: &[f32], b: &[f32]) -> Ordering {
    a.iter().map(|v| v.to_bits()).cmp(b.iter().map(|v| v.to_bits()))
}
