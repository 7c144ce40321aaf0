//! Latent files, in the format of ComfyUI's nodes *SaveLatent* and *LoadLatent*.
//!
//! A latent file is a safetensors file with the tensor `latent_tensor` (f32, `[batch, channels, height, width]`) and
//! an empty tensor `latent_format_version_0`, which says that the values are in the VAE's scale: as the VAE's encoder
//! returns them, without the model's scaling factor.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{Latent, VaeLatent};
use crate::{Error, ErrorKind, Result};

const TENSOR: &str = "latent_tensor";
/// Its presence says that the values are in the VAE's scale.
const VERSION: &str = "latent_format_version_0";

/// Encodes a latent file. `texts` (name, text) become the metadata of the file.
///
/// # Errors
/// [`ErrorKind::Internal`] if the header cannot be written.
pub fn encode(latent: &VaeLatent, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| Error::internal("a latent could not be encoded").cause(e);
    let bytes: Vec<u8> = latent.data().iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensors = [
        (TENSOR, TensorView::new(Dtype::F32, latent.shape().to_vec(), &bytes).map_err(failed)?),
        (VERSION, TensorView::new(Dtype::F32, vec![0], &[]).map_err(failed)?),
    ];
    let metadata = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    safetensors::serialize(tensors, Some(metadata)).map_err(failed)
}

/// Whether a file with these first bytes looks like a latent file.
pub fn is_one(head: &[u8]) -> bool {
    let name = format!("\"{TENSOR}\"");
    // The first 8 bytes are the length of the header.
    head.get(8) == Some(&b'{') && head.windows(name.len()).any(|at| at == name.as_bytes())
}

/// The texts in the metadata of a latent file: ComfyUI's workflow, or the settings that this library has written.
/// Empty if the file cannot be read.
#[doc(hidden)]
pub fn texts(bytes: &[u8]) -> BTreeMap<String, String> {
    let header = safetensors::SafeTensors::read_metadata(bytes).ok();
    let texts = header.and_then(|(_, header)| header.metadata().clone());
    texts.into_iter().flatten().collect()
}

/// The scaling factor in the oldest files, which lack the tensor that marks the VAE's scale.
const OLD_SCALE: f32 = 0.18215;

/// Decodes a latent file.
///
/// # Errors
/// [`ErrorKind::File`] if it is not a latent file, or does not hold finite numbers in four dimensions.
pub fn decode(bytes: &[u8]) -> Result<VaeLatent> {
    let wrong =
        |what: &str| Error::new(ErrorKind::File, what.to_owned()).hint("save it anew with SaveLatent");
    let file = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|e| wrong("not a latent file").expected("a file of ComfyUI's SaveLatent").cause(e))?;
    let tensor =
        file.tensor(TENSOR).map_err(|_| wrong("not a latent file").expected(format!("a tensor {TENSOR}")))?;
    let shape: [usize; 4] = tensor.shape().try_into().map_err(|_| {
        wrong("the latent is no picture's")
            .expected("[batch, channels, height, width]")
            .found(format!("{:?}", tensor.shape()))
    })?;
    let (two, four) = (tensor.data().as_chunks::<2>().0, tensor.data().as_chunks::<4>().0);
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => four.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => two.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => two.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        other => {
            return Err(wrong("the latent is of another type")
                .expected("F32, F16 or BF16")
                .found(other.to_string()));
        }
    };
    let latent = Latent::from_vec(shape, values)?;
    if latent.data().is_empty() || !latent.is_finite() {
        return Err(wrong("the latent is empty or not finite"));
    }
    let scaled = file.tensor(VERSION).is_err();
    Ok(if scaled { VaeLatent::from_unet(&latent, OLD_SCALE) } else { VaeLatent::new(latent) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_comfyui_reads() {
        let values: Vec<f32> = (0..24).map(|v| v as f32 * 0.5).collect();
        let latent = VaeLatent::new(Latent::from_vec([1, 4, 2, 3], values.clone()).unwrap());
        let bytes = encode(&latent, &[("parameters", "a\nb")]).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("latent_tensor").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[1, 4, 2, 3][..]));
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()), values);
        assert_eq!(file.tensor("latent_format_version_0").unwrap().shape(), [0]);
        assert_eq!(decode(&bytes).unwrap(), latent);
    }

    #[test]
    fn older_files_are_in_another_scale_and_others_are_none() {
        let bytes: Vec<u8> = [0.18215f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = |shape: Vec<usize>| {
            let view = TensorView::new(Dtype::F32, shape, &bytes).unwrap();
            safetensors::serialize([("latent_tensor", view)], None).unwrap()
        };
        assert_eq!(decode(&file(vec![1, 4, 1, 1])).unwrap().data(), [1.0; 4]);
        assert!(decode(&file(vec![4])).unwrap_err().to_string().contains("[4]"));
        assert!(decode(b"").is_err() && decode(b"{}").is_err());
    }
}
