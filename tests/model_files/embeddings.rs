//! Learned vectors in prompts: where they go, what they weigh, which files are refused.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::{Failures, gpu, safetensors, synthetic};
use sagittal::folder::Folder;
use sagittal::kernels::Precision;
use sagittal::model::config::{TextConfig, Tower};
use sagittal::text::learned::{Learned, Places};
use sagittal::text::prompt::chunks_with;
use sagittal::text::tokenizer::{END, START, VOCABULARY};
use sagittal::text::{Embeddings, Tokenizer, Vectors};
use sagittal::{Checkpoint, ErrorKind, Model, ModelOptions, Request, Result, embedded};

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
        let report = model.report(&Request::new(format!("{filler}(embedding:many:1)"), 64, 64));
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
    let config = sagittal::model::ModelConfig::infer(&model).expect("a family");
    let inside = Folder::open(&inside).expect("a folder");
    let places = Places { folders: vec![inside.clone()], ..Places::default() };
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

    // Two encoders must agree in the number of tokens.
    let Some(model) = with_folder(synthetic("tiny-sdxl"), folder.path()) else { return };
    let (l, g) = (model.config().text[0].width, model.config().text[1].width);
    write(
        folder.path(),
        "uneven.safetensors",
        &[("clip_l", &[2, l], &ones[..2 * l]), ("clip_g", &[3, g], &ones[..3 * g])],
    );
    let filler = "cat ".repeat(73);
    let prompt = format!("{filler} embedding:uneven");
    let e = model.encode_text(&prompt, None, true, &AtomicBool::new(false)).map(drop).unwrap_err();
    failures.check(e.to_string().contains("longer for one text encoder"), || e.to_string());
    failures.finish();
}
