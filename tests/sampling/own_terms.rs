//! Guidance terms of an app, on the device and on the host.

use std::sync::{Arc, Mutex};

use crate::end_to_end::{generate, model};
use sagittal::guidance::term::{At, GuidanceTerm, GuidedStep, Side, Wants};
use sagittal::guidance::{Guidance, Term};
use sagittal::latent::Value;
use sagittal::pipeline::Progress;
use sagittal::{Error, ErrorKind, Latent, Request, Sag, Size};

fn request(terms: Vec<Term>) -> Request {
    let mut r = Request::new("panda, noto style", Size::square(64));
    (r.schedule.steps, r.guidance, r.seed) = (2, Guidance::new(3.5), 5);
    r.guidance.terms = terms;
    r
}

/// A custom term: more of the difference that classifier-free guidance makes.
#[derive(Debug)]
struct More(f32);

impl GuidanceTerm for More {
    fn wants(&self, _: &At<'_>) -> Option<Wants> {
        Some(Wants { uncond: true, ..Wants::default() })
    }

    fn pull(&self, step: &mut GuidedStep<'_>) -> sagittal::Result<Option<Value>> {
        Ok(step.cond().zip(step.uncond()).map(|(cond, uncond)| cond.minus(uncond).scaled(self.0)))
    }
}

#[test]
fn a_request_takes_terms_of_ones_own_and_rescaled_guidance() {
    let Some(m) = model() else { return };
    let with = |cfg: f32, change: &dyn Fn(&mut Guidance)| {
        let mut r = request(Vec::new());
        r.guidance = Guidance::new(cfg);
        change(&mut r.guidance);
        r.check().map(|()| generate(m, &r).latent)
    };
    let plain = with(3.5, &|_| ()).expect("sound");
    let own = with(3.0, &|g| g.terms.push(Term::own(More(0.5)))).expect("sound");
    let far =
        plain.zip(&own, |a, b| (a - b).abs()).expect("one shape").data().iter().copied().fold(0.0, f32::max);
    assert!(far < 1e-3, "CFG 3 and half of it more is CFG 3.5, {far}");
    let rescaled = with(3.5, &|g| g.rescale = Some(1.0)).expect("sound");
    let contrast = |l: &Latent| l.data().iter().map(|v| v * v).sum::<f32>();
    assert!(contrast(&rescaled) < contrast(&plain));
    assert!(with(3.5, &|g| g.rescale = Some(1.5)).is_err());
}

/// A pull of a shape of its own.
#[derive(Debug)]
struct Misshapen {
    shape: [usize; 4],
    /// Whether it is a sum that is read.
    read: bool,
}

impl GuidanceTerm for Misshapen {
    fn wants(&self, _: &At<'_>) -> Option<Wants> {
        Some(Wants::default())
    }

    fn pull(&self, step: &mut GuidedStep<'_>) -> sagittal::Result<Option<Value>> {
        let [batch, channels, height, width] = self.shape;
        let other = step.latents().bring(&Latent::zeros(batch, channels, height, width).scaled(2.0))?;
        if self.read {
            let sum = step.cfg().plus(1.0, &other);
            step.latents().read(&sum)?;
        }
        Ok(Some(other))
    }
}

#[test]
fn a_latent_of_another_shape_is_an_error() {
    let Some(m) = model() else { return };
    for shape in [[1, 4, 2, 2], [1, 4, 16, 16], [2, 4, 8, 8], [1, 3, 8, 8], [1, 4, 4, 16]] {
        for read in [false, true] {
            let error =
                m.generate(&request(vec![Term::own(Misshapen { shape, read })])).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Usage, "{shape:?}: {error}");
            assert!(error.to_string().contains(&format!("{shape:?}")), "{shape:?}: {error}");
        }
    }
}

/// Reads the attention of both sides, and adds nothing.
#[derive(Debug, Default)]
struct Reader {
    side: Option<Side>,
    /// The means of the maps, evaluation by evaluation.
    means: Arc<Mutex<Vec<f32>>>,
}

impl GuidanceTerm for Reader {
    fn wants(&self, _: &At<'_>) -> Option<Wants> {
        Some(Wants { record: self.side, ..Wants::default() })
    }

    fn pull(&self, step: &mut GuidedStep<'_>) -> sagittal::Result<Option<Value>> {
        if let Some(side) = self.side {
            let columns = step.columns(side)?.ok_or_else(|| Error::usage("nothing was recorded"))?;
            let means = columns.iter().map(|map| map.values.iter().sum::<f32>() / map.values.len() as f32);
            self.means.lock().expect("no test panics with it").extend(means);
        }
        Ok(None)
    }
}

#[test]
fn a_term_reads_attention_without_sag_and_changes_nothing() {
    let Some(m) = model() else { return };
    let plain = generate(m, &request(Vec::new()));
    for (number, side) in [Side::Cond, Side::Uncond].into_iter().enumerate() {
        let reader = Reader { side: Some(side), ..Reader::default() };
        let means = reader.means.clone();
        let mut r = request(vec![Term::own(reader)]);
        r.evaluations = true;
        let mut recorded = Vec::new();
        let observe = |event| {
            if let Progress::Evaluated { evaluation, .. } = event {
                assert!(evaluation.sag.is_none());
                recorded.push(evaluation.attention.clone());
            }
        };
        let made = m.run(&r).on_event(observe).generate().expect("pictures");
        assert_eq!(made.latent.data(), plain.latent.data(), "{side:?}");
        assert_eq!(recorded.len(), 2);
        for attention in &recorded {
            let maps = attention[number].as_ref().expect("it was recorded");
            assert!(attention[1 - number].is_none());
            assert_eq!((maps.len(), maps[0].height, maps[0].width), (1, 2, 2));
        }
        // Before the sampling it is called with latents that are zero; then twice with real ones.
        let means = means.lock().expect("no test panics with it");
        assert!(means.len() >= 2);
        assert!(means.iter().rev().take(2).all(|mean| (mean - 1.0).abs() < 1e-3), "{means:?}");
    }
}

#[test]
fn sag_shows_the_attention_that_it_used() {
    let Some(m) = model() else { return };
    let mut r = request(vec![Term::Sag(Sag::default())]);
    r.evaluations = true;
    let mut seen = 0;
    let observe = |event| {
        if let Progress::Evaluated { evaluation, .. } = event {
            let sag = evaluation.sag.as_ref().expect("it is on");
            assert_eq!(evaluation.attention[Side::Uncond as usize].as_ref(), Some(&sag.columns));
            assert!(evaluation.attention[Side::Cond as usize].is_none());
            seen += 1;
        }
    };
    m.run(&r).on_event(observe).generate().expect("pictures");
    assert_eq!(seen, 2);
}
