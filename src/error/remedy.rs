//! What can be done about an error, as data: each program words it in its own terms.

use std::borrow::Cow;
use std::fmt;

/// What can be done about an [`Error`](super::Error). Its text here names what is meant without the flags, menus or
/// functions of any program; a program that has those matches on the remedy and says them, as the command line does
/// (`use f32` is `use --precision f32` there).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// A text that is the same in every program, such as `fetch the file again`.
    Advice(Cow<'static, str>),
    /// One of these names may have been meant.
    DidYouMean(Vec<String>),
    /// What was given is of this kind: use it as such.
    UseAs(Resource),
    /// Give one of this kind, in addition or instead.
    Pass(Resource),
    /// Store the networks in f32.
    UseF32,
    /// Store the networks in f16.
    UseF16,
    /// Store the autoencoder in f32.
    DecodeInF32,
    /// Allow more device memory: at least so many bytes, where that is known.
    RaiseMemoryLimit(Option<u64>),
    /// Say what the network's output means.
    SetPrediction,
    /// Turn off these guidances: `SAG`, `PAG`, `SEG`.
    TurnOff(&'static [&'static str]),
    /// Allow the file to be replaced.
    Overwrite,
    /// Allow tensors that no layer takes.
    IgnoreExtra,
    /// Set an input of a workflow's node by hand.
    SetNodeInput,
    /// Look at the list of nodes that run.
    ListNodes,
}

/// What a person gives to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// A full model.
    Checkpoint,
    /// An autoencoder in a file of its own.
    Vae,
    /// A text encoder in a file of its own.
    TextEncoder,
    /// A LoRA.
    Lora,
    /// The folder of LoRAs that prompts name.
    LoraFolder,
    /// A learned vector that prompts name.
    Embedding,
    /// The folder of embeddings.
    EmbeddingFolder,
    /// Names and shapes of a family.
    Manifest,
    /// A folder laid out as ComfyUI's `models`.
    ModelFolders,
    /// The folder that workflows read pictures from.
    InputFolder,
    /// The folder that results go to.
    OutputFolder,
    /// A picture with the settings that it was made with.
    PictureSettings,
    /// A workflow.
    Workflow,
}

impl Resource {
    /// With its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "a checkpoint",
            Self::Vae => "a VAE",
            Self::TextEncoder => "a text encoder",
            Self::Lora => "a LoRA",
            Self::LoraFolder => "the folder of LoRAs",
            Self::Embedding => "an embedding",
            Self::EmbeddingFolder => "the folder of embeddings",
            Self::Manifest => "the family's manifest",
            Self::ModelFolders => "a folder with ComfyUI's folders of models below it",
            Self::InputFolder => "another input folder",
            Self::OutputFolder => "another output folder",
            Self::PictureSettings => "settings of a picture",
            Self::Workflow => "a workflow",
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Advice(words) => f.write_str(words),
            Self::DidYouMean(names) => write!(f, "did you mean {}?", names.join(" or ")),
            Self::UseAs(input) => write!(f, "use it as {}", input.name()),
            Self::Pass(input) => write!(f, "pass {}", input.name()),
            Self::UseF32 => f.write_str("use f32"),
            Self::UseF16 => f.write_str("use f16"),
            Self::DecodeInF32 => f.write_str("decode in f32"),
            Self::RaiseMemoryLimit(None) => f.write_str("raise the memory limit"),
            Self::RaiseMemoryLimit(Some(bytes)) => {
                write!(f, "raise the memory limit to {} MiB", bytes.div_ceil(1 << 20))
            }
            Self::SetPrediction => f.write_str("say what the network predicts"),
            Self::TurnOff(guidances) => write!(f, "turn {} off", guidances.join(" and ")),
            Self::Overwrite => f.write_str("allow it to be replaced"),
            Self::IgnoreExtra => f.write_str("allow extra tensors to be ignored"),
            Self::SetNodeInput => f.write_str("set the node's input to one of them"),
            Self::ListNodes => f.write_str("look at the list of nodes that run"),
        }
    }
}
