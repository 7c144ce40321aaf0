//! Nodes that change how a model is guided or what its output means.

use super::super::run::Work;
use super::super::value::{Arguments, ModelValue, Value};
use super::{Class, Type, choice, float, socket, switch};
use crate::guidance::{Perturbed, Sag, Term};
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
        run: sag,
    },
    Class {
        name: "PerturbedAttentionGuidance",
        inputs: &[socket("model", Type::Model), float("scale", 3.0, 0.0, 100.0)],
        outputs: &[Type::Model],
        is_output: false,
        run: pag,
    },
    Class {
        name: "RescaleCFG",
        inputs: &[socket("model", Type::Model), float("multiplier", 0.7, 0.0, 1.0)],
        outputs: &[Type::Model],
        is_output: false,
        run: rescale,
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
        run: sampling,
    },
];

fn made(model: ModelValue) -> Result<Vec<Value>> {
    Ok(vec![Value::Model(model)])
}

fn sag(_: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let model = args.model("model")?;
    if model.guidance.terms.iter().any(|term| matches!(term, Term::Sag(_))) {
        return Err(Error::usage("the model is under Self-Attention Guidance already")
            .expected("one SelfAttentionGuidance before a sampler")
            .hint("take one of the two nodes out"));
    }
    let (scale, blur_sigma) = (args.float("scale")? as f32, args.float("blur_sigma")? as f32);
    let mut model = model.clone();
    // Before the others, wherever its node stands: the order of sums is part of a picture's bits.
    model.guidance.set_sag(Sag { scale, blur_sigma, ..Sag::default() });
    made(model)
}

/// Each node adds its guidance to those before it, as each hook does in ComfyUI.
fn pag(_: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let mut model = args.model("model")?.clone();
    model.guidance.terms.push(Perturbed::pag(args.float("scale")? as f32).into());
    made(model)
}

fn rescale(_: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let multiplier = args.float("multiplier")? as f32;
    let mut model = args.model("model")?.clone();
    model.guidance.rescale = Some(multiplier);
    made(model)
}

fn sampling(_: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (model, zero_snr) = (args.model("model")?, args.switch("zsnr")?);
    let (prediction, table) = match args.text("sampling")? {
        "eps" => (Prediction::Eps, Discrete::stable_diffusion()),
        "v_prediction" => (Prediction::V, Discrete::stable_diffusion()),
        "x0" => (Prediction::Picture, Discrete::stable_diffusion()),
        "lcm" => (Prediction::Consistency, Discrete::distilled()),
        other => return Err(Error::internal(format!("the sampling {other} is unknown"))),
    };
    let table = if zero_snr { table.with_zero_terminal_snr() } else { table };
    made(ModelValue { diffusion: model.diffusion.with_sampling(prediction, table), ..model.clone() })
}
