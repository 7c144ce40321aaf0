//! Synthetic weights, rows of a matrix, and the decoding of stored numbers.

use half::{bf16, f16};
use sagittal::ErrorKind;
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};

fn tiny_sd1() -> Manifest {
    Manifest::parse(include_str!("../golden/manifests/tiny-sd1.json")).unwrap()
}

fn synthetic(manifest: &Manifest) -> Checkpoint {
    Checkpoint::synthetic(manifest, 0, Dtype::F16).unwrap()
}

struct Check {
    name: &'static str,
    shape: &'static [usize],
    seed: u64,
    f32s: [f32; 4],
    f16s: [u16; 4],
    /// Flat index, f32 value and f16 bits of elements on a diagonal.
    diagonal: &'static [(usize, f32, u16)],
}

/// The values that the definition of the formula lists.
const CHECKS: [Check; 7] = [
    Check {
        name: "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        shape: &[64, 64],
        seed: 0,
        f32s: [0.219_059_26, -0.328_818_23, 0.292_166_44, -0.030_954_715],
        f16s: [0x3303, 0xb543, 0x34ad, 0xa7ed],
        diagonal: &[],
    },
    Check {
        name: "first_stage_model.decoder.norm_out.weight",
        shape: &[32],
        seed: 0,
        f32s: [0.905_063_4, 1.048_061_6, 0.944_628_24, 1.037_457_7],
        f16s: [0x3b3e, 0x3c31, 0x3b8f, 0x3c26],
        diagonal: &[],
    },
    Check {
        name: "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        shape: &[49_408, 64],
        seed: 0,
        f32s: [0.154_370_55, 0.368_799_03, 0.224_005_34, 0.265_548_7],
        f16s: [0x30f1, 0x35e7, 0x332b, 0x3440],
        diagonal: &[],
    },
    Check {
        name: "model.diffusion_model.time_embed.0.bias",
        shape: &[256],
        seed: 9_223_372_036_854_788_153,
        f32s: [0.037_048_627, 0.022_446_25, 0.196_422_17, -0.046_342_97],
        f16s: [0x28be, 0x25bf, 0x3249, 0xa9ef],
        diagonal: &[],
    },
    Check {
        name: "model.diffusion_model.input_blocks.0.0.weight",
        shape: &[64, 4, 3, 3],
        seed: 0,
        f32s: [0.093_927_04, -0.281_116_78, 0.060_934_085, -0.174_199_79],
        f16s: [0x2e03, 0xb47f, 0x2bcd, 0xb193],
        diagonal: &[(4, 1.994_597_8, 0x3ffa), (148, -1.834_561_1, 0xbf57)],
    },
    Check {
        name: "model.diffusion_model.out.2.weight",
        shape: &[4, 64, 3, 3],
        seed: 0,
        f32s: [-0.056_564_026, 0.049_457_48, -0.038_048_91, -0.052_766_956],
        f16s: [0xab3d, 0x2a55, 0xa8df, 0xaac1],
        diagonal: &[(4, 0.245_505_24, 0x33db), (40, -0.276_094_94, 0xb46b)],
    },
    Check {
        name: "model.diffusion_model.output_blocks.5.0.skip_connection.weight",
        shape: &[64, 128, 1, 1],
        seed: 0,
        f32s: [0.078_572_04, 0.015_175_241, 0.023_155_926, -0.031_318_273],
        f16s: [0x2d07, 0x23c5, 0x25ee, 0xa802],
        diagonal: &[(64, 0.657_867_25, 0x3943), (580, 0.625_295_04, 0x3901)],
    },
];

#[test]
fn synthetic_weights_are_bit_exact() {
    let manifest = tiny_sd1();
    let mut failures = Vec::new();
    for check in CHECKS {
        let read = |dtype| {
            Checkpoint::synthetic(&manifest, check.seed, dtype)
                .unwrap()
                .read_f32(check.name, check.shape)
                .unwrap()
        };
        let (f32s, f16s) = (read(Dtype::F32), read(Dtype::F16));
        let listed = (0..4).map(|i| (i, check.f32s[i], check.f16s[i])).chain(check.diagonal.iter().copied());
        for (i, value, bits) in listed {
            if f32s[i].to_bits() != value.to_bits() || f16::from_f32(f16s[i]).to_bits() != bits {
                failures.push(format!(
                    "{}[{i}]: expected {value}, found {} and {}",
                    check.name, f32s[i], f16s[i]
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn rows_are_those_of_the_whole() {
    let model = synthetic(&tiny_sd1());
    let name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
    let whole = model.read_f32(name, &[49_408, 64]).unwrap();
    let rows = [49_407, 0, 320, 320];
    let expected: Vec<f32> = rows.iter().flat_map(|r| &whole[r * 64..(r + 1) * 64]).copied().collect();
    assert_eq!(model.rows_f32(name, &rows).unwrap(), expected);
    let beyond = model.rows_f32(name, &[49_408]).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Usage);
    assert!(beyond.to_string().contains("below 49408, found 49408"), "{beyond}");
    let vector = model.rows_f32("first_stage_model.decoder.norm_out.weight", &[0]).unwrap_err();
    assert_eq!(vector.kind(), ErrorKind::Model);
}

/// A file of one tensor `w` `[n, 1]`, whose data starts at an odd byte.
fn stored(dtype: &str, elements: usize, data: &[u8]) -> Checkpoint {
    let mut header =
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{elements},1],"data_offsets":[0,{}]}}}}"#, data.len());
    if header.len().is_multiple_of(2) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    Checkpoint::from_bytes(dtype, bytes).unwrap()
}

/// Reads every code of a small float format and compares with the format's definition; codes
/// that are not finite must be refused one by one.
fn check_all_codes(dtype: &str, bits: u32, value: impl Fn(u32) -> f64) {
    let width = bits as usize / 8;
    let codes: Vec<u32> = (0..1 << bits).collect();
    let data =
        |codes: &[u32]| codes.iter().flat_map(|c| c.to_le_bytes()[..width].to_vec()).collect::<Vec<u8>>();
    let (finite, odd): (Vec<u32>, Vec<u32>) = codes.iter().partition(|&&c| value(c).is_finite());
    let read = stored(dtype, finite.len(), &data(&finite)).read_f32("w", &[finite.len(), 1]).unwrap();
    for (&code, &found) in finite.iter().zip(&read) {
        let expected = value(code);
        assert!(
            f64::from(found) == expected && found.is_sign_negative() == expected.is_sign_negative(),
            "{dtype} {code:#x}: expected {expected}, found {found}"
        );
    }
    for code in odd {
        let error = stored(dtype, 2, &data(&[0, code])).read_f32("w", &[2, 1]).unwrap_err();
        assert!(error.to_string().contains("w element 1"), "{dtype} {code:#x}: {error}");
    }
}

/// The value of an IEEE-like code with `e` exponent and `m` mantissa bits; `inf`: the highest
/// exponent is for infinity and NaN.
fn ieee(code: u32, e: u32, m: u32, inf: bool) -> f64 {
    let sign = if code >> (e + m) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (code >> m & ((1 << e) - 1)) as i32;
    let mantissa = f64::from(code & ((1 << m) - 1)) / f64::from(1u32 << m);
    let bias = (1 << (e - 1)) - 1;
    let special = exponent == (1 << e) - 1;
    match exponent {
        _ if special && inf => f64::NAN,
        // E4M3 spends one mantissa on NaN, the others are numbers.
        _ if special && code & ((1 << m) - 1) == (1 << m) - 1 => f64::NAN,
        0 => sign * mantissa * 2f64.powi(1 - bias),
        _ => sign * (1.0 + mantissa) * 2f64.powi(exponent - bias),
    }
}

#[test]
fn every_code_of_the_small_floats() {
    check_all_codes("F8_E4M3", 8, |c| ieee(c, 4, 3, false));
    check_all_codes("F8_E5M2", 8, |c| ieee(c, 5, 2, true));
    check_all_codes("F16", 16, |c| ieee(c, 5, 10, true));
    check_all_codes("BF16", 16, |c| ieee(c, 8, 7, true));
    // The formats' largest numbers, as published.
    assert_eq!((ieee(0x7e, 4, 3, false), ieee(0x7b, 5, 2, true)), (448.0, 57_344.0));
    assert_eq!(f64::from(bf16::MAX.to_f32()), ieee(u32::from(bf16::MAX.to_bits()), 8, 7, true));
}

#[test]
fn wide_floats() {
    let values = [0.0, -0.0, 1.0 / 3.0, -65_504.0, 1e-40, f64::from(f32::MAX), std::f64::consts::PI];
    let f64s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f32s: Vec<u8> = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let expected: Vec<u32> = values.iter().map(|v| (*v as f32).to_bits()).collect();
    for (dtype, data) in [("F64", f64s), ("F32", f32s)] {
        let read = stored(dtype, values.len(), &data).read_f32("w", &[values.len(), 1]).unwrap();
        assert_eq!(read.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected, "{dtype}");
    }
}

#[test]
fn unusable_manifests_are_errors() {
    let listed = |tensors: &str| format!(r#"{{"family":"x","prediction":"eps","tensors":{tensors}}}"#);
    let open =
        |text: &str| Manifest::parse(text).and_then(|m| Checkpoint::synthetic(&m, 0, Dtype::F16)).map(|_| ());
    assert!(open(&listed(r#"[["a",[2,3]]]"#)).is_ok());
    let huge = format!(r#"[["a",[{0},{0}]]]"#, u64::MAX);
    let bad = [r#"[["a",[2]],["a",[2]]]"#, r#"[["a",[]]]"#, r#"[["a",[-1]]]"#, r#"[["a"]]"#, r#"{}"#, &huge];
    for text in bad.map(listed).iter().map(String::as_str).chain(["", "{}", "[]", r#"{"tensors":[]}"#]) {
        assert_eq!(open(text).unwrap_err().kind(), ErrorKind::File, "{text}");
    }
    let error = Checkpoint::synthetic(&tiny_sd1(), 0, Dtype::BF16).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    // A size that no allocator can serve is an error too.
    let model = Manifest::parse(&listed(r#"[["a",[1000000000,1000000000]]]"#)).unwrap();
    let error = synthetic(&model).read_f32("a", &[1_000_000_000, 1_000_000_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
}

#[test]
fn a_file_cut_short_while_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = br#"{"w":{"dtype":"F32","shape":[2048],"data_offsets":[0,8192]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + 8192, 0);
    std::fs::write(&path, &bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.read_f32("w", &[2048]).unwrap().len(), 2048);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = checkpoint.read_f32("w", &[2048]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("shorter"), "{error}");
}
