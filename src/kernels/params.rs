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
