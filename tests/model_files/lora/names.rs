//! Modules of the small families and the names that LoRA files have for them.

/// A weight of a family and the names it has: original (after `model.diffusion_model.` or the
/// encoder's prefix), diffusers.
pub struct Case {
    pub tensor: &'static str,
    /// Of the rows, where queries, keys and values are one tensor.
    pub third: Option<usize>,
    pub kohya: &'static [&'static str],
    pub dotted: &'static [&'static str],
}

const fn case(tensor: &'static str, kohya: &'static [&'static str], dotted: &'static [&'static str]) -> Case {
    Case { tensor, third: None, kohya, dotted }
}

/// In all three small families.
pub const UNET: &[Case] = &[
    case(
        "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
        &[
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k",
            "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
        ],
        &[
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
            "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k",
        ],
    ),
    case(
        "middle_block.1.transformer_blocks.0.attn1.to_out.0.weight",
        &[
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0",
            "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0",
        ],
        &[
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out",
        ],
    ),
    case(
        "output_blocks.3.1.transformer_blocks.0.ff.net.0.proj.weight",
        &[
            "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_ff_net_0_proj",
            "lora_unet_output_blocks_3_1_transformer_blocks_0_ff_net_0_proj",
        ],
        &["unet.up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj"],
    ),
    case(
        "input_blocks.3.1.proj_in.weight",
        &["lora_unet_down_blocks_1_attentions_0_proj_in"],
        &["unet.down_blocks.1.attentions.0.proj_in"],
    ),
    case(
        "input_blocks.3.0.skip_connection.weight",
        &["lora_unet_down_blocks_1_resnets_0_conv_shortcut", "lora_unet_input_blocks_3_0_skip_connection"],
        &["unet.down_blocks.1.resnets.0.conv_shortcut"],
    ),
    case(
        "input_blocks.5.0.in_layers.2.weight",
        &["lora_unet_down_blocks_2_resnets_0_conv1", "lora_unet_input_blocks_5_0_in_layers_2"],
        &["unet.down_blocks.2.resnets.0.conv1"],
    ),
    case(
        "output_blocks.1.0.out_layers.3.weight",
        &["lora_unet_up_blocks_0_resnets_1_conv2"],
        &["unet.up_blocks.0.resnets.1.conv2"],
    ),
    case(
        "input_blocks.2.0.op.weight",
        &["lora_unet_down_blocks_0_downsamplers_0_conv", "lora_unet_input_blocks_2_0_op"],
        &["unet.down_blocks.0.downsamplers.0.conv"],
    ),
    case(
        "output_blocks.3.2.conv.weight",
        &["lora_unet_up_blocks_1_upsamplers_0_conv", "lora_unet_output_blocks_3_2_conv"],
        &["unet.up_blocks.1.upsamplers.0.conv"],
    ),
    case(
        "middle_block.2.emb_layers.1.weight",
        &["lora_unet_mid_block_resnets_1_time_emb_proj"],
        &["unet.mid_block.resnets.1.time_emb_proj"],
    ),
    case("input_blocks.0.0.weight", &["lora_unet_conv_in"], &["unet.conv_in"]),
    case("out.2.weight", &["lora_unet_conv_out"], &["unet.conv_out"]),
    case("time_embed.2.weight", &["lora_unet_time_embedding_linear_2"], &["unet.time_embedding.linear_2"]),
];

const SD1: &[Case] = &[
    case(
        "output_blocks.1.1.conv.weight",
        &["lora_unet_up_blocks_0_upsamplers_0_conv"],
        &["unet.up_blocks.0.upsamplers.0.conv"],
    ),
    case(
        "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight",
        &["lora_te_text_model_encoder_layers_1_self_attn_q_proj"],
        &[
            "text_encoder.text_model.encoder.layers.1.self_attn.q_proj",
            "base_model.model.text_model.encoder.layers.1.self_attn.q_proj",
        ],
    ),
    case(
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc2.weight",
        &["lora_te_text_model_encoder_layers_0_mlp_fc2", "lora_te1_text_model_encoder_layers_0_mlp_fc2"],
        &["text_encoder.text_model.encoder.layers.0.mlp.fc2"],
    ),
];

const fn third(
    tensor: &'static str,
    third: usize,
    kohya: &'static [&'static str],
    dotted: &'static [&'static str],
) -> Case {
    Case { tensor, third: Some(third), kohya, dotted }
}

const SD2: &[Case] = &[
    third(
        "cond_stage_model.model.transformer.resblocks.2.attn.in_proj_weight",
        0,
        &["lora_te_text_model_encoder_layers_2_self_attn_q_proj"],
        &["text_encoder.text_model.encoder.layers.2.self_attn.q_proj"],
    ),
    third(
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
        1,
        &["lora_te_text_model_encoder_layers_0_self_attn_k_proj"],
        &["text_encoder.text_model.encoder.layers.0.self_attn.k_proj"],
    ),
    case(
        "cond_stage_model.model.transformer.resblocks.1.attn.out_proj.weight",
        &["lora_te_text_model_encoder_layers_1_self_attn_out_proj"],
        &["text_encoder.text_model.encoder.layers.1.self_attn.out_proj"],
    ),
    case(
        "cond_stage_model.model.transformer.resblocks.1.mlp.c_fc.weight",
        &["lora_te_text_model_encoder_layers_1_mlp_fc1"],
        &["text_encoder.text_model.encoder.layers.1.mlp.fc1"],
    ),
];

const SDXL: &[Case] = &[
    case(
        "output_blocks.1.2.conv.weight",
        &["lora_unet_up_blocks_0_upsamplers_0_conv"],
        &["unet.up_blocks.0.upsamplers.0.conv"],
    ),
    case(
        "input_blocks.5.1.transformer_blocks.1.attn1.to_v.weight",
        &["lora_unet_input_blocks_5_1_transformer_blocks_1_attn1_to_v"],
        &["unet.down_blocks.2.attentions.0.transformer_blocks.1.attn1.to_v"],
    ),
    case("label_emb.0.2.weight", &["lora_unet_add_embedding_linear_2"], &["unet.add_embedding.linear_2"]),
    case(
        "conditioner.embedders.0.transformer.text_model.encoder.layers.2.self_attn.v_proj.weight",
        &["lora_te1_text_model_encoder_layers_2_self_attn_v_proj"],
        &["text_encoder.text_model.encoder.layers.2.self_attn.v_proj"],
    ),
    third(
        "conditioner.embedders.1.model.transformer.resblocks.2.attn.in_proj_weight",
        2,
        &["lora_te2_text_model_encoder_layers_2_self_attn_v_proj"],
        &["text_encoder_2.text_model.encoder.layers.2.self_attn.v_proj"],
    ),
    case(
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_proj.weight",
        &["lora_te2_text_model_encoder_layers_0_mlp_fc2"],
        &["text_encoder_2.text_model.encoder.layers.0.mlp.fc2"],
    ),
];

pub const FAMILIES: [(&str, &[Case]); 3] = [("tiny-sd1", SD1), ("tiny-sd2", SD2), ("tiny-sdxl", SDXL)];

/// How programs write the name of a module, by the network that it is in: what stands before, whether dots become
/// `_`, and whether the UNet's names are the original ones or diffusers'.
pub struct Style {
    pub program: &'static str,
    pub before: &'static str,
    pub dots: bool,
    pub original: bool,
}

const fn style(program: &'static str, before: &'static str, dots: bool, original: bool) -> Style {
    Style { program, before, dots, original }
}

pub const UNET_STYLES: &[Style] = &[
    style("kohya", "lora_unet_", false, false),
    style("kohya, original names", "lora_unet_", false, true),
    style("kohya, a compiled model", "lora_unet__orig_mod_", false, false),
    style("LyCORIS", "lycoris_", false, false),
    style("LyCORIS, named", "lycoris_unet_", false, false),
    style("diffusers", "unet.", true, false),
    style("diffusers, the UNet alone", "", true, false),
    style("PEFT", "base_model.model.", true, false),
    style("PEFT in diffusers", "unet.base_model.model.", true, false),
    style("SimpleTuner", "base_model.model.unet.", true, false),
    style("ComfyUI", "diffusion_model.", true, true),
    style("a checkpoint's names", "model.diffusion_model.", true, true),
    style("OneTrainer", "unet.", true, true),
];

pub const FIRST_STYLES: &[Style] = &[
    style("kohya", "lora_te_text_model_", false, false),
    style("kohya, SDXL", "lora_te1_text_model_", false, false),
    style("LyCORIS", "lycoris_te_text_model_", false, false),
    style("diffusers", "text_encoder.text_model.", true, false),
    style("diffusers on transformers 5", "text_encoder.", true, false),
    style("PEFT in diffusers", "text_encoder.base_model.model.text_model.", true, false),
    style("OneTrainer", "clip_l.text_model.", true, false),
    style("ComfyUI", "text_encoders.clip_l.transformer.text_model.", true, false),
];

/// The one encoder of SD 2.
pub const ONLY_STYLES: &[Style] = &[
    style("PEFT", "base_model.model.text_model.", true, false),
    style("the encoder alone", "text_model.", true, false),
    style("OneTrainer", "clip_h.text_model.", true, false),
    style("ComfyUI", "text_encoders.clip_h.transformer.text_model.", true, false),
];

pub const SECOND_STYLES: &[Style] = &[
    style("kohya", "lora_te2_text_model_", false, false),
    style("LyCORIS", "lycoris_te2_text_model_", false, false),
    style("diffusers", "text_encoder_2.text_model.", true, false),
    style("diffusers on transformers 5", "text_encoder_2.", true, false),
    style("OneTrainer", "clip_g.text_model.", true, false),
    style("ComfyUI", "text_encoders.clip_g.transformer.text_model.", true, false),
];
