//! Remedies for errors in terms of this program's flags and commands.

use sagittal::{Error, Remedy, Resource};

/// The text of an error for the terminal.
pub fn text(error: &Error) -> String {
    error.worded(&words)
}

/// A remedy in this program's words.
pub fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::UseAs(resource) => use_as(*resource),
        Remedy::Pass(resource) => pass(*resource),
        Remedy::UseF32 => "use --precision f32".into(),
        Remedy::UseF16 => "use --precision f16".into(),
        Remedy::DecodeInF32 => "decode with --vae-precision f32".into(),
        Remedy::RaiseMemoryLimit(None) => "raise --max-memory".into(),
        Remedy::RaiseMemoryLimit(Some(bytes)) => {
            format!("raise --max-memory to {}", bytes.div_ceil(1 << 20))
        }
        Remedy::SetPrediction => "say what the network predicts with --prediction".into(),
        Remedy::TurnOff(guidances) => {
            let flags: Vec<String> =
                guidances.iter().map(|name| format!("--{}-scale 0", name.to_lowercase())).collect();
            format!("turn {} off ({})", guidances.join(" and "), flags.join(" "))
        }
        Remedy::Overwrite => "pass --force to replace it".into(),
        Remedy::IgnoreExtra => "pass --ignore-extra to go on without them".into(),
        Remedy::SetNodeInput => "choose one of them with --set NODE.INPUT=NAME".into(),
        Remedy::ListNodes => "look at the list of nodes that run, sagittal run --nodes".into(),
        // Other remedies name no flags.
        other => other.to_string(),
    }
}

fn use_as(resource: Resource) -> String {
    match resource {
        Resource::Checkpoint => "pass it with -m",
        Resource::Vae => "pass it with --vae",
        Resource::TextEncoder => "pass it with --text-encoder",
        Resource::Lora => "pass it with --lora",
        Resource::Embedding => "write embedding:NAME in the prompt, and pass its folder with --embedding-dir",
        Resource::Manifest => "pass it with --manifest",
        Resource::PictureSettings => "use them with sagittal generate --from FILE",
        Resource::Workflow => "run it with sagittal run FILE",
        other => return Remedy::UseAs(other).to_string(),
    }
    .into()
}

fn pass(resource: Resource) -> String {
    let flag = match resource {
        Resource::Checkpoint => "-m",
        Resource::Vae => "--vae",
        Resource::TextEncoder => "--text-encoder",
        Resource::Lora => "--lora",
        Resource::LoraFolder => "--lora-dir",
        Resource::EmbeddingFolder => "--embedding-dir",
        Resource::Manifest => "--manifest",
        Resource::ModelFolders => "--models-dir",
        Resource::InputFolder => "--input-dir",
        Resource::OutputFolder => "--output-dir",
        other => return Remedy::Pass(other).to_string(),
    };
    format!("{} with {flag}", Remedy::Pass(resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagittal::ErrorKind;

    #[test]
    fn remedies_name_flags_here_and_none_in_the_library() {
        let inner = Error::new(ErrorKind::Memory, "full").remedy(Remedy::RaiseMemoryLimit(Some(5 << 20)));
        let error = Error::new(ErrorKind::Model, "no VAE")
            .cause(inner)
            .remedy(Remedy::Pass(Resource::Vae))
            .remedy(Remedy::TurnOff(&["PAG", "SEG"]))
            .hint("fetch the file again");
        let mine = "no VAE: full; raise --max-memory to 5; pass a VAE with --vae, or turn PAG and SEG off \
                    (--pag-scale 0 --seg-scale 0), or fetch the file again";
        assert_eq!(text(&error), mine);
        let plain = "no VAE: full; raise the memory limit to 5 MiB; pass a VAE, or turn PAG and SEG off, or \
                     fetch the file again";
        assert_eq!(error.to_string(), plain);
    }
}
