//! Parsers of flag values, so that clap's errors name the flag. The ranges are those of the library.

use sagittal::Size;
use sagittal::guidance::{Guidance, Perturbed, Sag};
use sagittal::internals::sampler::{Sampler, Scheduler, names};
use sagittal::pipeline::{Request, Schedule};
use sagittal::{Error, Result};

/// Checks a default request with the setting that `set` changes.
fn checked(set: impl FnOnce(&mut Request)) -> Result<()> {
    let mut request = Request::new("", Size::square(64));
    set(&mut request);
    request.check()
}

fn whole(text: &str, expected: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::usage("not a whole number").expected(expected))
}

fn real(text: &str) -> Result<f32> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(Error::usage("not a finite number")),
        Err(_) => Err(Error::usage("not a number")),
    }
}

/// Width or height in pixels.
pub fn side(text: &str) -> Result<usize> {
    let side = whole(text, "a multiple of 8")?;
    checked(|r| r.size.width = side)?;
    Ok(side)
}

/// Number of sampling steps.
pub fn steps(text: &str) -> Result<usize> {
    let steps = whole(text, "1 or more")?;
    Schedule { steps, ..Schedule::default() }.check()?;
    Ok(steps)
}

/// Pictures made together.
pub fn batch_size(text: &str) -> Result<usize> {
    let batch = whole(text, "1 or more")?;
    checked(|r| r.batch = batch)?;
    Ok(batch)
}

/// Batches made one after the other.
pub fn batch_count(text: &str) -> Result<usize> {
    match whole(text, "1 or more")? {
        count @ 1..=100_000 => Ok(count),
        _ => Err(Error::usage("the number of batches is outside its range").expected("1 to 100000")),
    }
}

/// Scale of classifier-free guidance.
pub fn cfg_scale(text: &str) -> Result<f32> {
    let cfg = real(text)?;
    Guidance::new(cfg).check()?;
    Ok(cfg)
}

/// Scale of Self-Attention Guidance.
pub fn sag_scale(text: &str) -> Result<f32> {
    let scale = real(text)?;
    Sag { scale, ..Sag::default() }.check()?;
    Ok(scale)
}

/// Width of SAG's blur in latent cells.
pub fn sag_blur(text: &str) -> Result<f32> {
    let sigma = real(text)?;
    Sag { blur_sigma: sigma, ..Sag::default() }.check()?;
    Ok(sigma)
}

/// Scale of Perturbed-Attention Guidance.
pub fn pag_scale(text: &str) -> Result<f32> {
    let scale = real(text)?;
    Perturbed::pag(scale).check()?;
    Ok(scale)
}

/// Scale of Smoothed Energy Guidance.
pub fn seg_scale(text: &str) -> Result<f32> {
    let scale = real(text)?;
    Perturbed::seg(scale, f32::INFINITY).check()?;
    Ok(scale)
}

/// Width of the blur of Smoothed Energy Guidance, which may be infinite.
pub fn seg_blur(text: &str) -> Result<f32> {
    let sigma: f32 = text.parse().map_err(|_| Error::usage("not a number").expected("0 or more, or inf"))?;
    Perturbed::seg(1.0, sigma).check()?;
    Ok(sigma)
}

/// Denoising strength of image to image.
pub fn strength(text: &str) -> Result<f64> {
    let strength = text.parse::<f64>().map_err(|_| Error::usage("not a number").expected("0 to 1"))?;
    Schedule { denoise: strength, ..Schedule::default() }.check()?;
    Ok(strength)
}

/// The largest size in SDXL's conditioning, as in ComfyUI.
const LARGEST: usize = 16_384;

/// `WxH` in pixels as (height, width).
pub fn size(text: &str) -> Result<(usize, usize)> {
    match pair(text, 'x') {
        Some((width, height)) => Ok((height, width)),
        None => Err(Error::usage("not a size").expected(format!("WxH, numbers up to {LARGEST}: 1024x768"))),
    }
}

/// `TOP,LEFT` in pixels.
pub fn crop(text: &str) -> Result<(usize, usize)> {
    let expected = format!("TOP,LEFT, numbers up to {LARGEST}: 0,128");
    pair(text, ',').ok_or_else(|| Error::usage("not a crop").expected(expected))
}

fn pair(text: &str, between: char) -> Option<(usize, usize)> {
    let number = |t: &str| t.trim().parse().ok().filter(|n| *n <= LARGEST);
    let (first, second) = text.split_once(between)?;
    Some((number(first)?, number(second)?))
}

/// Text encoder layer counted from the end.
pub fn clip_skip(text: &str) -> Result<usize> {
    let expected = "1 (the last layer) or more";
    match whole(text, expected)? {
        0 => Err(Error::usage("no such clip skip").expected(expected)),
        skip => Ok(skip),
    }
}

/// A device memory limit, rounded down to MiB, in bytes: `4G`, `4GiB` and `4096` are the same. Units are powers of
/// 1024.
pub fn memory(text: &str) -> Result<u64> {
    let wrong = || {
        Error::usage("not a memory size").expected("at least 1, in MiB, or with a unit: 4G, 4.5GiB, 4096M")
    };
    let plain = text.trim().to_lowercase();
    let (number, unit) = plain.split_at(plain.find(|c: char| c.is_alphabetic()).unwrap_or(plain.len()));
    let mebibytes = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" if unit.is_empty() => 1.0,
        "m" => 1.0,
        "g" => 1024.0,
        "t" => 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number = number.trim();
    // Signs and exponents are taken for typing errors.
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let size = number.parse::<f64>().ok().filter(|_| plain).map(|n| (n * mebibytes).floor());
    match size {
        Some(mib) if (1.0..=f64::from(u32::MAX)).contains(&mib) => Ok((mib as u64) << 20),
        _ => Err(wrong()),
    }
}

/// A sampler by its name in any program, with the scheduler that the name may end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerChoice {
    pub sampler: Sampler,
    pub scheduler: Option<Scheduler>,
}

impl std::str::FromStr for SamplerChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (sampler, scheduler) = names::with_scheduler(name)?;
        Ok(Self { sampler, scheduler })
    }
}

/// The value of `--seed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// A random one for each run.
    Random,
    /// This one.
    Given(u64),
}

/// A seed; -1 is a random one, as in other programs.
pub fn seed(text: &str) -> Result<Seed> {
    match text.parse::<i128>() {
        Ok(-1) => Ok(Seed::Random),
        Ok(n) if (0..=i128::from(u64::MAX)).contains(&n) => Ok(Seed::Given(n as u64)),
        _ => Err(Error::usage("not a seed").expected("0 to 18446744073709551615, or -1 for a random one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_values() {
        assert_eq!(side("64").ok(), Some(64));
        assert_eq!(sag_scale("-0.5").ok(), Some(-0.5));
        assert_eq!((seed("-1").ok(), seed("7").ok()), (Some(Seed::Random), Some(Seed::Given(7))));
        for (text, mib) in [
            ("2", 2),
            ("4G", 4096),
            ("4GiB", 4096),
            ("4gb", 4096),
            ("4096M", 4096),
            ("4.5g", 4608),
            ("1 TiB", 1 << 20),
        ] {
            assert_eq!(memory(text).ok(), Some(mib << 20), "{text}");
        }
        assert_eq!((size("20x10").ok(), crop("3, 4").ok()), (Some((10, 20)), Some((3, 4))));
        assert_eq!((strength("0").ok(), strength("1").ok()), (Some(0.0), Some(1.0)));
        let bad = [
            side("60").is_err(),
            side("0").is_err(),
            steps("0").is_err(),
            steps("-3").is_err(),
            batch_size("0").is_err(),
            batch_count("0").is_err(),
            cfg_scale("nan").is_err(),
            cfg_scale("1e39").is_err(),
            sag_scale("5.1").is_err(),
            sag_blur("-0.1").is_err(),
            clip_skip("0").is_err(),
            memory("0").is_err(),
            memory("99999999999999999").is_err(),
            memory("-1G").is_err(),
            memory("0.0001G").is_err(),
            memory("4k").is_err(),
            memory("1e3").is_err(),
            memory("infG").is_err(),
            memory("nan").is_err(),
            memory("b").is_err(),
            memory("4ib").is_err(),
            memory("").is_err(),
            seed("-2").is_err(),
            seed("-99999999999").is_err(),
            seed("1.5").is_err(),
            seed("18446744073709551616").is_err(),
            strength("1.01").is_err(),
            strength("-0.1").is_err(),
            strength("nan").is_err(),
            size("1024").is_err(),
            size("1x-1").is_err(),
            size("99999x1").is_err(),
            crop("1x1").is_err(),
        ];
        assert!(bad.iter().all(|b| *b), "{bad:?}");
    }
}
