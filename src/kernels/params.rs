//! Uniform parameters that can be held against their shader.

/// A field of a parameter struct as the device reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name, the same in WGSL.
    pub name: &'static str,
    /// Type, `u32` or `f32`, the same in WGSL.
    pub scalar: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
}

/// Defines a parameter struct in the layout of the shader's `Params`, with a list of its `FIELDS`:
/// Rust has no reflection, and a field out of place would be a wrong picture without an error.
macro_rules! params {
    ($(#[$doc:meta])* pub struct $params:ident { $($visible:vis $field:ident: $scalar:ident,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $params {
            $($visible $field: $scalar,)*
        }

        impl $params {
            /// All fields in order.
            pub const FIELDS: &[$crate::kernels::Field] = &[$($crate::kernels::Field {
                name: stringify!($field),
                scalar: stringify!($scalar),
                offset: std::mem::offset_of!($params, $field),
            }),*];
        }
    };
}
pub(super) use params;

/// Bytes of what a uniform binding reads: whole vectors.
const VECTOR: usize = 16;

/// Bytes that parameters of `bytes` bytes take among others, each of which begins at a multiple of `alignment`: a
/// device's may be smaller than parameters are.
pub(crate) fn room(bytes: usize, alignment: u64) -> u64 {
    (bytes.next_multiple_of(VECTOR) as u64).next_multiple_of(alignment.max(1))
}

/// Parameters of several dispatches, one behind the other in one buffer.
pub(crate) struct Uniforms {
    alignment: u64,
    bytes: Vec<u8>,
}

impl Uniforms {
    /// None yet, for a device on which bindings begin at multiples of `alignment` bytes.
    pub fn new(alignment: u64) -> Self {
        Self { alignment, bytes: Vec::new() }
    }

    /// Adds the parameters of a dispatch. Where they begin, and how many bytes are to be bound.
    pub fn push(&mut self, params: &[u8]) -> (u64, u64) {
        let first = self.bytes.len();
        self.bytes.extend_from_slice(params);
        self.bytes.resize(first + room(params.len(), self.alignment) as usize, 0);
        (first as u64, params.len().next_multiple_of(VECTOR) as u64)
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_apart_whatever_the_alignment_is() {
        for alignment in (0..=12).map(|power| 1u64 << power) {
            let all: Vec<Vec<u8>> = [28, 4, 16, 72, 300, 28].map(|n| vec![n as u8; n]).to_vec();
            let mut uniforms = Uniforms::new(alignment);
            let places: Vec<(u64, u64)> = all.iter().map(|params| uniforms.push(params)).collect();
            let mut end = 0;
            for (params, (first, bytes)) in all.iter().zip(places) {
                let what = format!("{} bytes at {first}, alignment {alignment}", params.len());
                assert!(first.is_multiple_of(alignment) && first >= end, "{what}");
                let bound = &uniforms.bytes()[first as usize..][..bytes as usize];
                assert!(bytes.is_multiple_of(16) && bound.starts_with(params), "{what}");
                assert!(bound[params.len()..].iter().all(|b| *b == 0), "{what}");
                end = first + bytes;
            }
            let room: u64 = all.iter().map(|params| room(params.len(), alignment)).sum();
            assert_eq!(room, uniforms.bytes().len() as u64, "alignment {alignment}");
        }
    }
}
