//! Files as people bring them, each a kind of its own: what it means, computed in f64 from its tensors, against
//! what is merged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::product;
use crate::common::synthetic;
use sagittal::internals::engine::WeightSource;
use sagittal::internals::model::ModelConfig;
use sagittal::lora::{Patched, Patches};
use sagittal::{Checkpoint, Lora, LoraUse};

/// The first cross- and self-attention of the small SD 1 model.
const TO_Q: &str = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight";
/// The same module as most of the files call it.
const KOHYA: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

fn path(name: &str) -> PathBuf {
    crate::common::root().join(format!("tests/model_files/lora/cases/{name}.safetensors"))
}

/// A file of the cases, and the small model that it is for.
struct Case {
    file: Checkpoint,
    model: Checkpoint,
    patches: Patches,
}

impl Case {
    fn open(family: &str, path: &Path) -> Self {
        let model = synthetic(family);
        let config = ModelConfig::infer(&model).expect("a family");
        let lora = Arc::new(Lora::open(path).unwrap_or_else(|e| panic!("{e}")));
        let patches =
            Patches::new(&config, &model, &[LoraUse::new(lora, 1.0)]).unwrap_or_else(|e| panic!("{e}"));
        Self { file: Checkpoint::open(path).expect("the file"), model, patches }
    }

    fn sd1(name: &str) -> Self {
        Self::open("tiny-sd1", &path(name))
    }

    fn read(&self, name: &str) -> Vec<f32> {
        let shape = &self.file.tensor(name).unwrap_or_else(|| panic!("no {name}")).shape;
        self.file.read_f32(name, shape).expect("values")
    }

    /// scale · up · down of a module of the file.
    fn pair(&self, module: &str, [down, up]: [&str; 2], scale: f64) -> Vec<f64> {
        let [down, up] = [down, up].map(|end| self.read(&format!("{module}{end}")));
        product(&up, &down, 4).into_iter().map(|v| scale * v).collect()
    }

    /// The change of a pair under kohya's names, whose alpha is 2 and rank 4.
    fn kohya(&self, module: &str) -> Vec<f64> {
        self.pair(module, [".lora_down.weight", ".lora_up.weight"], 0.5)
    }

    fn before(&self, tensor: &str) -> Vec<f32> {
        self.model.read_f32(tensor, &self.model.tensor(tensor).expect("the tensor").shape).expect("values")
    }

    fn merged(&self, tensor: &str) -> Vec<f32> {
        let shape = &self.model.tensor(tensor).expect("the tensor").shape;
        Patched { checkpoint: &self.model, patches: &self.patches }.read(tensor, shape).expect("merged")
    }

    /// These tensors are changed by so much from the row on, and no others.
    #[track_caller]
    fn adds(&self, changes: &[(&str, Vec<f64>)]) {
        let sums: Vec<(&str, Vec<f64>)> = changes
            .iter()
            .map(|(tensor, change)| {
                let before = self.before(tensor);
                // A third of queries, keys and values is the last one here.
                let start = before.len() - change.len();
                let changed = |(i, v): (usize, &f32)| match i.checked_sub(start) {
                    Some(at) => f64::from(*v) + change[at],
                    None => f64::from(*v),
                };
                (*tensor, before.iter().enumerate().map(changed).collect())
            })
            .collect();
        self.becomes(&sums);
    }

    /// These tensors become so, and no others change.
    #[track_caller]
    fn becomes(&self, truth: &[(&str, Vec<f64>)]) {
        let mut touched: Vec<&str> = self.patches.tensors().collect();
        touched.sort_unstable();
        let mut wanted: Vec<&str> = truth.iter().map(|(tensor, _)| *tensor).collect();
        wanted.sort_unstable();
        assert_eq!(touched, wanted);
        for (tensor, truth) in truth {
            let merged = self.merged(tensor);
            let apart = merged.iter().zip(truth).map(|(m, t)| (f64::from(*m) - t).abs() / t.abs().max(1.0));
            let apart = apart.fold(0.0, f64::max);
            assert!(merged.len() == truth.len() && apart < 4e-7, "{tensor}: off by {apart:e}");
            let moved = merged.iter().zip(self.before(tensor)).any(|(m, b)| (m - b).abs() > 1e-3);
            assert!(moved, "{tensor}: nothing is changed");
        }
    }

    fn warned(&self) -> String {
        self.patches.left_out().join("\n")
    }
}

#[test]
fn a1_alpha_is_a_number_of_any_type() {
    let reference = Case::sd1("a1_f32");
    let in_unet = |name: &str| format!("model.diffusion_model.input_blocks.1.1.{name}.weight");
    let names = [
        TO_Q.to_owned(),
        in_unet("transformer_blocks.0.attn2.to_k"),
        in_unet("proj_in"),
        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight".to_owned(),
    ];
    let modules = [
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
        "lora_unet_down_blocks_0_attentions_0_proj_in",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    ];
    for file in ["a1_f32", "a1_i64", "a1_i32", "a1_bf16", "a1_f16v"] {
        let case = Case::sd1(file);
        let changes: Vec<(&str, Vec<f64>)> =
            names.iter().map(String::as_str).zip(modules.map(|module| reference.kohya(module))).collect();
        case.adds(&changes);
        assert_eq!(case.warned(), "", "{file}");
    }
}

/// The three tensors of SDXL that all files of this name change, with the file's alpha or none.
fn sdxl(case: &Case, modules: [&str; 4], scale: f64) -> Vec<(&'static str, Vec<f64>)> {
    const TENSORS: [&str; 4] = [
        "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
        "conditioner.embedders.1.model.transformer.resblocks.1.mlp.c_fc.weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    ];
    let change = |module| case.pair(module, [".lora_down.weight", ".lora_up.weight"], scale);
    TENSORS.into_iter().zip(modules.map(change)).collect()
}

#[test]
fn a2_kohya_onetrainer_omi_and_comfy_generic() {
    let kohya = [
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_self_attn_v_proj",
    ];
    let omi = [
        "unet.input_blocks.3.1.transformer_blocks.0.attn2.to_k",
        "clip_l.text_model.encoder.layers.1.mlp.fc1",
        "clip_g.text_model.encoder.layers.1.mlp.fc1",
        "clip_g.text_model.encoder.layers.0.self_attn.v_proj",
    ];
    let generic = [
        "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc1",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.self_attn.v_proj",
    ];
    for (file, modules, scale) in
        [("a2_kohya", kohya, 0.5), ("a2_onetrainer_omi", omi, 0.5), ("a2_comfy_generic", generic, 1.0)]
    {
        let case = Case::open("tiny-sdxl", &path(file));
        case.adds(&sdxl(&case, modules, scale));
        assert_eq!(case.warned(), "", "{file}");
    }
}

#[test]
fn a2_comfy_te_only() {
    let case = Case::open("tiny-sdxl", &path("a2_comfy_te_only"));
    let module = "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc1";
    let change = case.pair(module, [".lora_down.weight", ".lora_up.weight"], 1.0);
    case.adds(&[("conditioner.embedders.0.transformer.text_model.encoder.layers.1.mlp.fc1.weight", change)]);
}

/// `.diff` and `w_norm` are added to weights, `.diff_b` and `b_norm` to biases.
#[test]
fn a4_comfy_extract_and_a5_norm() {
    let norm = "model.diffusion_model.input_blocks.1.1.norm";
    let (weight, bias) = (format!("{norm}.weight"), format!("{norm}.bias"));
    for (file, module, own, ends, scale) in [
        (
            "a4_comfy_extract",
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            "diffusion_model.input_blocks.1.1.norm",
            [".diff", ".diff_b"],
            1.0,
        ),
        ("a5_norm", KOHYA, "lora_unet_down_blocks_0_attentions_0_norm", [".w_norm", ".b_norm"], 0.5),
    ] {
        let case = Case::sd1(file);
        let [w, b] = ends.map(|end| case.read(&format!("{own}{end}")).into_iter().map(f64::from).collect());
        let pair = case.pair(module, [".lora_down.weight", ".lora_up.weight"], scale);
        case.adds(&[(TO_Q, pair), (&weight, w), (&bias, b)]);
    }
}

const PEFT: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

/// alpha 16 and rank 4 in the header alone: scale 4.
#[test]
fn a6_meta_diffusers_and_simpletuner() {
    for file in ["a6_meta_diffusers", "a6_meta_simpletuner"] {
        let case = Case::sd1(file);
        case.adds(&[(TO_Q, case.pair(PEFT, [".lora_A.weight", ".lora_B.weight"], 4.0))]);
    }
}

/// The same in `adapter_config.json` beside the file, with rank-stabilised scaling, with exceptions for modules, and
/// where a tensor tells another alpha.
#[test]
fn a6_in_adapter_config_json() {
    let cases = [
        (r#"{"lora_alpha": 16, "r": 4}"#, 4.0),
        (r#"{"lora_alpha": 16, "r": 4, "use_rslora": true}"#, 8.0),
        (
            r#"{"lora_alpha": 16.0, "r": 8, "rank_pattern": {"attn1.to_q": 4}, "alpha_pattern": {"to_q": 2}}"#,
            0.5,
        ),
        (r#"{"lora_alpha": 4, "r": 4, "alpha_pattern": {".*attn1.to_q": 8}}"#, 2.0),
        (r#"{"lora_alpha": 4, "r": 8, "rank_pattern": {"to_(q|k)": 4}}"#, 1.0),
        (r#"{"r": 4}"#, 1.0),
        ("not JSON", 1.0),
    ];
    for (config, scale) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pytorch_lora_weights.safetensors");
        std::fs::copy(path("a14_peftunet"), &file).expect("a copy");
        std::fs::write(folder.path().join("adapter_config.json"), config).expect("a file");
        let case = Case::open("tiny-sd1", &file);
        let module = "unet.base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
        case.adds(&[(TO_Q, case.pair(module, [".lora_A.weight", ".lora_B.weight"], scale))]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kohya.safetensors");
    std::fs::copy(path("a14_mdm"), &file).expect("a copy");
    std::fs::write(folder.path().join("adapter_config.json"), r#"{"lora_alpha": 64, "r": 4}"#)
        .expect("a file");
    let case = Case::open("tiny-sd1", &file);
    let module = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q";
    case.adds(&[(TO_Q, case.kohya(module))]);
    let warned = case.warned();
    assert!(warned.contains("strength of 0.5") && warned.contains("16: the tensor counts"), "{warned}");
}

/// A 3×3 LoRA, and the same with both matrices laid flat; a Tucker form.
#[test]
fn a7_conv_and_its_flat_form_and_mid() {
    const CONV: &str = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";
    let module = "lora_unet_down_blocks_0_resnets_0_conv1";
    let case = Case::sd1("a7_conv");
    case.adds(&[(CONV, case.kohya(module))]);

    let folder = tempfile::tempdir().expect("a folder");
    let flat = folder.path().join("flat.safetensors");
    let [down, up] = ["down", "up"].map(|end| case.read(&format!("{module}.lora_{end}.weight")));
    let names = ["lora_down.weight", "lora_up.weight", "alpha"].map(|end| format!("{module}.{end}"));
    let tensors: [(&str, &[usize], &[f32]); 3] =
        [(&names[0], &[4, 64 * 9], &down), (&names[1], &[64, 4], &up), (&names[2], &[], &[2.0])];
    std::fs::write(&flat, crate::common::safetensors(tensors)).expect("a file");
    let flat = Case::open("tiny-sd1", &flat);
    flat.adds(&[(CONV, case.kohya(module))]);

    let case = Case::sd1("a7_mid");
    let [down, up, mid] = ["down", "up", "mid"].map(|end| case.read(&format!("{module}.lora_{end}.weight")));
    let mut change = vec![0.0; 64 * 64 * 9];
    for (i, c) in change.iter_mut().enumerate() {
        let (o, input, tap) = (i / (64 * 9), i / 9 % 64, i % 9);
        for (a, b) in (0..16).map(|ab| (ab / 4, ab % 4)) {
            let outer = f64::from(up[o * 4 + a]) * f64::from(down[b * 64 + input]);
            *c += 0.5 * outer * f64::from(mid[(a * 4 + b) * 9 + tap]);
        }
    }
    case.adds(&[(CONV, change)]);
}

/// The weight itself, with the norm of the columns (PEFT: rows) that the file tells.
#[test]
fn a8_dora_and_peft_without_a_dot() {
    let case = Case::sd1("a8_dora");
    let magnitude = case.read(&format!("{KOHYA}.dora_scale"));
    let change = case.kohya(KOHYA);
    let changed: Vec<f64> = case.before(TO_Q).iter().zip(&change).map(|(w, c)| f64::from(*w) + c).collect();
    let norm = |column: usize| -> f64 {
        (0..64).map(|row| changed[row * 64 + column].powi(2)).sum::<f64>().sqrt() + 1.2e-7
    };
    let truth = (0..64 * 64).map(|i| changed[i] * f64::from(magnitude[i % 64]) / norm(i % 64));
    case.becomes(&[(TO_Q, truth.collect())]);

    let case = Case::sd1("a8_dora_peft_nodot");
    let magnitude = case.read(&format!("{PEFT}.lora_magnitude_vector"));
    let change = case.pair(PEFT, [".lora_A.weight", ".lora_B.weight"], 1.0);
    let changed: Vec<f64> = case.before(TO_Q).iter().zip(&change).map(|(w, c)| f64::from(*w) + c).collect();
    let norm =
        |row: usize| -> f64 { changed[row * 64..][..64].iter().map(|v| v * v).sum::<f64>().sqrt() + 1.2e-7 };
    let truth = (0..64 * 64).map(|i| changed[i] * f64::from(magnitude[i / 64]) / norm(i / 64));
    case.becomes(&[(TO_Q, truth.collect())]);
}

#[test]
fn a8_loha_and_lokr() {
    let case = Case::sd1("a8_loha");
    let [a, b, c, d] = ["w1_a", "w1_b", "w2_a", "w2_b"].map(|end| case.read(&format!("{KOHYA}.hada_{end}")));
    // alpha 1, rank 4.
    let change = product(&a, &b, 4).into_iter().zip(product(&c, &d, 4)).map(|(x, y)| x * y / 4.0);
    case.adds(&[(TO_Q, change.collect())]);

    let case = Case::sd1("a8_lokr");
    let [a, b] = ["w1", "w2"].map(|end| case.read(&format!("{KOHYA}.lokr_{end}")));
    // Both are whole: alpha is no factor.
    let change = (0..64 * 64).map(|i| {
        let (row, column) = (i / 64, i % 64);
        f64::from(a[row / 8 * 8 + column / 8]) * f64::from(b[row % 8 * 8 + column % 8])
    });
    case.adds(&[(TO_Q, change.collect())]);
}

/// The embedding inside is no key that fits nothing.
#[test]
fn a11_bundle_honest() {
    let case = Case::sd1("a11_bundle_honest");
    case.adds(&[(TO_Q, case.kohya(KOHYA))]);
    assert_eq!(case.warned(), "");
    let lora = Lora::open(path("a11_bundle_honest")).expect("a LoRA");
    assert_eq!(lora.embeddings().collect::<Vec<_>>(), ["foo"]);
}

/// The header tells of another family, the shapes fit: shapes decide.
#[test]
fn a11_lie_allfit_and_lie_plus_extra() {
    for file in ["a11_lie_allfit", "a11_lie_plus_extra"] {
        let case = Case::sd1(file);
        case.adds(&[(TO_Q, case.kohya(KOHYA))]);
        assert_eq!(case.warned(), "", "{file}");
    }
}

#[test]
fn a14_every_way_to_write_one_pair() {
    let peft = [".lora_A.weight", ".lora_B.weight"];
    let linear = [".lora.down.weight", ".lora.up.weight"];
    let old = ["_lora.down.weight", "_lora.up.weight"];
    let kohya = [".lora_down.weight", ".lora_up.weight"];
    let processor = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q";
    let original = "input_blocks.1.1.transformer_blocks.0.attn1.to_q";
    let cases: [(&str, String, [&str; 2], f64); 10] = [
        ("a14_noweight", format!("diffusion_model.{original}"), [".lora_A", ".lora_B"], 1.0),
        ("a14_default", PEFT.into(), [".lora_A.default_0.weight", ".lora_B.default_0.weight"], 1.0),
        ("a14_baselayer", format!("base_model.model.{PEFT}"), peft, 1.0),
        ("a14_peftunet", PEFT.replace("unet.", "unet.base_model.model."), peft, 1.0),
        ("a14_lin", PEFT.into(), linear, 1.0),
        ("a14_lycoris", KOHYA.replace("lora_unet_", "lycoris_"), kohya, 0.5),
        ("a14_mdm", format!("model.diffusion_model.{original}"), kohya, 0.5),
        ("a14_nounet", processor.into(), old, 1.0),
        ("a14_origmod", KOHYA.replace("lora_unet_", "lora_unet__orig_mod_"), kohya, 0.5),
        ("a14_processor", format!("unet.{processor}"), old, 1.0),
    ];
    for (file, module, ends, scale) in cases {
        let case = Case::sd1(file);
        case.adds(&[(TO_Q, case.pair(&module, ends, scale))]);
        assert_eq!(case.warned(), "", "{file}");
    }
}

#[test]
fn m_lonealpha_is_left_out_with_a_warning() {
    let case = Case::sd1("m_lonealpha");
    case.adds(&[(TO_Q, case.kohya(KOHYA))]);
    assert!(case.warned().contains("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha is alone"));
}

#[test]
fn m_dupnames_counts_once() {
    let case = Case::sd1("m_dupnames");
    case.adds(&[(TO_Q, case.kohya(KOHYA))]);
    assert!(case.warned().contains("are one module of this model"), "{}", case.warned());
}

#[test]
fn m_dotted() {
    let case = Case::sd1("m_dotted");
    let change = case.pair(
        "lora_te1.text_model.encoder.layers.0.self_attn.q_proj",
        [".lora_A.weight", ".lora_B.weight"],
        1.0,
    );
    case.adds(&[(
        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
        change,
    )]);
}

/// A replacement, a pair on top of it, a difference too, and biases: W = set + pair + diff; b = set, and + up's bias.
#[test]
fn set_pairs_differences_and_biases_of_one_module() {
    let source = Case::sd1("a14_lycoris");
    let lycoris = KOHYA.replace("lora_unet_", "lycoris_");
    let [down, up] = ["down", "up"].map(|end| source.read(&format!("{lycoris}.lora_{end}.weight")));
    let mut rng = crate::common::Rng(9);
    let [set, diff] = [(); 2].map(|()| (0..64 * 64).map(|_| rng.value()).collect::<Vec<f32>>());
    let bias: Vec<f32> = (0..64).map(|_| rng.value()).collect();
    let to_out = KOHYA.replace("to_q", "to_out_0");
    let ends = ["set_weight", "lora_down.weight", "lora_up.weight", "alpha", "diff"];
    let names = ends.map(|end| format!("{KOHYA}.{end}"));
    let out =
        ["lora_down.weight", "lora_up.weight", "lora_up.bias", "alpha"].map(|end| format!("{to_out}.{end}"));
    let tensors: [(&str, &[usize], &[f32]); 9] = [
        (&names[0], &[64, 64], &set),
        (&names[1], &[4, 64], &down),
        (&names[2], &[64, 4], &up),
        (&names[3], &[], &[6.0]),
        (&names[4], &[64, 64], &diff),
        (&out[0], &[4, 64], &down),
        (&out[1], &[64, 4], &up),
        (&out[2], &[64], &bias),
        (&out[3], &[], &[2.0]),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("set.safetensors");
    std::fs::write(&file, crate::common::safetensors(tensors)).expect("a file");
    let case = Case::open("tiny-sd1", &file);
    let pair = case.pair(KOHYA, [".lora_down.weight", ".lora_up.weight"], 1.5);
    let q = (0..64 * 64).map(|i| f64::from(set[i]) + pair[i] + f64::from(diff[i])).collect();
    let weight = TO_Q.replace("to_q", "to_out.0");
    let (before, change) = (case.before(&weight), case.kohya(&to_out));
    let w = before.iter().zip(change).map(|(w, c)| f64::from(*w) + c).collect();
    let bias_name = weight.replace(".weight", ".bias");
    let b =
        case.before(&bias_name).iter().zip(&bias).map(|(b, c)| f64::from(*b) + 0.5 * f64::from(*c)).collect();
    case.becomes(&[(TO_Q, q), (&weight, w), (&bias_name, b)]);
}

/// A key that fits nothing is named, with the part that was looked in.
#[test]
fn what_fits_nothing_is_named_with_its_part() {
    let mut tensors = Vec::new();
    let values = vec![0.5; 256];
    for module in [KOHYA, "lora_te_text_model_encoder_layers_99_mlp_fc1", "lora_unet_no_such_layer"] {
        tensors.push((format!("{module}.lora_down.weight"), vec![4, 64], values.clone()));
        tensors.push((format!("{module}.lora_up.weight"), vec![64, 4], values.clone()));
    }
    tensors.push(("stray".into(), vec![2], vec![0.0; 2]));
    let model = synthetic("tiny-sd1");
    let config = ModelConfig::infer(&model).expect("a family");
    let lora = super::lora("stray", &tensors);
    let patches = Patches::new(&config, &model, &[LoraUse::new(lora, 1.0)]).expect("fits");
    let left_out = patches.left_out().join("\n");
    for word in ["3 of 4", "stray", "every part", "the UNet", "the first text encoder"] {
        assert!(left_out.contains(word), "no {word:?} in {left_out}");
    }
}

/// What a file tells of its strength and cannot be followed, or tells twice, is a warning.
#[test]
fn contradicting_settings_of_the_training_are_reported() {
    let warned = |metadata: &str, config: Option<&str>, kohya: bool| {
        let folder = tempfile::tempdir().expect("a folder");
        let module = if kohya { KOHYA } else { PEFT };
        let ends =
            if kohya { ["lora_down.weight", "lora_up.weight"] } else { ["lora_A.weight", "lora_B.weight"] };
        let header = format!(
            r#"{{"__metadata__":{metadata},"{module}.{}":{{"dtype":"F32","shape":[4,64],"data_offsets":[0,1024]}},"{module}.{}":{{"dtype":"F32","shape":[64,4],"data_offsets":[1024,2048]}}}}"#,
            ends[0], ends[1]
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..512).flat_map(|_| 0.5f32.to_le_bytes()));
        let file = folder.path().join("adapter_model.safetensors");
        std::fs::write(&file, bytes).expect("a file");
        if let Some(config) = config {
            std::fs::write(folder.path().join("adapter_config.json"), config).expect("a file");
        }
        Lora::open(&file).unwrap_or_else(|e| panic!("{e}")).warnings().join("\n")
    };
    let header = r#"{"unet.lora_alpha":"16","unet.r":"4"}"#;
    assert_eq!(warned(header, None, false), "");
    assert_eq!(warned(header, Some(r#"{"lora_alpha": 16, "r": 4}"#), false), "");
    let two = warned(header, Some(r#"{"lora_alpha": 8, "r": 4}"#), false);
    assert!(two.contains("alpha 16") && two.contains("8: the header counts"), "{two}");
    let broken = warned(r#"{"lora_adapter_metadata":"{\"unet.r\": 4,"}"#, None, false);
    assert!(broken.contains("no sound JSON"), "{broken}");
    let pattern = warned("{}", Some(r#"{"lora_alpha": 8, "r": 4, "alpha_pattern": {"(to_q": 4}}"#), false);
    assert!(pattern.contains("no pattern that is known here"), "{pattern}");
    let kohya = warned(r#"{"ss_network_alpha":"16","ss_network_dim":"4"}"#, None, true);
    assert!(kohya.contains("its strength is 1"), "{kohya}");
    // Its file of settings is of another LoRA: kohya writes none.
    assert_eq!(warned("{}", Some(r#"{"lora_alpha": 64, "r": 4}"#), true), "");
}

/// Tables of tokens and positions, which ComfyUI extracts too, as pairs and as differences; old diffusers' names of
/// text encoders.
#[test]
fn tables_of_text_encoders_and_old_names_of_their_layers() {
    let mut rng = crate::common::Rng(3);
    let l = "cond_stage_model.transformer.text_model.";
    for (module, tensor, shape) in [
        (
            "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding",
            "embeddings.position_embedding.weight",
            [77, 64],
        ),
        ("lora_te_text_model_embeddings_token_embedding", "embeddings.token_embedding.weight", [49408, 64]),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.to_k_lora",
            "encoder.layers.0.self_attn.k_proj.weight",
            [64, 64],
        ),
        (
            "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora",
            "encoder.layers.1.self_attn.out_proj.weight",
            [64, 64],
        ),
    ] {
        let ends = if module.ends_with("_lora") {
            [".down.weight", ".up.weight"]
        } else {
            [".lora_down.weight", ".lora_up.weight"]
        };
        let tensors = [
            super::random(&mut rng, format!("{module}{}", ends[0]), &[4, shape[1]]),
            super::random(&mut rng, format!("{module}{}", ends[1]), &[shape[0], 4]),
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tables.safetensors");
        let all = tensors.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..]));
        std::fs::write(&file, crate::common::safetensors(all)).expect("a file");
        let case = Case::open("tiny-sd1", &file);
        let name = format!("{l}{tensor}");
        case.adds(&[(&name, case.pair(module, ends, 1.0))]);
        // A table is read by rows.
        if tensor.starts_with("embeddings.") {
            let rows = Patched { checkpoint: &case.model, patches: &case.patches }
                .rows(&name, &[5, 2])
                .expect("rows");
            let whole = case.merged(&name);
            assert_eq!(rows, [&whole[5 * 64..6 * 64], &whole[2 * 64..3 * 64]].concat());
        }
    }
}
