//! Latents as files: ComfyUI's SaveLatent format, which its LoadLatent node opens.
//!
//! It is a safetensors file with `latent_tensor` (f32, `[batch, channels, height, width]`) and an
//! empty tensor `latent_format_version_0`, which says that the values are in the VAE's scale.

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::Latent;
use crate::{Error, Result};

/// The bytes of a latent file. `latent` is in the VAE's scale; `texts` (name, text) become the
/// file's metadata.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the header cannot be written.
pub fn encode(latent: &Latent, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| Error::internal("a latent could not be encoded").cause(e);
    let bytes: Vec<u8> = latent.data().iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensors = [
        ("latent_tensor", TensorView::new(Dtype::F32, latent.shape().to_vec(), &bytes).map_err(failed)?),
        ("latent_format_version_0", TensorView::new(Dtype::F32, vec![0], &[]).map_err(failed)?),
    ];
    let metadata = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    safetensors::serialize(tensors, Some(metadata)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_comfyui_reads() {
        let values: Vec<f32> = (0..24).map(|v| v as f32 * 0.5).collect();
        let latent = Latent::from_vec([1, 4, 2, 3], values.clone()).unwrap();
        let bytes = encode(&latent, &[("parameters", "a\nb")]).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("latent_tensor").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[1, 4, 2, 3][..]));
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()), values);
        assert_eq!(file.tensor("latent_format_version_0").unwrap().shape(), [0]);
    }
}
