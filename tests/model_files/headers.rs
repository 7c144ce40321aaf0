//! Headers of safetensors files: what the format's own reader opens opens here, what it refuses is
//! refused. The crate is asked, so that no table can be wrong about it.

use sagittal::ErrorKind;
use sagittal::checkpoint::{Checkpoint, Dtype};

use crate::common::Failures;

/// A safetensors file of this header, its length being right.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// What the format's own reader says.
fn sound(bytes: &[u8]) -> bool {
    safetensors::SafeTensors::read_metadata(bytes).is_ok()
}

fn open(bytes: Vec<u8>) -> sagittal::Result<Checkpoint> {
    Checkpoint::from_bytes("odd.safetensors", bytes)
}

/// A tensor of two bytes.
const W: &str = r#""w":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}"#;

/// Headers in front of two bytes, and whether they are sound.
const TABLE: &[(&str, &str, bool)] = &[
    ("plain", "{W}", true),
    ("metadata of none", r#"{"__metadata__":{},W}"#, true),
    ("metadata null", r#"{"__metadata__":null,W}"#, true),
    ("metadata null behind", r#"{W,"__metadata__":null}"#, true),
    ("metadata with a null inside", r#"{"__metadata__":{"a":null},W}"#, false),
    ("metadata with a number inside", r#"{"__metadata__":{"format":"pt","n":10},W}"#, false),
    ("metadata with a list inside", r#"{"__metadata__":{"a":["b"]},W}"#, false),
    ("metadata that is a text", r#"{"__metadata__":"pt",W}"#, false),
    ("metadata that is a list", r#"{"__metadata__":[],W}"#, false),
    ("metadata twice", r#"{"__metadata__":{},"__metadata__":{},W}"#, false),
    ("metadata twice, once null", r#"{"__metadata__":null,"__metadata__":{},W}"#, false),
    ("metadata under an escaped name", r#"{"\u005f_metadata__":{"a":"b"},W}"#, true),
    ("metadata with a name twice", r#"{"__metadata__":{"a":"b","a":"c"},W}"#, true),
    ("metadata with escapes", r#"{"__metadata__":{"a":"\u0000b\n\ud83e\udd8a"},W}"#, true),
    ("metadata with half a surrogate", r#"{"__metadata__":{"a":"\ud83d"},W}"#, false),
    ("metadata with a raw tab", "{\"__metadata__\":{\"a\":\"b\tc\"},W}", false),
    ("metadata with another script", r#"{"__metadata__":{"ключ":"狐"},W}"#, true),
    ("spaces behind", "{W}      ", true),
    ("line breaks behind", "{W}\n\n\n", true),
    ("spaces before", " \n\t{W}", true),
    ("spaces inside", "{ W }", true),
    ("a zero byte behind", "{W}\0", false),
    ("text behind", "{W} x", false),
    ("a comma behind", "{W,}", false),
    ("a byte order mark", "\u{feff}{W}", false),
    ("a list", "[]", false),
    ("nothing", "", false),
    ("null", "null", false),
    ("a tensor null", r#"{W,"v":null}"#, false),
    ("a tensor that is a text", r#"{W,"v":"w"}"#, false),
    ("a tensor twice", "{W,W}", true),
    (
        "a tensor twice, in another place",
        r#"{W,"w":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#,
        false,
    ),
    ("a tensor as a list", r#"{"w":["F16",[1],[0,2]]}"#, true),
    (
        "a tensor with a member more",
        r#"{"w":{"dtype":"F16","shape":[1],"data_offsets":[0,2],"x":[1,{}]}}"#,
        true,
    ),
    (
        "a tensor with a member twice",
        r#"{"w":{"dtype":"F16","shape":[1],"shape":[1],"data_offsets":[0,2]}}"#,
        false,
    ),
    ("a tensor without a shape", r#"{"w":{"dtype":"F16","data_offsets":[0,2]}}"#, false),
    ("a scalar", r#"{"w":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}"#, true),
    ("no elements", r#"{W,"v":{"dtype":"F32","shape":[0,7],"data_offsets":[2,2]}}"#, true),
    ("no elements in the middle", r#"{W,"v":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}}"#, false),
    (
        "no elements of a huge size",
        r#"{W,"v":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[2,2]}}"#,
        true,
    ),
    (
        "no elements behind a huge product",
        r#"{W,"v":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[2,2]}}"#,
        false,
    ),
    (
        "many dimensions",
        r#"{"w":{"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,2]}}"#,
        true,
    ),
    ("a size with a point", r#"{"w":{"dtype":"F16","shape":[1.0],"data_offsets":[0,2]}}"#, false),
    ("a negative size", r#"{"w":{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}}"#, false),
    ("too few bytes", r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,2]}}"#, false),
    ("an unknown dtype", r#"{"w":{"dtype":"F99","shape":[1],"data_offsets":[0,2]}}"#, false),
    ("a dtype in small letters", r#"{"w":{"dtype":"f16","shape":[1],"data_offsets":[0,2]}}"#, false),
    ("a complex number's dtype", r#"{W,"v":{"dtype":"C64","shape":[0],"data_offsets":[2,2]}}"#, true),
    ("half bytes", r#"{"w":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}"#, true),
    ("half bytes, an odd number", r#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, false),
    ("an empty name", r#"{W,"":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#, true),
    ("a name with a line break", r#"{W,"a\nb":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#, true),
    ("a name with a zero", r#"{W,"a\u0000":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#, true),
    ("a name of another script", r#"{W,"狐.weight":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#, true),
    (
        "a name with half a surrogate",
        r#"{W,"\udc00":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}"#,
        false,
    ),
    ("a gap", r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, false),
    ("no tensors", "{}", false),
    (
        "the order of the names",
        r#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        true,
    ),
];

#[test]
fn what_the_package_opens_opens_here() {
    let mut failures = Failures::default();
    for (case, header, good) in TABLE {
        let bytes = file(&header.replace('W', W), 2);
        assert_eq!(sound(&bytes), *good, "the table is wrong about \"{case}\"");
        match open(bytes) {
            Ok(model) => {
                failures.check(*good, || format!("{case}: accepted"));
                // Names that no network has are left out, and nothing else is.
                let names: Vec<&str> = model.names().collect();
                let plain = |n: &&str| !n.is_empty() && !n.chars().any(char::is_control);
                failures.check(names.iter().all(plain), || format!("{case}: {names:?}"));
                if header.contains('W') {
                    let w = model.read_f32("w", &[1]);
                    failures.check(w.as_deref().is_ok_and(|w| w == [0.0]), || format!("{case}: {w:?}"));
                }
            }
            Err(e) => {
                failures.check(!good, || format!("{case}: {e}"));
                let named = e.kind() == ErrorKind::File && e.to_string().contains("odd.safetensors");
                failures.check(named, || format!("{case}: {:?} {e}", e.kind()));
            }
        }
    }
    failures.finish();
}

/// Of two tensors of one name the last counts, as for the package; they are the same bytes.
#[test]
fn the_last_of_two_tensors_of_a_name_counts() {
    let header = r#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let model = open(file(header, 4)).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["w"]);
    let info = model.tensor("w").unwrap();
    assert_eq!((info.dtype, &info.shape[..]), (Dtype::F32, &[1][..]));
}

/// Metadata of any text, up to the format's 100 MB.
#[test]
fn headers_of_up_to_100_megabytes() {
    let header = |length: usize| {
        let (front, back) = (r#"{"__metadata__":{"notes":""#, format!(r#""}},{W}}}"#));
        format!("{front}{}{back}", "n".repeat(length - front.len() - back.len()))
    };
    for (length, good) in
        [(16 << 20, true), ((16 << 20) + 1, true), (100_000_000, true), (100_000_001, false)]
    {
        let bytes = file(&header(length), 2);
        assert_eq!(sound(&bytes), good, "{length}");
        match open(bytes) {
            Ok(model) => {
                assert!(good, "{length}: accepted");
                assert!(model.metadata()["notes"].len() > length - 200 && model.has("w"), "{length}");
            }
            Err(e) => assert!(!good && e.to_string().contains("at most 100000000 bytes"), "{length}: {e}"),
        }
    }
}

/// Random damage to small files: the package and this reader agree on each.
#[test]
fn both_readers_agree_on_damaged_headers() {
    let whole = [
        format!(
            r#"{{"__metadata__":{{"a":"b"}},{W},"b":{{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]}}}}"#
        ),
        format!(r#"{{"__metadata__":null,{W},{W},"":{{"dtype":"U8","shape":[8],"data_offsets":[2,10]}}}}"#),
    ];
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut header = whole[round % whole.len()].clone().into_bytes();
        for _ in 0..=random(2) {
            let at = random(header.len());
            match random(5) {
                0 => header[at] = b"0123456789-.{}[],:\"\\ \n"[random(22)],
                1 => header[at] = header[random(header.len())],
                2 => drop(header.remove(at)),
                3 => header.insert(at, header[random(header.len())]),
                _ => header.insert(at, b' '),
            }
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(&header);
        bytes.resize(bytes.len() + 10, 0);
        let good = sound(&bytes);
        let opened = open(bytes);
        assert_eq!(opened.is_ok(), good, "{}: {:?}", String::from_utf8_lossy(&header), opened.err());
        if good { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} {refused}");
}
