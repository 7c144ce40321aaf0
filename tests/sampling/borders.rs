//! Decisions at the exact limit of a rule, and one value beyond it.

use sagittal::Latent;
use sagittal::guidance::{
    Area, Columns, Conditioning, Entry, Evaluation, Guidance, Guided, Network, Perturbed, Row, RowResult,
    Sag, sag,
};
use sagittal::sampler::{Discrete, Scheduler, karras_sigmas};

/// A network with a given attention map, whose predictions differ from cell to cell.
struct Attends {
    map: Columns,
    calls: usize,
}

impl Network for Attends {
    fn predict(&mut self, rows: &[Row<'_>]) -> sagittal::Result<Vec<RowResult>> {
        self.calls += 1;
        let one = |row: &Row<'_>| {
            let mut denoised = row.x.scaled(0.5);
            denoised.data_mut().iter_mut().enumerate().for_each(|(i, v)| *v += (1 + i * 37 % 101) as f32);
            RowResult { denoised, columns: row.record.then(|| self.map.clone()) }
        };
        Ok(rows.iter().map(one).collect())
    }
}

fn entry() -> Entry {
    Entry::new(vec![0.5; 8], 1)
}

const SIDE: usize = 12;

/// Guidance with a 2×2 attention map of these values; there is a second call, that of SAG, if SAG is active.
fn guided(values: [f32; 4], sag: Sag, negative: Vec<Entry>, sigma: f32) -> (Evaluation, usize) {
    let map = Columns { height: 2, width: 2, values: values.to_vec() };
    let mut network = Attends { map, calls: 0 };
    let conditioning = Conditioning { positive: vec![entry()], negative };
    let (discrete, x) = (Discrete::stable_diffusion(), Latent::zeros(1, 4, SIDE, SIDE));
    let guidance = Guidance::new(7.0).with(sag);
    let mut guided = Guided::new(&mut network, &conditioning, &discrete, guidance).expect("settings");
    let evaluation = guided.evaluate(&x, sigma).expect("an evaluation");
    drop(guided);
    (evaluation, network.calls)
}

/// Entries whose mean score equals the score of each, bit for bit: a single one, and two equal ones.
fn sides() -> [Vec<Entry>; 2] {
    [vec![entry()], vec![entry(), entry()]]
}

#[test]
fn a_map_of_equal_attention_blurs_nothing() {
    for negative in sides() {
        let (evaluation, calls) = guided([1.0; 4], Sag::default(), negative, 3.0);
        let made = evaluation.sag.expect("SAG acts");
        assert_eq!((made.mask, calls), (vec![0; SIDE * SIDE], 2));
        let uncond = evaluation.uncond.expect("a negative");
        assert_eq!(made.degraded, uncond);
        assert_ne!(sag::blur(&uncond, 2.0), uncond, "a blur would show");
        assert_eq!(made.input, Latent::zeros(1, 4, SIDE, SIDE));
    }
}

#[test]
fn scores_at_the_threshold_are_not_blurred_on_the_host() {
    for threshold in [1.0, 0.5, 1.375, 2.0, 1e6, 0.1, 1.03] {
        for negative in sides() {
            let values = [threshold, f32::next_up(threshold), f32::next_down(threshold), threshold];
            let settings = Sag { threshold, ..Sag::default() };
            let mask = guided(values, settings, negative, 3.0).0.sag.expect("SAG acts").mask;
            for (at, masked) in mask.iter().enumerate() {
                let above = at / SIDE < SIDE / 2 && at % SIDE >= SIDE / 2;
                assert_eq!(*masked, u8::from(above), "threshold {threshold}, cell {at}");
            }
        }
    }
}

/// Outside of all areas the score is 0, which is not above a threshold of 0.
#[test]
fn cells_of_no_entry_are_not_blurred_on_the_host() {
    let area = Some(Area { y: 0, x: 0, height: 4, width: 5 });
    let negative = vec![Entry { area, ..entry() }];
    let settings = Sag { threshold: 0.0, ..Sag::default() };
    let (evaluation, _) = guided([1.0; 4], settings, negative, 3.0);
    let (mask, uncond) = (evaluation.sag.expect("SAG acts").mask, evaluation.uncond.expect("a negative"));
    for (at, masked) in mask.iter().enumerate() {
        let inside = at / SIDE < 4 && at % SIDE < 5;
        assert_eq!((*masked, uncond.data()[at] != 0.0), (u8::from(inside), inside), "cell {at}");
    }
    assert!(uncond.is_finite());
}

/// The blur reaches four cells, and reflects without repeating the edge: a side needs five cells.
#[test]
fn sides_of_four_cells_are_not_blurred_and_of_five_are() {
    for (height, width, blurred) in [(4, 9, false), (9, 4, false), (4, 4, false), (5, 9, true), (5, 5, true)]
    {
        let values = (0..height * width).map(|i| (i * 37 % 101) as f32).collect();
        let x = Latent::from_vec([1, 1, height, width], values).expect("a latent");
        assert_eq!(sag::blur(&x, 2.0) != x, blurred, "{height}x{width}");
        assert_eq!(sag::blur(&x, 0.0), x);
        assert_eq!(sag::degrade(&x, &vec![1; height * width], 2.0) != x, blurred, "{height}x{width}");
    }
}

/// Both ends of a range of the sampling are inside, as in ComfyUI.
#[test]
fn ranges_of_a_sampling_include_both_ends() {
    let table = Discrete::stable_diffusion();
    for share in [0.2, 0.25, 1.0 / 3.0, 0.5, 0.875] {
        let sigma = table.percent_to_sigma(share);
        assert!(table.is_within(sigma, share, 1.0) && table.is_within(sigma, 0.0, share), "{share}");
        assert!(!table.is_within(sigma.next_up(), share, 1.0), "{share}");
        assert!(!table.is_within(sigma.next_down(), 0.0, share), "{share}");
        let acts = |start, end| {
            let settings = Sag { start, end, ..Sag::default() };
            guided([0.5, 1.5, 1.5, 0.5], settings, vec![entry()], sigma).1 == 2
        };
        assert!(acts(share, 1.0) && acts(0.0, share), "{share}");
        assert!(!acts(share + 0.01, 1.0) && !acts(0.0, share - 0.01), "{share}");
    }
    assert_eq!(table.percent_to_sigma(0.0), 999_999_999.9);
    assert!(table.percent_to_sigma(f64::MIN_POSITIVE) <= table.sigma_max());
    assert_eq!(table.percent_to_sigma(1.0), 0.0);
    assert!(table.percent_to_sigma(1.0 - f64::EPSILON) >= table.sigma_min());
    assert!(table.is_within(0.0, 0.0, 1.0) && table.is_within(1e6, 0.0, 1.0));
}

/// The limits of settings are valid values.
#[test]
fn settings_are_valid_at_their_limits_and_errors_beyond() {
    let sag = Sag::default();
    let sags = |wanted: [Sag; 9]| wanted.map(|sag| sag.check().is_ok());
    let at = [
        Sag { scale: -2.0, ..sag },
        Sag { scale: 5.0, ..sag },
        Sag { blur_sigma: 0.0, ..sag },
        Sag { blur_sigma: 10.0, ..sag },
        Sag { threshold: 0.0, ..sag },
        Sag { threshold: 1e6, ..sag },
        Sag { start: 0.0, ..sag },
        Sag { end: 1.0, ..sag },
        Sag { start: 0.5, end: 0.5f64.next_up(), ..sag },
    ];
    let beyond = [
        Sag { scale: (-2.0f32).next_down(), ..sag },
        Sag { scale: 5.0f32.next_up(), ..sag },
        Sag { blur_sigma: -f32::MIN_POSITIVE, ..sag },
        Sag { blur_sigma: 10.0f32.next_up(), ..sag },
        Sag { threshold: -f32::MIN_POSITIVE, ..sag },
        Sag { threshold: 1e6f32.next_up(), ..sag },
        Sag { start: -f64::MIN_POSITIVE, ..sag },
        Sag { end: 1.0f64.next_up(), ..sag },
        Sag { start: 0.5, end: 0.5, ..sag },
    ];
    assert_eq!((sags(at), sags(beyond)), ([true; 9], [false; 9]));
    let pag = |scale, start, end| Perturbed { start, end, ..Perturbed::pag(scale) }.check().is_ok();
    assert!(pag(0.0, 0.0, 1.0) && pag(100.0, 0.0, 1.0) && pag(3.0, 0.5, 0.5f64.next_up()));
    assert!(!pag(100.0f32.next_up(), 0.0, 1.0) && !pag(-f32::MIN_POSITIVE, 0.0, 1.0));
    assert!(!pag(3.0, 0.5, 0.5) && !pag(3.0, -f64::MIN_POSITIVE, 1.0) && !pag(3.0, 0.0, 1.0f64.next_up()));
    assert!(Perturbed::seg(3.0, f32::MIN_POSITIVE).check().is_ok());
    let rescale = |share| Guidance { rescale: Some(share), ..Guidance::new(7.0) }.check().is_ok();
    assert!(rescale(0.0) && rescale(1.0) && !rescale(1.0f32.next_up()) && !rescale(-f32::MIN_POSITIVE));
}

/// Of equally near entries, the first.
#[test]
fn of_two_equally_near_timesteps_the_earlier_is_taken() {
    let table = Discrete::from_alphas_cumprod(&[0.9, 0.5, 0.5, 0.1]).expect("a table");
    assert_eq!(table.timestep(table.sigmas()[1]), 1.0);
    assert_eq!(table.timestep(table.sigmas()[2]), 1.0);
}

/// A denoise above 0.9999 counts as 1; at 0.9999 one more step is planned, and the first is dropped.
#[test]
fn a_denoise_at_its_limits_is_a_full_run_or_no_step() {
    let table = Discrete::stable_diffusion();
    let sigmas = |denoise| Scheduler::Karras.sigmas(&table, 10_000, denoise, false).expect("a schedule");
    let [full, nearly] = [0.9999f64.next_up(), 0.9999].map(sigmas);
    assert_eq!((full.len(), nearly.len()), (10_001, 10_001));
    // One of ten thousand steps lower; rounding is 1e-7.
    assert!(nearly[0] < 0.9999 * full[0] && full[0] > 0.99999 * table.sigma_max());
    assert!(sigmas(0.0).is_empty() && sigmas(-1.0).is_empty());
    assert!(Scheduler::Simple.sigmas(&table, 1_000_000, 1.0, false).is_ok());
    assert!(Scheduler::Simple.sigmas(&table, 1_000_001, 1.0, false).is_err());
    // A range may be a single level.
    assert!(
        karras_sigmas(3, (1.0, 1.0), 7.0).is_ok()
            && karras_sigmas(3, (1.0, 1.0f64.next_down()), 7.0).is_err()
    );
    assert!(karras_sigmas(3, (0.0, 1.0), 7.0).is_err() && karras_sigmas(3, (1.0, 2.0), 0.0).is_err());
}
