//! Many pictures in one with labels: columns, rows, and panels one below the other.

use super::{Picture, lettering};
use crate::{Error, Result};

/// White between cells and around all of them.
const GAP: usize = 6;
/// Letters of a row's label in a line.
const LABEL: usize = 18;
/// Lines of a label.
const MOST_LINES: usize = 4;
const INK: [u8; 3] = [20, 20, 24];
const GREY: [u8; 3] = [110, 110, 120];

/// What changes along a side of the sheet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub name: String,
    /// Its values; none is one place without a label.
    pub values: Vec<String>,
}

impl Side {
    /// Number of places.
    pub fn places(&self) -> usize {
        self.values.len().max(1)
    }
}

/// The layout of a sheet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    /// What all cells have in common, a line or several.
    pub title: String,
    /// From left to right.
    pub columns: Side,
    /// Downwards.
    pub rows: Side,
    /// Downwards, each with all columns and rows.
    pub panels: Side,
    /// Width and height of a cell in pixels; smaller pictures are centred.
    pub cell: (usize, usize),
}

/// Where a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellPlace {
    /// From 0.
    pub column: usize,
    /// From 0.
    pub row: usize,
    /// From 0.
    pub panel: usize,
}

impl Sheet {
    /// All places in the order of reading.
    pub fn places(&self) -> impl Iterator<Item = CellPlace> {
        let [columns, rows, panels] = [&self.columns, &self.rows, &self.panels].map(Side::places);
        let rows = (0..panels).flat_map(move |panel| (0..rows).map(move |row| (panel, row)));
        rows.flat_map(move |(panel, row)| (0..columns).map(move |column| CellPlace { column, row, panel }))
    }

    /// Pixels of a letter's pixel.
    fn scale(&self) -> usize {
        if self.cell.0 >= 192 { 2 } else { 1 }
    }

    /// Columns to the left of the cells.
    fn margin(&self) -> usize {
        if self.rows.values.is_empty() {
            return GAP;
        }
        let longest = self.rows.values.iter().chain([&self.rows.name]).map(|v| v.chars().count()).max();
        2 * GAP + lettering::width(longest.unwrap_or(0).min(LABEL), self.scale())
    }

    /// Width in pixels; the largest number if it cannot be counted.
    pub fn width(&self) -> usize {
        along(self.columns.places(), self.cell.0).saturating_add(self.margin())
    }

    /// Height in pixels; the largest number if it cannot be counted.
    pub fn height(&self) -> usize {
        let panel = along(self.rows.places(), self.cell.1).saturating_add(self.labels(0).height);
        let heading = self.heading_height(self.title_lines().len());
        self.panels.places().saturating_mul(panel).saturating_add(heading)
    }

    /// The sheet as a PNG with `texts` (keyword, text); `cell` gives the picture of a place and is asked
    /// once for each, in the order of reading. One row of cells is in memory at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a sheet without cells or of more than 65,535
    /// pixels a side, and for pictures that do not pass their [check](Picture::check); those of `cell`.
    pub fn encode(
        &self,
        texts: &[(&str, &str)],
        cell: &mut dyn FnMut(CellPlace) -> Result<Picture>,
    ) -> Result<Vec<u8>> {
        self.check()?;
        let (width, height) = (self.width(), self.height());
        super::png::encode_rows((width, height), texts, &mut |write| {
            write(&self.heading().rgb)?;
            for panel in 0..self.panels.places() {
                write(&self.header(panel).rgb)?;
                for row in 0..self.rows.places() {
                    write(&self.row(panel, row, cell)?.rgb)?;
                }
            }
            Ok(())
        })
    }

    /// Checks the size.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn check(&self) -> Result<()> {
        let (width, height) = (self.width(), self.height());
        if self.cell.0 > 0 && self.cell.1 > 0 && width.max(height) < 1 << 16 {
            return Ok(());
        }
        Err(Error::usage("the sheet is empty, or too large for one picture")
            .expected("cells with pixels, and at most 65535 pixels a side")
            .found(format!("{width}x{height}"))
            .hint("draw smaller pictures, or fewer values"))
    }

    fn blank(&self, height: usize) -> Picture {
        Picture { width: self.width(), height, rgb: vec![255; self.width() * height * 3] }
    }

    /// The title's lines as they fit.
    fn title_lines(&self) -> Vec<String> {
        let letters = (self.width() - GAP) / lettering::width(1, self.scale());
        self.title.lines().flat_map(|line| lettering::wrapped(line, letters, MOST_LINES)).collect()
    }

    fn heading_height(&self, lines: usize) -> usize {
        GAP + lettering::height(lines, self.scale())
    }

    /// The lines above all.
    fn heading(&self) -> Picture {
        let lines = self.title_lines();
        let mut band = self.blank(self.heading_height(lines.len()));
        self.lines(&mut band, &lines, (GAP, GAP), INK);
        band
    }

    /// Where the labels above a panel's cells are.
    fn labels(&self, panel: usize) -> Labels {
        let scale = self.scale();
        let line = lettering::height(1, scale);
        let letters = (self.cell.0 / lettering::width(1, scale)).max(1);
        let columns: Vec<Vec<String>> =
            self.columns.values.iter().map(|v| lettering::wrapped(v, letters, MOST_LINES)).collect();
        let lines = columns.iter().map(Vec::len).max().unwrap_or(0);
        let named = self.panels.values.get(panel).map_or(0, |_| line + GAP);
        let above = named + if lines > 0 { line } else { 0 };
        // A row's name is above its labels.
        let beside = if self.rows.values.is_empty() { 0 } else { line };
        Labels { above, lines, beside, height: GAP + (above + lines * line).max(beside), columns }
    }

    /// The labels above a panel's cells.
    fn header(&self, panel: usize) -> Picture {
        let scale = self.scale();
        let line = lettering::height(1, scale);
        let Labels { columns: labels, above, lines, beside, height } = self.labels(panel);
        let mut band = self.blank(height);
        if let Some(value) = self.panels.values.get(panel) {
            let text = format!("{} = {value}", self.panels.name);
            lettering::draw(&mut band, (self.margin(), GAP), &text, scale, INK);
        }
        if lines > 0 {
            let top = GAP + above - line;
            lettering::draw(&mut band, (self.margin(), top), &self.columns.name, scale, GREY);
        }
        for (i, label) in labels.iter().enumerate() {
            let left = self.margin() + i * (self.cell.0 + GAP);
            self.lines(&mut band, label, (left, GAP + above), INK);
        }
        if beside > 0 {
            let bottom = band.height - line;
            let name: String = self.rows.name.chars().take(LABEL).collect();
            lettering::draw(&mut band, (GAP, bottom), &name, scale, GREY);
        }
        band
    }

    /// A row of cells with its label.
    fn row(
        &self,
        panel: usize,
        row: usize,
        cell: &mut dyn FnMut(CellPlace) -> Result<Picture>,
    ) -> Result<Picture> {
        let mut band = self.blank(self.cell.1 + GAP);
        if let Some(value) = self.rows.values.get(row) {
            let lines = lettering::wrapped(value, LABEL, self.cell.1 / lettering::height(1, self.scale()));
            let tall = lettering::height(lines.len(), self.scale());
            self.lines(&mut band, &lines, (GAP, self.cell.1.saturating_sub(tall) / 2), INK);
        }
        for column in 0..self.columns.places() {
            let picture = cell(CellPlace { column, row, panel })?;
            picture.check()?;
            let inside = |whole: usize, part: usize| whole.saturating_sub(part) / 2;
            let left = self.margin() + column * (self.cell.0 + GAP) + inside(self.cell.0, picture.width);
            let top = inside(self.cell.1, picture.height);
            let across = picture.width.min(self.cell.0) * 3;
            let lines = picture.rgb.chunks_exact(picture.width * 3);
            for (y, line) in lines.take(self.cell.1).enumerate() {
                band.rgb[((top + y) * band.width + left) * 3..][..across].copy_from_slice(&line[..across]);
            }
        }
        Ok(band)
    }

    fn lines(&self, band: &mut Picture, lines: &[String], (left, top): (usize, usize), colour: [u8; 3]) {
        for (i, line) in lines.iter().enumerate() {
            let at = (left, top + lettering::height(i, self.scale()));
            lettering::draw(band, at, line, self.scale(), colour);
        }
    }
}

/// Height of the labels above a panel's cells, in pixels.
struct Labels {
    /// Of each column.
    columns: Vec<Vec<String>>,
    /// The names above those.
    above: usize,
    /// Most lines of a column.
    lines: usize,
    /// The rows' name.
    beside: usize,
    /// Of all.
    height: usize,
}

/// Pixels of `places` cells of `side` pixels.
fn along(places: usize, side: usize) -> usize {
    places.saturating_mul(side.saturating_add(GAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_where_they_belong() {
        let values = |n: usize| (0..n).map(|i| i.to_string()).collect();
        let side = |name: &str, n| Side { name: name.into(), values: values(n) };
        let sheet = Sheet {
            title: "a fox".into(),
            columns: side("steps", 3),
            rows: side("sag-scale", 2),
            panels: side("seed", 2),
            cell: (32, 24),
        };
        let mut asked = Vec::new();
        let bytes = sheet.encode(&[("parameters", "x")], &mut |place| {
            asked.push(place);
            let grey = (place.panel * 6 + place.row * 3 + place.column) as u8;
            // One is smaller than its cell.
            let (width, height) = if asked.len() == 1 { (30, 20) } else { (32, 24) };
            Ok(Picture { width, height, rgb: vec![grey; width * height * 3] })
        });
        let bytes = bytes.unwrap();
        assert_eq!(asked, sheet.places().collect::<Vec<_>>());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let whole = super::super::read::picture(file.path()).unwrap();
        assert_eq!((whole.width, whole.height), (sheet.width(), sheet.height()));
        let count = |grey: u8| whole.rgb.chunks(3).filter(|p| p == &[grey; 3]).count();
        assert_eq!(count(0), 30 * 20);
        (1..12).for_each(|grey| assert_eq!(count(grey), 32 * 24, "{grey}"));
        assert!(count(255) > 0 && whole.rgb.chunks(3).any(|p| p == INK), "labels");
    }

    #[test]
    fn too_large_is_told() {
        let sheet = Sheet {
            cell: (40_000, 8),
            columns: Side { values: vec![String::new(); 2], ..Side::default() },
            ..Sheet::default()
        };
        assert!(sheet.encode(&[], &mut |_| unreachable!()).unwrap_err().to_string().contains("too large"));
    }
}
