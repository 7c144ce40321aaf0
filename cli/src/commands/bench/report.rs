//! `sagittal bench --report`: rows and sweep as a Markdown page with two charts.

use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sagittal::Result;
use sagittal::internals::bench::Bench;
use sagittal::internals::bench::plot::{Chart, Scale};
use sagittal::internals::bench::rows::{Choice, Row};
use sagittal::internals::bench::sweep::{Axis, Point};

use crate::commands::bench::tables;
use crate::commands::bench::{Args, run_rows, run_sweep};
use crate::support::output::Series;
use crate::support::terminal;

/// Files in the order of writing: the page, which links to the others, is last.
const NAMES: [&str; 3] = ["batch.svg", "size.svg", "report.md"];

/// The files of a report, checked before the work.
pub struct Files([Series; 3]);

impl Files {
    /// In `folder`, which is created with the first of them if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) if one of them cannot be written or exists.
    pub fn new(folder: &Path, force: bool) -> Result<Self> {
        let files = NAMES.map(|name| Series::new(folder.join(name), 1, force));
        files.iter().try_for_each(|file| file.check())?;
        Ok(Self(files))
    }
}

/// Measures and writes; returns whether nothing failed.
pub fn run(args: &Args, bench: &Bench<'_>, choice: &Choice, files: &Files) -> Result<bool> {
    let (rows, good) = run_rows(args, bench, choice)?;
    let (points, swept) = run_sweep(args, bench, choice.deadline)?;
    let texts = [batch_chart(&points).svg(), size_chart(&points).svg(), page(bench, &rows, &points)];
    for (file, text) in files.0.iter().zip(texts) {
        terminal::say(format!("{}", file.write(0, text.as_bytes())?.display()));
    }
    Ok(good && swept)
}

fn curve(points: &[Point], axis: Axis, y: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, f64)> {
    let of_axis = points.iter().filter(|p| p.step.axis == axis);
    of_axis.filter_map(|p| Some((p.step.value() as f64, y(p)?))).collect()
}

/// Wall and GPU time per picture.
fn times(points: &[Point], axis: Axis, label: &str, log: bool) -> Scale {
    let wall = curve(points, axis, |p| Some(p.ms_per_picture()));
    let gpu = curve(points, axis, tables::gpu_per_picture);
    let curves = [("wall time".to_owned(), wall), ("GPU time".to_owned(), gpu)];
    Scale { label: label.into(), log, curves: curves.into_iter().filter(|(_, c)| !c.is_empty()).collect() }
}

fn batch_chart(points: &[Point]) -> Chart {
    Chart {
        title: "A CFG step of SD 1.5: time per picture by batch size".into(),
        x_label: "pictures per step".into(),
        left: times(points, Axis::Batch, "ms per picture", false),
        right: None,
    }
}

fn size_chart(points: &[Point]) -> Chart {
    let memory = curve(points, Axis::Size, |p| Some(terminal::to_mib(p.peak_bytes) / 1024.0));
    Chart {
        title: "A CFG step of SD 1.5: time and memory by picture size".into(),
        x_label: "side of the picture, pixels".into(),
        left: times(points, Axis::Size, "ms", true),
        right: Some(Scale { label: "GiB".into(), log: false, curves: vec![("memory".into(), memory)] }),
    }
}

fn page(bench: &Bench<'_>, rows: &[Row], points: &[Point]) -> String {
    let info = bench.gpu.device().adapter_info();
    let mut page = format!(
        "# Speed of sagittal {}\n\n\
         - Device: {}\n- Storage: {}\n- Date: {}\n- Command: `{}`\n\n\
         Weights are generated. Names that end in GPU are GPU time from timestamp queries, all others are wall \
         time; MiB is the peak memory of all buffers on the device.\n\n",
        env!("CARGO_PKG_VERSION"),
        tables::device(&info),
        bench.precision().name(),
        today(),
        command().replace('`', "'")
    );
    if bench.tiny {
        page.push_str(
            "Networks and pictures are small (--tiny): these times do not show the device's speed.\n\n",
        );
    }
    page.push_str("| row | ms | min | max | n | MiB |\n| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {} |", tables::cells(row));
    }
    page.push_str("\n## Cost of a CFG step of SD 1.5\n");
    for axis in Axis::ALL {
        let mut of_axis = points.iter().filter(|p| p.step.axis == axis).peekable();
        if of_axis.peek().is_none() {
            continue;
        }
        page.push_str(match axis {
            Axis::Batch => "\n![time by batch size](batch.svg)\n",
            Axis::Size => "\n![time and memory by size](size.svg)\n",
            Axis::Chunk => "",
        });
        let _ = writeln!(
            page,
            "\n| {} | rows per call | calls | ms per call | ms per picture | GPU ms per picture | MiB |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            axis.name()
        );
        for p in of_axis {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {:.3} | {:.3} | {} | {:.0} |",
                p.step.value(),
                p.step.rows,
                p.step.calls(),
                p.ms_per_call(),
                p.ms_per_picture(),
                tables::gpu_per_picture(p).map_or("-".into(), |ms| format!("{ms:.3}")),
                terminal::to_mib(p.peak_bytes)
            );
        }
    }
    page
}

/// The command line, with the program's name without its folder.
fn command() -> String {
    let words = std::env::args().skip(1);
    ["sagittal".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The day in UTC, such as 2026-11-25.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a day by its number from 1970-01-01 on, in the Gregorian calendar:
/// years begin in March, so that leap days end them (Howard Hinnant, "chrono-compatible low-level
/// date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (19_782, (2024, 2, 29))] {
            assert_eq!(civil(days), date);
        }
    }
}
