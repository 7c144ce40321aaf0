//! Complete generations with the embedded model: what must not change a picture does not change a bit of it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use crate::common::{Failures, gpu, safetensors};
use sagittal::Size;
use sagittal::guidance::{Guidance, Guided};
use sagittal::internals::kernels::Precision;
use sagittal::internals::network::UnetNetwork;
use sagittal::internals::plan::chunk::ChunkPolicy;
use sagittal::pipeline::{Generated, Noise, Progress, Sizes, Start};
use sagittal::sampler::Sampler;
use sagittal::sampler::noise::noise;
use sagittal::{Checkpoint, Latent, Model, ModelOptions, Request, Sag, VaeLatent, embedded};

pub fn model() -> Option<&'static Model> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let make = || {
        let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
        Some(Model::new(gpu()?, embedded::checkpoint().expect("embedded"), options).expect("model"))
    };
    MODEL.get_or_init(make).as_ref()
}

fn request(width: usize, height: usize, steps: usize) -> Request {
    let mut r = Request::new("panda, noto style", Size::new(width, height));
    (r.schedule.steps, r.guidance.cfg, r.seed) = (steps, 3.5, 5);
    r
}

pub fn generate(m: &Model, r: &Request) -> Generated {
    m.generate(r).expect("pictures")
}

#[test]
fn chunking_changes_no_byte() {
    let Some(m) = model() else { return };
    let mut r = request(64, 72, 2);
    r.batch = 3;
    let want = generate(m, &r);
    assert_eq!(want.pictures.len(), 3);
    for chunk in [ChunkPolicy::Rows(1), ChunkPolicy::Rows(2), ChunkPolicy::Rows(3), ChunkPolicy::Rows(5)] {
        r.limits.chunk = chunk;
        let got = generate(m, &r);
        assert_eq!(got.latent.data(), want.latent.data(), "{chunk:?}");
        assert_eq!(got.pictures, want.pictures, "{chunk:?}");
    }
    // A memory limit that is too small for all rows of the batch.
    r.limits.chunk = ChunkPolicy::Auto;
    r.limits.memory = Some(100 << 20);
    assert_eq!(generate(m, &r).latent.data(), want.latent.data(), "a memory budget");
}

#[test]
fn a_picture_does_not_depend_on_its_batch() {
    let Some(m) = model() else { return };
    for sampler in [Sampler::Euler, Sampler::Dpmpp2m, Sampler::Ddim] {
        let mut r = request(64, 64, 2);
        r.solver.sampler = sampler;
        r.batch = 4;
        let four = generate(m, &r);
        r.batch = 1;
        assert_eq!(generate(m, &r).pictures[0], four.pictures[0], "{sampler}: the first");
        for i in [1, 3] {
            r.noise = Noise::Pictures(vec![i]);
            assert_eq!(generate(m, &r).pictures[0], four.pictures[i], "{sampler}: number {i}");
        }
    }
}

#[test]
fn negatives_in_any_order_give_the_same_bytes() {
    let Some(m) = model() else { return };
    let names = ["blurry", "text", "a red background"];
    let mut seen: Option<VaeLatent> = None;
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        for chunk in [ChunkPolicy::Auto, ChunkPolicy::Rows(1)] {
            let mut r = request(64, 64, 2);
            r.negative = order.iter().map(|i| names[*i].to_owned()).collect();
            r.limits.chunk = chunk;
            let got = generate(m, &r).latent;
            let want = seen.get_or_insert_with(|| got.clone());
            assert_eq!(got.data(), want.data(), "{order:?} {chunk:?}");
        }
    }
}

#[test]
fn sag_off_by_scale_or_blur_is_the_same_picture_and_computes_two_rows() {
    let Some(m) = model() else { return };
    let with = |sag: Sag| {
        let mut r = request(64, 64, 2);
        r.guidance.set_sag(sag);
        generate(m, &r)
    };
    let off = with(Sag::off());
    assert_eq!(with(Sag { blur_sigma: 0.0, ..Sag::default() }).latent.data(), off.latent.data());
    assert_ne!(with(Sag::default()).latent.data(), off.latent.data());
}

#[test]
fn odd_sizes_run_end_to_end() {
    let Some(m) = model() else { return };
    let sizes = [
        (62, 33),
        (33, 62),
        (5, 5),
        (5, 40),
        (40, 5),
        (17, 23),
        (23, 17),
        (9, 31),
        (4, 24),
        (8, 8),
        (13, 7),
        (1, 1),
        (2, 3),
        (32, 9),
    ];
    for (height, width) in sizes {
        let g = generate(m, &request(8 * width, 8 * height, 1));
        assert_eq!(g.latent.shape(), [1, 4, height, width]);
        assert_eq!((g.pictures[0].height, g.pictures[0].width), (8 * height, 8 * width));
    }
}

/// The embedded checkpoint with every 3×3 kernel transposed: from a transposed latent it computes the transposed
/// picture.
fn mirrored_checkpoint() -> Checkpoint {
    let original = embedded::checkpoint().expect("embedded");
    let mut tensors: Vec<(&str, &[usize], Vec<f32>)> = Vec::new();
    for name in original.names() {
        let shape = &original.tensor(name).expect("listed").shape;
        let mut values = original.read_f32(name, shape).expect("read");
        if shape.len() == 4 && shape[2..] == [3, 3] {
            for k in values.chunks_exact_mut(9) {
                for (a, b) in [(1, 3), (2, 6), (5, 7)] {
                    k.swap(a, b);
                }
            }
        }
        tensors.push((name, shape, values));
    }
    let file = safetensors(tensors.iter().map(|(name, shape, values)| (*name, *shape, &values[..])));
    Checkpoint::from_bytes("mirrored", file).expect("a sound file")
}

#[test]
fn a_mirrored_network_on_a_mirrored_latent_gives_the_mirrored_mask() {
    let Some(m) = model() else { return };
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let mirrored = Model::new(gpu().expect("there is one"), mirrored_checkpoint(), options).expect("model");
    let mut failures = Failures::default();
    for (height, width) in [(62, 33), (17, 23), (24, 40)] {
        let x = noise(9, [1, 4, height, width]).scaled(4.0);
        let mut turned = Latent::zeros(1, 4, width, height);
        for (i, v) in turned.data_mut().iter_mut().enumerate() {
            let (c, at) = (i / (height * width), i % (height * width));
            *v = x.data()[c * height * width + at % height * width + at / height];
        }
        let [a, b] = [(m, &x), (&mirrored, &turned)].map(|(m, x)| {
            let cancel = AtomicBool::new(false);
            let weights = m.unet_weights(&cancel).expect("weights");
            let mut network = UnetNetwork::new(m.unet(&weights), ChunkPolicy::Auto, None, &cancel);
            let entry = |p: &str| m.encode(p, None, Sizes::default(), &cancel).expect("text");
            let c = sagittal::guidance::Conditioning {
                positive: vec![entry("owl, flat style")],
                negative: vec![entry("")],
            };
            let mut guided =
                Guided::new(&mut network, &c, m.discrete(), Guidance::new(3.5).with(Sag::default()))
                    .expect("settings");
            guided.evaluate(x, 4.0).expect("evaluation").sag.expect("SAG acts")
        });
        let (ca, cb) = (&a.columns[0], &b.columns[0]);
        failures
            .check((ca.height, ca.width) == (height.div_ceil(4), width.div_ceil(4)), || "true size".into());
        failures.check((ca.height, ca.width) == (cb.width, cb.height), || "mirrored size".into());
        for i in 0..ca.values.len() {
            let (p, q) = (ca.values[i], cb.values[i % ca.width * cb.width + i / ca.width]);
            failures.check((p - q).abs() < 1e-4, || format!("{height}x{width} column {i}: {p} and {q}"));
        }
        // Cells next to the threshold may differ by rounding; none of these latents has any.
        let same = (0..height * width).all(|i| a.mask[i] == b.mask[i % width * height + i / width]);
        failures.check(same, || format!("{height}x{width}: mask"));
    }
    failures.finish();
}

#[test]
fn image_to_image_keeps_what_denoise_says() {
    let Some(m) = model() else { return };
    let _cancel = AtomicBool::new(false);
    let start = generate(m, &request(64, 64, 4)).latent;
    let distance = |a: &Latent, b: &Latent| -> f32 {
        a.zip(b, |a, b| (a - b).powi(2)).expect("one shape").data().iter().sum()
    };
    let at = |denoise: f64| {
        let mut r = request(64, 64, 4);
        (r.start, r.schedule.denoise, r.seed) = (Some(Start::Latent(start.clone())), denoise, 77);
        m.generate(&r).expect("latent").latent
    };
    assert_eq!(at(0.0).data().len(), start.data().len());
    assert!(distance(&at(0.0), &start) < 1e-6);
    assert!(distance(&at(0.3), &start) < distance(&at(1.0), &start));
}

#[test]
fn encode_then_decode_gives_the_picture_back() {
    let Some(m) = model() else { return };
    let cancel = AtomicBool::new(false);
    let picture = generate(m, &request(128, 128, 6)).pictures.remove(0);
    let latent = m.encode_values(128, 128, &picture.to_values(), &cancel).expect("latent");
    let again = m.decode(&VaeLatent::new(latent), &mut |_| {}, &cancel).expect("picture").remove(0);
    let square: f64 =
        picture.rgb.iter().zip(&again.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let psnr = 10.0 * (255.0f64.powi(2) / (square / picture.rgb.len() as f64)).log10();
    println!("PSNR {psnr:.1} dB");
    assert!(psnr > 22.0, "{psnr:.1} dB");
}

#[test]
fn events_report_steps_in_order() {
    let Some(m) = model() else { return };
    let mut reported = Vec::new();
    let mut observe = |e: Progress| {
        reported.push(match e {
            Progress::Encoding => "text".to_owned(),
            Progress::Loading { part } => part.to_owned(),
            Progress::Sampling { step, total, .. } => format!("{step}/{total}"),
            Progress::Evaluated { .. } => "evaluated".to_owned(),
            Progress::Decoding { picture, total } => format!("picture {picture} of {total}"),
            _ => "other".to_owned(),
        });
    };
    let mut observed = request(64, 64, 2);
    m.run(&observed).on_event(&mut observe).generate().expect("picture");
    observed.evaluations = true;
    m.run(&observed).on_event(&mut observe).generate().expect("picture");
    let [plain, with] = [reported[..6].to_vec(), reported[6..].to_vec()];
    assert_eq!(plain, ["text", "UNet", "0/2", "1/2", "2/2", "picture 0 of 1"]);
    assert_eq!(with, ["text", "UNet", "0/2", "evaluated", "1/2", "evaluated", "2/2", "picture 0 of 1"]);
}
