//! Public functions on any argument: zeros, ones, the largest numbers, NaN and infinities. None panics, and a
//! wrong argument is a usage error.

use crate::common::any_argument::{FLOATS, SIZES, Watch, pairs};
use sagittal::Size;
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Guidance, Guided, Network, Perturbed, Row, RowResult, Sag, sag,
};
use sagittal::internals::image::sheet::{Sheet, Side};
use sagittal::internals::image::{Mask, lettering, overlay, parameters, png, preview, resize, texts};
use sagittal::internals::model::Family;
use sagittal::internals::sampler::{
    Denoised, Denoiser, Discrete, SampleOptions, Sampler, Scheduler, exponential_sigmas, initial,
    initial_scale, karras_sigmas, names,
};
use sagittal::internals::text::compose::{breaks, parts};
use sagittal::internals::text::prompt::{chunks, parse};
use sagittal::internals::text::{Tokenizer, tokenizer};
use sagittal::latent::file;
use sagittal::latent::resize::{Method, cropped, middle, resized};
use sagittal::pipeline::{Levels, Noise, Schedule, Start};
use sagittal::sampler::noise::{AncestralNoise, BrownianNoise, noise, noise_for};
use sagittal::{Error, Latent, Picture, Request, VaeLatent};

/// Valid ones, and ones that are too large for memory.
fn latents() -> Vec<Latent> {
    let shapes =
        [[0, 0, 0, 0], [0, 4, 8, 8], [1, 0, 8, 8], [1, 4, 0, 8], [1, 4, 8, 0], [1, 1, 1, 1], [2, 4, 5, 7]];
    let of = |shape: [usize; 4], value: f32| {
        Latent::from_vec(shape, vec![value; shape.iter().product()]).expect("a latent")
    };
    shapes.into_iter().flat_map(|shape| [0.5, f32::NAN, f32::INFINITY].map(|v| of(shape, v))).collect()
}

/// Valid ones, and ones whose fields contradict each other.
fn pictures() -> Vec<Picture> {
    let of = |width, height, bytes| Picture { width, height, rgb: vec![9; bytes] };
    pairs().flat_map(|(w, h)| [0, 1, 3, 6, 12, 147].map(|bytes| of(w, h, bytes))).collect()
}

#[test]
fn latents_of_any_shape() {
    let mut watch = Watch::default();
    for (a, b) in pairs() {
        for shape in [[a, b, 1, 1], [1, a, b, 2], [1, 4, a, b], [a, b, a, b], [0, a, b, a]] {
            let what = format!("{shape:?}");
            let zeros = watch.runs(&what, || Latent::zeros(shape[0], shape[1], shape[2], shape[3]));
            let same = zeros.map(|z| z.shape() == shape || z.shape() == [0; 4] && z.data().is_empty());
            watch.failures.check(same == Some(true), || format!("{what}: neither of that shape nor empty"));
            watch.tries(&what, || Latent::of_shape(shape));
            watch.tries(&what, || Latent::from_vec(shape, vec![0.0; 3]));
            watch.tries(&what, || Latent::from_vec(shape, Vec::new()));
            watch.runs(&what, || noise(u64::MAX, shape));
            watch.tries(&what, || noise_for(1, &[0, usize::MAX], shape));
            watch.tries(&what, || noise_for(1, &[0], shape));
            watch.tries(&what, || Ok(AncestralNoise::new(u64::MAX - 1)?.draw(shape)));
            watch.runs(&what, || BrownianNoise::new(1, shape, f32::NAN, 1.0).between(0.0, f32::INFINITY));
        }
    }
    watch.tries("a seed without successor", || AncestralNoise::new(u64::MAX));
    for x in latents() {
        let what = format!("a latent {:?} of {:?}", x.shape(), x.data().first());
        for n in SIZES {
            let there = n < x.batch();
            let row = watch.runs(&what, || x.row(n)).map(|row| (row.batch() == 1) == there);
            watch.failures.check(row == Some(true), || format!("{what}: row {n}"));
            watch.runs(&what, || x.image(n).len());
            watch.runs(&what, || x.clone().image_mut(n).len());
            watch.runs(&what, || x.repeated(n));
        }
        for y in latents() {
            let alike = x.shape() == y.shape();
            let zipped = watch.tries(&what, || x.zip(&y, |a, b| a + b)).is_some();
            let summed = watch.tries(&what, || Latent::combine(&[(1.0, &x), (f32::NAN, &y)])).is_some();
            watch
                .failures
                .check((zipped, summed) == (alike, alike), || format!("{what} and {:?}", y.shape()));
            watch.tries(&what, || Latent::stacked(&[&x, &y]));
            watch.tries(&what, || initial(&x, &y, f32::NAN, 0.0));
        }
        for (height, width) in pairs() {
            for method in
                [Method::NearestExact, Method::Bilinear, Method::Area, Method::Bicubic, Method::Bislerp]
            {
                watch.tries(&what, || resized(&x, height, width, method));
            }
            watch.runs(&what, || middle(&x, height, width));
            watch.runs(&what, || cropped(&x, (height, width), (width, height)));
        }
        for sigma in FLOATS {
            watch.runs(&what, || sag::blur(&x, sigma));
            watch.runs(&what, || sag::degrade(&x, &[1; 9], sigma));
            watch.runs(&what, || x.scaled(sigma));
            watch.runs(&what, || sag::half_kernel(sigma));
        }
        for family in [Family::Sd1, Family::Sd2, Family::Sdxl] {
            watch.runs(&what, || preview::preview(&x, &family.facts().preview));
        }
        let bytes = watch.tries(&what, || file::encode(&VaeLatent::new(x.clone()), &[("", "")]));
        watch.runs(&what, || bytes.map(|bytes| file::decode(&bytes).is_ok()));
    }
    watch.tries("no terms", || Latent::combine(&[]));
    watch.tries("no parts", || Latent::stacked(&[]));
    for (at, size) in pairs() {
        for full in SIZES {
            watch.runs("nearest", || sag::nearest(at, size, full));
        }
    }
    assert!(watch.refused > 1000, "{} refused", watch.refused);
    watch.failures.finish();
}

#[test]
fn pictures_with_any_fields() {
    let mut watch = Watch::default();
    for picture in pictures() {
        let Picture { width, height, ref rgb } = picture;
        let what = format!("{width}x{height} of {} bytes", rgb.len());
        let sound = watch.tries(&what, || picture.check()).is_some();
        let values = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        let fits = width > 0 && height > 0 && values == Some(rgb.len());
        watch.failures.check(sound == fits, || format!("{what}: {sound}"));
        watch.runs(&what, || picture.to_values());
        let done = watch.tries(&what, || png::encode(&picture, &[("a", "b")])).is_some();
        watch.failures.check(done == fits, || format!("{what}: a PNG of it"));
        watch.tries(&what, || png::animation(2, &mut |_| Ok(picture.clone()), u16::MAX, &[]));
        watch.tries(&what, || png::animation(usize::MAX, &mut |_| Ok(picture.clone()), 0, &[]));
        for (w, h) in pairs() {
            watch.tries(&what, || resize::lanczos(&picture, w, h));
            watch.tries(&what, || resize::centre(&picture, w, h));
            watch.tries(&what, || overlay::mask(&picture, &[1, 0], Size::new(h, w)));
            watch.tries(&what, || overlay::mask(&picture, &[], Size::new(h, w)));
            let columns = Columns { height: h, width: w, values: vec![f32::NAN, 1.0] };
            watch.tries(&what, || overlay::heat(&picture, &columns, f32::NAN));
            watch.runs(&what, || lettering::draw(&mut picture.clone(), (w, h), "aé語", h, [0; 3]));
        }
        let one = Sheet { cell: (2, 2), ..Sheet::default() };
        watch.tries(&what, || one.encode(&[], &mut |_| Ok(picture.clone())));
        let mut request = Request::new("x", Size::square(64));
        request.start = Some(Start::Picture(picture.clone()));
        watch.tries(&what, || request.check());
    }
    for (width, height) in pairs() {
        let what = format!("{width}x{height}");
        for values in [&[][..], &[0.5; 3], &[f32::NAN; 3], &[f32::INFINITY; 12]] {
            watch.tries(&what, || Picture::from_decoded(Size::new(width, height), values));
            let mask = watch.tries(&what, || Mask::new(Size::new(width, height), values.to_vec()));
            for (w, h) in pairs() {
                watch.runs(&what, || {
                    mask.clone().map(|m| m.centre(Size::new(w, h)).to_latent(Size::new(w, h)))
                });
            }
        }
        watch.tries(&what, || png::encode_rows((width, height), &[], &mut |write| write(&[1; 5])));
        watch.runs(&what, || (lettering::width(width, height), lettering::height(width, height)));
        watch.runs(&what, || lettering::wrapped("a lighthouse in a storm", width, height));
        let side = |name: &str| Side { name: name.into(), values: vec!["1".into(), "a word".into()] };
        for sides in [[Side::default(), Side::default(), Side::default()], ["x", "y", "z"].map(side)] {
            let [columns, rows, panels] = sides;
            let sheet = Sheet { title: "a fox".into(), columns, rows, panels, cell: (width, height) };
            watch.runs(&what, || (sheet.width(), sheet.height(), sheet.places().count()));
            watch.tries(&what, || sheet.check());
            watch.tries(&what, || {
                sheet.encode(&[], &mut |_| Ok(Picture { width: 1, height: 1, rgb: vec![1; 3] }))
            });
        }
    }
    let one = Picture { width: 1, height: 1, rgb: vec![1; 3] };
    for keyword in ["", "\0", "a\n", "語", &"k".repeat(80)] {
        watch.tries(keyword, || png::encode(&one, &[(keyword, "text")]));
    }
    watch.tries("no frames", || png::animation(0, &mut |_| Ok(one.clone()), 0, &[]));
    for (value, middle) in FLOATS.into_iter().flat_map(|a| FLOATS.map(|b| (a, b))) {
        watch.runs("a colour", || overlay::colour(value, middle));
    }
    watch.runs("no PNG", || texts::texts(&[0; 9]).is_err());
    assert!(watch.refused > 1000, "{} refused", watch.refused);
    watch.failures.finish();
}

#[test]
fn settings_of_any_number() {
    let mut watch = Watch::default();
    let tables = [Discrete::stable_diffusion(), Discrete::distilled(), Discrete::zero_terminal_snr()];
    for (a, b) in FLOATS.into_iter().flat_map(|a| FLOATS.map(|b| (a, b))) {
        let what = format!("{a} and {b}");
        for table in &tables {
            watch.runs(&what, || (table.timestep(a), table.sigma(a), table.percent_to_sigma(a.into())));
            watch.runs(&what, || table.is_within(a, b.into(), a.into()));
        }
        watch.tries(&what, || Discrete::from_alphas_cumprod(&[a.into(), b.into()]));
        watch.runs(&what, || initial_scale(a, b));
        watch.runs(&what, || BrownianNoise::new(0, [1, 1, 2, 2], a, b).between(b, a));
        for steps in SIZES {
            watch.tries(&what, || karras_sigmas(steps.min(99), (a.into(), b.into()), a.into()));
            watch.tries(&what, || exponential_sigmas(steps.min(99), (a.into(), b.into())));
        }
        let sag =
            Sag { scale: a, blur_sigma: b, threshold: a, start: a.into(), end: b.into(), ..Sag::default() };
        let mut guidance = Guidance::new(a).with(sag).with(Perturbed::seg(a, b)).with(Perturbed::pag(b));
        guidance.rescale = Some(b);
        watch.tries(&what, || guidance.check());
        watch.runs(&what, || (guidance.sag().is_on(), guidance.perturbed().count()));
        for size in [(0, 0), (usize::MAX, 1)] {
            watch.runs(&what, || {
                Area::of_parts(a.into(), b.into(), b.into(), a.into(), Size::new(size.1, size.0))
            });
        }
        let entry = Entry { strength: a, start: b.into(), ..Entry::new(vec![a, b], 1) };
        let odd = Entry::new(vec![b], usize::MAX);
        watch.tries(&what, || entry.average(&entry, b.into()));
        watch.tries(&what, || entry.concat(&odd));
        watch.tries(&what, || odd.average(&entry, 0.5));
        watch.runs(&what, || (entry.zeroed(), odd.zeroed()));
        let area = Some(Area::of_pixels(usize::MAX, 0, usize::MAX, 1));
        let sides = Conditioning { positive: vec![Entry { area, ..entry }], negative: vec![odd] };
        watch.runs(&what, || sides.with_opposites());
        let options = SampleOptions { seed: u64::MAX, eta: a, s_noise: b, noise_window: (a, b) };
        for sampler in Sampler::ALL.iter().copied() {
            watch.tries(&what, || sample(sampler, &[1.0, 0.5, 0.0], &options));
            watch.tries(&what, || sample(sampler, &[a, b], &SampleOptions { seed: 1, ..Default::default() }));
        }
    }
    for scheduler in Scheduler::ALL.iter().copied() {
        for (steps, denoise) in SIZES.into_iter().flat_map(|s| FLOATS.map(|d| (s, d))) {
            // Any number of steps that is valid is planned; large numbers would take too long.
            let what = format!("{scheduler}, {steps} steps, denoise {denoise}");
            watch.tries(&what, || scheduler.sigmas(&tables[0], steps, denoise.into(), true));
            let schedule = Schedule { denoise: denoise.into(), ..Schedule::new(scheduler, steps) };
            watch.tries(&what, || schedule.check());
            watch.tries(&what, || schedule.sigmas(&tables[0], Sampler::Euler));
            watch.tries(&what, || Levels::from(schedule).sigmas(&tables[0], Sampler::Ddim).map(|s| s.len()));
        }
    }
    for (width, height) in pairs() {
        let what = format!("{width}x{height}");
        for (batch, cfg) in SIZES.into_iter().zip(FLOATS) {
            let mut request = Request::new("(a:", Size::new(width, height)).with_cfg(cfg).with_steps(batch);
            (request.batch, request.noise) = (batch, Noise::Pictures(vec![usize::MAX]));
            watch.tries(&what, || request.check());
            watch.runs(&what, || parameters::parameters(&request, &parameters::Origin::default(), batch));
            watch.runs(&what, || parameters::needs_batch(&request));
        }
    }
    assert!(watch.refused > 1000, "{} refused", watch.refused);
    watch.failures.finish();
}

/// A run of two steps of a model that predicts nothing.
fn sample(sampler: Sampler, sigmas: &[f32], options: &SampleOptions) -> Result<Latent, Error> {
    struct Nothing;
    impl Denoiser for Nothing {
        fn denoise(&mut self, x: &Latent, _: f32) -> Result<Denoised, Error> {
            Ok(Denoised { denoised: x.scaled(0.0), uncond: Some(x.scaled(0.0)) })
        }

        fn keep_uncond(&mut self) {}
    }
    let x = Latent::zeros(1, 4, 2, 2);
    sagittal::sampler::sample(sampler, &mut Nothing, x, sigmas, options, &mut |_| Ok(()))
}

#[test]
fn texts_of_any_letters() {
    let mut watch = Watch::default();
    let tokenizer = Tokenizer::new();
    let long = "(".repeat(5000);
    let texts =
        ["", " ", "(", ")", "((((", "(a:", "(a:nan)", "(a:1e99)", "\\", "AND", "AND :", "a AND b :-inf"];
    let odd = ["\0", "\u{10ffff}", "<|endoftext|>", "embedding:", "語語", "🦀\u{200d}", "a:1:2:3", &long];
    for text in texts.into_iter().chain(odd) {
        watch.runs(text, || tokenizer.encode(text));
        watch.runs(text, || parse(text));
        watch.runs(text, || parts(text));
        watch.runs(text, || breaks(text));
        for pad in [0, tokenizer::END, u32::MAX] {
            watch.tries(text, || chunks(&tokenizer, text, pad));
        }
        watch.runs(text, || names::nearest_to(text, ["euler", "", text]));
        watch.tries(text, || text.parse::<Sampler>());
        watch.tries(text, || text.parse::<Scheduler>());
        watch.runs(text, || Method::named(text));
        watch.runs(text, || sagittal::internals::image::infotext::Infotext::parse(text).sampler());
        watch.tries(text, || Ok(Request::new(text, Size::square(64)).check()));
    }
    watch.failures.finish();
}

/// The results of a network that ignores all rules.
struct Careless {
    shape: [usize; 4],
    rows: usize,
    columns: Option<Columns>,
}

impl Network for Careless {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>, Error> {
        let rows = if self.rows == usize::MAX { rows.len() } else { self.rows };
        let of_row = |_| {
            let denoised = Latent::of_shape(self.shape)?;
            Ok(RowResult { denoised, columns: self.columns.clone() })
        };
        (0..rows).map(of_row).collect()
    }
}

#[test]
fn networks_with_any_results() {
    let mut watch = Watch::default();
    let table = Discrete::stable_diffusion();
    let entry = || Entry::new(vec![0.5; 77], 77);
    let sides = Conditioning { positive: vec![entry(), entry()], negative: vec![entry()] };
    let terms = || Guidance::new(7.0).with(Sag::default()).with(Perturbed::pag(1.0));
    let shapes = [[0; 4], [1, 4, 8, 8], [1, 4, 0, 8], [1, 1, 8, 8], [2, 4, 8, 8], [1, 4, 7, 9]];
    let map = |height, width, values: usize| Some(Columns { height, width, values: vec![f32::NAN; values] });
    let maps = [None, map(0, 0, 0), map(usize::MAX, usize::MAX, 1), map(2, 2, 4), map(4, 4, 3), map(1, 1, 1)];
    let mut done = 0;
    for (shape, columns) in shapes.into_iter().flat_map(|s| maps.iter().map(move |m| (s, m))) {
        for rows in [usize::MAX, 0, 1, 9] {
            for x in [[1, 4, 8, 8], [2, 4, 8, 8], [1, 4, 0, 8], [0, 4, 8, 8]] {
                let what = format!("{rows} rows of {shape:?} with {columns:?} for {x:?}");
                let mut network = Careless { shape, rows, columns: columns.clone() };
                let evaluated = watch.tries(&what, || {
                    let mut guided = Guided::new(&mut network, &sides, &table, terms())?;
                    guided.evaluate_with(&Latent::of_shape(x)?, 1.0, None)
                });
                done += usize::from(evaluated.is_some());
            }
        }
    }
    assert!(done > 0 && watch.refused > 100, "{done} done, {} refused", watch.refused);
    for sampler in Sampler::ALL.iter().copied() {
        for (denoised, uncond) in shapes.into_iter().flat_map(|a| shapes.map(|b| (a, b))) {
            for without in [true, false] {
                let what = format!("{sampler} with {denoised:?} and {uncond:?}");
                let mut model = CarelessModel { denoised, uncond: (!without).then_some(uncond) };
                let (x, options) = (Latent::zeros(1, 4, 8, 8), SampleOptions::default());
                watch.tries(&what, || {
                    sagittal::sampler::sample(sampler, &mut model, x, &[2.0, 1.0, 0.0], &options, &mut |_| {
                        Ok(())
                    })
                });
            }
        }
    }
    watch.failures.finish();
}

/// The same for a sampler.
struct CarelessModel {
    denoised: [usize; 4],
    uncond: Option<[usize; 4]>,
}

impl Denoiser for CarelessModel {
    fn denoise(&mut self, _: &Latent, _: f32) -> Result<Denoised, Error> {
        let uncond = self.uncond.map(Latent::of_shape).transpose()?;
        Ok(Denoised { denoised: Latent::of_shape(self.denoised)?, uncond })
    }
}
