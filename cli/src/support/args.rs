//! The flags of `sagittal generate`, named as stable-diffusion.cpp and A1111 name them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::Prediction;
use sagittal::sampler::{Sampler, Scheduler};
use sagittal::{Error, Result};

use crate::support::device;
use crate::support::loras;
use crate::support::value;

const EXAMPLES: &str = "\
Examples:
  A picture with the built-in model:
    sagittal generate -p \"fox, 3d style\" -o fox.png
  A checkpoint, a negative prompt, other sampling:
    sagittal generate -m v1-5.safetensors -p \"a lighthouse at dawn\" -n \"blurry\" \\
        --sampling-method dpmpp_2m --scheduler karras --steps 25 -s 42
  The same seed without and with Self-Attention Guidance:
    sagittal generate -p \"\" --cfg-scale 1 -s 7 --sag-scale 0 -o off.png
    sagittal generate -p \"\" --cfg-scale 1 -s 7 --sag-scale 1.5 -o on.png
  Eight pictures, two at a time, numbered out-01.png to out-08.png:
    sagittal generate -p \"panda, noto style\" --batch-size 2 --batch-count 4 -o out-%02d.png
  Redraw an image, and redraw only the mask's white area of it:
    sagittal generate -p \"fox, noto style\" -i fox.png --strength 0.6 -o again.png
    sagittal generate -p \"owl, 3d style\" -i fox.png --mask mask.png -o owl.png
  Draw a picture again, then with another seed and stronger guidance:
    sagittal generate --from fox.png -o same.png
    sagittal generate --from fox.png -s 8 --sag-scale 1 -o other.png
  Estimate memory and work without drawing:
    sagittal generate -m v1-5.safetensors -p \"\" -W 1024 -H 1024 --dry-run";

/// Draw pictures from a prompt.
///
/// Writes PNG files with their settings in A1111's format (chunk `parameters`), which its "PNG info"
/// reads. The same seed and settings give the same bytes on one device, independent of --chunk and
/// --max-memory, except when the VAE is tiled, which is reported.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "More with --help.")]
pub struct Args {
    /// Checkpoint: a .safetensors file or a diffusers folder [default: the small built-in emoji
    /// model]
    #[arg(short, long, value_name = "PATH", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// VAE to use instead of the checkpoint's: a file, a folder, or another checkpoint
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    pub vae: Option<PathBuf>,
    /// Text encoder to use instead of the checkpoint's; twice for SDXL, in any order
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    pub text_encoder: Vec<PathBuf>,
    /// Ignore tensors that no layer uses (adapters, gates, extra biases) instead of rejecting the file
    #[arg(long, help_heading = "Model")]
    pub ignore_extra: bool,
    /// What the network predicts [default: read from the checkpoint]
    #[arg(long, value_name = "KIND", help_heading = "Model")]
    pub prediction: Option<PredictionChoice>,

    /// LoRA to add to the checkpoint, with its weight [default: 1]; may be repeated
    #[arg(long, value_name = "FILE[:WEIGHT]", help_heading = "Model")]
    pub lora: Vec<loras::Flag>,
    /// Folder of LoRAs for tags in the prompt: <lora:ink:0.8> loads DIR/ink.safetensors
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub lora_dir: Option<PathBuf>,
    /// Folder of embeddings for prompts: embedding:moss loads DIR/moss.safetensors
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub embedding_dir: Option<PathBuf>,

    /// Draw a picture again from the settings stored in it; flags on the command line override them
    ///
    /// Reads PNGs, JPEGs and WebPs of sagittal, A1111, Forge, stable-diffusion.cpp, and of Fooocus, InvokeAI,
    /// NovelAI, SwarmUI, Easy Diffusion and Draw Things. Settings that do not exist here are ignored with a
    /// warning. A picture of sagittal comes out with the same bytes, given the same files and device. The model
    /// (-m), LoRAs (--lora-dir, or --lora for each) and the start picture (-i, --mask) must be passed, because a
    /// picture stores only names; a warning is given if files differ.
    #[arg(long, value_name = "PICTURE", help_heading = "Prompt")]
    pub from: Option<PathBuf>,
    /// Prompt of any length; (word:1.2) gives a word more weight, "" is an empty prompt
    ///
    /// `AND` between two prompts, or this flag given twice, averages their predictions; `a cat :1.5
    /// AND a dog` sets their weights. (A1111 adds them up instead of averaging, which is the same as a
    /// CFG scale multiplied by the sum of the weights.) `BREAK` starts a new chunk of 77 tokens.
    #[arg(short, long, value_name = "TEXT", required_unless_present = "from")]
    #[arg(allow_hyphen_values = true, help_heading = "Prompt")]
    pub prompt: Vec<String>,
    /// Negative prompt; if repeated, the entries are averaged; BREAK is supported
    #[arg(short, long = "negative-prompt", value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(help_heading = "Prompt")]
    pub negative: Vec<String>,
    /// Text encoder layer, counted from the end: 1 is the last, 2 the one before it [default: 1 for
    /// SD 1, 2 for SD 2 and SDXL]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = value::clip_skip, allow_hyphen_values = true, help_heading = "Prompt")]
    pub clip_skip: Option<usize>,

    /// Picture to start from, a PNG, JPEG or WebP: image to image
    ///
    /// The result has its size unless -W or -H is given. Without them, sides are center-cropped to
    /// multiples of 8, as ComfyUI does; with -W or -H the picture is scaled with a Lanczos filter, and a
    /// side that is not given keeps the aspect ratio. Transparency is ignored.
    #[arg(short, long = "init-img", value_name = "IMAGE", alias = "image")]
    #[arg(help_heading = "Image to image")]
    pub init_img: Option<PathBuf>,
    /// Denoising strength: how much of the picture is redrawn, from 0 (nothing) to 1 (all) [default: 0.75]
    ///
    /// The same as ComfyUI's denoise: all --steps are run; they are the last steps of a schedule of steps / strength.
    #[arg(long, value_name = "F", value_parser = value::strength, allow_hyphen_values = true)]
    #[arg(requires = "init_img", help_heading = "Image to image")]
    pub strength: Option<f64>,
    /// Mask picture for inpainting: white is redrawn, black is kept, grey is in between
    ///
    /// A latent mask like ComfyUI's SetLatentNoiseMask: one weight per latent cell of 8×8 pixels. A mask of
    /// another size is stretched to the picture. Transparent pixels count as black. The whole picture goes
    /// through the VAE, so the kept area changes slightly.
    #[arg(long, value_name = "MASK.png", requires = "init_img", help_heading = "Image to image")]
    pub mask: Option<PathBuf>,

    /// SDXL: original size passed to the network [default: the size of the picture]
    #[arg(long, value_name = "WxH", value_parser = value::size, help_heading = "Prompt")]
    pub original_size: Option<(usize, usize)>,
    /// SDXL: crop offset passed to the network, pixels from the top and from the left
    #[arg(long, value_name = "TOP,LEFT", value_parser = value::crop, help_heading = "Prompt")]
    #[arg(allow_hyphen_values = true)]
    pub crop: Option<(usize, usize)>,
    /// SDXL: target size passed to the network [default: the size of the picture]
    #[arg(long, value_name = "WxH", value_parser = value::size, help_heading = "Prompt")]
    pub target_size: Option<(usize, usize)>,

    /// Width in pixels, a multiple of 8 [default: 512 for SD 1 and 2, 768 for SD 2 v, 1024 for SDXL, 256 for the
    /// built-in model]
    #[arg(short = 'W', long, value_name = "PX", value_parser = value::side, allow_negative_numbers = true)]
    #[arg(help_heading = "Picture")]
    pub width: Option<usize>,
    /// Height in pixels, a multiple of 8 [default: as for the width]
    #[arg(short = 'H', long, value_name = "PX", value_parser = value::side, allow_negative_numbers = true)]
    #[arg(help_heading = "Picture")]
    pub height: Option<usize>,
    /// Seed of the noise; -1 picks a random one, which is printed and stored in the picture
    #[arg(short, long, value_name = "N", default_value = "-1")]
    #[arg(value_parser = value::seed, allow_hyphen_values = true, help_heading = "Picture")]
    pub seed: value::Seed,
    /// Pictures per batch; they share one noise stream, as in ComfyUI
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = value::batch_size, allow_negative_numbers = true, help_heading = "Picture")]
    pub batch_size: usize,
    /// Number of batches, drawn one after the other; batch i uses the seed SEED + i
    #[arg(short = 'b', long, value_name = "N", default_value = "1")]
    #[arg(value_parser = value::batch_count, allow_negative_numbers = true, help_heading = "Picture")]
    pub batch_count: usize,

    /// Number of sampling steps
    #[arg(long, value_name = "N", default_value = "20")]
    #[arg(value_parser = value::steps, allow_negative_numbers = true, help_heading = "Sampling")]
    pub steps: usize,
    #[arg(long, value_name = "NAME", default_value = "euler", help = sampler_help())]
    #[arg(help_heading = "Sampling", visible_alias = "sampler")]
    pub sampling_method: value::SamplerChoice,
    #[arg(long, value_name = "NAME", help = scheduler_help())]
    #[arg(help_heading = "Sampling", alias = "schedule")]
    scheduler: Option<Scheduler>,
    /// Amount of new noise in ancestral and stochastic samplers; 0 adds none
    #[arg(long, value_name = "F", default_value = "1", allow_hyphen_values = true)]
    #[arg(help_heading = "Sampling")]
    pub eta: f32,
    /// Factor on the noise that samplers add
    #[arg(long, value_name = "F", default_value = "1", allow_hyphen_values = true)]
    #[arg(help_heading = "Sampling")]
    pub s_noise: f32,
    /// Scale of classifier-free guidance; 1 turns it off [default: 7; 3.5 for the built-in model]
    #[arg(long, value_name = "F", value_parser = value::cfg_scale, allow_hyphen_values = true)]
    #[arg(help_heading = "Sampling")]
    pub cfg_scale: Option<f32>,

    /// SAG scale: how strongly the picture is pushed away from a blurred version of itself, -2 to 5; 0 turns it off
    #[arg(long, value_name = "F", default_value = "0.5")]
    #[arg(value_parser = value::sag_scale, allow_hyphen_values = true)]
    #[arg(help_heading = "Self-Attention Guidance")]
    pub sag_scale: f32,
    /// Sigma of that blur in latent cells, 0 to 10; 0 turns SAG off
    #[arg(long, value_name = "F", default_value = "2.0")]
    #[arg(value_parser = value::sag_blur, allow_hyphen_values = true)]
    #[arg(help_heading = "Self-Attention Guidance")]
    pub sag_blur: f32,
    /// Attention threshold: areas with more attention are blurred; 1 is the mean
    #[arg(long, value_name = "F", default_value = "1.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Self-Attention Guidance")]
    pub sag_threshold: f32,
    /// Fraction of the sampling at which SAG starts, 0 to 1
    #[arg(long, value_name = "F", default_value = "0.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Self-Attention Guidance")]
    pub sag_start: f64,
    /// Fraction of the sampling at which SAG ends, 0 to 1
    #[arg(long, value_name = "F", default_value = "1.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Self-Attention Guidance")]
    pub sag_end: f64,
    /// At --cfg-scale 1, use the attention of the prompt's row: two rows per picture instead of three
    #[arg(long, help_heading = "Self-Attention Guidance")]
    pub sag_cond: bool,

    /// PAG scale: Perturbed-Attention Guidance pushes away from a prediction without self-attention in the
    /// middle block, 0 to 100; 3 is usual, 0 turns it off
    #[arg(long, value_name = "F", default_value = "0.0")]
    #[arg(value_parser = value::pag_scale, allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub pag_scale: f32,
    /// Fraction of the sampling at which PAG starts, 0 to 1
    #[arg(long, value_name = "F", default_value = "0.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub pag_start: f64,
    /// Fraction of the sampling at which PAG ends, 0 to 1
    #[arg(long, value_name = "F", default_value = "1.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub pag_end: f64,
    /// SEG scale: Smoothed Energy Guidance pushes away from a prediction with blurred queries in the middle
    /// block; 0 turns it off
    #[arg(long, value_name = "F", default_value = "0.0")]
    #[arg(value_parser = value::seg_scale, allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub seg_scale: f32,
    /// Sigma of that blur in tokens of the middle block; inf replaces queries by their mean, 0 turns SEG off
    #[arg(long, value_name = "F", default_value = "inf")]
    #[arg(value_parser = value::seg_blur, allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub seg_blur: f32,
    /// Fraction of the sampling at which SEG starts, 0 to 1
    #[arg(long, value_name = "F", default_value = "0.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub seg_start: f64,
    /// Fraction of the sampling at which SEG ends, 0 to 1
    #[arg(long, value_name = "F", default_value = "1.0", allow_hyphen_values = true)]
    #[arg(help_heading = "Other guidance")]
    pub seg_end: f64,

    #[command(flatten)]
    pub compute: device::Compute,

    /// PNG file; %d or %03d becomes the picture's number, from 1 [default: sagittal-SEED.png]
    ///
    /// Without %d, several pictures are numbered out-1.png, out-2.png, ...
    #[arg(short, long, value_name = "OUT.png", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Also write the latent, like ComfyUI's SaveLatent; one file per batch
    #[arg(long, value_name = "OUT.latent", help_heading = "Output")]
    pub save_latent: Option<PathBuf>,
    /// Write SAG's attention as a heat map (evaluation-01-heat.png) and the mask of the area it blurs
    /// (evaluation-01-mask.png), over the picture predicted at each step, and both with the predicted latents as
    /// data (maps.safetensors). Samplers of a higher order have several evaluations per step. Written when the
    /// batch is done
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub save_attention: Option<PathBuf>,
    /// Write a strip of four pictures: without SAG, its attention and its mask halfway through, with SAG
    #[arg(long, value_name = "OUT.png", help_heading = "Output")]
    pub compare: Option<PathBuf>,
    /// Write the sampling of the first picture of each batch as an animated PNG
    #[arg(long, value_name = "OUT.png", help_heading = "Output")]
    pub animate: Option<PathBuf>,
    /// Write a rough preview while sampling, for a viewer that reloads the file
    #[arg(long, value_name = "OUT.png", help_heading = "Output")]
    pub preview: Option<PathBuf>,
    /// Steps between previews
    #[arg(long, value_name = "N", default_value = "1", value_parser = value::steps)]
    #[arg(requires = "preview", allow_negative_numbers = true, help_heading = "Output")]
    pub preview_every: usize,
    /// Replace existing files
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// Report the memory and work of the run (rows, MiB, dispatches; with -v the kernels), and exit
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
    /// Print events on stdout, one JSON object per line; messages stay on stderr
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `--prediction`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PredictionChoice {
    /// The noise
    Eps,
    /// The velocity
    V,
    /// The velocity, from a first step of pure noise (zero terminal SNR)
    #[value(name = "v-zsnr")]
    VZsnr,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PrecisionChoice {
    /// f16 on GPUs, f32 on CPUs
    Auto,
    /// 4 bytes per value
    #[value(aliases = F32_NAMES)]
    F32,
    /// 2 bytes per value
    #[value(aliases = F16_NAMES)]
    F16,
}

/// Names of the two in other programs.
pub const F32_NAMES: [&str; 4] = ["fp32", "float32", "float", "full"];
pub const F16_NAMES: [&str; 3] = ["fp16", "float16", "half"];

impl Args {
    /// The scheduler that the sampler's name ends in, or that of `--scheduler`.
    pub fn scheduler(&self) -> Scheduler {
        self.sampling_method.scheduler.or(self.scheduler).unwrap_or(Scheduler::Normal)
    }

    /// Rejects two different schedulers.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage), naming both.
    pub fn check_schedulers(&self) -> Result<()> {
        match (self.sampling_method.scheduler, self.scheduler) {
            (Some(first), Some(second)) if first != second => {
                Err(Error::usage("the sampler's name ends in a different scheduler than --scheduler")
                    .expected(first.name())
                    .found(second.name())
                    .hint("leave one of them out"))
            }
            _ => Ok(()),
        }
    }

    /// The files and folders that weights are read from.
    pub fn models(&self) -> impl Iterator<Item = &Path> {
        let parts = self.model.iter().chain(&self.vae).chain(&self.text_encoder);
        parts.map(PathBuf::as_path).chain(self.lora.iter().map(loras::Flag::file))
    }
}

impl From<PredictionChoice> for Prediction {
    fn from(choice: PredictionChoice) -> Self {
        match choice {
            PredictionChoice::Eps => Prediction::Eps,
            PredictionChoice::V => Prediction::V,
            PredictionChoice::VZsnr => Prediction::ZeroSnrV,
        }
    }
}

impl PrecisionChoice {
    /// The storage asked for; None leaves it to the device.
    pub fn precision(self) -> Option<Precision> {
        match self {
            PrecisionChoice::Auto => None,
            PrecisionChoice::F32 => Some(Precision::F32),
            PrecisionChoice::F16 => Some(Precision::F16),
        }
    }
}

fn sampler_help() -> String {
    format!(
        "Sampler, by its name in any program, optionally followed by a scheduler (\"DPM++ 2M Karras\"): {}",
        Sampler::ALL.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
    )
}

fn scheduler_help() -> String {
    format!(
        "Scheduler, which chooses the noise levels: {} [default: normal]",
        Scheduler::ALL.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
    )
}
