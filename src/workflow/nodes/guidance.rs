//! Nodes that change how a model is guided or what its output means.

use std::sync::Arc;

use super::node_class::Function::Plain;
use super::node_class::{Hooks, NodeClass};
use crate::guidance::{Guidance, Perturbed, Sag, Term};
use crate::model::Prediction;
use crate::pipeline::Request;
use crate::sampler::Discrete;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs, KnownModel};
use crate::workflow::picture_settings::{Contribution, WrittenNode};
use crate::workflow::spec::{Class, Type, choice, float, socket, switch};
use crate::workflow::value::{Arguments, ModelValue, Value};
use crate::{Error, Result};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "SelfAttentionGuidance",
            title: "Self-Attention Guidance",
            category: "_for_testing",
            inputs: &[
                socket("model", Type::Model),
                float("scale", 0.5, -2.0, 5.0),
                float("blur_sigma", 2.0, 0.0, 10.0),
            ],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Plain(sag),
        hooks: Hooks {
            dry_run: Some(sag_known),
            settings: Some(Contribution::OnModel(sag_settings)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "PerturbedAttentionGuidance",
            title: "PerturbedAttentionGuidance",
            category: "model_patches/unet",
            inputs: &[socket("model", Type::Model), float("scale", 3.0, 0.0, 100.0)],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Plain(pag),
        hooks: Hooks {
            dry_run: Some(pag_known),
            settings: Some(Contribution::OnModel(pag_settings)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "RescaleCFG",
            title: "RescaleCFG",
            category: "advanced/model",
            inputs: &[socket("model", Type::Model), float("multiplier", 0.7, 0.0, 1.0)],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Plain(rescale),
        hooks: Hooks { dry_run: Some(rescale_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ModelSamplingDiscrete",
            title: "ModelSamplingDiscrete",
            category: "advanced/model",
            inputs: &[
                socket("model", Type::Model),
                choice("sampling", &["eps", "v_prediction", "lcm", "x0"]),
                switch("zsnr", false),
            ],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Plain(sampling),
        hooks: Hooks { dry_run: Some(sampling_known), ..Hooks::NONE },
    },
];

fn made(model: ModelValue) -> Result<Vec<Value>> {
    Ok(vec![Value::Model(model)])
}

/// A known model whose guidance `with` changes.
fn guided(
    inputs: &KnownInputs<'_>,
    with: fn(&Guidance, &Arguments<'_>) -> Result<Guidance>,
) -> Result<Vec<Known>> {
    let Some(model) = inputs.model("model") else { return Ok(Vec::new()) };
    let guidance = with(&model.guidance, &inputs.args)?;
    Ok(vec![Known::Model(KnownModel { guidance, ..model.clone() })])
}

fn sag(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_sag(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with SAG as the node sets it.
fn with_sag(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    if guidance.terms.iter().any(|term| matches!(term, Term::Sag(_))) {
        return Err(Error::usage("the model is under Self-Attention Guidance already")
            .expected("one SelfAttentionGuidance before a sampler")
            .hint("take one of the two nodes out"));
    }
    let (scale, blur_sigma) = (args.float("scale")? as f32, args.float("blur_sigma")? as f32);
    let mut guidance = guidance.clone();
    // Before the others, wherever its node is: the order of sums is part of a picture's bits.
    guidance.set_sag(Sag { scale, blur_sigma, ..Sag::default() });
    Ok(guidance)
}

fn sag_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    guided(inputs, with_sag)
}

fn sag_settings(node: &WrittenNode<'_>, request: &mut Request) -> Option<()> {
    let (scale, blur_sigma) = (node.float("scale")? as f32, node.float("blur_sigma")? as f32);
    request.guidance.set_sag(Sag { scale, blur_sigma, ..Sag::default() });
    Some(())
}

/// Each node adds its guidance to those before it, as each hook does in ComfyUI.
fn pag(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_pag(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with PAG as the node sets it.
fn with_pag(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    Ok(guidance.clone().with(Perturbed::pag(args.float("scale")? as f32)))
}

fn pag_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    guided(inputs, with_pag)
}

fn pag_settings(node: &WrittenNode<'_>, request: &mut Request) -> Option<()> {
    request.guidance.terms.push(Perturbed::pag(node.float("scale")? as f32).into());
    Some(())
}

fn rescale(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_rescale(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with less of CFG's contrast, as the node sets it.
fn with_rescale(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    Ok(Guidance { rescale: Some(args.float("multiplier")? as f32), ..guidance.clone() })
}

fn rescale_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    guided(inputs, with_rescale)
}

fn sampling(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    let (prediction, table) = meaning(args)?;
    made(ModelValue { diffusion: model.diffusion.with_sampling(prediction, table), ..model.clone() })
}

fn sampling_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Some(model) = inputs.model("model") else { return Ok(Vec::new()) };
    let (_, table) = meaning(&inputs.args)?;
    Ok(vec![Known::Model(KnownModel { table: Arc::new(table), ..model.clone() })])
}

/// What the node says of a network's output, and its noise levels.
fn meaning(args: &Arguments<'_>) -> Result<(Prediction, Discrete)> {
    let (prediction, table) = match args.text("sampling")? {
        "eps" => (Prediction::Eps, Discrete::stable_diffusion()),
        "v_prediction" => (Prediction::V, Discrete::stable_diffusion()),
        "x0" => (Prediction::Picture, Discrete::stable_diffusion()),
        "lcm" => (Prediction::Consistency, Discrete::distilled()),
        other => return Err(Error::internal(format!("the sampling {other} is unknown"))),
    };
    Ok((prediction, if args.switch("zsnr")? { table.with_zero_terminal_snr() } else { table }))
}
