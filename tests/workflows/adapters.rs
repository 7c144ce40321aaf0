//! LoRAs and embeddings that workflows name, in the ways that people's files have.

use std::fs;

use crate::common::workflow::{Home, device_context, set, stored};
use serde_json::json;

/// Copies files of the model tests into a folder of models.
fn bring(home: &Home, from: &str, to: &str) {
    let source = crate::common::root().join("tests/model_files").join(from);
    let target = home.at("models").join(to);
    fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
    fs::copy(source, target).expect("a copy");
}

/// OneTrainer's names mean what kohya's mean: the same latent.
#[test]
fn w_onetrainer() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sdxl"]);
    for name in ["a2_onetrainer_omi", "a2_kohya"] {
        bring(&home, &format!("lora/cases/{name}.safetensors"), &format!("loras/{name}.safetensors"));
    }
    let workflow = stored("cases/w_onetrainer.json");
    let latent = |lora: &str, strength: f64| {
        let mut workflow = workflow.clone();
        set(&mut workflow, "11", json!({ "lora_name": lora, "strength_clip": strength }));
        home.latent(&device_context, &workflow)
    };
    let omi = latent("a2_onetrainer_omi.safetensors", 1.0);
    assert_eq!(omi.data(), latent("a2_kohya.safetensors", 1.0).data());
    assert_ne!(omi.data(), latent("a2_onetrainer_omi.safetensors", 0.0).data(), "the text part counts");
}

/// A LoRA of one text encoder alone.
#[test]
fn w_teonly() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sdxl"]);
    bring(&home, "lora/cases/a2_comfy_te_only.safetensors", "loras/a2_comfy_te_only.safetensors");
    let mut workflow = stored("cases/w_teonly.json");
    let with = home.latent(&device_context, &workflow);
    set(&mut workflow, "11", json!({ "strength_clip": 0 }));
    assert_ne!(with.data(), home.latent(&device_context, &workflow).data());
}

/// An embedding in a folder below is found with and without the folder's name.
#[test]
fn w_embsub_and_w_embsub2() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1"]);
    bring(&home, "lora/cases/a1_f32.safetensors", "loras/a1_f32.safetensors");
    bring(&home, "embeddings/sub/deep.safetensors", "embeddings/sub/deep.safetensors");
    let mut workflow = stored("cases/w_embsub.json");
    let bare = home.latent(&device_context, &workflow);
    assert_eq!(bare.data(), home.latent(&device_context, &stored("cases/w_embsub2.json")).data());
    set(&mut workflow, "6", json!({ "text": "a fox" }));
    assert_ne!(bare.data(), home.latent(&device_context, &workflow).data());
}

/// An embedding in a LoRA is there behind its LoraLoader.
#[test]
fn an_embedding_bundled_in_a_lora() {
    let Some(device_context) = device_context() else { return };
    let home = Home::new(&["tiny-sd1"]);
    bring(&home, "embeddings/bundle.safetensors", "loras/bundle.safetensors");
    let mut workflow = stored("cases/w_embsub.json");
    set(&mut workflow, "11", json!({ "lora_name": "bundle.safetensors" }));
    set(&mut workflow, "6", json!({ "text": "a embedding:foo fox" }));
    let with = home.latent(&device_context, &workflow);
    set(&mut workflow, "6", json!({ "text": "a fox" }));
    assert_ne!(with.data(), home.latent(&device_context, &workflow).data());
}
