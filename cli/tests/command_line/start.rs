//! The flags about the start picture and the conditioning: `-i`, `--strength`, `--mask`, `AND`,
//! SDXL's sizes.

use std::fs;
use std::path::Path;

use crate::common::{Failures, MANIFESTS};
use crate::{common::gpu_is_off, program::program};
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use tempfile::TempDir;

/// Exit code, stdout and stderr of the program in `folder`.
fn run(folder: &Path, flags: &[&str]) -> (Option<i32>, String, String) {
    let steps: &[&str] = if flags.contains(&"--steps") { &[] } else { &["--steps", "2"] };
    let words = [&["generate", "-s", "5", "--force"], flags, steps].concat();
    let output = program(folder, &words).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A PNG of one colour type and depth; samples run through all values.
fn png(path: &Path, (width, height): (u32, u32), color: png::ColorType, depth: png::BitDepth) {
    let file = fs::File::create(path).expect("a file");
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|v| [v, 255 - v, 90]).collect::<Vec<u8>>());
    }
    let row = (width as usize * color.samples() * depth as usize).div_ceil(8);
    let data: Vec<u8> = (0..row * height as usize).map(|i| (i * 29 % 256) as u8).collect();
    encoder.write_header().expect("a header").write_image_data(&data).expect("pixels");
}

fn rgb(path: &Path, size: (u32, u32)) {
    png(path, size, png::ColorType::Rgb, png::BitDepth::Eight);
}

/// A grey PNG of one value.
fn grey(path: &Path, (width, height): (u32, u32), value: u8) {
    let mut encoder = png::Encoder::new(fs::File::create(path).expect("a file"), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&vec![value; (width * height) as usize]).expect("pixels");
}

/// Size, pixels and settings of a picture.
fn read(path: &Path) -> (u32, u32, Vec<u8>, String) {
    let file = std::io::BufReader::new(fs::File::open(path).expect("the picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    let info = reader.info();
    let text = info.uncompressed_latin1_text.iter().find(|c| c.keyword == "parameters").expect("settings");
    (info.width, info.height, pixels, text.text.clone())
}

#[test]
fn bad_starts_end_with_the_right_code() {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    rgb(&at("a.png"), (64, 64));
    fs::write(at("photo.jpg"), b"\xff\xd8\xff\xe0\0\x10JFIF").expect("a file");
    fs::write(at("photo.webp"), b"RIFF\0\0\0\0WEBPVP8 ").expect("a file");
    fs::write(at("moving.gif"), b"GIF89a").expect("a file");
    fs::write(at("empty.png"), b"").expect("a file");
    fs::write(at("short.png"), &fs::read(at("a.png")).expect("the picture")[..40]).expect("a file");
    fs::create_dir(at("dir.png")).expect("a folder");
    rgb(&at("tall.png"), (1, 9000));
    // Flags after `generate -p x`, the exit code, and a word that the message must contain.
    let cases: &[(&[&str], i32, &str)] = &[
        (&["-i", "missing.png"], 3, "missing.png"),
        (&["-i", "dir.png"], 3, "dir.png"),
        (&["-i", "empty.png"], 3, "empty file"),
        (&["-i", "photo.jpg"], 3, "the JPEG is damaged"),
        (&["-i", "photo.webp"], 3, "the WebP is damaged"),
        (&["-i", "moving.gif"], 3, "GIF picture; convert it to PNG first"),
        (&["-i", "short.png"], 3, "damaged"),
        (&["-i", "a.png", "--mask", "missing.png"], 3, "missing.png"),
        (&["-i", "a.png", "--mask", "photo.jpg"], 3, "JPEG"),
        (&["-i", "a.png", "--strength", "1.01"], 2, "0 to 1"),
        (&["-i", "a.png", "--strength", "-0.1"], 2, "0 to 1"),
        (&["-i", "a.png", "--strength", "nan"], 2, "0 to 1"),
        (&["-i", "a.png", "--strength", "much"], 2, "--strength"),
        (&["--mask", "a.png"], 2, "--init-img"),
        (&["--strength", "0.5"], 2, "--init-img"),
        (&["-i", "a.png", "-W", "65"], 2, "multiple of 8"),
        (&["-i", "tall.png", "-W", "16384"], 2, "height"),
        (&["--original-size", "1024"], 2, "WxH"),
        (&["--original-size", "1x-1"], 2, "WxH"),
        (&["--target-size", "99999x8"], 2, "16384"),
        (&["--crop", "1x1"], 2, "TOP,LEFT"),
        (&["--crop", "-1,0"], 2, "TOP,LEFT"),
        (&["--crop", "0,0"], 2, "SDXL"),
        (&["--original-size", "64x64"], 2, "SDXL"),
        (&["--target-size", "64x64"], 2, "SDXL"),
        (&["-p", "y:-1"], 2, "add up"),
        (&["-p", "y:-2"], 2, "add up"),
    ];
    let mut failures = Failures::default();
    for (flags, code, word) in cases {
        let found = run(folder.path(), &[&["-p", "x"], *flags].concat());
        let right = found.0 == Some(*code) && found.2.contains(word) && !found.2.contains("panicked");
        failures.check(right, || format!("{flags:?} gave {:?}: {}", found.0, found.2));
    }
    failures.finish();
    assert!(!fs::exists(at("sagittal-5.png")).expect("the folder"), "nothing is written");
}

/// The contents of a file count, not its extension.
#[test]
fn photographs_can_be_started_from() {
    if gpu_is_off() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    rgb(&at("a.png"), (72, 64));
    let sound = sagittal::image::read::picture(&at("a.png")).expect("a PNG");
    let picture = image::RgbImage::from_raw(72, 64, sound.rgb).expect("its pixels");
    for (name, format) in [("a.jpg", image::ImageFormat::Jpeg), ("a.webp", image::ImageFormat::WebP)] {
        picture.save_with_format(at(name), format).expect(name);
        fs::copy(at(name), at("named-otherwise.png")).expect("a copy");
        for name in [name, "named-otherwise.png"] {
            let words = ["-p", "fox", "-i", name, "--mask", name, "--steps", "1", "-o", "out.png"];
            let (code, _, stderr) = run(folder.path(), &words);
            assert_eq!(code, Some(0), "{name}: {stderr}");
            assert_eq!(read(&at("out.png")).0, 72, "{name}");
        }
    }
}

#[test]
fn any_png_can_be_started_from() {
    if gpu_is_off() {
        return;
    }
    use png::BitDepth::{Eight, One, Sixteen, Two};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let folder = TempDir::new().expect("a folder");
    let (input, out) = (folder.path().join("in.png"), folder.path().join("out.png"));
    let mut failures = Failures::default();
    // Kind, size, flags, and the size of the result.
    let same = (64, 64);
    type Case<'a> = (png::ColorType, png::BitDepth, (u32, u32), &'a [&'a str], (u32, u32));
    let cases: &[Case] = &[
        (Grayscale, One, same, &[], same),
        (GrayscaleAlpha, Eight, same, &[], same),
        (Indexed, Two, same, &[], same),
        (Rgb, Sixteen, same, &[], same),
        (Rgba, Sixteen, same, &[], same),
        (Rgb, Eight, (1, 1), &[], (8, 8)),
        (Rgb, Eight, (71, 5), &[], (64, 8)),
        (Rgb, Eight, (30, 20), &["-W", "96"], (96, 64)),
        (Rgb, Eight, (30, 20), &["-H", "96"], (144, 96)),
        (Rgb, Eight, (30, 20), &["-W", "64", "-H", "72"], (64, 72)),
    ];
    for (color, depth, size, flags, want) in cases {
        png(&input, *size, *color, *depth);
        let fixed = ["-p", "fox", "-i", "in.png", "--mask", "in.png", "--steps", "1", "-o", "out.png"];
        let (code, _, stderr) = run(folder.path(), &[&fixed, *flags].concat());
        let what = format!("{color:?} {depth:?} {size:?} {flags:?}");
        failures.check(code == Some(0), || format!("{what}: {code:?}, {stderr}"));
        if code == Some(0) {
            let (width, height, _, text) = read(&out);
            failures.check((width, height) == *want, || format!("{what}: {width}x{height}"));
            failures.check(text.contains("Denoising strength: 0.75"), || format!("{what}: {text}"));
        }
    }
    failures.finish();
}

#[test]
fn strength_and_mask_do_what_they_say() {
    if gpu_is_off() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let make = |flags: &[&str]| {
        let (code, _, stderr) = run(folder.path(), &[flags, &["-o", "out.png"]].concat());
        assert_eq!(code, Some(0), "{flags:?}: {stderr}");
        (read(&at("out.png")).2, stderr)
    };
    let (fox, _) = make(&["-p", "fox, 3d style", "-W", "64", "-H", "64", "--steps", "6"]);
    fs::rename(at("out.png"), at("fox.png")).expect("the picture");
    for (name, value) in [("white.png", 255), ("black.png", 0)] {
        grey(&at(name), (64, 64), value);
    }
    grey(&at("small-white.png"), (3, 5), 255);
    let owl = |flags: &[&str]| make(&[&["-p", "owl, flat style", "-i", "fox.png"], flags].concat()).0;
    let mean = |a: &[u8], b: &[u8]| {
        let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.len() as f64
    };
    let kept = owl(&["--strength", "0"]);
    assert!(mean(&kept, &fox) < 12.0, "only the autoencoder has changed it: {}", mean(&kept, &fox));
    let usual = owl(&[]);
    assert!(usual == owl(&["--strength", "0.75"]) && usual != owl(&["--strength", "0.5"]));
    assert!(usual == owl(&["--mask", "white.png"]), "a white mask is image to image");
    assert!(usual == owl(&["--mask", "small-white.png"]), "a mask of another size is stretched");
    let black = owl(&["--mask", "black.png"]);
    assert!(mean(&black, &kept) < 0.5, "a black mask keeps everything: {}", mean(&black, &kept));
    assert!(mean(&usual, &fox) > mean(&kept, &fox));
    // The left half is drawn.
    let mut encoder = png::Encoder::new(fs::File::create(at("half.png")).expect("a file"), 64, 64);
    encoder.set_color(png::ColorType::Grayscale);
    let half: Vec<u8> = (0..64 * 64).map(|i| if i % 64 < 32 { 255 } else { 0 }).collect();
    encoder.write_header().expect("a header").write_image_data(&half).expect("pixels");
    // In pixels the autoencoder spreads a change; in the latent the kept half is the start's.
    let latent = |flags: &[&str]| -> Vec<f32> {
        owl(&[flags, &["--save-latent", "out.latent"]].concat());
        let file = fs::read(at("out.latent")).expect("the latent");
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
        bytemuck::pod_collect_to_vec(tensors.tensor("latent_tensor").expect("the latent").data())
    };
    let (kept, half) = (latent(&["--strength", "0"]), latent(&["--mask", "half.png"]));
    for (i, (a, b)) in kept.iter().zip(&half).enumerate() {
        let drawn = i % 8 < 4;
        assert!(((a - b).abs() > 1e-4) == drawn, "cell {i}, drawn {drawn}: {a} and {b}");
    }
}

#[test]
fn prompts_are_combined_in_any_order() {
    if gpu_is_off() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let make = |flags: &[&str]| {
        let size = ["-W", "64", "-H", "64", "--steps", "1", "-o", "out.png"];
        let (code, _, stderr) = run(folder.path(), &[flags, &size].concat());
        assert_eq!(code, Some(0), "{flags:?}: {stderr}");
        let (_, _, pixels, text) = read(&folder.path().join("out.png"));
        (pixels, text)
    };
    let (both, text) = make(&["-p", "fox AND owl :1.5"]);
    assert!(text.starts_with("fox AND owl :1.5\nSteps"), "{text}");
    assert!(both == make(&["-p", "owl :1.5", "-p", "fox"]).0, "two flags are AND");
    assert!(both != make(&["-p", "fox AND owl"]).0, "the weight counts");
    let rows = |prompt: &str| {
        let (_, plan, _) = run(folder.path(), &["-p", prompt, "--dry-run", "--json", "-W", "64", "-H", "64"]);
        // Warnings about prompt syntax come first.
        let plan = plan.lines().last().expect("a line");
        let plan: serde_json::Value = serde_json::from_str(plan).expect("a plan");
        plan["rows_per_step"].as_u64()
    };
    assert_eq!((rows("fox"), rows("fox AND owl AND cat"), rows("SANDY")), (Some(3), Some(5), Some(3)));
}

/// A checkpoint of the small SDXL family.
fn small_sdxl(path: &Path) {
    let (_, manifest) = MANIFESTS.iter().find(|(name, _)| *name == "tiny-sdxl").expect("a family");
    let made = Checkpoint::synthetic(&Manifest::parse(manifest).expect("a manifest"), 0, Dtype::F16);
    let made = made.expect("a checkpoint");
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = made
        .names()
        .map(|name| {
            let shape = made.tensor(name).expect("listed").shape.clone();
            let values = made.read_f32(name, &shape).expect("values");
            (name.to_owned(), shape, values)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("a file")).expect("the file");
}

#[test]
fn sdxl_gets_sizes() {
    if gpu_is_off() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    small_sdxl(&folder.path().join("xl.safetensors"));
    let make = |flags: &[&str]| {
        let fixed = ["-m", "xl.safetensors", "-p", "x", "-W", "64", "-H", "72", "-o", "out.png"];
        let (code, _, stderr) = run(folder.path(), &[&fixed, flags].concat());
        assert_eq!(code, Some(0), "{flags:?}: {stderr}");
        let (_, _, pixels, text) = read(&folder.path().join("out.png"));
        (pixels, text)
    };
    let (usual, text) = make(&[]);
    assert!(!text.contains("Original size"), "{text}");
    // Defaults are the size of the picture, and no crop.
    for same in [&["--crop", "0,0"][..], &["--original-size", "64x72"], &["--target-size", "64x72"]] {
        assert!(usual == make(same).0, "{same:?} is the default");
    }
    let mut seen = vec![usual];
    for flags in [
        &["--original-size", "72x64"][..],
        &["--target-size", "72x64"],
        &["--crop", "9,0"],
        &["--crop", "0,9"],
    ] {
        let (pixels, _) = make(flags);
        assert!(!seen.contains(&pixels), "{flags:?} changes the picture");
        seen.push(pixels);
    }
    let (_, text) = make(&["--original-size", "128x64", "--crop", "8,0"]);
    assert!(text.contains("Original size: 128x64, Crop: 8/0, Target size: 64x72"), "{text}");
}
