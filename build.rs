//! Tells the crate whether the embedded checkpoint lies where it can be included. The package on
//! crates.io goes without it (31 MB); the program then asks for a model file.

fn main() {
    let model = "models/tiny-emoji/tiny-emoji.safetensors";
    println!("cargo::rerun-if-changed={model}");
    println!("cargo::rustc-check-cfg=cfg(model_present)");
    if std::path::Path::new(model).is_file() {
        println!("cargo::rustc-cfg=model_present");
    }
}
