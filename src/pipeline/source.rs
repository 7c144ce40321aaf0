//! A checkpoint's tensors as the engine's weights.

use crate::Result;
use crate::checkpoint::{Checkpoint, Dtype};
use crate::engine::WeightSource;
use crate::kernels::repack::Stored;

impl WeightSource for Checkpoint {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.read_f32(name, shape)
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        let (dtype, bytes) = self.raw(name, shape)?;
        let stored = match dtype {
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::Bf16,
            Dtype::F8_E4M3 => Stored::F8E4m3,
            Dtype::F8_E5M2 => Stored::F8E5m2,
            _ => return Ok(None),
        };
        Ok(bytes.map(|b| (stored, b)))
    }

    fn fits_f16(&self, name: &str) -> bool {
        self.fits_f16(name)
    }
}
