//! SAG's mask and blur alone, on given predictions and attention: no network, no GPU.

use super::case::Case;
use super::compare::{Findings, Yardstick};
use super::set::Set;
use super::tensor::Tensor;
use super::tolerance;
use super::unet::column_sums;
use crate::guidance::{Columns, Conditioning, Entry, Guidance, Guided, Network, Row, RowResult, Sag, sag};
use crate::latent::Latent;
use crate::sampler::Discrete;
use crate::{Error, Result};

pub(super) fn verify(set: &Set, findings: &mut Findings<'_>) -> Result<()> {
    for case in set.root().list("cases") {
        verify_case(set, &case, findings)?;
    }
    Ok(())
}

/// Mask, mask at the latent's size, blur and degraded prediction of one case.
fn verify_case(set: &Set, case: &Case<'_>, findings: &mut Findings<'_>) -> Result<()> {
    let name = |what: &str| format!("{}.{what}", case.name().unwrap_or_default());
    let x0 = set.latent(&name("x0"))?;
    let [rows, columns] = case.sizes("attention_size")?[..] else {
        return Err(set.misshapen(&name("colsum"), "attention_size of rows and columns"));
    };
    let sums = sums(set, case, findings, x0.batch(), rows.saturating_mul(columns))?;
    let guided = degrade(&x0, &sums, (rows, columns), case.number("sigma")? as f32)?;
    let bits: Vec<u8> = sums.iter().map(|c| u8::from(*c > 1.0)).collect();
    if let Some(expected) = set.find(&name("mask")) {
        findings.compare(&name("mask"), Tensor::u8(&[bits.len()], bits), expected, Yardstick::equal());
    }
    // The reference guesses the map's size. Where it guesses wrong, what counts is what the true
    // size gives, and its mask at the latent's size is another.
    let wrong_guess = case.flag("size_guess_wrong");
    let (batch, height, width) = (x0.batch(), x0.height(), x0.width());
    if let Some(expected) = set.find(&name("mask_up")).filter(|_| !wrong_guess) {
        findings.compare(
            &name("mask_up"),
            Tensor::u8(&[batch, height, width], guided.mask),
            expected,
            Yardstick::equal(),
        );
    }
    if let Some(expected) = set.find(&name("blurred")) {
        let blurred = sag::blur(&x0, case.number("sigma")? as f32);
        findings.compare(
            &name("blurred"),
            (&blurred).into(),
            expected,
            Yardstick::absolute(tolerance::DEGRADED),
        );
    }
    let degraded = name(if wrong_guess { "degraded_true_size" } else { "degraded" });
    let expected = set.tensor(&degraded)?;
    findings.compare(
        &degraded,
        (&guided.degraded).into(),
        expected,
        Yardstick::absolute(tolerance::DEGRADED),
    );
    Ok(())
}

/// The column sums of a case: of its probabilities, compared on the way, where it has them.
fn sums(
    set: &Set,
    case: &Case<'_>,
    findings: &mut Findings<'_>,
    batch: usize,
    keys: usize,
) -> Result<Vec<f32>> {
    let name = |what: &str| format!("{}.{what}", case.name().unwrap_or_default());
    let stored = set.tensor(&name("colsum"))?;
    if keys == 0 || stored.len() != batch.saturating_mul(keys) {
        return Err(set.misshapen(&name("colsum"), format!("{batch} rows of {keys} sums")));
    }
    let Some(attention) = set.find(&name("attn")) else { return Ok(stored.numbers()) };
    let heads = attention.len() / (batch * keys * keys);
    if heads == 0 || attention.len() != batch * heads * keys * keys {
        return Err(set.misshapen(&name("attn"), format!("[{batch} x heads, {keys}, {keys}]")));
    }
    let sums = column_sums(&attention.numbers(), batch, keys);
    let found = Tensor::f32(&stored.shape, sums.clone());
    findings.compare(&name("colsum"), found, stored, Yardstick::absolute(tolerance::COLUMNS));
    Ok(sums)
}

struct Degraded {
    /// `[batch, height, width]`.
    mask: Vec<u8>,
    degraded: Latent,
}

/// What guidance makes of a prediction `x0` and column sums of a map of `size`.
fn degrade(x0: &Latent, sums: &[f32], size: (usize, usize), blur_sigma: f32) -> Result<Degraded> {
    let mut network = Given { x0, sums, size };
    // What the entries say does not matter: the network is given.
    let entry = || Entry::new(vec![0.0], 1);
    let conditioning = Conditioning { positive: vec![entry()], negative: vec![entry()] };
    let sag = Sag { scale: 1.0, blur_sigma, ..Sag::default() };
    let table = Discrete::stable_diffusion();
    let mut guided = Guided::new(&mut network, &conditioning, &table, Guidance::new(7.0).with(sag))?;
    Ok(match guided.evaluate(x0, 1.0)?.sag {
        Some(sag) => Degraded { mask: sag.mask, degraded: sag.degraded },
        // A map of one position, a small latent, no blur: nothing is degraded.
        None => Degraded { mask: vec![0; x0.batch() * x0.height() * x0.width()], degraded: x0.clone() },
    })
}

/// A network that always predicts `x0` with the attention given, picture by picture.
struct Given<'a> {
    x0: &'a Latent,
    sums: &'a [f32],
    size: (usize, usize),
}

impl Network for Given<'_> {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let (height, width) = self.size;
        // Rows come entry by entry, picture by picture.
        let predict = |(i, row): (usize, &Row<'_>)| {
            let image = i % self.x0.batch();
            let values = self.sums.get(image * height * width..(image + 1) * height * width);
            let values = values.ok_or_else(|| Error::internal("too few column sums"))?.to_vec();
            let columns = row.record.then_some(Columns { height, width, values });
            Ok(RowResult { denoised: self.x0.row(image), columns })
        };
        rows.iter().enumerate().map(predict).collect()
    }
}
