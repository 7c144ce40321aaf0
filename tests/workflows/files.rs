//! The workflow files of `tests/workflows`, in the API and the UI format, as they are: latents of golden
//! runs where there are some, of an f64 network of another make (`make_expected.py`) where ComfyUI's own
//! node goes astray or no run was recorded, and of the library's own calls for the rest.

use std::fs;
use std::sync::Arc;

use crate::common::Failures;
use crate::common::workflow::{Golden, Home, NEG, POS, device_context, difference, read_latent, stored};
use crate::common::workflow_bench::{Bench, same};
use sagittal::image::{Picture, png};
use sagittal::lora::{Lora, LoraUse};
use sagittal::pipeline::{Sampling, Schedule};
use sagittal::sampler::Scheduler;
use sagittal::sampler::noise::noise;
use sagittal::{Error, Latent, VaeLatent};

/// The latents of a workflow in both formats, each saved beside its picture.
fn latents(home: &Home, device_context: &Arc<sagittal::pipeline::DeviceContext>, name: &str) -> [Latent; 2] {
    ["api", "ui"].map(|format| {
        let file = format!("{name}.{format}.json");
        let saved = home.run(device_context, &stored(&file)).unwrap_or_else(|e: Error| panic!("{file}: {e}"));
        let of = |end: &str| saved.iter().find(|s| s.path.extension().is_some_and(|e| e == end));
        let picture = of("png").unwrap_or_else(|| panic!("{file} saved no picture"));
        let latent = read_latent(&of("latent").unwrap_or_else(|| panic!("{file} saved no latent")).path);
        let seen = sagittal::image::read::picture(&picture.path).expect("a picture");
        assert_eq!((seen.height, seen.width), (8 * latent.height(), 8 * latent.width()), "{file}");
        latent
    })
}

/// Two negatives under SAG, an area, a hires fix of two KSamplers, PAG beside SAG.
#[test]
fn what_a_second_network_computed_in_f64() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1"]);
    let bytes = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workflows/expected.safetensors"));
    let bytes = bytes.expect("the latents");
    let expected = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut failures = Failures::default();
    for name in ["two_negatives", "area", "hires_fix", "pag_beside_sag"] {
        let view = expected.tensor(name).expect(name);
        let shape = <[usize; 4]>::try_from(view.shape()).expect("four sides");
        let want = Latent::from_vec(shape, bytemuck::pod_collect_to_vec(view.data())).expect("a latent");
        for (format, found) in ["API", "UI"].into_iter().zip(latents(&home, &device_context, name)) {
            let (d, s) = difference(&found, &want);
            println!("{name}, {format}: {:.1e} of the spread", d / s);
            // As `sagittal verify` allows for a run.
            failures.check(d <= 1e-3 * s, || format!("{name}, {format}: {:.1e} of the spread", d / s));
        }
    }
    failures.finish();
}

/// SDXL's text node, which tells the network of sizes.
#[test]
fn sdxl_gives_comfyuis_latent() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sdxl"]);
    for found in latents(&home, &device_context, "sdxl") {
        let share = Golden::of("tiny-sdxl").share("sag_euler", &found);
        assert!(share <= 1.0, "{share:.2} of the tolerance");
    }
}

/// Image to image and a LoRA: what the library's own calls give, bit for bit.
#[test]
fn what_the_library_gives_as_well() {
    let Some(mut bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let (pos, neg) = (vec![bench.entry(POS)], vec![bench.entry(NEG)]);

    let rgb = (0..160 * 128 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let picture = Picture { width: 160, height: 128, rgb };
    fs::write(bench.home.at("input/example.png"), png::encode(&picture, &[]).expect("a PNG"))
        .expect("a file");
    let from = bench.model.encode_picture(&picture, &bench.cancel).expect("a latent");
    let whole = Schedule::new(Scheduler::Normal, 3);
    let levels = Schedule { denoise: 0.6, ..whole }.into();
    let from = Sampling { seed: 53, levels, latent: Some(from), ..Sampling::new(noise(53, [1, 4, 16, 20])) };
    let want = bench.sample(pos, neg, &from);
    for found in latents(&bench.home, &bench.device_context, "img2img") {
        same(&mut failures, "image to image", &found, &want);
    }

    bench.put_style();
    let found = latents(&bench.home, &bench.device_context, "lora");
    let lora = Arc::new(Lora::open(bench.home.at("models/loras/style/ink.safetensors")).expect("a LoRA"));
    let weighted = LoraUse { unet: 0.5, text: 0.25, ..LoraUse::new(lora, 0.0) };
    bench.model.set_loras(&[weighted]).expect("it fits");
    let (pos, neg) = (vec![bench.entry(POS)], vec![bench.entry(NEG)]);
    let empty = Some(VaeLatent::new(Latent::zeros(1, 4, 16, 20)));
    let with =
        Sampling { seed: 8, levels: whole.into(), latent: empty, ..Sampling::new(noise(8, [1, 4, 16, 20])) };
    let want = bench.sample(pos, neg, &with);
    for found in &found {
        same(&mut failures, "a LoRA", found, &want);
    }
    failures.finish();
}
