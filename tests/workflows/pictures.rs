//! What nodes of latents, pictures and masks do, held to the library's own calls.

use std::fs;

use crate::common::workflow::{NEG, POS, add, set};
use crate::common::workflow_bench::{Bench, SD1, same, sampling, small};
use crate::common::{Failures, Rng};
use sagittal::Size;
use sagittal::image::{Mask, Picture, png};
use sagittal::pipeline::{Sampling, Schedule};
use sagittal::sampler::noise::{noise, noise_for};
use sagittal::sampler::{Sampler, Scheduler};
use sagittal::{Latent, VaeLatent};
use serde_json::{Value as Json, json};

#[test]
fn batches_and_sizes_of_latents() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let mut four = small(SD1);
    set(&mut four, "5", json!({ "batch_size": 4 }));
    let batch = bench.run(&four);
    failures.check(batch.batch() == 4, || "a batch of 4".into());
    // One picture out of the batch is what it is in the batch.
    let mut third = four.clone();
    add(&mut third, "30", "LatentFromBatch", json!({ "samples": ["5", 0], "batch_index": 2, "length": 1 }));
    set(&mut third, "3", json!({ "latent_image": ["30", 0] }));
    same(&mut failures, "from a batch", &bench.run(&third), &batch.row(2));
    // Repeating keeps the indices apart: 2 and 3, then 4 and 5.
    let mut again = four.clone();
    add(&mut again, "30", "LatentFromBatch", json!({ "samples": ["5", 0], "batch_index": 2, "length": 2 }));
    add(&mut again, "31", "RepeatLatentBatch", json!({ "samples": ["30", 0], "amount": 2 }));
    set(&mut again, "3", json!({ "latent_image": ["31", 0], "denoise": 1.0 }));
    let repeated = bench.run(&again);
    failures.check(repeated.batch() == 4 && repeated.row(0) == batch.row(2), || "repeated".into());
    let given = Sampling { noise: noise_for(7, &[5], [1, 4, 9, 8]).expect("noise"), ..sampling() };
    let want = bench.sample(vec![bench.entry(POS)], vec![bench.entry(NEG)], &given);
    same(&mut failures, "index 5", &repeated.row(3), &want);
    // Two batches in one, the second scaled to the first's size.
    let mut both = four.clone();
    add(&mut both, "30", "EmptyLatentImage", json!({ "width": 128, "height": 144, "batch_size": 1 }));
    add(&mut both, "31", "LatentBatch", json!({ "samples1": ["5", 0], "samples2": ["30", 0] }));
    set(&mut both, "3", json!({ "latent_image": ["31", 0] }));
    let five = bench.run(&both);
    // ComfyUI's indices: 0, 1, 2, 3 and 0 again.
    failures.check(five.batch() == 5 && five.row(4) == batch.row(0) && five.row(3) == batch.row(3), || {
        "batch".into()
    });
    // Sizes, by every method.
    let mut scaled = small(SD1);
    for (class, inputs, shape) in [
        ("LatentUpscale", json!({ "width": 128, "height": 80, "crop": "disabled" }), [1, 4, 10, 16]),
        ("LatentUpscale", json!({ "width": 128, "height": 0, "crop": "center" }), [1, 4, 18, 16]),
        ("LatentUpscale", json!({ "width": 0, "height": 0, "crop": "disabled" }), [1, 4, 9, 8]),
        ("LatentUpscaleBy", json!({ "scale_by": 1.5 }), [1, 4, 14, 12]),
    ] {
        for method in ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"] {
            add(&mut scaled, "30", class, inputs.clone());
            set(&mut scaled, "30", json!({ "samples": ["3", 0], "upscale_method": method }));
            set(&mut scaled, "90", json!({ "samples": ["30", 0] }));
            let found = bench.run(&scaled).shape();
            failures.check(found == shape, || format!("{class} {method}: {found:?}"));
        }
    }
    failures.finish();
}

/// A hires fix by workflow and by the library: two samplers with a latent made larger between them.
#[test]
fn two_samplers_in_a_row() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let workflow = {
        let mut w = small(SD1);
        add(
            &mut w,
            "30",
            "LatentUpscaleBy",
            json!({ "samples": ["3", 0], "upscale_method": "bislerp", "scale_by": 1.5 }),
        );
        let mut second = w["3"]["inputs"].clone();
        for (name, value) in [
            ("seed", json!(8)),
            ("denoise", json!(0.5)),
            ("latent_image", json!(["30", 0])),
            ("sampler_name", json!("dpmpp_2m")),
        ] {
            second[name] = value;
        }
        add(&mut w, "31", "KSampler", second);
        set(&mut w, "90", json!({ "samples": ["31", 0] }));
        w
    };
    let (pos, neg) = (vec![bench.entry(POS)], vec![bench.entry(NEG)]);
    let first = bench.sample(pos.clone(), neg.clone(), &sampling());
    let larger = sagittal::latent::resize::resized(&first, 14, 12, sagittal::latent::resize::Method::Bislerp);
    let second = Sampling {
        noise: noise(8, [1, 4, 14, 12]),
        latent: Some(VaeLatent::new(larger.expect("larger"))),
        solver: Sampler::Dpmpp2m.into(),
        levels: Schedule { denoise: 0.5, ..Schedule::new(Scheduler::Normal, 2) }.into(),
        seed: 8,
        ..sampling()
    };
    same(&mut failures, "hires fix", &bench.run(&workflow), &bench.sample(pos, neg, &second));
    // Through pixels: decoded, scaled, encoded again.
    let mut pixels = workflow.clone();
    add(&mut pixels, "40", "VAEDecode", json!({ "samples": ["3", 0], "vae": ["4", 2] }));
    add(
        &mut pixels,
        "41",
        "ImageScale",
        json!({
        "image": ["40", 0], "upscale_method": "lanczos", "width": 100, "height": 0, "crop": "disabled" }),
    );
    add(&mut pixels, "42", "VAEEncode", json!({ "pixels": ["41", 0], "vae": ["4", 2] }));
    set(&mut pixels, "31", json!({ "latent_image": ["42", 0] }));
    // 64×72 becomes 100×112 (113 cut down to what the VAE takes).
    failures.check(bench.run(&pixels).shape() == [1, 4, 14, 12], || "through pixels".into());
    failures.finish();
}

#[test]
fn pictures_masks_and_inpainting() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let mut rng = Rng(5);
    let picture =
        Picture { width: 70, height: 75, rgb: (0..70 * 75 * 3).map(|_| rng.range(0, 255) as u8).collect() };
    let rgba: Vec<u8> = picture
        .rgb
        .chunks(3)
        .enumerate()
        .flat_map(|(i, p)| [p[0], p[1], p[2], if i % 70 < 35 { 0 } else { 255 }])
        .collect();
    fs::create_dir_all(bench.home.at("input/sub")).expect("a folder");
    fs::write(bench.home.at("input/plain.png"), png::encode(&picture, &[]).expect("a PNG")).expect("a file");
    fs::write(bench.home.at("input/sub/alpha.png"), with_alpha(70, 75, &rgba)).expect("a file");
    // A picture into a latent: its middle, 64×72.
    let encode = |name: &str| {
        let mut w = json!({});
        add(&mut w, "1", "LoadImage", json!({ "image": name }));
        add(&mut w, "2", "CheckpointLoaderSimple", json!({ "ckpt_name": SD1 }));
        add(&mut w, "3", "VAEEncode", json!({ "pixels": ["1", 0], "vae": ["2", 2] }));
        add(&mut w, "9", "SaveLatent", json!({ "samples": ["3", 0], "filename_prefix": "latents/x" }));
        w
    };
    let middle = sagittal::image::resize::centre(&picture, 64, 72).expect("a picture");
    let want = bench.model.encode_picture(&middle, &bench.cancel).expect("a latent");
    for name in ["plain.png", "sub/alpha.png", "plain.png [input]"] {
        same(&mut failures, name, &bench.run(&encode(name)), &want);
    }
    let mut tiled = encode("plain.png");
    add(&mut tiled, "3", "VAEEncodeTiled", json!({ "pixels": ["1", 0], "vae": ["2", 2], "tile_size": 512 }));
    same(&mut failures, "one tile", &bench.run(&tiled), &want);
    // Inpainting: what the mask keeps comes back as it was.
    let mut inpaint = small(SD1);
    for (id, node) in encode("sub/alpha.png").as_object().expect("nodes") {
        inpaint[format!("4{id}")] = node.clone();
    }
    for (id, links) in
        [("43", json!({ "pixels": ["41", 0], "vae": ["4", 2] })), ("49", json!({ "samples": ["43", 0] }))]
    {
        set(&mut inpaint, id, links);
    }
    inpaint.as_object_mut().expect("nodes").remove("42");
    inpaint.as_object_mut().expect("nodes").remove("49");
    add(&mut inpaint, "50", "SetLatentNoiseMask", json!({ "samples": ["43", 0], "mask": ["41", 1] }));
    set(&mut inpaint, "3", json!({ "latent_image": ["50", 0], "denoise": 0.8 }));
    let drawn = bench.run(&inpaint);
    let kept = |l: &Latent| -> Vec<f32> { (0..4 * 72).filter(|i| i % 8 >= 5).map(|i| l.data()[i]).collect() };
    let far = kept(&drawn).iter().zip(kept(&want)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    failures.check(far < 1e-4, || format!("the kept half differs by {far}"));
    failures.check(drawn.data()[0] != want.data()[0], || "the masked half stays".into());
    // By the library: the same mask.
    let mask: Vec<f32> = rgba.chunks(4).map(|p| 1.0 - f32::from(p[3]) / 255.0).collect();
    let mask = Mask::new(Size::new(70, 75), mask).expect("a mask").to_latent(Size::new(8, 9));
    let levels = Schedule { denoise: 0.8, ..Schedule::new(Scheduler::Normal, 2) }.into();
    let given = Sampling { latent: Some(want.clone()), mask: Some(mask), levels, ..sampling() };
    let by_hand = bench.sample(vec![bench.entry(POS)], vec![bench.entry(NEG)], &given);
    same(&mut failures, "inpainting", &drawn, &by_hand);
    // VAEEncodeForInpaint greys what is masked before it is encoded.
    let mut greyed = inpaint.clone();
    add(
        &mut greyed,
        "50",
        "VAEEncodeForInpaint",
        json!({
        "pixels": ["41", 0], "vae": ["4", 2], "mask": ["41", 1], "grow_mask_by": 6 }),
    );
    set(&mut greyed, "3", json!({ "denoise": 1.0 }));
    let drawn = bench.run(&greyed);
    let rgb = middle
        .rgb
        .iter()
        .enumerate()
        .map(|(i, v)| if i / 3 % 64 + 3 < 35 { 0.0 } else { f32::from(*v) / 127.5 - 1.0 });
    let grey = bench.model.encode_values(72, 64, &rgb.collect::<Vec<_>>(), &bench.cancel).expect("a latent");
    let column =
        |l: &Latent| -> Vec<f32> { (0..4 * 72).filter(|i| i % 8 == 7).map(|i| l.data()[i]).collect() };
    let far = column(&drawn).iter().zip(column(&grey)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    failures.check(far < 1e-3, || format!("the far edge differs from the greyed picture's by {far}"));
    failures.finish();
}

/// A PNG with an alpha channel.
fn with_alpha(width: u32, height: u32, rgba: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(::png::ColorType::Rgba);
    encoder.set_depth(::png::BitDepth::Eight);
    encoder.write_header().expect("a header").write_image_data(rgba).expect("pixels");
    bytes
}

#[test]
fn pictures_scale_and_decode() {
    let Some(bench) = Bench::new("tiny-sd1") else { return };
    let mut failures = Failures::default();
    let read = |w: &Json| -> Vec<Picture> {
        let saved = bench.home.run(&bench.device_context, w).unwrap_or_else(|e| panic!("{e}"));
        saved.iter().map(|s| sagittal::image::read::picture(&s.path).expect("a picture")).collect()
    };
    // Decoded, whole and in tiles that hold all of it.
    let latent = noise(3, [2, 4, 9, 8]).scaled(3.0);
    bench.home.input_latent("z.latent", &latent);
    let mut w = json!({});
    add(&mut w, "1", "LoadLatent", json!({ "latent": "z.latent" }));
    add(&mut w, "2", "CheckpointLoaderSimple", json!({ "ckpt_name": SD1 }));
    add(&mut w, "3", "VAEDecode", json!({ "samples": ["1", 0], "vae": ["2", 2] }));
    add(&mut w, "9", "SaveImage", json!({ "images": ["3", 0], "filename_prefix": "x" }));
    let want: Vec<Picture> = [0, 1].map(|i| bench.decode(&latent.row(i))).into();
    failures.check(read(&w) == want, || "decoded".into());
    let mut tiled = w.clone();
    add(
        &mut tiled,
        "3",
        "VAEDecodeTiled",
        json!({ "samples": ["1", 0], "vae": ["2", 2], "tile_size": 512, "overlap": 64 }),
    );
    failures.check(read(&tiled) == want, || "decoded in one tile".into());
    // Scaled by each method; lanczos as the library has it.
    for method in ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"] {
        let mut scaled = w.clone();
        add(
            &mut scaled,
            "4",
            "ImageScaleBy",
            json!({ "image": ["3", 0], "upscale_method": method, "scale_by": 0.5 }),
        );
        add(&mut scaled, "9", "PreviewImage", json!({ "images": ["4", 0] }));
        let pictures = read(&scaled);
        let sizes: Vec<_> = pictures.iter().map(|p| (p.width, p.height)).collect();
        failures.check(sizes == [(32, 36); 2], || format!("{method}: {sizes:?}"));
        if method == "lanczos" {
            let by_hand = sagittal::image::resize::lanczos(&want[0], 32, 36).expect("a picture");
            failures.check(pictures[0] == by_hand, || "lanczos".into());
        }
    }
    // The small nodes.
    let mut others = json!({});
    add(
        &mut others,
        "1",
        "EmptyImage",
        json!({ "width": 8, "height": 4, "batch_size": 2, "color": 0xff00ff }),
    );
    add(&mut others, "2", "ImageInvert", json!({ "image": ["1", 0] }));
    add(&mut others, "3", "ImageBatch", json!({ "image1": ["1", 0], "image2": ["2", 0] }));
    add(&mut others, "4", "ImageToMask", json!({ "image": ["3", 0], "channel": "red" }));
    add(&mut others, "5", "InvertMask", json!({ "mask": ["4", 0] }));
    add(&mut others, "6", "MaskToImage", json!({ "mask": ["5", 0] }));
    add(&mut others, "7", "SolidMask", json!({ "value": 0.5, "width": 2, "height": 2 }));
    add(&mut others, "8", "MaskToImage", json!({ "mask": ["7", 0] }));
    add(&mut others, "9", "SaveImage", json!({ "images": ["3", 0], "filename_prefix": "a" }));
    add(&mut others, "10", "SaveImage", json!({ "images": ["6", 0], "filename_prefix": "b" }));
    add(&mut others, "11", "SaveImage", json!({ "images": ["8", 0], "filename_prefix": "c" }));
    let first: Vec<Vec<u8>> = read(&others).into_iter().map(|p| p.rgb[..3].to_vec()).collect();
    let want = [
        [255, 0, 255],
        [255, 0, 255],
        [0, 255, 0],
        [0, 255, 0],
        [0; 3],
        [0; 3],
        [255; 3],
        [255; 3],
        [127; 3],
    ];
    failures.check(first == want, || format!("{first:?}"));
    failures.finish();
}
