//! Charts as SVG: curves over one horizontal axis, with one or two vertical ones.

use std::fmt::Write;

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The text above it.
    pub title: String,
    /// What the horizontal axis shows.
    pub x_label: String,
    /// The vertical axis on the left and its curves.
    pub left: Scale,
    /// A second one on the right, for curves of another unit.
    pub right: Option<Scale>,
}

/// A vertical axis. It begins at 0, or is logarithmic.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// What it shows, with its unit.
    pub label: String,
    /// Whether it is logarithmic, for values above 0 that span decades.
    pub log: bool,
    /// Curves: a name and points (x, y), from left to right.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Room around the plot: left, right, top, bottom.
const MARGIN: [f64; 4] = [80.0, 80.0, 70.0, 60.0];

/// Colours that people of any colour vision can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// About how many marks a vertical axis has.
const MARKS: f64 = 6.0;

/// Marks of the horizontal axis are at least so far apart, in the unit of the picture.
const APART: f64 = 34.0;

impl Chart {
    /// The chart as an SVG file. Points that are not finite are omitted.
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(&self.title);
        let xs: Vec<f64> = self.scales().flat_map(points).map(|p| p.0).collect();
        let last = xs.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let x = |v: f64| MARGIN[0] + v / last * (WIDTH - MARGIN[0] - MARGIN[1]);
        svg.horizontal(&self.x_label, xs, x);
        let mut colours = COLOURS.iter().cycle();
        let mut named = 0;
        for (i, scale) in self.scales().enumerate() {
            let values: Vec<f64> = points(scale).map(|p| p.1).collect();
            let marks = if scale.log { log_marks(&values) } else { marks(&values) };
            let part = part_of(&marks, scale.log);
            let y = |v: f64| HEIGHT - MARGIN[3] - part(v) * (HEIGHT - MARGIN[2] - MARGIN[3]);
            svg.vertical(&scale.label, &marks, i == 1, y);
            for ((name, curve), colour) in scale.curves.iter().zip(&mut colours) {
                let placed = finite(curve).map(|(a, b)| (x(a), y(b)));
                svg.curve(name, &placed.collect::<Vec<_>>(), colour, named, i == 1);
                named += 1;
            }
        }
        svg.done()
    }

    fn scales(&self) -> impl Iterator<Item = &Scale> {
        [&self.left].into_iter().chain(&self.right)
    }
}

fn points(scale: &Scale) -> impl Iterator<Item = (f64, f64)> {
    scale.curves.iter().flat_map(|(_, curve)| finite(curve))
}

fn finite(curve: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    curve.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// Round numbers from 0 to the largest of `values` or above: steps of 1, 2 or 5 times a power of ten.
fn marks(values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let decade = 10f64.powf((most / MARKS).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * decade).into_iter().find(|s| most / s <= MARKS);
    let step = step.unwrap_or(10.0 * decade);
    // Numbers so small or large that their decade is 0 or infinite.
    if !(step > 0.0 && step.is_finite()) {
        return vec![0.0, most];
    }
    (0..=(most / step - 1e-9).ceil() as usize).map(|i| i as f64 * step).collect()
}

/// 1, 2 and 5 of each decade, around all of `values` that are above 0.
fn log_marks(values: &[f64]) -> Vec<f64> {
    // Decades beyond these are 0 or infinite.
    let above = || values.iter().copied().filter(|v| *v > 0.0).map(|v| v.clamp(1e-300, 1e300));
    let (least, most) = (above().fold(f64::INFINITY, f64::min), above().fold(0.0, f64::max));
    if most == 0.0 {
        return vec![1.0, 10.0];
    }
    let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
    let all: Vec<f64> = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|s| s * 10f64.powi(d))).collect();
    let first = all.iter().rposition(|m| *m <= least).unwrap_or(0);
    let last = all.iter().position(|m| *m >= most).unwrap_or(all.len() - 1);
    // An axis has two ends, also for a single value.
    all[first..=last.max(first + 1)].to_vec()
}

/// The position of a value between the first mark (0) and the last (1).
fn part_of(marks: &[f64], log: bool) -> impl Fn(f64) -> f64 {
    let (first, last) = (marks[0], marks[marks.len() - 1]);
    move |v| match log {
        true => (v.max(first) / first).ln() / (last / first).ln(),
        false => (v - first) / (last - first),
    }
}

/// A number as short as it can be: marks are round.
fn short(v: f64) -> String {
    let text = format!("{v:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Svg(String);

impl Svg {
    fn new(title: &str) -> Self {
        let mut svg = Self(String::new());
        svg.line(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">"
        ));
        // A white background: on dark pages the text would be unreadable.
        svg.line(format!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>"));
        svg.0.push_str("<g font-size=\"16\">");
        svg.text((WIDTH / 2.0, 24.0), "middle", title, "");
        svg.line("</g>");
        svg
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str, more: &str) {
        let text = escaped(text);
        self.line(format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{text}</text>"));
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.line(format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// The axis below, marked at the values that were measured.
    fn horizontal(&mut self, label: &str, mut values: Vec<f64>, x: impl Fn(f64) -> f64) {
        let floor = HEIGHT - MARGIN[3];
        self.stroke((MARGIN[0], floor), (WIDTH - MARGIN[1], floor), "black");
        values.sort_by(f64::total_cmp);
        let mut marked = f64::NEG_INFINITY;
        for value in values {
            let at = x(value);
            if at - marked >= APART {
                self.stroke((at, floor), (at, floor + 5.0), "black");
                self.text((at, floor + 20.0), "middle", &short(value), "");
                marked = at;
            }
        }
        self.text((WIDTH / 2.0, HEIGHT - 14.0), "middle", label, "");
    }

    /// An axis at a side; the left one has lines across the plot.
    fn vertical(&mut self, label: &str, marks: &[f64], right: bool, y: impl Fn(f64) -> f64) {
        let (left, end) = (MARGIN[0], WIDTH - MARGIN[1]);
        let at = if right { end } else { left };
        let (out, anchor, away) = if right { (5.0, "start", 60.0) } else { (-5.0, "end", -58.0) };
        for mark in marks {
            let height = y(*mark);
            if !right {
                self.stroke((left, height), (end, height), "#dddddd");
            }
            self.stroke((at, height), (at + out, height), "black");
            self.text((at + 2.0 * out, height + 4.5), anchor, &short(*mark), "");
        }
        self.stroke((at, MARGIN[2]), (at, HEIGHT - MARGIN[3]), "black");
        let place = (at + away, (HEIGHT + MARGIN[2] - MARGIN[3]) / 2.0);
        let turned = format!(" transform=\"rotate(-90 {:.1} {:.1})\"", place.0, place.1);
        self.text(place, "middle", label, &turned);
    }

    /// A curve with its name in the line below the title; dashed if it belongs to the right axis.
    fn curve(&mut self, name: &str, points: &[(f64, f64)], colour: &str, number: usize, right: bool) {
        let dashes = if right { " stroke-dasharray=\"6 4\"" } else { "" };
        let mut path = String::new();
        for (x, y) in points {
            // Writing into a string cannot fail.
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let line = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}");
        self.line(format!("<polyline points=\"{}\" {line}/>", path.trim_end()));
        for (x, y) in points {
            self.line(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
        }
        let x = MARGIN[0] + 10.0 + 210.0 * number as f64;
        self.line(format!("<polyline points=\"{x:.1},46 {:.1},46\" {line}/>", x + 28.0));
        self.text((x + 34.0, 50.5), "start", name, "");
    }

    fn done(mut self) -> String {
        self.line("</svg>");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(&[7.0]), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(marks(&[60.0, 1.0]).last(), Some(&60.0));
        assert_eq!(marks(&[0.013]), [0.0, 0.005, 0.01, 0.015]);
        assert_eq!(marks(&[0.0]).len(), marks(&[1.0]).len());
        assert_eq!(log_marks(&[3.0, 70.0]), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(log_marks(&[10.0]), [10.0, 20.0]);
        assert_eq!(log_marks(&[0.0]).len(), 2);
        assert_eq!(short(0.015), "0.015");
        assert_eq!(short(200.0), "200");
    }

    #[test]
    fn names_are_text() {
        let curve = ("a < b & c".to_owned(), vec![(1.0, 2.0), (2.0, f64::NAN)]);
        let left = Scale { label: "ms".into(), log: false, curves: vec![curve] };
        let chart = Chart { title: "t".into(), x_label: "x".into(), left, right: None };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("NaN"), "{svg}");
    }
}
