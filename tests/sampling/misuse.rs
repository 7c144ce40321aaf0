//! Wrong use of the library: typed errors or sensible results, never a panic.

use std::sync::atomic::AtomicBool;

use crate::common::gpu;
use sagittal::Size;
use sagittal::checkpoint::Manifest;
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Guidance, Guided, Network, Row, RowResult, sag,
};
use sagittal::internals::kernels::Precision;
use sagittal::pipeline::Noise;
use sagittal::sampler::Discrete;
use sagittal::{Checkpoint, ErrorKind, Latent, Model, ModelOptions, Picture, Request, embedded};

fn model() -> Option<Model> {
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    Some(Model::new(gpu()?, embedded::checkpoint().expect("embedded"), options).expect("model"))
}

fn entry() -> Entry {
    Entry::new(vec![0.5; 77 * 64], 77)
}

fn zeros(height: usize, width: usize) -> Latent {
    Latent::zeros(1, 4, height, width)
}

#[test]
fn latents_and_pictures_of_impossible_sizes() {
    assert!(Latent::from_vec([1 << 32, 1 << 32, 1, 1], vec![]).is_err());
    assert!(Latent::from_vec([1, 4, 2, 2], vec![0.0; 15]).is_err());
    assert!(Picture::from_decoded(Size::new(0, 8), &[f32::NAN]).is_err());
    assert_eq!(
        Picture::from_decoded(Size::square(1), &[f32::NAN; 3]).expect_err("NaN").kind(),
        ErrorKind::NonFinite
    );
    for (height, width) in [(0, 0), (4, 9), (9, 4), (1, 1)] {
        assert_eq!(sag::blur(&zeros(height, width), 2.0), zeros(height, width));
    }
    assert_eq!(sag::degrade(&zeros(8, 8), &[], 2.0), zeros(8, 8));
}

/// A network whose results are changed by a function.
struct Bent(fn(&Row<'_>) -> RowResult);

impl Network for Bent {
    fn predict(&mut self, rows: &[Row<'_>]) -> sagittal::Result<Vec<RowResult>> {
        Ok(rows.iter().map(self.0).collect())
    }
}

fn sound(row: &Row<'_>) -> RowResult {
    let columns = Columns { height: 2, width: 2, values: vec![1.0; 4] };
    RowResult { denoised: row.x.clone(), columns: row.record.then_some(columns) }
}

fn guide(bent: fn(&Row<'_>) -> RowResult, negative: Entry, x: &Latent) -> sagittal::Result<Latent> {
    let conditioning = Conditioning { positive: vec![entry()], negative: vec![negative] };
    let (discrete, mut network) = (Discrete::stable_diffusion(), Bent(bent));
    Guided::new(&mut network, &conditioning, &discrete, Guidance::default())?
        .evaluate(x, 3.0)
        .map(|e| e.result)
}

#[test]
fn networks_and_entries_that_do_not_fit() {
    guide(sound, entry(), &zeros(16, 16)).expect("sound");
    let changed = |change: fn(&mut Entry)| {
        let mut e = entry();
        change(&mut e);
        e
    };
    let bad_entries = [
        changed(|e| e.tokens = 0),
        changed(|e| e.tokens = usize::MAX),
        changed(|e| e.tokens = 76),
        changed(|e| e.strength = f32::NAN),
        changed(|e| e.mask = Some(vec![1.0; 5].into())),
        changed(|e| e.mask = Some(vec![f32::INFINITY; 256].into())),
    ];
    for e in bad_entries {
        assert_eq!(guide(sound, e, &zeros(16, 16)).expect_err("refused").kind(), ErrorKind::Usage);
    }
    let area = changed(|e| e.area = Some(Area { y: usize::MAX, x: 99, height: 0, width: usize::MAX }));
    guide(sound, area, &zeros(16, 16)).expect("clipped to the latent");
    assert!(guide(sound, entry(), &zeros(0, 0)).is_err());
    let bent: [fn(&Row<'_>) -> RowResult; 3] = [
        |r| RowResult { denoised: zeros(1, 1), ..sound(r) },
        |r| RowResult { columns: Some(Columns { height: 0, width: 0, values: vec![] }), ..sound(r) },
        |r| RowResult { columns: Some(Columns { height: 3, width: 3, values: vec![1.0] }), ..sound(r) },
    ];
    for b in bent {
        assert_eq!(guide(b, entry(), &zeros(16, 16)).expect_err("refused").kind(), ErrorKind::Usage);
    }
}

#[test]
fn requests_whose_noise_does_not_fit() {
    let Some(m) = model() else { return };
    let with = |noise: Noise| {
        let mut r = Request::new("x", Size::square(64));
        (r.schedule.steps, r.noise) = (1, noise);
        m.run(&r).preview_every(1).generate().err().map(|e| e.kind())
    };
    assert_eq!(with(Noise::Pictures(vec![])), Some(ErrorKind::Usage));
    assert_eq!(with(Noise::Pictures(vec![usize::MAX])), Some(ErrorKind::Usage));
    assert_eq!(with(Noise::Given(Latent::zeros(0, 4, 8, 8))), Some(ErrorKind::Usage));
    assert_eq!(with(Noise::Given(zeros(9, 9))), Some(ErrorKind::Usage));
}

#[test]
fn steps_of_a_generation_with_wrong_arguments() {
    let Some(m) = model() else { return };
    let go = AtomicBool::new(false);
    for shape in [[0, 4, 8, 8], [1, 0, 8, 8], [1, 3, 8, 8], [1, 4, 0, 8]] {
        let [b, c, h, w] = shape;
        assert!(m.decode_values(&Latent::zeros(b, c, h, w), &go).is_err(), "{shape:?}");
    }
    assert!(m.encode_values(64, 64, &[0.0; 5], &go).is_err());
    assert!(m.encode_values(63, 64, &[0.0; 63 * 64 * 3], &go).is_err());
    let mut narrow = Conditioning { positive: vec![entry()], negative: vec![entry()] };
    narrow.positive[0].context = vec![0.5; 77 * 32].into();
    let weights = m.unet_weights(&go).expect("weights");
    let policy = sagittal::internals::plan::chunk::ChunkPolicy::Auto;
    let mut network = sagittal::internals::network::UnetNetwork::new(m.unet(&weights), policy, None, &go);
    let mut guided = Guided::new(&mut network, &narrow, m.discrete(), Guidance::default()).expect("settings");
    let error = guided.evaluate(&zeros(8, 8), 3.0).expect_err("a context of half the width");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
}

/// A missing tensor that only the autoencoder needs is an error before the sampling, not after it.
#[test]
fn every_tensor_is_looked_for_when_a_model_is_opened() {
    let Some(gpu) = gpu() else { return };
    let path = "tests/golden/manifests/tiny-sd1.json";
    let full = Manifest::parse(&std::fs::read_to_string(path).expect("manifest")).expect("manifest");
    for lost in ["first_stage_model.decoder.conv_out.bias", "model.diffusion_model.out.2.bias"] {
        let mut manifest = full.clone();
        manifest.tensors.retain(|(name, _)| name != lost);
        let checkpoint = Checkpoint::synthetic(&manifest, 0, sagittal::checkpoint::Dtype::F16).expect("made");
        let error = Model::new(gpu.clone(), checkpoint, ModelOptions::default()).expect_err("missed");
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains(lost), "{error}");
    }
}
