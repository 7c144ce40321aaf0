//! The text encoders. OpenCLIP and transformers build the same network, but OpenCLIP keeps
//! queries, keys and values in one tensor and its projection transposed.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

/// Outside the layers: OpenCLIP's tensor, that of transformers.
const ENDS: &[(&str, &str)] = &[
    ("token_embedding.weight", "embeddings.token_embedding.weight"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_final.weight", "final_layer_norm.weight"),
    ("ln_final.bias", "final_layer_norm.bias"),
];

/// The layers.
const LAYERS: (&str, &str) = ("transformer.resblocks.", "encoder.layers.");

/// Inside a layer.
const LAYER: &[(&str, &str)] = &[
    ("ln_1.weight", "layer_norm1.weight"),
    ("ln_1.bias", "layer_norm1.bias"),
    ("attn.out_proj.weight", "self_attn.out_proj.weight"),
    ("attn.out_proj.bias", "self_attn.out_proj.bias"),
    ("ln_2.weight", "layer_norm2.weight"),
    ("ln_2.bias", "layer_norm2.bias"),
    ("mlp.c_fc.weight", "mlp.fc1.weight"),
    ("mlp.c_fc.bias", "mlp.fc1.bias"),
    ("mlp.c_proj.weight", "mlp.fc2.weight"),
    ("mlp.c_proj.bias", "mlp.fc2.bias"),
];

/// Inside a layer: one tensor of three equal parts along the first dimension.
const PACKED: &[(&str, [&str; 3])] = &[
    (
        "attn.in_proj_weight",
        ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    ),
    ("attn.in_proj_bias", ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"]),
];

/// The matrix behind the pooled token: OpenCLIP's `x · W`, and the transposed `x · Wᵀ` of
/// transformers, which lies beside `text_model`.
pub const PROJECTION: (&str, &str) = ("text_projection", "text_projection.weight");

/// Parts of a packed tensor.
pub const PARTS: usize = 3;

/// A tensor in OpenCLIP's layout, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenClipTensor {
    /// Name without the encoder's prefix.
    pub name: String,
    /// Which of [`PARTS`] parts; None is all of it.
    pub part: Option<usize>,
}

/// Where OpenCLIP keeps what transformers calls `name`; both without the encoder's prefix
/// (`text_model.` for transformers).
pub fn open_clip(name: &str) -> Option<OpenClipTensor> {
    if let Some((to, _)) = ENDS.iter().find(|(_, from)| *from == name) {
        return Some(OpenClipTensor { name: (*to).to_owned(), part: None });
    }
    let (layer, rest) = name.strip_prefix(LAYERS.1)?.split_once('.')?;
    let whole = LAYER.iter().find(|(_, from)| *from == rest).map(|(to, _)| (*to, None));
    let part = |(to, from): &(&'static str, [&str; 3])| {
        from.iter().position(|from| *from == rest).map(|part| (*to, Some(part)))
    };
    let (to, part) = whole.or_else(|| PACKED.iter().find_map(part))?;
    Some(OpenClipTensor { name: format!("{}{layer}.{to}", LAYERS.0), part })
}

/// What transformers calls the parts of OpenCLIP's tensor `name`: one, or [`PARTS`] in order.
pub fn transformers(name: &str) -> Option<Vec<String>> {
    if let Some((_, to)) = ENDS.iter().find(|(from, _)| *from == name) {
        return Some(vec![(*to).to_owned()]);
    }
    let (layer, rest) = name.strip_prefix(LAYERS.0)?.split_once('.')?;
    let whole = LAYER.iter().find(|(from, _)| *from == rest).map(|(_, to)| vec![*to]);
    let packed = || PACKED.iter().find(|(from, _)| *from == rest).map(|(_, to)| to.to_vec());
    let parts = whole.or_else(packed)?;
    Some(parts.into_iter().map(|to| format!("{}{layer}.{to}", LAYERS.1)).collect())
}
