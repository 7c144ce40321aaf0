//! What a tensor of a LoRA's file is for, by the end of its name.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

/// Ends of names and the part that they are, as [`Parts`](super::open::Parts) has it: kohya, LyCORIS, PEFT, three
/// generations of diffusers, ComfyUI's extraction.
const ENDS: &[(&str, &str)] = &[
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".lora_up.bias", "up_bias"),
    (".alpha", "alpha"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_B.bias", "up_bias"),
    (".lora_A", "down"),
    (".lora_B", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora.up.bias", "up_bias"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".dora_scale", "magnitude"),
    (".lora_magnitude_vector", "magnitude"),
    (".lora_magnitude_vector.weight", "magnitude"),
    (".hada_w1_a", "hada_w1_a"),
    (".hada_w1_b", "hada_w1_b"),
    (".hada_w2_a", "hada_w2_a"),
    (".hada_w2_b", "hada_w2_b"),
    (".hada_t1", "hada_t1"),
    (".hada_t2", "hada_t2"),
    (".lokr_w1", "lokr_w1"),
    (".lokr_w1_a", "lokr_w1_a"),
    (".lokr_w1_b", "lokr_w1_b"),
    (".lokr_t1", "lokr_t1"),
    (".lokr_w2", "lokr_w2"),
    (".lokr_w2_a", "lokr_w2_a"),
    (".lokr_w2_b", "lokr_w2_b"),
    (".lokr_t2", "lokr_t2"),
    (".a1.weight", "a1"),
    (".a2.weight", "a2"),
    (".b1.weight", "b1"),
    (".b2.weight", "b2"),
    (".oft_blocks", "oft_blocks"),
    (".rescale", "rescale"),
    (".diff", "diff"),
    (".diff_b", "diff_b"),
    (".w_norm", "diff"),
    (".b_norm", "diff_b"),
    (".set_weight", "set"),
    (".set", "set"),
];

/// What PEFT puts an adapter's name behind, which the file need not say.
const NAMED: [&str; 3] = [".lora_A.", ".lora_B.", ".lora_magnitude_vector."];

/// What is before the end of a name that is listed, and the role.
fn listed(name: &str) -> Option<(&str, &'static str)> {
    ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))
}

/// A tensor's module and what it is there.
pub(super) fn split(name: &str) -> Option<(&str, &'static str)> {
    if let Some(found) = listed(name) {
        return Some(found);
    }
    // `to_q.lora_A.default_0.weight`: the adapter is called default_0.
    let (at, mark) = NAMED.iter().find_map(|mark| Some((name.rfind(mark)?, mark)))?;
    let (module, rest) = name.split_at_checked(at)?;
    let plain = match rest.strip_prefix(mark)?.split_once('.') {
        Some((_, leaf)) => format!("{mark}{leaf}"),
        None => mark.trim_end_matches('.').to_owned(),
    };
    let (_, role) = listed(&plain).filter(|(before, _)| before.is_empty())?;
    Some((module, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_of_peft_have_names() {
        let cases = [
            ("a.b.lora_A.weight", Some(("a.b", "down"))),
            ("a.b.lora_A.default_0.weight", Some(("a.b", "down"))),
            ("a.b.lora_B.x.bias", Some(("a.b", "up_bias"))),
            ("a.b.lora_magnitude_vector.default", Some(("a.b", "magnitude"))),
            ("a.b.lora_magnitude_vector.default.weight", Some(("a.b", "magnitude"))),
            ("a.b.lora_A.x.y.weight", None),
            ("a.b.processor.to_q_lora.down.weight", Some(("a.b.processor.to_q", "down"))),
            ("a.weight", None),
        ];
        for (name, expected) in cases {
            assert_eq!(split(name), expected, "{name}");
        }
    }
}
