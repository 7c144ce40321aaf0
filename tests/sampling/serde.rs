//! Settings as JSON, by the feature `serde`.

use sagittal::guidance::term::{At, GuidanceTerm, GuidedStep, Wants};
use sagittal::guidance::{Guidance, Perturbed, Sag, Term};
use sagittal::latent::Value;
use sagittal::pipeline::{Noise, Sizes, Start, Tiling};
use sagittal::sampler::noise::noise;
use sagittal::{
    ChunkPolicy, Limits, ModelOptions, Precision, Prediction, Request, Result, Sampler, Scheduler, Size,
    VaeLatent,
};
use serde_json::{Value as Json, from_value, json, to_value};

#[test]
fn a_request_comes_back_as_it_was() {
    let mut request = Request::new("a fox", Size::new(64, 72))
        .with_negative("red")
        .with_seed(u64::MAX)
        .with_solver(Sampler::DpmppSde)
        .with_scheduler(Scheduler::Karras)
        .with_start(VaeLatent::new(noise(3, [1, 4, 9, 8])), 0.5)
        .with_limits(Limits { chunk: ChunkPolicy::Rows(2), memory: Some(1 << 30) })
        .with_guidance(
            Guidance::new(3.5)
                .with(Sag { end: 0.5, ..Sag::default() })
                .with(Perturbed::pag(2.0))
                .with(Perturbed::seg(3.0, 5.0)),
        );
    request.sizes = Some(Sizes::of(Size::square(1024)));
    request.noise = Noise::Pictures(vec![2, 5]);
    let written = to_value(&request).expect("JSON");
    assert_eq!(written["solver"]["sampler"], "dpmpp_sde");
    assert_eq!(written["guidance"]["terms"][2]["perturbed"]["attention"], json!({ "blurred_queries": 5.0 }));
    assert_eq!(from_value::<Request>(written).expect("a request"), request);
    // What is left out is the default.
    let short: Request =
        from_value(json!({ "prompt": "a fox", "schedule": { "steps": 3 } })).expect("a request");
    assert_eq!(short, Request { prompt: "a fox".into(), ..Request::default() }.with_steps(3));

    let options = ModelOptions {
        precision: Some(Precision::F16),
        vae_precision: None,
        prediction: Some(Prediction::ZeroSnrV),
        tiling: Tiling::Side(64),
    };
    let written = to_value(options).expect("JSON");
    assert_eq!(written["prediction"], "zero_snr_v");
    assert_eq!(from_value::<ModelOptions>(written).expect("options"), options);
}

#[derive(Debug)]
struct Nothing;

impl GuidanceTerm for Nothing {
    fn wants(&self, _: &At<'_>) -> Option<Wants> {
        None
    }

    fn pull(&self, _: &mut GuidedStep<'_>) -> Result<Option<Value>> {
        Ok(None)
    }
}

#[test]
fn what_cannot_be_written_or_read_is_an_error() {
    let refused = |json: Json, word: &str| {
        let error = from_value::<Request>(json).map(drop).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(json!({ "promt": "a fox" }), "promt");
    refused(json!({ "solver": { "sampler": "dpmpp_2n" } }), "dpmpp_2m");
    refused(json!({ "schedule": { "scheduler": "karas" } }), "karras");
    let start = Start::Latent(VaeLatent::new(noise(3, [1, 4, 2, 2])));
    let mut latent = to_value(start).expect("JSON");
    latent["latent"]["shape"] = json!([1, 4, 2, 3]);
    refused(json!({ "start": latent }), "[1, 4, 2, 3]");
    let mut request = Request::default();
    request.guidance.terms.push(Term::own(Nothing));
    let error = to_value(&request).map(drop).expect_err("a term of the app's own").to_string();
    assert!(error.contains("Own"), "{error}");
}
