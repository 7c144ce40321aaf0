//! Whatever file is passed as a model: a typed error with advice, at once, and never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::model::config::ModelConfig;
use sagittal::{Error, ErrorKind};

const LIMIT: Duration = Duration::from_millis(100);

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    kind: ErrorKind,
    /// All of these must be in the message, as must the file's name.
    words: &'static [&'static str],
}

/// A safetensors file of this header, its length being right.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A file whose only tensor is described by `entry`.
fn one(entry: &str, data: &[u8]) -> Vec<u8> {
    file(&format!("{{\"w\":{entry}}}"), data)
}

/// A file of empty-bodied scalars of these names: sound, but not a checkpoint.
fn named(names: &[&str]) -> Vec<u8> {
    let entry = |(i, n): (usize, &&str)| {
        format!("\"{n}\":{{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[{},{}]}}", 2 * i, 2 * i + 2)
    };
    let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
    file(&format!("{{{}}}", entries.join(",")), &vec![0; 2 * names.len()])
}

const TWO: &str = r#"{"dtype":"F16","shape":[1],"data_offsets":[0,2]}"#;

fn not_safetensors() -> Vec<Case> {
    let case = |name, bytes: &[u8], words| Case { name, bytes: bytes.to_vec(), kind: ErrorKind::File, words };
    vec![
        case("empty", b"", &["empty file", "fetch it again"]),
        case("three bytes", b"abc", &["only 3 bytes"]),
        case("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &["PNG picture", "pass the checkpoint"]),
        case("jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", &["JPEG picture"]),
        case("webp", b"RIFF\x24\0\0\0WEBPVP8 ", &["WebP picture"]),
        case("gif", b"GIF89a\x01\0\x01\0\0\0", &["GIF picture"]),
        case(
            "zip ckpt",
            b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl",
            &["zip", ".ckpt", "convert", "CheckpointSave"],
        ),
        case("pickle pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P", &["pickle", "convert"]),
        case(
            "gguf",
            b"GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0",
            &["GGUF", "original .safetensors", "gguf.dequantize"],
        ),
        case("html", b"\n <!DOCTYPE html><html><title>Log in</title>", &["HTML page", "download link"]),
        case("html, short", b"<HTML>", &["HTML page"]),
        case(
            "lfs",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            &["Git LFS pointer", "git lfs pull"],
        ),
        case("json", b"{\"model\": {\"a\": 1}, \"b\": 2}", &["JSON text"]),
        case("json with a brace at byte 8", b"{\"abcd\":{\"x\": 1}}", &["JSON text"]),
        case("index.json", b"\xef\xbb\xbf{\"weight_map\": {}}", &["JSON text"]),
        case("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03abcdef", &["gzip", "unpack"]),
        case("zeros", &[0; 4096], &["zeros", "not completed"]),
        case("noise", b"\x17\x9a\x00\x51\xe2\x33\x80\x07\x10\xcc\xfe\x01", &["starts with [17, 9a"]),
        case("prose", b"This is not a model at all.", &["starts with"]),
    ]
}

fn bad_frames() -> Vec<Case> {
    let case = |name, bytes, words| Case { name, bytes, kind: ErrorKind::File, words };
    let mut huge_length = file("{}", b"");
    huge_length[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long_length = file("{}", b"");
    long_length[0] = 200;
    let mut not_utf8 = file("{\"a\":1}", b"");
    not_utf8[10] = 0xff;
    let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let long_list =
        format!(r#"{{"dtype":"F16","shape":[{}1],"data_offsets":[0,2]}}"#, "1,".repeat(2_000_000));
    let many: Vec<String> =
        (0..40_000).map(|i| format!(r#""{i}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    vec![
        case("header length 2^64-1", huge_length, &["length is impossible", "18446744073709551615"]),
        case(
            "header longer than the file",
            long_length,
            &["ends inside its header", "at least 208 bytes", "10"],
        ),
        case(
            "header cut",
            file(&format!("{{\"w\":{TWO}}}"), b"")[..30].to_vec(),
            &["ends inside its header"],
        ),
        case("header not UTF-8", not_utf8, &["not UTF-8"]),
        case("header not JSON", file("{\"w\":", b""), &["not valid JSON", "end of the header"]),
        case("header with text behind", file("{} x", b""), &["not valid JSON", "'x' at byte 3"]),
        case("header nested deeply", one(&deep(2_000), b""), &["not valid", "(w)"]),
        case("header nested very deeply", one(&deep(200_000), b""), &["too long", "400000", "(w)"]),
        case(
            "header of two million sizes",
            one(&long_list, &[0; 2]),
            &["too long", "at most 4096 bytes", "4000"],
        ),
        case(
            "header of 40,000 tensors",
            file(&format!("{{{}}}", many.join(",")), b""),
            &["too many tensors", "32768"],
        ),
        case(
            "header of 16 MiB of spaces",
            file(&format!("{{{}", " ".repeat((16 << 20) - 1)), b""),
            &["not valid JSON"],
        ),
        case("metadata of numbers", file(r#"{"__metadata__":{"a":1}}"#, b""), &["metadata", "string"]),
        case(
            "data cut",
            one(r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#, &[0; 9]),
            &["ends inside its data", "cut short"],
        ),
        case("data too long", one(TWO, &[0; 3]), &["goes on after its last tensor"]),
    ]
}

fn bad_entries() -> Vec<Case> {
    let case = |name, bytes, words| Case { name, bytes, kind: ErrorKind::File, words };
    let far = u64::MAX;
    vec![
        case(
            "unknown dtype",
            one(r#"{"dtype":"F99","shape":[1],"data_offsets":[0,2]}"#, &[0; 2]),
            &["(w)", "F99"],
        ),
        case("no dtype", one(r#"{"shape":[1],"data_offsets":[0,2]}"#, &[0; 2]), &["(w)", "dtype"]),
        case(
            "two dtypes",
            one(r#"{"dtype":"F16","dtype":"F16","shape":[1],"data_offsets":[0,2]}"#, &[0; 2]),
            &["duplicate field"],
        ),
        case(
            "negative size",
            one(r#"{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}"#, &[0; 2]),
            &["(w)", "-1"],
        ),
        case(
            "fractional size",
            one(r#"{"dtype":"F16","shape":[1.5],"data_offsets":[0,2]}"#, &[0; 2]),
            &["(w)", "1.5"],
        ),
        case("null for a tensor", one("null", &[]), &["(w)", "null"]),
        case(
            "size overflow",
            one(&format!(r#"{{"dtype":"F16","shape":[{far},{far}],"data_offsets":[0,2]}}"#), &[0; 2]),
            &["impossible size", "(w)"],
        ),
        case(
            "a terabyte of shape",
            one(r#"{"dtype":"F32","shape":[262144,1048576],"data_offsets":[0,1099511627776]}"#, &[0; 2]),
            &["ends inside its data"],
        ),
        case(
            "shape unlike offsets",
            one(r#"{"dtype":"F16","shape":[3],"data_offsets":[0,2]}"#, &[0; 2]),
            &["offsets do not fit", "6 bytes for F16 [3]", "0 to 2"],
        ),
        case(
            "offsets reversed",
            one(r#"{"dtype":"F16","shape":[1],"data_offsets":[2,0]}"#, &[0; 2]),
            &["offsets do not fit"],
        ),
        case(
            "offset overflow",
            one(&format!(r#"{{"dtype":"F16","shape":[1],"data_offsets":[{},{far}]}}"#, far - 2), &[0; 2]),
            &["gap"],
        ),
        case(
            "half bytes",
            one(r#"{"dtype":"F4","shape":[1],"data_offsets":[0,0]}"#, &[]),
            &["impossible size", "F4 [1]"],
        ),
        case(
            "overlap",
            file(
                &format!(r#"{{"a":{TWO},"b":{{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}}}"#),
                &[0; 4],
            ),
            &["overlap", "(b)"],
        ),
        case(
            "gap",
            file(
                &format!(r#"{{"a":{TWO},"b":{{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}}}"#),
                &[0; 6],
            ),
            &["gap", "(b)", "offset 2", "4"],
        ),
    ]
}

/// Sound files that hold something else than a checkpoint.
fn other_models() -> Vec<Case> {
    let case =
        |name, names: &[&str], words| Case { name, bytes: named(names), kind: ErrorKind::Model, words };
    vec![
        case("no tensors", &[], &["without tensors"]),
        case(
            "LoRA",
            &["lora_unet_down_blocks_0_attn1_to_q.lora_up.weight"],
            &["a LoRA", "pass the checkpoint"],
        ),
        case("ControlNet", &["control_model.input_blocks.0.0.weight"], &["ControlNet"]),
        case("embedding", &["emb_params"], &["textual-inversion"]),
        case("Flux", &["model.diffusion_model.double_blocks.0.img_mlp.0.weight"], &["Flux"]),
        case(
            "diffusers UNet",
            &["down_blocks.0.resnets.0.conv1.weight"],
            &["incomplete part", "diffusers layout", "single-file"],
        ),
        case(
            "VAE",
            &["encoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"],
            &["VAE without a UNet", "as VAE or text encoder"],
        ),
        case(
            "text encoder",
            &["text_model.encoder.layers.0.mlp.fc1.weight"],
            &["text encoder without a UNet", "as VAE or text encoder"],
        ),
        case("language model", &["model.layers.0.mlp.up_proj.weight"], &["language model"]),
        case("a UNet's beginning", &["input_blocks.0.0.weight"], &["incomplete UNet"]),
        case("something else", &["conv1", "conv2"], &["2 tensors such as conv1, conv2"]),
        case(
            "scaled f8",
            &["model.diffusion_model.input_blocks.0.0.weight", "scaled_fp8"],
            &["quantised with scales"],
        ),
        case(
            "f8 with scales",
            &["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.scale_weight"],
            &["quantised with scales", "out.2.scale_weight"],
        ),
        case(
            "EDM",
            &["model.diffusion_model.input_blocks.0.0.weight", "edm_mean"],
            &["not supported", "Playground"],
        ),
        case("EMA alone", &["model_ema.diffusion_modelinput_blocks00weight"], &["EMA copy without"]),
        case(
            "video",
            &["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight"],
            &["video model"],
        ),
        case(
            "a UNet of scalars",
            &["model.diffusion_model.input_blocks.0.0.weight"],
            &["time_embed.0.weight", "missing"],
        ),
    ]
}

fn load(path: &Path) -> Result<ModelConfig, Error> {
    ModelConfig::infer(&Checkpoint::open(path)?)
}

/// The time that this thread has had a core, which Linux tells; elsewhere the time by the clock. What
/// else the machine does meanwhile is not the reader's time, and tests run beside each other.
fn time(since: Instant) -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = text.and_then(|t| t.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

/// The outcome and the time of a load.
fn timed_load(path: &Path) -> (Result<ModelConfig, Error>, Duration) {
    let now = Instant::now();
    let before = time(now);
    let outcome = load(path);
    (outcome, time(now).saturating_sub(before))
}

/// What is wrong with the outcome, if anything.
fn judge(
    case: &str,
    path: &Path,
    kind: ErrorKind,
    words: &[&str],
    outcome: Result<ModelConfig, Error>,
) -> Option<String> {
    let Err(error) = outcome else { return Some(format!("{case}: accepted")) };
    let text = error.to_string();
    let name = path.file_name().unwrap().to_string_lossy();
    let absent: Vec<&str> = words.iter().copied().chain([&*name]).filter(|w| !text.contains(w)).collect();
    let right = error.kind() == kind && absent.is_empty() && text.len() < 700;
    (!right).then(|| format!("{case}: {:?} lacks {absent:?}: {text}", error.kind()))
}

#[test]
fn malformed_files_fail_fast_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let cases: Vec<Case> =
        [not_safetensors(), bad_frames(), bad_entries(), other_models()].into_iter().flatten().collect();
    let mut failures = Vec::new();
    let mut slowest = (Duration::ZERO, "");
    for case in &cases {
        let path = dir.path().join("model.safetensors");
        fs::write(&path, &case.bytes).unwrap();
        let (outcome, took) = timed_load(&path);
        slowest = slowest.max((took, case.name));
        if took > LIMIT {
            failures.push(format!("{}: took {took:?}", case.name));
        }
        failures.extend(judge(case.name, &path, case.kind, case.words, outcome));
    }
    assert!(cases.len() >= 45, "{} cases", cases.len());
    println!("{} malformed files; slowest: {:?} for \"{}\"", cases.len(), slowest.0, slowest.1);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn paths_that_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str, inside: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        if !inside.is_empty() {
            fs::write(path.join(inside), b"{}").unwrap();
        }
        path
    };
    let mut cases: Vec<(PathBuf, &[&str])> = vec![
        (dir.path().join("absent.safetensors"), &["cannot open", "check the path"]),
        (folder("plain", ""), &["a folder", "pass the file itself"]),
        (folder("models", "sd15.safetensors"), &["a folder", "sd15.safetensors"]),
    ];
    #[cfg(unix)]
    {
        // Unreadable for every user, root included.
        let path = dir.path().join("loop.safetensors");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        cases.push((path, &["cannot open"]));
        let path = dir.path().join("socket");
        std::os::unix::net::UnixListener::bind(&path).unwrap();
        cases.push((path, &["not a regular file"]));
    }
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(path, words)| {
            judge(&path.display().to_string(), path, ErrorKind::File, words, load(path))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Sound files whose tensors cannot be used.
#[test]
fn unusable_weights_are_named() {
    let f32s = |values: [f32; 3]| values.map(f32::to_le_bytes).concat();
    let entry = r#"{"dtype":"F32","shape":[3,1],"data_offsets":[0,12]}"#;
    let nan = one(entry, &f32s([1.0, f32::NAN, 2.0]));
    let inf = one(entry, &f32s([1.0, 2.0, f32::NEG_INFINITY]));
    let big = one(r#"{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}"#, &1e300f64.to_le_bytes());
    let int = one(r#"{"dtype":"I64","shape":[1,1],"data_offsets":[0,8]}"#, &[0; 8]);
    let none = one(r#"{"dtype":"F16","shape":[0,4],"data_offsets":[0,0]}"#, &[]);
    type Row = (&'static str, Vec<u8>, &'static [usize], &'static [&'static str]);
    let cases: [Row; 9] = [
        ("NaN", nan, &[3, 1], &["w element 1", "NaN"]),
        ("infinity", inf.clone(), &[3, 1], &["w element 2", "-inf"]),
        ("beyond f32", big, &[1, 1], &["w element 0", "inf"]),
        ("integers", int, &[1, 1], &["(w)", "I64", "floating point"]),
        ("extra dimension", inf.clone(), &[3], &["(w)", "expected [3]", "found [3, 1]"]),
        ("missing dimension", inf.clone(), &[3, 1, 1, 1], &["(w)", "expected [3, 1, 1, 1]", "found [3, 1]"]),
        ("wrong size", inf.clone(), &[4, 1], &["(w)", "expected [4, 1]", "found [3, 1]"]),
        ("transposed", inf, &[1, 3], &["(w)", "expected [1, 3]", "found [3, 1]"]),
        ("no elements", none, &[2, 4], &["(w)", "expected [2, 4]", "found [0, 4]"]),
    ];
    let mut failures = Vec::new();
    for (case, bytes, shape, words) in cases {
        let model = Checkpoint::from_bytes("weights", bytes).unwrap();
        let outcome = model.read_f32("w", shape).map(|_| unreachable!("{case} was read"));
        failures.extend(judge(case, Path::new("weights"), ErrorKind::Model, words, outcome));
        let missing = model.read_f32("v", &[1]).map(|_| unreachable!());
        failures.extend(judge(
            case,
            Path::new("weights"),
            ErrorKind::Model,
            &["missing", "(v)", "w as the nearest"],
            missing,
        ));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Checkpoints whose parts do not make a network.
#[test]
fn networks_that_do_not_fit_together() {
    let sound = Manifest::parse(include_str!("../golden/manifests/tiny-sd1.json")).unwrap();
    let unet = "model.diffusion_model.";
    type Edit = Box<dyn Fn(&mut Manifest)>;
    let reshape = |name: String, shape: &[usize]| -> Edit {
        let shape = shape.to_vec();
        Box::new(move |m| m.tensors.iter_mut().find(|(n, _)| *n == name).unwrap().1 = shape.clone())
    };
    let remove = |part: String| -> Edit { Box::new(move |m| m.tensors.retain(|(n, _)| !n.contains(&part))) };
    let add = |name: String, shape: &[usize]| -> Edit {
        let shape = shape.to_vec();
        Box::new(move |m| m.tensors.push((name.clone(), shape.clone())))
    };
    let cases: Vec<(&str, Edit, &[&str])> = vec![
        ("no VAE", remove("first_stage_model.".into()), &["has no VAE", "pass a VAE"]),
        ("no text encoder", remove("cond_stage_model.".into()), &["no text encoder"]),
        ("a block left out", remove(format!("{unet}input_blocks.3.")), &["input_blocks.3", "input_blocks.4"]),
        ("a layer left out", remove("encoder.layers.0.".into()), &["encoder.layers.0", "encoder.layers.1"]),
        (
            "last output block left out",
            remove(format!("{unet}output_blocks.5.")),
            &["output blocks", "6", "5"],
        ),
        ("an upsampling left out", remove("output_blocks.1.1.conv".into()), &["output_blocks.2", "halvings"]),
        (
            "a skip convolution left out",
            remove("input_blocks.3.0.skip_connection".into()),
            &["input_blocks.3.0.skip_connection"],
        ),
        (
            "second half of the middle left out",
            remove("middle_block.2.".into()),
            &["middle_block.2", "missing"],
        ),
        (
            "an unknown part",
            add(format!("{unet}output_blocks.5.2.conv.weight"), &[64, 64, 3, 3]),
            &["known parts", "output_blocks.5"],
        ),
        (
            "6 input channels",
            reshape(format!("{unet}input_blocks.0.0.weight"), &[64, 6, 3, 3]),
            &["unknown kind of input", "6"],
        ),
        (
            "3 output channels",
            reshape(format!("{unet}out.2.weight"), &[3, 64, 3, 3]),
            &["UNet and VAE do not fit"],
        ),
        (
            "a matrix as the first convolution",
            reshape(format!("{unet}input_blocks.0.0.weight"), &[64, 4]),
            &["input_blocks.0.0.weight", "4 dimensions"],
        ),
        (
            "an empty first convolution",
            reshape(format!("{unet}input_blocks.0.0.weight"), &[64, 0, 3, 3]),
            &["none empty"],
        ),
        (
            "a wider convolution",
            reshape(format!("{unet}input_blocks.1.0.in_layers.2.weight"), &[64, 96, 3, 3]),
            &["input_blocks.1.0.in_layers.2", "64 input channels", "96"],
        ),
        (
            "a wider context",
            reshape(format!("{unet}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"), &[64, 80]),
            &["transformers of the UNet differ"],
        ),
        (
            "one linear projection",
            reshape(format!("{unet}middle_block.1.proj_in.weight"), &[256, 256]),
            &["transformers of the UNet differ", "matrices"],
        ),
        (
            "a time embedding of another width",
            reshape(format!("{unet}time_embed.0.weight"), &[320, 64]),
            &["emb_layers.1.weight", "[64, 320]"],
        ),
        (
            "an adm vector",
            add(format!("{unet}label_emb.0.0.weight"), &[256, 100]),
            &["extra conditioning", "100 values"],
        ),
        (
            "a text encoder of another width",
            Box::new(|m| {
                for (_, shape) in m.tensors.iter_mut().filter(|(n, _)| n.starts_with("cond_stage_model.")) {
                    shape.iter_mut().filter(|size| **size == 64).for_each(|size| *size = 128);
                }
            }),
            &["text encoder and UNet do not fit", "64 values", "128"],
        ),
        (
            "a vocabulary too small",
            reshape(
                "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight".into(),
                &[1000, 64],
            ),
            &["token_embedding", "at least 49408", "1000"],
        ),
        (
            "a middle without transformer blocks",
            remove("middle_block.1.transformer_blocks".into()),
            &["middle_block", "transformer"],
        ),
        (
            "a fourth part of the middle",
            add(format!("{unet}middle_block.3.weight"), &[1]),
            &["middle_block", "3 known parts", "4"],
        ),
        (
            "a VAE attention",
            add("first_stage_model.encoder.down.2.attn.0.q.weight".into(), &[64, 64, 1, 1]),
            &["attention outside its middle"],
        ),
        (
            "a VAE of another depth",
            remove("decoder.up.3.".into()),
            &["first_stage_model.decoder.up", "4 levels", "3"],
        ),
    ];
    let mut failures = Vec::new();
    for (case, edit, words) in cases {
        let mut manifest = sound.clone();
        edit(&mut manifest);
        let model = Checkpoint::synthetic(&manifest, 0, Dtype::F16).unwrap();
        failures.extend(judge(case, model.file(), ErrorKind::Model, words, ModelConfig::infer(&model)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Random damage to a small sound file: any result, but no panic and no delay.
#[test]
fn damaged_bytes_never_panic() {
    let sound = file(
        &format!(
            r#"{{"__metadata__":{{"a":"b"}},"a.w":{TWO},"b":{{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]}}}}"#
        ),
        &[0; 10],
    );
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = sound.clone();
        for _ in 0..=random(3) {
            if bytes.is_empty() {
                break;
            }
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = b"0123456789-.{}[],:\"\\"[random(20)],
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        // Each file is tiny; leaking them is how they live as long as an embedded model.
        if let Ok(model) = Checkpoint::from_bytes("damaged", bytes) {
            accepted += 1;
            for name in model.names() {
                let shape = model.tensor(name).unwrap().shape.clone();
                let _ = model.read_f32(name, &shape);
                let _ = model.rows_f32(name, &[0]);
            }
            assert!(ModelConfig::infer(&model).is_err());
        }
    }
    assert!(accepted > 100, "the damage is too heavy to test anything: {accepted}");
}
