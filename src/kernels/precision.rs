//! How values are stored.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Storage precision of activations and weights. Arithmetic is f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Precision {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value; about three decimal digits.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// `f32` or `f16`, or what other programs call them: `fp16`, `float16`, `half`, `fp32`, `float32`, `float`,
    /// `full`.
    fn from_str(name: &str) -> Result<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "f32" | "fp32" | "float32" | "float" | "full" => Ok(Self::F32),
            "f16" | "fp16" | "float16" | "half" => Ok(Self::F16),
            _ => Err(Error::usage("unknown precision").expected("f32 or f16").found(name)),
        }
    }
}

impl Precision {
    /// Bytes of a stored value.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::F16 => 2,
        }
    }

    /// `f32` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }
}
