//! Settings in files of other formats and of programs with their own names for settings.

use std::path::Path;

use super::borrowed::{Home, flat, lora};
use crate::common::gpu_is_off;
use crate::common::{Failures, Rng};
use sagittal::internals::image::{png, texts};
use serde_json::json;

/// A text chunk of a PNG, after its header.
fn with_chunk(png: &[u8], keyword: &str, text: &[u8]) -> Vec<u8> {
    let data = [b"tEXt", keyword.as_bytes(), b"\0", text].concat();
    let length = (data.len() as u32 - 4).to_be_bytes();
    [&png[..33], &length, &data, &crc32fast::hash(&data).to_be_bytes(), &png[33..]].concat()
}

#[test]
fn raw_utf8_in_text_chunks() {
    let bare = png::encode(&flat(8, 8), &[]).expect("bytes");
    let read = |text: &[u8]| texts::texts(&with_chunk(&bare, "parameters", text)).expect("texts").remove(0).1;
    for text in ["a füchse 🦊", "狐", "é", "plain"] {
        assert_eq!(read(text.as_bytes()), text);
    }
    // Latin-1, as the format requires.
    assert_eq!(read(b"f\xfcchse"), "füchse");
    assert_eq!(read(b"caf\xe9 \xc3"), "café Ã");
    // What would be taken for UTF-8 is written so that it is not.
    for text in ["Ã©", "Ã© and Ã¼", "é", "🦊"] {
        let bytes = png::encode(&flat(8, 8), &[("parameters", text)]).expect("bytes");
        assert_eq!(texts::texts(&bytes).expect("texts"), [("parameters".to_owned(), text.to_owned())]);
    }
}

/// EXIF data of one list: texts by their tags, and a user comment in the list that it names.
fn exif(fields: &[(u16, &str)], comment: Option<&[u8]>) -> Vec<u8> {
    let entry = |tag: u16, kind: u16, count: usize, value: usize| {
        let (count, value) = ((count as u32).to_be_bytes(), (value as u32).to_be_bytes());
        [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count, &value].concat()
    };
    let mut at = 8 + 2 + 12 * (fields.len() + 1) + 4;
    let second = at;
    at += 2 + 12 + 4;
    let mut bytes = [&b"MM\0*\0\0\0\x08"[..], &(fields.len() as u16 + 1).to_be_bytes()].concat();
    for (tag, text) in fields {
        bytes.extend(entry(*tag, 2, text.len() + 1, at));
        at += text.len() + 1;
    }
    bytes.extend(entry(0x8769, 4, 1, second));
    bytes.extend([0; 4]);
    bytes.extend(u16::from(comment.is_some()).to_be_bytes());
    bytes.extend(entry(0x9286, 7, comment.map_or(0, <[u8]>::len), at));
    bytes.extend([0; 4]);
    fields.iter().for_each(|(_, text)| bytes.extend([text.as_bytes(), b"\0"].concat()));
    bytes.extend(comment.unwrap_or_default());
    bytes
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(16, 8).write_to(&mut bytes, format).expect("a picture");
    bytes.into_inner()
}

/// A JPEG with a segment.
fn jpeg(marker: u8, data: &[u8]) -> Vec<u8> {
    let jpeg = encoded(image::ImageFormat::Jpeg);
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, data, &jpeg[2..]].concat()
}

/// A WebP with a chunk after its pixels.
fn webp(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(image::ImageFormat::WebP);
    bytes.extend([&name[..], &(data.len() as u32).to_le_bytes(), data, &[0; 1][..data.len() % 2]].concat());
    let size = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&size);
    bytes
}

/// A user comment as A1111 writes it, by piexif.
fn unicode(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_be_bytes);
    b"UNICODE\0".iter().copied().chain(units).collect()
}

#[test]
fn jpeg_and_webp_settings() {
    let text = "füchse 🦊\nNegative prompt: grau\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 5, Size: 64x64, Model: m";
    let exif = exif(&[], Some(&unicode(text)));
    let xmp = "<x:xmpmeta><rdf:RDF><sdcpp:parameters>a &amp; b &#x1F98A;\nSteps: 1, Seed: 2, Size: 64x64</sdcpp:parameters></rdf:RDF></x:xmpmeta>";
    let mut failures = Failures::default();
    let pictures = [
        ("a.jpg", jpeg(0xe1, &[b"Exif\0\0", &exif[..]].concat())),
        ("comment.jpg", jpeg(0xfe, &[b"parameters\0", text.as_bytes(), b"\0"].concat())),
        ("a.webp", webp(b"EXIF", &exif)),
        ("marked.webp", webp(b"EXIF", &[b"Exif\0\0", &exif[..]].concat())),
    ];
    for (name, bytes) in &pictures {
        let all = texts::texts(bytes).expect("texts");
        failures.check(all == [("parameters".to_owned(), text.to_owned())], || format!("{name}: {all:?}"));
    }
    let all = texts::texts(&webp(b"XMP ", xmp.as_bytes())).expect("texts");
    let made = sagittal::internals::image::settings::made(&all).expect("settings").settings.expect("read");
    failures.check(made.prompt == "a & b 🦊" && made.get("Seed") == Some("2"), || format!("{made:?}"));
    let bare = texts::texts(&encoded(image::ImageFormat::Jpeg)).expect("texts");
    failures.check(bare.is_empty(), || format!("{bare:?}"));
    if !gpu_is_off() {
        let home = Home::new();
        for (name, bytes) in &pictures {
            home.write(name, bytes);
            let drawn = home.from(name, &[]);
            drawn.holds(
                name,
                &["füchse 🦊\nNegative prompt: grau\nSteps: 1", "Size: 64x64"],
                &[],
                &mut failures,
            );
        }
        home.write("bare.webp", &encoded(image::ImageFormat::WebP));
        let bare = home.from("bare.webp", &[]);
        failures.check(
            bare.code == Some(3) && bare.stderr.contains("contains no settings that can be read"),
            || bare.stderr.clone(),
        );
    }
    failures.finish();
}

/// ComfyUI puts its two texts into the fields of the camera's model and maker.
#[test]
fn comfyui_workflows_in_webp_and_jpeg() {
    let prompt =
        r#"{"1":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":64,"batch_size":1}}}"#;
    let (a, b) = (format!("prompt:{prompt}"), r#"workflow:{"nodes":[]}"#.to_owned());
    let (c, d) = (format!("Prompt:{prompt}"), r#"Workflow: {"nodes":[]}"#.to_owned());
    let expected =
        [("prompt".to_owned(), prompt.to_owned()), ("workflow".to_owned(), r#"{"nodes":[]}"#.to_owned())];
    for fields in [[(0x0110, &*a), (0x010f, &*b)], [(0x010f, &*c), (0x010e, &*d)]] {
        let exif = exif(&fields, None);
        for bytes in [webp(b"EXIF", &exif), jpeg(0xe1, &[b"Exif\0\0", &exif[..]].concat())] {
            let mut all = texts::texts(&bytes).expect("texts");
            all.sort();
            assert_eq!(all, expected);
        }
    }
    let home = Home::new();
    home.write("a.webp", &webp(b"EXIF", &exif(&[(0x0110, &*a)], None)));
    let drawn = home.from("a.webp", &[]);
    assert!(drawn.code == Some(3) && drawn.stderr.contains("a workflow of ComfyUI"), "{}", drawn.stderr);
}

/// Each program's names for settings, and warnings that name those which are ignored.
#[test]
fn settings_of_other_programs() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    home.write("loras/ink.safetensors", &lora(&mut Rng(1)));
    let xmp = |json: &str| {
        let escaped = json.replace('&', "&amp;").replace('"', "&quot;");
        format!(
            "<x:xmpmeta><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt><rdf:li xml:lang=\"x-default\">{escaped}\
             </rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
        )
    };
    let swarm = json!({ "sui_image_params": {
        "prompt": "a fox", "negativeprompt": "grey", "model": "m", "seed": 5, "steps": 1, "cfgscale": 2.0,
        "width": 64, "height": 64, "sampler": "dpmpp_2m", "scheduler": "karras", "clipstopatlayer": -2,
        "swarm_version": "0.9", "loras": ["ink"], "loraweights": ["0.5"], "refinercontrolpercentage": 0.2,
    }});
    let fooocus = json!({
        "prompt": "a fox", "negative_prompt": "grey", "resolution": "(64, 64)", "steps": 1, "guidance_scale": 2,
        "seed": "5", "sampler": "dpmpp_2m", "scheduler": "karras", "base_model": "m", "clip_skip": 2,
        "lora_combined_1": "ink : 0.5", "version": "Fooocus v2.5", "metadata_scheme": "fooocus", "sharpness": 2.0,
    });
    let invoke = json!({
        "positive_prompt": "a fox", "negative_prompt": "grey", "width": 64, "height": 64, "seed": 5, "steps": 1,
        "cfg_scale": 2, "scheduler": "dpmpp_2m_k", "clip_skip": 1, "model": { "name": "m", "hash": "x" },
        "loras": [{ "model": { "name": "ink" }, "weight": 0.5 }], "app_version": "5.0", "rand_device": "cpu",
        "generation_mode": "txt2img", "seamless_x": false, "seamless_y": true,
    });
    let novel = json!({
        "uc": "grey", "width": 64, "height": 64, "seed": 5, "steps": 1, "scale": 2, "sampler": "k_dpmpp_2m",
        "noise_schedule": "karras", "cfg_rescale": 0.5, "sm": false,
    });
    let things = json!({
        "c": "a fox", "uc": "grey", "size": "64x64", "seed": 5, "steps": 1, "scale": 2, "sampler": "DPM++ 2M Karras",
        "model": "m", "strength": 1, "lora": [{ "model": "ink.ckpt", "weight": 0.5 }], "v2": { "x": 1 }, "shift": 3,
    });
    let fox = ("prompt", "a fox");
    let (swarm, fooocus, invoke) = (swarm.to_string(), fooocus.to_string(), invoke.to_string());
    let (novel, things) = (novel.to_string(), xmp(&things.to_string()));
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, bool);
    let cases: [Case<'_>; 6] = [
        ("SwarmUI", &[("parameters", &swarm)], "ignored: refinercontrolpercentage", true),
        ("Fooocus", &[("parameters", &fooocus), ("fooocus_scheme", "fooocus")], "ignored: sharpness", true),
        ("InvokeAI", &[("invokeai_metadata", &invoke)], "ignored: seamless_y", true),
        (
            "NovelAI",
            &[("Software", "NovelAI"), ("Source", "m"), ("Description", "a fox"), ("Comment", &novel)],
            "ignored: cfg_rescale",
            false,
        ),
        (
            "Easy Diffusion",
            &[
                fox,
                ("negative_prompt", "grey"),
                ("seed", "5"),
                ("use_stable_diffusion_model", "m"),
                ("num_inference_steps", "1"),
                ("guidance_scale", "2"),
                ("width", "64"),
                ("height", "64"),
                ("sampler_name", "dpmpp_2m"),
                ("scheduler_name", "karras"),
                ("hypernetwork_strength", "0.5"),
            ],
            "ignored: hypernetwork_strength",
            false,
        ),
        ("Draw Things", &[("XML:com.adobe.xmp", &things)], "ignored: shift", true),
    ];
    let settings = "Negative prompt: grey\nSteps: 1, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 2, Seed: 5, Size: 64x64";
    for (program, texts, warning, lora) in cases {
        home.png("a.png", texts);
        let drawn = home.from("a.png", if lora { &["--lora-dir", "loras"] } else { &[] });
        let prompt = if lora { "a fox <lora:ink:0.5>\n" } else { "a fox\n" };
        drawn.holds(program, &[prompt, settings], &[warning], &mut failures);
        let skip = ["SwarmUI", "Fooocus", "InvokeAI"].contains(&program);
        failures.check(drawn.text.contains("Clip skip: 2") == skip, || format!("{program}: {}", drawn.text));
    }
    // Prompt syntax of another program is reported with the program's name.
    home.png(
        "a.png",
        &[("Software", "NovelAI"), ("Source", "m"), ("Description", "a {fox}"), ("Comment", &novel)],
    );
    home.from("a.png", &[]).holds("NovelAI", &["a {fox}"], &["NovelAI has prompt syntax"], &mut failures);
    failures.finish();
}

/// Forms that a program's versions have of the same things: each with the pairs, or the words of the prompt, that
/// they mean.
#[test]
fn older_and_rarer_forms() {
    let params = |json: serde_json::Value| vec![("parameters", json.to_string())];
    let invoke = |json: serde_json::Value| vec![("invokeai_metadata", json.to_string())];
    let novel = |json: serde_json::Value| {
        vec![
            ("Software", "NovelAI".to_owned()),
            ("Description", "a fox".into()),
            ("Comment", json.to_string()),
        ]
    };
    let easy = |more: &[(&'static str, &str)]| {
        let mut all = vec![("prompt", "a fox".to_owned()), ("num_inference_steps", "9".into())];
        all.extend(more.iter().map(|(key, text)| (*key, (*text).to_owned())));
        all
    };
    let swarm = |key: &'static str, json: serde_json::Value| {
        vec![(key, json!({ "sui_image_params": json }).to_string())]
    };
    type Case<'a> = (&'a str, Vec<(&'a str, String)>, &'a [(&'a str, Option<&'a str>)], &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        (
            "Draw Things",
            params(json!({ "c": "a fox", "uc": "", "seed": 5, "lora": [{ "model": "ink_lora_f16.ckpt", "weight": 0.5 }],
                "clip_skip": 2, "seed_mode": "Torch CPU Compatible", "original_size": "1024x768", "crop_top": 1,
                "crop_left": 2 })),
            &[("Clip skip", Some("2")), ("RNG", Some("CPU")), ("Original size", Some("1024x768")), ("Crop", Some("1/2"))],
            &["a fox <lora:ink_lora_f16:0.5>"],
        ),
        (
            "Easy Diffusion",
            easy(&[("scheduler_name", "None"), ("sampler_name", "dpmpp_2m"), ("clip_skip", "True"),
                ("use_lora_model", "['a', 'b']"), ("lora_alpha", "[0.5, 1.0]"), ("use_vae_model", "None")]),
            &[("Schedule type", Some("karras")), ("Clip skip", Some("2")), ("VAE", None)],
            &["<lora:a:0.5>", "<lora:b:1.0>"],
        ),
        (
            "Easy Diffusion",
            params(json!({ "prompt": "a fox", "num_inference_steps": 9, "sampler_name": "euler", "seed": 5,
                "scheduler_name": "automatic", "use_lora_model": "ink", "lora_alpha": 0.4, "clip_skip": false })),
            &[("Steps", Some("9")), ("Schedule type", Some("automatic")), ("Clip skip", None)],
            &["<lora:ink:0.4>"],
        ),
        (
            "Easy Diffusion",
            [("Prompt", "a fox"), ("Negative Prompt", "grey"), ("Seed", "5"), ("Stable Diffusion model", "m"),
                ("Sampler", "heun"), ("Steps", "9"), ("Guidance Scale", "3"), ("Width", "64"), ("Height", "72"),
                ("LoRA model", "ink"), ("LoRA Strength", "0.5")]
                .map(|(key, text)| (key, text.to_owned()))
                .to_vec(),
            &[("Model", Some("m")), ("Size", Some("64x72")), ("CFG scale", Some("3")), ("Sampler", Some("heun"))],
            &["a fox <lora:ink:0.5>"],
        ),
        (
            "Fooocus",
            params(json!({ "prompt": "fox", "full_prompt": ["a fox, cinematic", "a fox, sharp"], "base_model": "m",
                "full_negative_prompt": ["grey", "dull"], "vae": "Default (model)", "refiner_model": "None",
                "styles": "['Fooocus V2']", "seed": "5" })),
            &[("RNG", Some("CPU")), ("refiner_model", None)],
            &["a fox, cinematic, a fox, sharp", "grey, dull"],
        ),
        (
            "Fooocus",
            vec![("parameters", "a fox\nSteps: 9, Sampler: Euler, Scheduler: karras, Seed: 5, Size: 64x64, \
                Lora hashes: \"ink: 0123456789\", Lora weights: \"ink: 0.8\", Version: Fooocus v2.5".to_owned())],
            &[("Schedule type", Some("karras")), ("Lora weights", Some("ink: 0.8"))],
            &[],
        ),
        (
            "RuinedFooocus",
            params(json!({ "Prompt": "a fox", "Negative": "grey", "cfg": 3.0, "sampler_name": "euler", "steps": 9,
                "base_model_name": "m.safetensors", "loras": [["C0FFEE", "0.8 - ink.safetensors"]], "denoise": null })),
            &[("CFG scale", Some("3.0")), ("Denoising strength", None)],
            &["a fox <lora:ink:0.8>"],
        ),
        (
            "InvokeAI",
            invoke(json!({ "positive_prompt": "a fox", "generation_mode": "sdxl_img2img", "seed": 5,
                "cfg_rescale_multiplier": 0.0, "canvas_v2_metadata": { "x": 1 } })),
            &[("Init image", Some("")), ("cfg_rescale_multiplier", None), ("canvas_v2_metadata", None)],
            &[],
        ),
        (
            "InvokeAI",
            invoke(json!({ "positive_prompt": "a fox", "generation_mode": "flux_txt2img", "strength": 0.7 })),
            &[("Init image", None), ("Denoising strength", None)],
            &[],
        ),
        (
            "InvokeAI",
            vec![("sd-metadata", json!({ "model_id": "m", "image": { "type": "img2img", "strength": 0.6, "seed": 5,
                "sampler": "k_dpmpp_2_a", "prompt": [{ "prompt": "a fox", "weight": 1 }, { "prompt": "x", "weight": 2 }] } })
                .to_string())],
            &[("Model", Some("m")), ("Init image", Some("")), ("Denoising strength", Some("0.6")),
                ("Sampler", Some("dpmpp_2s_ancestral")), ("further prompts", Some("1"))],
            &["a fox"],
        ),
        (
            "NovelAI",
            novel(json!({ "steps": 28, "sampler": "k_euler", "seed": 5, "strength": 0.69, "noise": 0.667, "scale": 11.0 })),
            &[("Denoising strength", None), ("Steps", Some("28")), ("Size", None)],
            &["a fox"],
        ),
        (
            "NovelAI",
            novel(json!({ "steps": 28, "strength": 0.6, "request_type": "Img2ImgRequest" })),
            &[("Denoising strength", Some("0.6")), ("Init image", Some(""))],
            &[],
        ),
        (
            "SwarmUI",
            swarm("parameters", json!({ "prompt": "a <embed:deep/ink.safetensors> fox", "loras": "a,b",
                "loraweights": "1,0.5", "negativeprompt": "<embed:bad>" })),
            &[("RNG", Some("CPU"))],
            &["a embedding:deep/ink fox <lora:a:1> <lora:b:0.5>", "embedding:bad"],
        ),
        ("SwarmUI", swarm("prompt", json!({ "prompt": "a fox", "seed": 5 })), &[("Seed", Some("5"))], &["a fox"]),
        ("SwarmUI", swarm("Model", json!({ "prompt": "a fox", "seed": 5 })), &[("Seed", Some("5"))], &["a fox"]),
        (
            "SwarmUI",
            swarm("parameters", json!({ "prompt": "a <embed:ink> fox <embed:open" })),
            &[],
            &["a embedding:ink fox <embed:open |"],
        ),
        // A value that is not understood is kept, so that it is reported as unknown.
        (
            "SwarmUI",
            swarm("parameters", json!({ "prompt": "a fox", "loras": [{ "odd": 1 }], "loraweights": ["much"] })),
            &[],
            &["<lora:{\"odd\"1}:1>"],
        ),
    ];
    let mut failures = Failures::default();
    for (at, (program, texts, pairs, words)) in cases.iter().enumerate() {
        let texts: Vec<(String, String)> = texts.iter().map(|(k, t)| ((*k).to_owned(), t.clone())).collect();
        let made = sagittal::internals::image::settings::made(&texts).expect("a program");
        failures.check(made.program == *program, || format!("{at}: {} and not {program}", made.program));
        let settings = made.settings.expect("settings");
        for (name, value) in *pairs {
            failures.check(settings.get(name) == *value, || {
                format!("{at}, {program}, {name}: {:?}", settings.get(name))
            });
        }
        let prompts = format!("{} | {}", settings.prompt, settings.negative.join(" | "));
        for word in *words {
            failures.check(prompts.contains(word), || format!("{at}, {program}: no {word:?} in {prompts:?}"));
        }
    }
    failures.finish();
}

/// A picture without a stored size is drawn in its own size; one made from another picture is not drawn from text.
#[test]
fn missing_sizes_and_start_pictures() {
    let home = Home::new();
    let mut failures = Failures::default();
    let json = |mode: &str| {
        json!({ "positive_prompt": "a fox", "generation_mode": mode, "seed": 5, "steps": 1, "cfg_scale": 2,
            "scheduler": "euler", "rand_device": "cpu" })
        .to_string()
    };
    home.png("a.png", &[("invokeai_metadata", &json("outpaint"))]);
    let refused = home.from("a.png", &[]);
    failures.check(refused.code == Some(2) && refused.stderr.contains("made from another picture"), || {
        refused.stderr.clone()
    });
    if !gpu_is_off() {
        home.png("a.png", &[("invokeai_metadata", &json("txt2img"))]);
        home.from("a.png", &[]).holds("txt2img", &["Size: 8x8"], &[], &mut failures);
    }
    failures.finish();
}

#[test]
fn programs_whose_settings_are_not_read_are_named() {
    let home = Home::new();
    let mut failures = Failures::default();
    for (texts, word) in [
        (&[("Description", "a fox --v 6 Job ID: 1-2")][..], "Midjourney"),
        (&[("Dream", "\"a fox\" -s 10 -S 5")], "InvokeAI before version 2"),
        (&[("parameters", "{\"prompt\": \"a fox\"}")], "JSON of its own"),
        (&[("prompt", "{}")], "ComfyUI"),
        (&[("Comment", "made with love")], "contains no settings that can be read"),
    ] {
        home.png("a.png", texts);
        let drawn = home.from("a.png", &[]);
        failures.check(drawn.code == Some(3) && drawn.stderr.contains(word), || {
            format!("{word}: {}", drawn.stderr)
        });
    }
    failures.finish();
}

#[test]
fn unknown_fields_are_named() {
    if gpu_is_off() {
        return;
    }
    let (home, mut failures) = (Home::new(), Failures::default());
    let pairs = ", Sampler: Euler, Variation seed: 3, Face restoration: CodeFormer, Tiling: True, VAE: ft.pt, \
                 Civitai resources: [{\"type\":\"lora\",\"a: b\":\"c, d: e\"}], dynthres_enabled: True";
    home.a1111_png("a.png", "a fox", pairs);
    let words = [
        "ignored: Variation seed, Face restoration, Tiling, Civitai resources, dynthres_enabled",
        "made with the VAE ft.pt",
    ];
    home.from("a.png", &[]).holds("unknown", &[], &words, &mut failures);
    failures.finish();
}

/// It does not matter in which way the settings are stored.
#[test]
fn inspect_tells_the_program() {
    let home = Home::new();
    home.a1111_png("a.png", "a fox", ", Sampler: euler, Version: stable-diffusion.cpp");
    home.write(
        "a.jpg",
        &jpeg(0xfe, b"parameters\0a\nSteps: 1, Seed: 2, Size: 8x8, Version: f2.0.1v1.10.1\0"),
    );
    let facts = |name: &str| sagittal::inspect::picture(Path::new(&home.at(name))).expect("a picture");
    assert_eq!(facts("a.png").program, Some("stable-diffusion.cpp"));
    let jpeg = facts("a.jpg");
    assert_eq!((jpeg.width, jpeg.height, jpeg.bits, jpeg.samples), (16, 8, 8, 3));
    assert_eq!((jpeg.program, jpeg.settings.expect("settings").get("Seed")), (Some("Forge"), Some("2")));
}
