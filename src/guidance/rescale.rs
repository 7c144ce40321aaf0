//! Rescaled classifier-free guidance (Lin et al. 2023, arXiv 2305.08891, section 3.4), computed in v prediction for
//! every kind of network, as ComfyUI's *RescaleCFG* does.

use crate::latent::Latent;

/// The guided prediction from those with the prompt (D_c) and with the negative prompt (D_u), for the noisy latent
/// `x` at noise level `sigma`, with the CFG scale and the share m of contrast that is removed:
///
/// ```text
/// v     = (x / (σ² + 1) - D) · √(σ² + 1) / σ      of D_c and D_u
/// v_cfg = v_u + (v_c - v_u) · cfg
/// v     = m · v_cfg · std(v_c) / std(v_cfg) + (1 - m) · v_cfg
/// R     = x / (σ² + 1) - v · σ / √(σ² + 1)
/// ```
///
/// ComfyUI passes predictions in and out as x - D. At a sigma of thousands (zero terminal SNR) the rounding of this
/// difference is visible in its pictures, so it is repeated here.
pub fn combined(
    (cond, uncond): (&Latent, &Latent),
    x: &Latent,
    sigma: f32,
    (cfg, multiplier): (f32, f32),
) -> Latent {
    let squared = sigma * sigma + 1.0;
    let root = squared.sqrt();
    let scaled: Vec<f32> = x.data().iter().map(|v| v / squared).collect();
    let rounded = |x: f32, denoised: f32| x - (x - denoised);
    let velocity = |denoised: &Latent, image: usize| -> Vec<f32> {
        let from = image * denoised.image(image).len();
        let all = scaled[from..].iter().zip(x.image(image)).zip(denoised.image(image));
        all.map(|((s, x), d)| (s - rounded(*x, *d)) * root / sigma).collect()
    };
    let mut out = x.clone();
    for image in 0..x.batch() {
        let (with, without) = (velocity(cond, image), velocity(uncond, image));
        let guided: Vec<f32> = with.iter().zip(&without).map(|(c, u)| u + cfg * (c - u)).collect();
        let ratio = deviation(&with) / deviation(&guided);
        let from = image * with.len();
        for ((o, g), s) in out.image_mut(image).iter_mut().zip(&guided).zip(&scaled[from..]) {
            let v = multiplier * (g * ratio) + (1.0 - multiplier) * g;
            // `o` still holds the noisy value.
            *o = rounded(*o, s - v * sigma / root);
        }
    }
    out
}

/// Standard deviation of a sample: the sum of squares is divided by n - 1.
fn deviation(values: &[f32]) -> f32 {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
    (squares / (n - 1.0).max(1.0)).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::noise::noise;

    #[test]
    fn nothing_taken_back_is_plain_guidance_and_all_keeps_the_contrast() {
        let [x, cond, uncond] = [1, 2, 3].map(|seed| noise(seed, [2, 4, 5, 6]));
        let (sigma, cfg) = (3.0f32, 7.0);
        let plain = uncond.zipped(&cond, |u, c| u + (c - u) * cfg);
        let none = combined((&cond, &uncond), &x, sigma, (cfg, 0.0));
        assert!(none.zipped(&plain, |a, b| (a - b).abs()).data().iter().all(|d| *d < 1e-4));
        // At a scale of 1 guidance adds nothing.
        let one = combined((&cond, &uncond), &x, sigma, (1.0, 0.7));
        assert!(one.zipped(&cond, |a, b| (a - b).abs()).data().iter().all(|d| *d < 1e-4));
        let all = combined((&cond, &uncond), &x, sigma, (cfg, 1.0));
        let velocity = |d: &Latent, i: usize| -> Vec<f32> {
            let v = x.zipped(d, |x, d| (x / 10.0 - d) * 10f32.sqrt() / 3.0);
            v.image(i).to_vec()
        };
        for i in 0..2 {
            let (kept, before) = (deviation(&velocity(&all, i)), deviation(&velocity(&cond, i)));
            assert!((kept / before - 1.0).abs() < 1e-4, "{kept} {before}");
        }
    }

    #[test]
    fn the_reference_of_the_device_says_the_same() {
        use crate::kernels::cfg_rescale::reference;
        let [x, cond, uncond] = [4, 5, 6].map(|seed| noise(seed, [2, 4, 5, 6]));
        let (sigma, cfg, multiplier) = (14.0f32, 7.0f32, 0.6f32);
        let x = x.scaled(sigma);
        let host = combined((&cond, &uncond), &x, sigma, (cfg, multiplier));
        for i in 0..2 {
            let f64s = |l: &Latent| -> Vec<f64> { l.image(i).iter().map(|v| f64::from(*v)).collect() };
            let (c, u, factors) = (f64s(&cond), f64s(&uncond), (cfg.into(), multiplier.into()));
            let want = reference((&c, &u), &f64s(&x), sigma.into(), factors);
            // x has values of 40: its last place is 4e-6.
            assert!(host.image(i).iter().zip(want).all(|(h, w)| (f64::from(*h) - w).abs() < 2e-5));
        }
    }
}
