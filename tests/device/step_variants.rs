//! Every variant of the kernels that no network has: those of a sampling step.

use sagittal::graph::Shape;
use sagittal::kernels::cfg_rescale::{self, CfgRescale};
use sagittal::kernels::combine::{self, Combine, Mask};
use sagittal::kernels::entries_mean::{self, EntriesMean};
use sagittal::kernels::error_norm::{self, ErrorNorm};
use sagittal::kernels::latents::{Latents, Place};
use sagittal::kernels::network_input::{self, NetworkInput};
use sagittal::kernels::network_output::{self, NetworkOutput, Recorded};
use sagittal::kernels::sag_degrade::{self, MaskSource, Places, SagDegrade};
use sagittal::kernels::{Buf, Call, Operand, Precision, Stretch};

/// A call of each variant.
pub fn calls() -> Vec<Call> {
    let at = Operand::Write(Stretch { buf: Buf(0), offset: 0, bytes: 0 });
    let place = Place { operand: at, first: 0 };
    let latent = Shape::new(5, 7, 4);
    let latents = Latents { images: 1, shape: latent };
    let (path, area) = ("", (5, 7));
    let mut calls = Vec::new();
    for precision in [Precision::F32, Precision::F16] {
        let n = NetworkInput { path, rows: 1, latent, area, in4: 1, time4: 1, scalars: 0, precision };
        calls.push(network_input::call(&n, place, place, place, [at, at]));
    }
    for recorded in [None, Some(Recorded { positions: 6, columns: at, to: at })] {
        let n = NetworkOutput { path, rows: 1, latent, area, scalars: 0 };
        calls.push(network_output::call(&n, place, at, place, [at, at], recorded));
    }
    let scores = |single| MaskSource::Scores {
        table: place,
        entries: 1,
        single,
        weights: at,
        columns: at,
        threshold: 1.0,
    };
    for mask in [MaskSource::Given, scores(false), scores(true)] {
        let places = Places { base: place, x: place, degraded: place, input: place, mask: place };
        calls.push(sag_degrade::call(&SagDegrade { path, latents, taps: [0.0; 5], mask }, &places));
    }
    for (terms, masked) in (1..=combine::MOST_TERMS).flat_map(|n| [(n, false), (n, true)]) {
        let mask = masked.then_some(Mask { at: place, by_image: false });
        let c = Combine { path, latents, scalars: 0, mask };
        calls.extend(combine::calls(&c, &vec![place; terms], place, at));
    }
    calls.push(entries_mean::call(&EntriesMean { path, latents, entries: 1 }, place, [at, at], place));
    let r = CfgRescale { path, latents, scalars: 0 };
    calls.push(cfg_rescale::call(&r, [place, place], place, place, at));
    calls.push(error_norm::call(
        &ErrorNorm { path, latents, tolerance: (0.0078, 0.05) },
        [place, place, place],
        place,
    ));
    calls
}
