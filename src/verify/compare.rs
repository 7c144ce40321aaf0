//! What is compared, by which measure, and how much of the tolerance it used.

use super::tensor::{Tensor, Values};

/// How a difference is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The largest difference over a standard deviation, of the expected tensor unless the sets'
    /// definition says otherwise: d/s.
    Spread,
    /// The largest difference.
    Absolute,
    /// The largest difference over the expected value.
    Relative,
    /// The number of elements that differ.
    Count,
}

impl Measure {
    /// A short name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Spread => "d/s",
            Measure::Absolute => "abs",
            Measure::Relative => "rel",
            Measure::Count => "count",
        }
    }
}

/// A measure with its unit and its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yardstick {
    measure: Measure,
    unit: f64,
    tolerance: f64,
}

impl Yardstick {
    /// d/s with the standard deviation of `expected`.
    pub(super) fn spread(expected: &[f32], tolerance: f64) -> Self {
        Self::spread_of(spread(expected), tolerance)
    }

    /// d/s with a given s.
    pub(super) fn spread_of(unit: f64, tolerance: f64) -> Self {
        Self { measure: Measure::Spread, unit, tolerance }
    }

    pub(super) fn absolute(tolerance: f64) -> Self {
        Self { measure: Measure::Absolute, unit: 1.0, tolerance }
    }

    pub(super) fn relative(tolerance: f64) -> Self {
        Self { measure: Measure::Relative, unit: 1.0, tolerance }
    }

    /// No element may differ.
    pub(super) fn equal() -> Self {
        Self { measure: Measure::Count, unit: 1.0, tolerance: 0.0 }
    }

    /// Compares two tensors of as many elements.
    pub(super) fn compare(&self, found: &Tensor, expected: &Tensor) -> Comparison {
        let (found, expected) = (found.numbers(), expected.numbers());
        let pairs = || found.iter().copied().zip(expected.iter().copied());
        let difference = match self.measure {
            Measure::Spread | Measure::Absolute => {
                over(pairs().map(|(f, e)| f64::from(f) - f64::from(e)), self.unit)
            }
            Measure::Relative => over(pairs().map(|(f, e)| relative(f.into(), e.into())), 1.0),
            Measure::Count => pairs().filter(|(f, e)| f != e).count() as f64,
        };
        Comparison { measure: self.measure, difference, tolerance: self.tolerance }
    }
}

/// One tensor held against its expectation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// How `difference` is measured.
    pub measure: Measure,
    /// What was found; infinite where a result is NaN or infinite.
    pub difference: f64,
    /// What is allowed.
    pub tolerance: f64,
}

impl Comparison {
    /// The comparison of two numbers by their relative difference.
    pub(super) fn of_relative(found: f64, expected: f64, tolerance: f64) -> Self {
        let difference = over([relative(found, expected)].into_iter(), 1.0);
        Self { measure: Measure::Relative, difference, tolerance }
    }

    /// The comparison of two numbers by their difference.
    pub(super) fn of_absolute(found: f64, expected: f64, tolerance: f64) -> Self {
        Self { measure: Measure::Absolute, difference: over([found - expected].into_iter(), 1.0), tolerance }
    }

    /// A count of faults, of which there may be none.
    pub(super) fn of_faults(count: usize) -> Self {
        Self { measure: Measure::Count, difference: count as f64, tolerance: 0.0 }
    }

    /// Whether the difference is within the tolerance.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance
    }

    /// How much of the tolerance was used: 1 is all of it.
    pub fn share(&self) -> f64 {
        match (self.difference == 0.0, self.tolerance == 0.0) {
            (true, _) => 0.0,
            (false, true) => f64::INFINITY,
            (false, false) => self.difference / self.tolerance,
        }
    }
}

/// The largest absolute value over `unit`; infinite if one is not finite. Differences of nothing
/// and differences of 0 are 0 in any unit, so that a constant tensor can be matched exactly.
fn over(differences: impl Iterator<Item = f64>, unit: f64) -> f64 {
    let largest = differences.fold(0.0f64, |m, d| if d.is_finite() { m.max(d.abs()) } else { f64::INFINITY });
    if largest == 0.0 { 0.0 } else { largest / unit }
}

fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected) / expected }
}

/// Standard deviation.
pub(super) fn spread(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// What became of one item of a set.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Computed and compared.
    Compared(Comparison),
    /// It should have run, and did not; the text says why.
    Failed(String),
    /// This version cannot run it; the text says why.
    Unsupported(String),
}

/// One item of a set: a tensor, mostly.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The set's own name for it.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Finding {
    /// Whether it was computed and within its tolerance.
    pub fn holds(&self) -> bool {
        matches!(&self.outcome, Outcome::Compared(c) if c.holds())
    }

    /// Whether this version cannot run it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.outcome, Outcome::Unsupported(_))
    }
}

/// Collects what a set's cases give, and reports it to an observer.
pub(super) struct Findings<'a> {
    pub(super) all: Vec<Finding>,
    pub(super) tensors: Vec<(String, Tensor)>,
    observe: &'a mut dyn FnMut(&Finding),
}

impl<'a> Findings<'a> {
    pub(super) fn new(observe: &'a mut dyn FnMut(&Finding)) -> Self {
        Self { all: Vec::new(), tensors: Vec::new(), observe }
    }

    /// Keeps `found` under `name` and holds it against `expected`. The sets write shapes in their
    /// own way (a leading 1, a mask as a list): the number of elements counts, and the set's shape
    /// is the one that is saved.
    pub(super) fn compare(&mut self, name: &str, found: Tensor, expected: &Tensor, by: Yardstick) {
        if found.len() != expected.len() {
            self.keep(name, found.clone());
            return self
                .failed(name, format!("shape {:?} where the set has {:?}", found.shape, expected.shape));
        }
        let found = Tensor { shape: expected.shape.clone(), ..found };
        self.push(name, Outcome::Compared(by.compare(&found, expected)));
        self.keep(name, found);
    }

    /// Keeps a result for saving.
    pub(super) fn keep(&mut self, name: &str, tensor: Tensor) {
        self.tensors.push((name.to_owned(), tensor));
    }

    pub(super) fn compared(&mut self, name: &str, comparison: Comparison) {
        self.push(name, Outcome::Compared(comparison));
    }

    pub(super) fn failed(&mut self, name: &str, why: impl Into<String>) {
        self.push(name, Outcome::Failed(why.into()));
    }

    pub(super) fn unsupported(&mut self, name: &str, why: impl Into<String>) {
        self.push(name, Outcome::Unsupported(why.into()));
    }

    fn push(&mut self, name: &str, outcome: Outcome) {
        let finding = Finding { name: name.to_owned(), outcome };
        (self.observe)(&finding);
        self.all.push(finding);
    }
}

/// Positions of a mask that count: all, or those that are set in `counted`.
pub(super) fn masked(tensor: &Tensor, counted: &[bool]) -> Tensor {
    let Values::U8(values) = &tensor.values else { return tensor.clone() };
    let kept: Vec<u8> = values.iter().zip(counted).filter(|(_, c)| **c).map(|(v, _)| *v).collect();
    Tensor::u8(&[kept.len()], kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(by: Yardstick, found: &[f32], expected: &[f32]) -> Comparison {
        let tensor = |v: &[f32]| Tensor::f32(&[v.len()], v.to_vec());
        by.compare(&tensor(found), &tensor(expected))
    }

    #[test]
    fn differences_are_measured_as_named() {
        let (found, expected) = ([1.0, 2.5], [1.0, 3.0]);
        assert_eq!(compare(Yardstick::spread(&expected, 1.0), &found, &expected).difference, 0.5);
        assert_eq!(compare(Yardstick::absolute(1.0), &found, &expected).difference, 0.5);
        assert_eq!(compare(Yardstick::relative(1.0), &found, &expected).difference, 0.5 / 3.0);
        assert_eq!(compare(Yardstick::equal(), &found, &expected).difference, 1.0);
    }

    #[test]
    fn nothing_strange_holds() {
        for by in [Yardstick::spread_of(1.0, 1e9), Yardstick::absolute(1e9), Yardstick::relative(1e9)] {
            assert!(!compare(by, &[f32::NAN], &[1.0]).holds());
            assert!(!compare(by, &[f32::INFINITY], &[1.0]).holds());
            assert!(!compare(by, &[1.0], &[f32::NAN]).holds());
        }
        // A constant tensor has no spread: only equality holds.
        assert!(compare(Yardstick::spread(&[2.0, 2.0], 1.0), &[2.0, 2.0], &[2.0, 2.0]).holds());
        assert!(!compare(Yardstick::spread(&[2.0, 2.0], 1.0), &[2.0, 2.1], &[2.0, 2.0]).holds());
    }

    #[test]
    fn the_share_of_a_tolerance() {
        assert_eq!(Comparison::of_absolute(1.5, 1.0, 2.0).share(), 0.25);
        assert_eq!(Comparison::of_faults(0).share(), 0.0);
        assert_eq!(Comparison::of_faults(2).share(), f64::INFINITY);
    }
}
