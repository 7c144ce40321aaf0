//! Learned vectors in prompts: where they go, what they weigh, which files are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::{Failures, gpu, safetensors, synthetic};
use sagittal::Size;
use sagittal::internals::folder::Folder;
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::ModelConfig;
use sagittal::internals::model::config::{TextConfig, Tower};
use sagittal::internals::text::embedding_files::{EmbeddingSources, Learned};
use sagittal::internals::text::prompt::chunks_with;
use sagittal::internals::text::tokenizer::{END, START, VOCABULARY};
use sagittal::internals::text::{Embeddings, Tokenizer, Vectors};
use sagittal::{Checkpoint, ErrorKind, Lora, LoraUse, Model, ModelOptions, Request, Result, embedded};

/// Writes a file of F32 tensors.
fn write(folder: &Path, name: &str, tensors: &[(&str, &[usize], &[f32])]) {
    fs::write(folder.join(name), safetensors(tensors.iter().copied())).expect("a file");
}

/// The model's own vectors of `words`, one token each, for text encoder `i`.
fn own_vectors(model: &Checkpoint, text: &TextConfig, words: &str) -> Vec<f32> {
    let table = match text.tower {
        Tower::L => "embeddings.token_embedding.weight",
        _ => "token_embedding.weight",
    };
    let ids: Vec<usize> = Tokenizer::new().encode(words).iter().map(|id| *id as usize).collect();
    model.rows_f32(&format!("{}{table}", text.prefix), &ids).expect("rows")
}

fn with_folder(checkpoint: Checkpoint, folder: &Path) -> Option<Model> {
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let mut model = Model::new(gpu()?, checkpoint, options).expect("a model");
    model.set_embedding_folder(Some(Folder::open(folder).expect("a folder")));
    Some(model)
}

/// For each family: files that hold the vectors of words stand for those words.
#[test]
fn a_words_own_vectors_are_the_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = |name: &str| match name {
        "embedded" => embedded::checkpoint().expect("embedded"),
        family => synthetic(family),
    };
    let mut failures = Failures::default();
    for family in ["embedded", "tiny-sd2", "tiny-sdxl"] {
        let Some(model) = with_folder(checkpoint(family), folder.path()) else { return };
        let texts = &model.config().text;
        let keys: &[&str] = match (family, texts.len()) {
            ("embedded", _) => &["emb_params"],
            (_, 1) => &["anything"],
            _ => &["clip_l", "clip_g"],
        };
        for (file, words) in [("one", "fox"), ("two", "red fox"), ("many", "a b c d e f g h i j")] {
            let vectors: Vec<_> = texts.iter().map(|t| own_vectors(model.checkpoint(), t, words)).collect();
            let shapes: Vec<_> =
                vectors.iter().zip(texts).map(|(v, t)| [v.len() / t.width, t.width]).collect();
            let tensors: Vec<_> =
                (0..keys.len()).map(|i| (keys[i], &shapes[i][..], &vectors[i][..])).collect();
            write(folder.path(), &format!("{file}.safetensors"), &tensors);
        }
        // A vector alone may come without its second dimension.
        let vectors: Vec<_> = texts.iter().map(|t| own_vectors(model.checkpoint(), t, "fox")).collect();
        let flat: Vec<_> = (0..keys.len()).map(|i| (keys[i], [texts[i].width], &vectors[i][..])).collect();
        let flat: Vec<_> = flat.iter().map(|(key, shape, values)| (*key, &shape[..], *values)).collect();
        write(folder.path(), "fl.at.safetensors", &flat);

        let encode = |prompt: &str| {
            model.encode_text(prompt, None, texts.len() > 1, &AtomicBool::new(false)).expect("an encoding")
        };
        let filler = "word ".repeat(70);
        let cases = [
            ("a embedding:one in snow", "a fox in snow"),
            ("embedding:fl.at", "fox"),
            ("a embedding:one.safetensors", "a fox"),
            ("a embedding:two, snow", "a red fox, snow"),
            ("a (embedding:two:1.3) snow", "a (red fox:1.3) snow"),
            ("((embedding:one))", "((fox))"),
            ("embedding:one embedding:one", "fox fox"),
            ("(embedding:none:2) fox", "fox"),
        ];
        for (with, words) in cases {
            let (got, want) = (encode(with), encode(words));
            failures.check(got.context == want.context && got.pooled == want.pooled, || {
                format!("{family}: {with:?} is not {words:?}")
            });
        }
        // Eight and more are cut at the end of a chunk, fewer move to the next.
        let long = encode(&format!("{filler}(embedding:many:1)"));
        failures.check(long.tokens == 154, || format!("{family}: {} tokens", long.tokens));
        let same = long.context == encode(&format!("{filler}(a b c d e f g h i j:1)")).context;
        failures.check(same, || format!("{family}: a long embedding at the end of a chunk"));
        let missing = encode("(embedding:none:2) fox").missing_embeddings;
        failures.check(missing.first().is_some_and(|n| n == "none"), || format!("{missing:?}"));
        let report = model.report(&Request::new(format!("{filler}(embedding:many:1)"), Size::square(64)));
        failures.check(report.is_ok(), || format!("{family}: {report:?}"));
    }
    failures.finish();
}

/// Vectors by name, in memory.
#[derive(Debug)]
struct Known(&'static [(&'static str, usize)]);

impl Vectors for Known {
    fn find(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        Ok(found.map(|(_, n)| (0..*n).map(|i| vec![i as f32]).collect()))
    }
}

#[test]
fn vectors_take_the_place_of_tokens() {
    let known = Known(&[("a", 2), ("b,", 1), ("c", 7), ("d", 8)]);
    let tokens =
        |text: &str| chunks_with(&Tokenizer::new(), text, 0, Embeddings::Found(&known)).expect("tokens");
    const V: u32 = VOCABULARY;
    let cases: [(&str, &[u32], usize); 5] = [
        ("embedding:a", &[START, V, V + 1, END], 2),
        ("embedding:a, embedding:a", &[START, V, V + 1, 267, V + 2, V + 3, END], 4),
        // The name with its comma is tried first.
        ("embedding:b, cat", &[START, V, 2368, END], 1),
        ("cat embedding:x, cat", &[START, 2368, 267, 2368, END], 0),
        ("embedding: cat dog", &[START, 1929, END], 0),
    ];
    for (text, ids, vectors) in cases {
        let got = tokens(text);
        assert_eq!(&got.chunks[0].ids[..ids.len()], ids, "{text}");
        assert_eq!(got.vectors.len(), vectors, "{text}");
    }
    let weighed = tokens("(embedding:a:0.5) cat").chunks;
    assert_eq!(weighed[0].weights[..4], [1.0, 0.5, 0.5, 1.0]);
    let filler = "cat ".repeat(70);
    let words = |text: &str| -> Vec<usize> {
        let count = |ids: &[u32]| ids.iter().position(|id| *id == END).expect("an end") - 1;
        tokens(text).chunks.iter().map(|c| count(&c.ids)).collect()
    };
    assert_eq!(words(&format!("{filler} embedding:c")), [70, 7]);
    assert_eq!(words(&format!("{filler} embedding:d")), [75, 3]);
}

#[test]
fn bad_embeddings_are_refused_with_reasons() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).expect("a folder");
    let ones = vec![1.0; 2048];
    let nan = vec![f32::NAN; 64];
    write(folder.path(), "outside.safetensors", &[("emb_params", &[1, 64], &ones[..64])]);
    write(&inside, "wide.safetensors", &[("emb_params", &[2, 768], &ones[..1536])]);
    write(&inside, "none.safetensors", &[("emb_params", &[0, 64], &[])]);
    write(&inside, "deep.safetensors", &[("emb_params", &[1, 1, 64], &ones[..64])]);
    write(&inside, "nan.safetensors", &[("emb_params", &[1, 64], &nan)]);
    write(&inside, "two.safetensors", &[("a", &[1, 64], &ones[..64]), ("b", &[1, 64], &ones[..64])]);
    write(&inside, "no-tensors.safetensors", &[]);
    write(
        &inside,
        "other.safetensors",
        &[("clip_g", &[1, 64], &ones[..64]), ("clip_h", &[1, 64], &ones[..64])],
    );
    fs::write(inside.join("pickle.pt"), "PK").expect("a file");
    fs::write(inside.join("pickle2.bin"), "PK").expect("a file");
    fs::write(inside.join("junk.safetensors"), "not a file of tensors").expect("a file");
    let model = synthetic("tiny-sd1");
    let config = sagittal::internals::model::ModelConfig::infer(&model).expect("a family");
    let inside = Folder::open(&inside).expect("a folder");
    let places = EmbeddingSources { folders: vec![inside.clone()], ..EmbeddingSources::default() };
    let learned = Learned::new(&places, &config.text, 0);

    let mut failures = Failures::default();
    let absolute = folder.path().join("outside").display().to_string();
    let cases = [
        ("../outside", ErrorKind::Usage, "not a name in the folder"),
        (absolute.as_str(), ErrorKind::Usage, "not a name in the folder"),
        ("a/../../outside", ErrorKind::Usage, "not a name in the folder"),
        ("nul\0", ErrorKind::Usage, "not a name in the folder"),
        ("pickle", ErrorKind::File, "convert it"),
        ("pickle.pt", ErrorKind::File, "convert it"),
        ("pickle2", ErrorKind::File, "weights_only=True"),
        ("junk", ErrorKind::File, "safetensors"),
        ("wide", ErrorKind::Model, "made for SD 1"),
        ("wide", ErrorKind::Model, "vectors of 64 values for clip_l, found [2, 768]"),
        ("none", ErrorKind::Model, "[0, 64]"),
        ("nan", ErrorKind::Model, "not a finite number"),
        ("two", ErrorKind::Model, "2 tensors such as a, b"),
        ("no-tensors", ErrorKind::Model, "0 tensors"),
        ("other", ErrorKind::Model, "a tensor clip_l"),
    ];
    for (name, kind, word) in cases {
        match learned.find(name) {
            Ok(found) => failures.check(false, || format!("{name}: {}", found.is_some())),
            Err(e) => failures.check(e.kind() == kind && e.to_string().contains(word), || {
                format!("{name:?}: {:?} {e}", e.kind())
            }),
        }
    }
    for missing in ["nothing", "junk.safetensor", "inside", "sub/name", "."] {
        let found = learned.find(missing);
        let refused = found.as_ref().is_err_and(|e| e.kind() == ErrorKind::Usage);
        failures.check(refused == (missing == ".") && !found.is_ok_and(|f| f.is_some()), || missing.into());
    }
    failures.check(Folder::open(folder.path().join("outside.safetensors")).is_err(), || {
        "a file as folder".into()
    });
    failures.check(Folder::open(folder.path().join("nowhere")).is_err(), || "no folder".into());
    let near = inside.missing("LoRA", "zzzzzzzzz").to_string();
    failures.check(near.contains("such as deep"), || near.clone());
    let near = inside.missing("LoRA", "wid").to_string();
    failures.check(near.contains("did you mean wide?"), || near.clone());

    failures.finish();
}

fn case(name: &str) -> PathBuf {
    crate::common::root().join("tests/model_files/embeddings").join(name)
}

/// What the encoders of a small family get for `embedding:name`, by the number of vectors; None where nothing has
/// that name.
fn found(family: &str, places: &EmbeddingSources, name: &str) -> Vec<Option<usize>> {
    let config = ModelConfig::infer(&synthetic(family)).expect("a family");
    let find = |i: usize| {
        let vectors =
            Learned::new(places, &config.text, i).find(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        vectors.map(|vectors| {
            assert!(vectors.iter().all(|v| v.len() == config.text[i].width), "{name}");
            vectors.len()
        })
    };
    (0..config.text.len()).map(find).collect()
}

/// Files as trainers write them; SDXL's first encoder is as wide as SD 1's, and takes its embeddings.
#[test]
fn embeddings_of_every_form_serve_the_encoders_that_they_fit() {
    let places = EmbeddingSources {
        folders: vec![Folder::open(case("")).expect("a folder")],
        ..EmbeddingSources::default()
    };
    let mut failures = Failures::default();
    for name in ["plain", "EasyNeg", "a1111x", "dim3", "f16", "name.v1.2", "str2par", "token", "xl_lonly"] {
        let (one, two) = (found("tiny-sd1", &places, name), found("tiny-sdxl", &places, name));
        failures.check(one == [Some(3)] && two == [Some(3), Some(0)], || format!("{name}: {one:?} {two:?}"));
    }
    for name in ["xl", "xl_old"] {
        let two = found("tiny-sdxl", &places, name);
        failures.check(two == [Some(3), Some(3)], || format!("{name}: {two:?}"));
    }
    failures.check(found("tiny-sd1", &places, "one") == [Some(1)], || "one".into());
    failures.check(found("tiny-sd1", &places, "easyneg") == [None], || "another case".into());
    let why = places.missing("easyneg");
    failures.check(why.contains("did you mean EasyNeg?"), || why.clone());
    failures.finish();
}

#[test]
fn an_embedding_in_a_folder_below_is_found_by_its_name() {
    let places = EmbeddingSources {
        folders: vec![Folder::open(case("")).expect("a folder")],
        ..EmbeddingSources::default()
    };
    for name in ["deep", "sub/deep", "sub\\deep", "deep.safetensors"] {
        assert_eq!(found("tiny-sd1", &places, name), [Some(3)], "{name}");
    }
    let why = places.missing("dep");
    assert!(why.contains("did you mean sub/deep?"), "{why}");
}

#[test]
fn an_embedding_bundled_in_a_lora_is_found() {
    let lora = |name: &str| Arc::new(Lora::open(case(name)).expect("a LoRA"));
    let places = EmbeddingSources { loras: vec![lora("bundle.safetensors")], ..EmbeddingSources::default() };
    assert_eq!(found("tiny-sd1", &places, "foo"), [Some(3)]);
    assert_eq!(found("tiny-sd1", &places, "bundle"), [None]);
    let places =
        EmbeddingSources { loras: vec![lora("bundlexl.safetensors")], ..EmbeddingSources::default() };
    assert_eq!(found("tiny-sdxl", &places, "foo"), [Some(3), Some(3)]);
    assert!(places.missing("fo").contains("the LoRAs hold foo"));

    // In a folder of embeddings it is a LoRA, and the error says so.
    let places = EmbeddingSources {
        folders: vec![Folder::open(case("")).expect("a folder")],
        ..EmbeddingSources::default()
    };
    let config = ModelConfig::infer(&synthetic("tiny-sd1")).expect("a family");
    let e = Learned::new(&places, &config.text, 0).find("bundle").map(drop).unwrap_err();
    assert!(e.to_string().contains("use it as a LoRA"), "{e}");

    // A model with the LoRA draws by it, and without it no longer.
    let Some(gpu) = gpu() else { return };
    let options = ModelOptions { precision: Some(Precision::F32), ..Default::default() };
    let mut model = Model::new(gpu, synthetic("tiny-sd1"), options).expect("a model");
    let encode = |model: &Model| {
        model.encode_text("a embedding:foo fox", None, false, &AtomicBool::new(false)).expect("an encoding")
    };
    assert_eq!(encode(&model).missing_embeddings, ["foo"]);
    let text_off = LoraUse { lora: lora("bundle.safetensors"), unet: 1.0, text: 0.0 };
    model.set_loras(&[text_off]).expect("it fits");
    let with = encode(&model);
    assert!(with.missing_embeddings.is_empty());
    model.set_loras(&[]).expect("nothing");
    let without = encode(&model);
    assert_eq!(without.missing_embeddings, ["foo"]);
    assert_ne!(with.context, without.context);
}

/// The word is left out for the second encoder, whose tokens are as if it were not there.
#[test]
fn an_embedding_of_one_encoder_leaves_the_other_as_it_is() {
    let Some(model) = with_folder(synthetic("tiny-sdxl"), &case("")) else { return };
    let encode =
        |prompt: &str| model.encode_text(prompt, None, true, &AtomicBool::new(false)).expect("an encoding");
    let (with, without) = (encode("a embedding:xl_lonly fox"), encode("a fox"));
    assert_eq!(with.embeddings_elsewhere, ["xl_lonly"]);
    assert!(with.missing_embeddings.is_empty());
    let [l, g] = [0, 1].map(|i| model.config().text[i].width);
    let second = |e: &sagittal::internals::text::encode::Encoding| -> Vec<f32> {
        e.context.chunks_exact(l + g).flat_map(|token| token[l..].to_vec()).collect()
    };
    assert_eq!(second(&with), second(&without));
    assert_ne!(with.context, without.context);
}

/// Vectors of one encoder may need a chunk more than the other's, which is then filled up with an empty prompt.
#[test]
fn an_embedding_longer_for_one_encoder_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(model) = with_folder(synthetic("tiny-sdxl"), folder.path()) else { return };
    let [l, g] = [0, 1].map(|i| model.config().text[i].width);
    let ones = vec![1.0; 3 * g];
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("clip_l", &[2, l], &ones[..2 * l]), ("clip_g", &[3, g], &ones[..3 * g])];
    write(folder.path(), "uneven.safetensors", &tensors);
    let encode =
        |prompt: &str| model.encode_text(prompt, None, true, &AtomicBool::new(false)).expect("an encoding");
    let with = encode(&format!("{} embedding:uneven", "cat ".repeat(73)));
    assert_eq!(with.tokens, 154);
    let empty = encode("");
    let first = |context: &[f32], token: usize| context[token * (l + g)..][..l].to_vec();
    assert_eq!(first(&with.context, 77 + 5), first(&empty.context, 5));
}

/// Names, links and folders: what is found, and what is said of the rest.
#[test]
fn names_are_looked_for_below_their_folder_and_never_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for below in ["a/styles", "b/styles", "deep/deeper/deepest"] {
        fs::create_dir_all(at(below)).expect("a folder");
    }
    let vectors = vec![0.5; 64];
    for file in ["a/styles/ink", "b/styles/ink", "b/chalk", "deep/deeper/deepest/oil"] {
        write(folder.path(), &format!("{file}.safetensors"), &[("emb_params", &[1, 64], &vectors)]);
    }
    let places = Folder::open(folder.path()).expect("a folder");
    let find = |name: &str| places.find(name);
    for (name, file) in [
        ("chalk", "b/chalk"),
        ("oil", "deep/deeper/deepest/oil"),
        ("deepest/oil", "deep/deeper/deepest/oil"),
        ("a/styles/ink", "a/styles/ink"),
        ("b/styles/ink.safetensors", "b/styles/ink"),
    ] {
        assert_eq!(find(name).expect(name), Some(at(&format!("{file}.safetensors"))), "{name}");
    }
    // Not a whole part of the path.
    for name in ["halk", "est/oil", "styles"] {
        assert_eq!(find(name).expect(name), None, "{name}");
    }
    let e = find("ink").unwrap_err();
    assert!(e.kind() == ErrorKind::Usage && e.to_string().contains("a/styles/ink, b/styles/ink"), "{e}");
    let e = find("../oil").unwrap_err();
    assert!(e.kind() == ErrorKind::Usage, "{e}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere/at/all", at("gone.safetensors")).expect("a link");
        let e = find("gone").unwrap_err();
        assert!(e.kind() == ErrorKind::File && e.to_string().contains("a link to nowhere"), "{e}");
        let e = Checkpoint::open(at("gone.safetensors")).map(drop).unwrap_err();
        assert!(e.to_string().contains("nothing at /nowhere/at/all"), "{e}");
        // A link in a circle ends.
        std::os::unix::fs::symlink(folder.path(), at("deep/again")).expect("a link");
        assert_eq!(places.names().iter().filter(|name| name.ends_with("oil")).count(), 1);
    }
}

/// A1111 knows a LoRA by the name it was trained under, too.
#[test]
fn a_lora_is_found_by_the_name_it_was_trained_under() {
    let folder = tempfile::tempdir().expect("a folder");
    let header = r#"{"__metadata__":{"ss_output_name":"ink v2"},"a.lora_down.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(1.0f32.to_le_bytes());
    fs::create_dir(folder.path().join("styles")).expect("a folder");
    let file = folder.path().join("styles/downloaded-77.safetensors");
    fs::write(&file, bytes).expect("a file");
    fs::write(folder.path().join("broken.safetensors"), "not one").expect("a file");
    let places = Folder::open(folder.path()).expect("a folder");
    assert_eq!(Lora::find(&places, "ink v2").expect("found"), Some(file.clone()));
    assert_eq!(Lora::find(&places, "downloaded-77").expect("found"), Some(file));
    assert_eq!(Lora::find(&places, "ink").expect("none"), None);
}
