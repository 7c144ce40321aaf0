//! What network a checkpoint holds: the six described families, the embedded model, and relatives.

use std::collections::BTreeMap;

use crate::common::MANIFESTS;
use sagittal::Error;
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::model::config::{
    Activation, Family, Heads, InputBlock, MiddleBlock, ModelConfig, Prediction, TextConfig, Tower, UNET,
    UnetConfig, VAE, VaeConfig, Variant,
};
use serde_json::{Value, json};

fn manifest(name: &str) -> Manifest {
    let (_, text) = MANIFESTS.iter().find(|(n, _)| *n == name).unwrap();
    Manifest::parse(text).unwrap()
}

fn infer(manifest: &Manifest) -> Result<ModelConfig, Error> {
    ModelConfig::infer(&Checkpoint::synthetic(manifest, 0, Dtype::F16)?)
}

/// The inferred configuration in the manifests' words.
fn in_words(config: &ModelConfig) -> Value {
    let unet = &config.unet;
    let mut output_depth: Vec<usize> = unet.output_blocks.iter().map(|b| b.transformer_depth).collect();
    output_depth.reverse();
    let middle = match unet.middle {
        MiddleBlock::Absent => -2,
        MiddleBlock::Res => -1,
        MiddleBlock::Attention { transformer_depth } => transformer_depth as i64,
    };
    let (heads, number) = match unet.heads {
        Heads::Count(n) => ("num_heads", n),
        Heads::Width(n) => ("num_head_channels", n),
    };
    let text = |t: &TextConfig| {
        let name = format!("{:?}", t.tower).to_lowercase();
        let sizes = json!({
            "hidden_size": t.width, "num_attention_heads": t.heads, "num_hidden_layers": t.layers,
            "intermediate_size": t.mlp_width, "vocab_size": t.vocab, "max_position_embeddings": t.positions,
        });
        (name, sizes)
    };
    json!({
        "prediction": config.prediction.to_string(),
        "latent_scale": (f64::from(config.latent_scale) * 1e6).round() / 1e6,
        "unet": {
            "out_channels": unet.out_channels, "in_channels": unet.in_channels,
            "model_channels": unet.model_channels, "channel_mult": unet.channel_mult(),
            "num_res_blocks": unet.num_res_blocks(), "transformer_depth": unet.transformer_depth(),
            "transformer_depth_output": output_depth, "transformer_depth_middle": middle,
            "use_linear_in_transformer": unet.use_linear_in_transformer, "context_dim": unet.context_dim,
            "adm_in_channels": unet.adm_in_channels, heads: number,
        },
        "vae": {
            "z_channels": config.vae.z_channels, "in_channels": config.vae.image_channels,
            "ch": config.vae.channels, "ch_mult": config.vae.channel_mult(),
            "num_res_blocks": config.vae.res_blocks,
        },
        "text": config.text.iter().map(text).collect::<serde_json::Map<String, Value>>(),
    })
}

/// Every leaf of `found` must be in `expected`.
fn differences(path: &str, found: &Value, expected: &Value, out: &mut Vec<String>) {
    match found {
        Value::Object(members) => {
            for (key, value) in members {
                differences(&format!("{path}.{key}"), value, &expected[key], out);
            }
        }
        _ if found != expected => out.push(format!("{path}: expected {expected}, found {found}")),
        _ => {}
    }
}

#[test]
fn manifests_give_their_configurations() {
    let mut failures = Vec::new();
    for (name, text) in MANIFESTS {
        match infer(&manifest(name)) {
            Ok(config) => {
                let expected: Value = serde_json::from_str(text).unwrap();
                differences(name, &in_words(&config), &expected, &mut failures);
                let text: Vec<&str> =
                    expected["text"].as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(config.text.len(), text.len(), "{name}");
                assert_eq!(config.variant, Variant::Base, "{name}");
                assert_eq!(config.latent_cell(), 8, "{name}");
            }
            Err(e) => failures.push(format!("{name}: {e}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Names and shapes that a configuration implies: what the graph builders will ask for.
#[derive(Default)]
struct Implied(BTreeMap<String, Vec<usize>>);

impl Implied {
    fn weight(&mut self, path: &str, shape: &[usize]) {
        self.0.insert(format!("{path}.weight"), shape.to_vec());
    }

    fn biased(&mut self, path: &str, shape: &[usize]) {
        self.weight(path, shape);
        self.0.insert(format!("{path}.bias"), vec![shape[0]]);
    }

    fn unet(&mut self, unet: &UnetConfig) {
        let t = unet.time_channels;
        self.biased(&format!("{UNET}time_embed.0"), &[t, unet.model_channels]);
        self.biased(&format!("{UNET}time_embed.2"), &[t, t]);
        if let Some(adm) = unet.adm_in_channels {
            self.biased(&format!("{UNET}label_emb.0.0"), &[t, adm]);
            self.biased(&format!("{UNET}label_emb.0.2"), &[t, t]);
        }
        for (i, block) in unet.input_blocks.iter().enumerate() {
            let path = format!("{UNET}input_blocks.{i}");
            match *block {
                InputBlock::Conv { in_channels, out_channels } => {
                    self.biased(&format!("{path}.0"), &[out_channels, in_channels, 3, 3]);
                }
                InputBlock::Res { in_channels, out_channels, transformer_depth } => {
                    self.res(&format!("{path}.0"), in_channels, out_channels, t);
                    self.transformer(&format!("{path}.1"), out_channels, transformer_depth, unet);
                }
                InputBlock::Down { channels } => {
                    self.biased(&format!("{path}.0.op"), &[channels, channels, 3, 3])
                }
            }
        }
        let (path, c) = (format!("{UNET}middle_block"), unet.middle_channels());
        if unet.middle != MiddleBlock::Absent {
            self.res(&format!("{path}.0"), c, c, t);
        }
        if let MiddleBlock::Attention { transformer_depth } = unet.middle {
            self.transformer(&format!("{path}.1"), c, transformer_depth, unet);
            self.res(&format!("{path}.2"), c, c, t);
        }
        for (i, block) in unet.output_blocks.iter().enumerate() {
            let (path, c) = (format!("{UNET}output_blocks.{i}"), block.out_channels);
            self.res(&format!("{path}.0"), block.in_channels, c, t);
            self.transformer(&format!("{path}.1"), c, block.transformer_depth, unet);
            if block.up {
                self.biased(&format!("{path}.{}.conv", block.up_index()), &[c, c, 3, 3]);
            }
        }
        self.biased(&format!("{UNET}out.0"), &[unet.model_channels]);
        self.biased(&format!("{UNET}out.2"), &[unet.out_channels, unet.model_channels, 3, 3]);
    }

    fn res(&mut self, path: &str, input: usize, output: usize, time: usize) {
        self.biased(&format!("{path}.in_layers.0"), &[input]);
        self.biased(&format!("{path}.in_layers.2"), &[output, input, 3, 3]);
        self.biased(&format!("{path}.emb_layers.1"), &[output, time]);
        self.biased(&format!("{path}.out_layers.0"), &[output]);
        self.biased(&format!("{path}.out_layers.3"), &[output, output, 3, 3]);
        if input != output {
            self.biased(&format!("{path}.skip_connection"), &[output, input, 1, 1]);
        }
    }

    fn transformer(&mut self, path: &str, c: usize, depth: usize, unet: &UnetConfig) {
        if depth == 0 {
            return;
        }
        self.biased(&format!("{path}.norm"), &[c]);
        let projection: &[usize] = if unet.use_linear_in_transformer { &[c, c] } else { &[c, c, 1, 1] };
        self.biased(&format!("{path}.proj_in"), projection);
        self.biased(&format!("{path}.proj_out"), projection);
        for block in 0..depth {
            let path = format!("{path}.transformer_blocks.{block}");
            for (attention, context) in [("attn1", c), ("attn2", unet.context_dim)] {
                self.weight(&format!("{path}.{attention}.to_q"), &[c, c]);
                self.weight(&format!("{path}.{attention}.to_k"), &[c, context]);
                self.weight(&format!("{path}.{attention}.to_v"), &[c, context]);
                self.biased(&format!("{path}.{attention}.to_out.0"), &[c, c]);
            }
            self.biased(&format!("{path}.ff.net.0.proj"), &[8 * c, c]);
            self.biased(&format!("{path}.ff.net.2"), &[c, 4 * c]);
            for norm in ["norm1", "norm2", "norm3"] {
                self.biased(&format!("{path}.{norm}"), &[c]);
            }
        }
    }

    fn vae(&mut self, vae: &VaeConfig) {
        let (z, latent) = (vae.z_channels, vae.latent_channels);
        let top = *vae.level_channels.last().unwrap();
        self.biased(&format!("{VAE}quant_conv"), &[2 * latent, 2 * z, 1, 1]);
        self.biased(&format!("{VAE}post_quant_conv"), &[z, latent, 1, 1]);
        let (encoder, decoder) = (format!("{VAE}encoder"), format!("{VAE}decoder"));
        self.biased(&format!("{encoder}.conv_in"), &[vae.channels, vae.image_channels, 3, 3]);
        let mut width = vae.channels;
        for (level, &c) in vae.level_channels.iter().enumerate() {
            let path = format!("{encoder}.down.{level}");
            self.vae_level(&path, &mut width, c, vae.res_blocks);
            if level + 1 < vae.level_channels.len() {
                self.biased(&format!("{path}.downsample.conv"), &[c, c, 3, 3]);
            }
        }
        self.vae_middle(&encoder, top);
        self.biased(&format!("{encoder}.norm_out"), &[top]);
        self.biased(&format!("{encoder}.conv_out"), &[2 * z, top, 3, 3]);
        self.biased(&format!("{decoder}.conv_in"), &[top, z, 3, 3]);
        self.vae_middle(&decoder, top);
        let mut width = top;
        for (level, &c) in vae.level_channels.iter().enumerate().rev() {
            let path = format!("{decoder}.up.{level}");
            self.vae_level(&path, &mut width, c, vae.res_blocks + 1);
            if level > 0 {
                self.biased(&format!("{path}.upsample.conv"), &[c, c, 3, 3]);
            }
        }
        self.biased(&format!("{decoder}.norm_out"), &[width]);
        self.biased(&format!("{decoder}.conv_out"), &[vae.image_channels, width, 3, 3]);
    }

    fn vae_level(&mut self, path: &str, width: &mut usize, c: usize, blocks: usize) {
        for block in 0..blocks {
            self.vae_res(&format!("{path}.block.{block}"), *width, c);
            *width = c;
        }
    }

    fn vae_middle(&mut self, path: &str, c: usize) {
        self.vae_res(&format!("{path}.mid.block_1"), c, c);
        self.vae_res(&format!("{path}.mid.block_2"), c, c);
        self.biased(&format!("{path}.mid.attn_1.norm"), &[c]);
        for part in ["q", "k", "v", "proj_out"] {
            self.biased(&format!("{path}.mid.attn_1.{part}"), &[c, c, 1, 1]);
        }
    }

    fn vae_res(&mut self, path: &str, input: usize, output: usize) {
        self.biased(&format!("{path}.norm1"), &[input]);
        self.biased(&format!("{path}.conv1"), &[output, input, 3, 3]);
        self.biased(&format!("{path}.norm2"), &[output]);
        self.biased(&format!("{path}.conv2"), &[output, output, 3, 3]);
        if input != output {
            self.biased(&format!("{path}.nin_shortcut"), &[output, input, 1, 1]);
        }
    }

    fn text(&mut self, text: &TextConfig) {
        let (p, c, m) = (&text.prefix, text.width, text.mlp_width);
        for layer in 0..text.layers {
            if text.tower == Tower::L {
                let path = format!("{p}encoder.layers.{layer}");
                for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    self.biased(&format!("{path}.self_attn.{part}"), &[c, c]);
                }
                self.biased(&format!("{path}.layer_norm1"), &[c]);
                self.biased(&format!("{path}.layer_norm2"), &[c]);
                self.biased(&format!("{path}.mlp.fc1"), &[m, c]);
                self.biased(&format!("{path}.mlp.fc2"), &[c, m]);
            } else {
                let path = format!("{p}transformer.resblocks.{layer}");
                self.0.insert(format!("{path}.attn.in_proj_weight"), vec![3 * c, c]);
                self.0.insert(format!("{path}.attn.in_proj_bias"), vec![3 * c]);
                self.biased(&format!("{path}.attn.out_proj"), &[c, c]);
                self.biased(&format!("{path}.ln_1"), &[c]);
                self.biased(&format!("{path}.ln_2"), &[c]);
                self.biased(&format!("{path}.mlp.c_fc"), &[m, c]);
                self.biased(&format!("{path}.mlp.c_proj"), &[c, m]);
            }
        }
        if text.tower == Tower::L {
            self.weight(&format!("{p}embeddings.token_embedding"), &[text.vocab, c]);
            self.weight(&format!("{p}embeddings.position_embedding"), &[text.positions, c]);
            self.biased(&format!("{p}final_layer_norm"), &[c]);
        } else {
            self.weight(&format!("{p}token_embedding"), &[text.vocab, c]);
            self.0.insert(format!("{p}positional_embedding"), vec![text.positions, c]);
            self.biased(&format!("{p}ln_final"), &[c]);
        }
        if let Some(projection) = text.projection {
            self.0.insert(format!("{p}text_projection"), vec![c, projection]);
        }
    }
}

/// A configuration describes its checkpoint completely: no tensor more, none less.
#[test]
fn configurations_give_their_manifests() {
    let mut failures = Vec::new();
    for (name, _) in MANIFESTS {
        let manifest = manifest(name);
        let config = infer(&manifest).unwrap();
        let mut implied = Implied::default();
        implied.unet(&config.unet);
        implied.vae(&config.vae);
        config.text.iter().for_each(|text| implied.text(text));
        let listed: BTreeMap<String, Vec<usize>> = manifest.tensors.into_iter().collect();
        let both = || listed.iter().filter(|(n, shape)| implied.0.get(*n) == Some(shape)).count();
        if listed != implied.0 {
            let odd = listed.iter().find(|(n, shape)| implied.0.get(*n) != Some(shape));
            let extra = implied.0.iter().find(|(n, shape)| listed.get(*n) != Some(shape));
            failures.push(format!("{name}: {} of {} agree; {odd:?} {extra:?}", both(), listed.len()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn blocks_of_sd15() {
    let unet = infer(&manifest("sd15")).unwrap().unet;
    let res = |in_channels, out_channels, transformer_depth| InputBlock::Res {
        in_channels,
        out_channels,
        transformer_depth,
    };
    assert_eq!(unet.input_blocks.len(), 12);
    assert_eq!(unet.input_blocks[0], InputBlock::Conv { in_channels: 4, out_channels: 320 });
    assert_eq!(unet.input_blocks[3], InputBlock::Down { channels: 320 });
    assert_eq!(unet.input_blocks[4], res(320, 640, 1));
    assert_eq!(unet.input_blocks[11], res(1280, 1280, 0));
    assert_eq!((unet.downs(), unet.middle_channels()), (3, 1280));
    let outputs: Vec<_> = unet.output_blocks.iter().map(|b| (b.in_channels, b.out_channels, b.up)).collect();
    assert_eq!(outputs[..3], [(2560, 1280, false), (2560, 1280, false), (2560, 1280, true)]);
    assert_eq!(outputs[8..], [(960, 640, true), (960, 320, false), (640, 320, false), (640, 320, false)]);
    let up: Vec<usize> = unet.output_blocks.iter().filter(|b| b.up).map(|b| b.up_index()).collect();
    assert_eq!(up, [1, 2, 2]);
    assert_eq!(unet.heads.count(1280), 8);
    assert_eq!(Heads::Width(64).count(1280), 20);
}

#[test]
fn the_embedded_model_is_sd1() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-emoji/tiny-emoji.safetensors");
    let model = Checkpoint::open(path).unwrap();
    let config = ModelConfig::infer(&model).unwrap();
    assert_eq!(
        (config.family, config.variant, config.prediction),
        (Family::Sd1, Variant::Base, Prediction::Eps)
    );
    assert_eq!(config.latent_scale, 0.18215);
    assert_eq!(config.unet.level_channels(), [64, 128, 192]);
    assert_eq!(config.unet.transformer_depth(), [0, 1, 1]);
    assert_eq!(config.unet.middle, MiddleBlock::Attention { transformer_depth: 1 });
    assert_eq!(config.unet.heads, Heads::Count(8));
    assert_eq!((config.vae.channels, config.vae.level_channels.as_slice()), (32, [64; 4].as_slice()));
    let [text] = config.text.as_slice() else { panic!("one text encoder") };
    assert_eq!((text.width, text.heads, text.layers, text.mlp_width), (64, 1, 3, 256));
    assert_eq!((text.positions, text.vocab, text.activation), (77, 49_408, Activation::QuickGelu));
    assert_eq!(model.metadata()["title"], "tiny-emoji");
    let parameters: usize = model.names().map(|n| model.tensor(n).unwrap().elements()).sum();
    assert_eq!((model.names().len(), parameters), (556, 15_464_811));
    for name in model.names() {
        let shape = &model.tensor(name).unwrap().shape;
        model.read_f32(name, shape).unwrap();
    }
}

/// Networks of the family that no manifest describes, made by editing one that does.
#[test]
fn relatives_are_recognised() {
    let sd1 = |edit: &dyn Fn(&mut Manifest)| {
        let mut m = manifest("tiny-sd1");
        edit(&mut m);
        infer(&m).unwrap()
    };
    let remove = |m: &mut Manifest, part: &str| m.tensors.retain(|(n, _)| !n.contains(part));
    for (channels, variant) in [(9, Variant::Inpainting), (8, Variant::Edit), (5, Variant::Depth)] {
        let config = sd1(&|m| {
            let first = m.tensors.iter_mut().find(|(n, _)| n.ends_with("input_blocks.0.0.weight"));
            first.unwrap().1[1] = channels;
        });
        assert_eq!((config.variant, config.unet.in_channels), (variant, channels));
    }
    // Distilled networks lack parts of the middle.
    let config = sd1(&|m| {
        remove(m, "middle_block.1.");
        remove(m, "middle_block.2.");
    });
    assert_eq!(config.unet.middle, MiddleBlock::Res);
    let config = sd1(&|m| remove(m, "middle_block."));
    assert_eq!(config.unet.middle, MiddleBlock::Absent);
    // Early files of SD1 lack one level of the text encoder's names; many carry extra tensors.
    let config = sd1(&|m| {
        for (name, _) in &mut m.tensors {
            *name = name.replace(".text_model.", ".");
        }
        let extras = [
            "betas",
            "alphas_cumprod",
            "cond_stage_model.transformer.embeddings.position_ids",
            "model_ema.decay",
            "model_ema.diffusion_modelinput_blocks00weight",
            "first_stage_model.loss.logvar",
        ];
        m.tensors.extend(extras.map(|name| (name.to_owned(), vec![1])));
    });
    assert_eq!((config.family, config.text[0].layers), (Family::Sd1, 2));
    // The refiner: one text encoder, one size value less.
    let mut m = manifest("tiny-sdxl");
    remove(&mut m, "conditioner.embedders.0.");
    for (name, shape) in &mut m.tensors {
        *name = name.replace("conditioner.embedders.1.", "conditioner.embedders.0.");
        if name.contains("attn2.to_k") || name.contains("attn2.to_v") {
            shape[1] = 128;
        }
        if name.ends_with("label_emb.0.0.weight") {
            shape[1] = 128 + 5 * 256;
        }
    }
    let config = infer(&m).unwrap();
    assert_eq!(
        (config.family, config.variant, config.text[0].tower),
        (Family::Sdxl, Variant::Refiner, Tower::G)
    );
    // The mark of v-prediction in SDXL files, which has no elements.
    let mut m = manifest("tiny-sdxl");
    m.tensors.push(("v_pred".into(), vec![0]));
    assert_eq!(infer(&m).unwrap().prediction, Prediction::V);
    m.tensors.push(("ztsnr".into(), vec![0]));
    assert_eq!(infer(&m).unwrap().prediction, Prediction::ZeroSnrV);
}

/// Networks that fit together and that no run could use are refused when they are looked at.
#[test]
fn what_no_run_could_use_is_refused() {
    let refused = |edit: &dyn Fn(&mut Manifest), words: &[&str]| {
        let mut m = manifest("tiny-sd1");
        edit(&mut m);
        let error = infer(&m).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let eight_channels = |m: &mut Manifest| {
        for (name, shape) in &mut m.tensors {
            let moments = !name.contains("post_quant_conv")
                && (name.contains("quant_conv") || name.contains("encoder.conv_out"));
            let latent = name.starts_with(&format!("{UNET}out.2"))
                || name.contains("post_quant_conv")
                || name.ends_with("decoder.conv_in.weight");
            let (old, new) = if moments { (8, 16) } else { (4, 8) };
            if moments || latent {
                shape.iter_mut().for_each(|size| *size = if *size == old { new } else { *size });
            }
        }
    };
    refused(&eight_channels, &["unknown kind of output", "out.2.weight", "4 channels", "found 8"]);
    let three_levels = |m: &mut Manifest| {
        let gone = ["encoder.down.3.", "decoder.up.3.", "encoder.down.2.downsample", "decoder.up.0.upsample"];
        m.tensors.retain(|(name, _)| !gone.iter().any(|part| name.contains(part)));
    };
    refused(&three_levels, &["UNet and VAE do not fit", "8 pixels a latent cell", "4 of the VAE"]);
}
