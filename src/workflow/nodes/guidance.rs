//! Nodes that change how a model is guided or what its output means.

use super::super::value::{Arguments, ModelValue, Value};
use super::Function::Plain;
use super::{Class, Type, choice, float, socket, switch};
use crate::guidance::{Guidance, Perturbed, Sag, Term};
use crate::model::Prediction;
use crate::sampler::Discrete;
use crate::{Error, Result};

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "SelfAttentionGuidance",
        inputs: &[
            socket("model", Type::Model),
            float("scale", 0.5, -2.0, 5.0),
            float("blur_sigma", 2.0, 0.0, 10.0),
        ],
        outputs: &[Type::Model],
        is_output: false,
        run: Plain(sag),
    },
    Class {
        name: "PerturbedAttentionGuidance",
        inputs: &[socket("model", Type::Model), float("scale", 3.0, 0.0, 100.0)],
        outputs: &[Type::Model],
        is_output: false,
        run: Plain(pag),
    },
    Class {
        name: "RescaleCFG",
        inputs: &[socket("model", Type::Model), float("multiplier", 0.7, 0.0, 1.0)],
        outputs: &[Type::Model],
        is_output: false,
        run: Plain(rescale),
    },
    Class {
        name: "ModelSamplingDiscrete",
        inputs: &[
            socket("model", Type::Model),
            choice("sampling", &["eps", "v_prediction", "lcm", "x0"]),
            switch("zsnr", false),
        ],
        outputs: &[Type::Model],
        is_output: false,
        run: Plain(sampling),
    },
];

fn made(model: ModelValue) -> Result<Vec<Value>> {
    Ok(vec![Value::Model(model)])
}

fn sag(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_sag(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with SAG as the node tells.
pub(in super::super) fn with_sag(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    if guidance.terms.iter().any(|term| matches!(term, Term::Sag(_))) {
        return Err(Error::usage("the model is under Self-Attention Guidance already")
            .expected("one SelfAttentionGuidance before a sampler")
            .hint("take one of the two nodes out"));
    }
    let (scale, blur_sigma) = (args.float("scale")? as f32, args.float("blur_sigma")? as f32);
    let mut guidance = guidance.clone();
    // Before the others, wherever its node stands: the order of sums is part of a picture's bits.
    guidance.set_sag(Sag { scale, blur_sigma, ..Sag::default() });
    Ok(guidance)
}

/// Each node adds its guidance to those before it, as each hook does in ComfyUI.
fn pag(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_pag(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with PAG as the node tells.
pub(in super::super) fn with_pag(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    Ok(guidance.clone().with(Perturbed::pag(args.float("scale")? as f32)))
}

fn rescale(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    made(ModelValue { guidance: with_rescale(&model.guidance, args)?, ..model.clone() })
}

/// `guidance` with less of CFG's contrast, as the node tells.
pub(in super::super) fn with_rescale(guidance: &Guidance, args: &Arguments<'_>) -> Result<Guidance> {
    Ok(Guidance { rescale: Some(args.float("multiplier")? as f32), ..guidance.clone() })
}

fn sampling(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    let (prediction, table) = meaning(args)?;
    made(ModelValue { diffusion: model.diffusion.with_sampling(prediction, table), ..model.clone() })
}

/// What the node says of a network's output, and its noise levels.
pub(in super::super) fn meaning(args: &Arguments<'_>) -> Result<(Prediction, Discrete)> {
    let (prediction, table) = match args.text("sampling")? {
        "eps" => (Prediction::Eps, Discrete::stable_diffusion()),
        "v_prediction" => (Prediction::V, Discrete::stable_diffusion()),
        "x0" => (Prediction::Picture, Discrete::stable_diffusion()),
        "lcm" => (Prediction::Consistency, Discrete::distilled()),
        other => return Err(Error::internal(format!("the sampling {other} is unknown"))),
    };
    Ok((prediction, if args.switch("zsnr")? { table.with_zero_terminal_snr() } else { table }))
}
