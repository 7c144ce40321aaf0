//! The step of guidance: all rows of an evaluation in one list, and what is made of their predictions.

use super::backend::{Attention, Backend, Group};
use super::evaluation::Evaluated;
use super::term::{At, GuidedStep, Notes, Side, Wants};
use super::{Columns, Conditioning, Entry, Evaluation, Guidance, HostBackend, Network, SagEvaluation, Term};
use crate::graph::Perturbation;
use crate::latent::{Latent, Latents, Value};
use crate::sampler::{Discrete, Predicted, Predictor};
use crate::{Error, Result};

/// The model of a guided sampling: a [`Predictor`] that evaluates a network through a backend, on the host or on a device, and combines the
/// predictions.
pub struct Guided<'a> {
    backend: Box<dyn Backend + 'a>,
    positive: Vec<&'a Entry>,
    negative: Vec<&'a Entry>,
    guidance: Guidance,
    discrete: &'a Discrete,
    /// Whether the negative prompt is predicted also where it has no weight.
    keep_uncond: bool,
    watch: Option<Box<Watch<'a>>>,
}

/// Called after each evaluation, with its values and its noise level σ. An error ends the run.
pub type Watch<'a> = dyn FnMut(&Evaluation, f32) -> Result<()> + 'a;

impl<'a> Guided<'a> {
    /// Guides `network`, which works on host latents, by `conditioning`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a setting is outside its range, an entry is not valid, or the
    /// positive or the negative side of the conditioning is empty.
    pub fn new(
        network: &'a mut dyn Network,
        conditioning: &'a Conditioning,
        discrete: &'a Discrete,
        guidance: Guidance,
    ) -> Result<Self> {
        Self::on(Box::new(HostBackend::new(network)), conditioning, discrete, guidance)
    }

    /// Guides the network of `backend` by `conditioning`.
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

    /// Calls `watch` after every evaluation. All latents of the evaluation are read back for it, which takes time on a
    /// device.
    pub fn watched(self, watch: Box<Watch<'a>>) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The guided prediction for the noisy latent `x`, `[batch, channels, height, width]`, at noise level `sigma`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the latent is empty, a mask of the conditioning does not fit it,
    /// or no entry is active at this noise level; any error of the network.
    pub fn evaluate(&mut self, x: &Latent, sigma: f32) -> Result<Evaluation> {
        self.evaluate_with(x, sigma, None)
    }

    /// [`evaluate`](Self::evaluate) with a mask `[batch, height, width]` that SAG uses instead of its own: to choose
    /// the blurred cells, and to compare implementations, where rounding may flip a cell of the mask.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and if the mask has another size.
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

    /// The same without reading anything back; `x` must be stored.
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
        // A perturbed network is evaluated with the prompt, so an entry with the prompt must be active.
        let wants = |term: &Term| term.of().wants(&at).filter(|w| !positive.is_empty() || !w.needs_prompt());
        let acting: Vec<(Term, Wants)> =
            self.guidance.terms.iter().filter_map(|t| Some((t.clone(), wants(t)?))).collect();
        // At CFG 1 the negative prompt has no weight; only a term or the sampler may need it.
        let with_uncond = cfg != 1.0 || self.keep_uncond || acting.iter().any(|(_, w)| w.uncond());
        let negative = if with_uncond { self.active(&self.negative, sigma) } else { Vec::new() };
        // A side without an active entry predicts 0, as in ComfyUI; but attention needs an entry, and so does a
        // difference.
        let records = |side| acting.iter().any(|(_, w)| w.record == Some(side));
        let lacks_record =
            records(Side::Cond) && positive.is_empty() || records(Side::Uncond) && negative.is_empty();
        if lacks_record || (positive.is_empty() && negative.is_empty()) {
            return Err(Error::usage("no conditioning is active at this point of the sampling")
                .at(format!("sigma {sigma}"))
                .hint("let the timestep ranges of the entries cover all of the sampling, or of SAG's part of it"));
        }
        // All rows are in one list, so that the network can compute them together.
        let plain =
            |entries, side| Group { entries, record: records(side), perturbation: Perturbation::None };
        let mut groups = vec![plain(&positive, Side::Cond), plain(&negative, Side::Uncond)];
        groups.extend(acting.iter().filter_map(|(_, w)| {
            let perturbation = w.perturbation?;
            Some(Group { entries: &positive, record: false, perturbation })
        }));
        let mut predictions = self.backend.predict(x, sigma, &groups)?.into_iter();
        let missing = || Error::usage("the backend returned too few predictions");
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
        // A pull of another shape is an error here, not where the result is used.
        result.terms()?;
        let attention = [cond.attention, uncond.as_ref().and_then(|u| u.attention.clone())];
        let uncond = uncond.map(|u| u.denoised);
        Ok(Evaluated { attention, cond: cond.denoised, uncond, cfg, notes, result })
    }

    /// Reads the column sums that SAG used, if it was active.
    pub(crate) fn read_columns(&mut self, evaluated: &Evaluated) -> Result<Option<Vec<Columns>>> {
        let used =
            evaluated.notes.sag.as_ref().and_then(|sag| evaluated.attention[sag.side as usize].as_ref());
        let images = evaluated.result.shape()[0];
        used.map(|attention| self.backend.read_attention(attention, images)).transpose()
    }

    /// Reads all latents of an evaluation.
    fn read(&mut self, evaluated: &Evaluated) -> Result<Evaluation> {
        let Evaluated { attention, cond, uncond, cfg, notes, result } = evaluated;
        let backend = &mut self.backend;
        let images = result.shape()[0];
        let mut maps = |of: &Option<Attention>| {
            of.as_ref().map(|attention| backend.read_attention(attention, images)).transpose()
        };
        let attention = [maps(&attention[0])?, maps(&attention[1])?];
        let sag = match &notes.sag {
            Some(sag) => Some(SagEvaluation {
                columns: attention[sag.side as usize].clone().unwrap_or_default(),
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
            attention,
            cond: backend.read(cond)?,
            uncond: uncond.as_ref().map(|u| backend.read(u)).transpose()?,
            cfg: backend.read(cfg)?,
            sag,
            perturbed,
            result: backend.read(result)?,
        })
    }

    /// The entries whose part of the sampling contains `sigma`.
    fn active(&self, entries: &[&'a Entry], sigma: f32) -> Vec<&'a Entry> {
        let inside = |e: &&Entry| self.discrete.is_within(sigma, e.start, e.end);
        entries.iter().copied().filter(inside).collect()
    }
}

impl Predictor for Guided<'_> {
    fn latents(&mut self) -> &mut dyn Latents {
        &mut *self.backend
    }

    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted> {
        let evaluated = self.evaluate_value(x, sigma, None)?;
        if let Some(mut watch) = self.watch.take() {
            let watched = self.read(&evaluated).and_then(|e| watch(&e, sigma));
            self.watch = Some(watch);
            watched?;
        }
        Ok(evaluated.into())
    }

    fn keep_uncond(&mut self) {
        self.keep_uncond = true;
    }

    /// A caller who watches evaluations sees each step before the next begins.
    fn ahead(&mut self) -> u64 {
        if self.watch.is_some() { 0 } else { self.backend.ahead() }
    }
}
