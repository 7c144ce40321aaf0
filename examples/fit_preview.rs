//! The colours of a latent's channels for previews, fitted to a model's own autoencoder: pictures are drawn and
//! decoded, and RGB of each cell, the mean of its pixels, is a linear function of its latent with the least squared
//! error. It prints the values of `embedded::PREVIEW`.
//!
//! `cargo run --release --example fit_preview [MODEL.safetensors PROMPT...]`

use sagittal::Size;
use sagittal::guidance::Guidance;
use sagittal::{Checkpoint, Gpu, Latent, Model, ModelOptions, Picture, Request, embedded};

const PROMPTS: [&str; 12] = [
    "fox, 3d style",
    "panda, noto style",
    "rocket, 3d style, on a blue background",
    "jack o lantern, noto style, on a purple background",
    "gem stone, 3d style, on a teal background",
    "cupcake, flat style, on a pink background",
    "frog, 3d style, on a yellow background",
    "flying saucer, 3d style, on a black background",
    "watermelon, 3d style",
    "tiger face, noto style, on a gray background",
    "smiling face with heart eyes, noto style, on a green background",
    "robot, flat style, on a red background",
];

/// Terms of a cell: its channels, and 1.
const TERMS: usize = 5;

fn main() -> sagittal::Result<()> {
    let mut words = std::env::args().skip(1);
    let checkpoint = words.next().map_or_else(embedded::checkpoint, Checkpoint::open)?;
    let mut prompts: Vec<String> = words.collect();
    if prompts.is_empty() {
        prompts = PROMPTS.map(str::to_owned).to_vec();
    }
    let model = Model::new(Gpu::open(None)?, checkpoint, ModelOptions::default())?;
    // Σ terms · termsᵀ, and Σ terms · RGB.
    let (mut products, mut sums) = ([[0.0; TERMS]; TERMS], [[0.0; 3]; TERMS]);
    for prompt in prompts {
        let side = model.config().native_side().min(embedded::SIZE);
        let mut request = Request::new(&prompt, Size::square(side)).with_steps(10);
        request.guidance = Guidance::new(embedded::CFG);
        let made = model.generate(&request)?;
        add(&made.latent.scaled(model.config().latent_scale), &made.pictures[0], &mut products, &mut sums);
        eprintln!("{prompt}");
    }
    for line in solved(products, sums) {
        println!("    [{}],", line.map(|v| format!("{v:.4}")).join(", "));
    }
    Ok(())
}

/// Adds the cells of a picture.
fn add(z: &Latent, picture: &Picture, products: &mut [[f64; TERMS]; TERMS], sums: &mut [[f64; 3]; TERMS]) {
    let cells = z.height() * z.width();
    for cell in 0..cells {
        let channel = |c: usize| if c + 1 < TERMS { f64::from(z.data()[c * cells + cell]) } else { 1.0 };
        let terms: [f64; TERMS] = std::array::from_fn(channel);
        let (y, x) = (cell / z.width() * 8, cell % z.width() * 8);
        let pixels = (0..64).map(|i| ((y + i / 8) * picture.width + x + i % 8) * 3);
        let rgb: [f64; 3] = std::array::from_fn(|k| {
            pixels.clone().map(|at| f64::from(picture.rgb[at + k])).sum::<f64>() / 64.0 / 127.5 - 1.0
        });
        for (i, term) in terms.iter().enumerate() {
            (0..TERMS).for_each(|j| products[i][j] += term * terms[j]);
            (0..3).for_each(|k| sums[i][k] += term * rgb[k]);
        }
    }
}

/// By Gaussian elimination; the normal matrix is invertible since the cells differ.
fn solved(mut a: [[f64; TERMS]; TERMS], mut b: [[f64; 3]; TERMS]) -> [[f64; 3]; TERMS] {
    for i in 0..TERMS {
        let pivot = a[i][i];
        a[i].iter_mut().chain(&mut b[i]).for_each(|v| *v /= pivot);
        let (line, right) = (a[i], b[i]);
        for j in (0..TERMS).filter(|j| *j != i) {
            let factor = a[j][i];
            a[j].iter_mut().zip(line).for_each(|(v, l)| *v -= factor * l);
            b[j].iter_mut().zip(right).for_each(|(v, r)| *v -= factor * r);
        }
    }
    b
}
