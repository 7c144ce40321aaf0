//! `--tell`: what happens in the window, a line each on standard output, for programs.
//!
//! ```text
//! at NAME X Y WIDTH HEIGHT     where a control is, in pixels of the window
//! is NAME VALUE                what it is set to
//! is pointer X Y DOWN          where a frame has found the pointer, and whether it was pressed
//! step N TOTAL WIDTH HEIGHT    a step, with the size of its preview
//! made, cancelled, error TEXT  how a generation ended
//! saved FILE                   where the picture went
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;

pub struct Telling {
    on: bool,
    /// What was told last of each subject: only changes are worth a line.
    told: BTreeMap<String, String>,
}

impl Telling {
    pub fn new(on: bool) -> Self {
        Self { on, told: BTreeMap::new() }
    }

    /// Tells of an event.
    pub fn say(&self, line: impl Display) {
        if self.on {
            // Whoever listened may have gone; the window stays.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// Tells where a control is and what it is set to, if that has changed.
    pub fn control(&mut self, name: &str, at: &egui::Response, value: impl Display) {
        let pixels = at.ctx.pixels_per_point();
        let (from, size) = (at.rect.min * pixels, at.rect.size() * pixels);
        self.state("at", name, format!("{:.0} {:.0} {:.0} {:.0}", from.x, from.y, size.x, size.y));
        self.is(name, value);
    }

    /// Tells what `name` is, if that has changed.
    pub fn is(&mut self, name: &str, value: impl Display) {
        self.state("is", name, value.to_string());
    }

    fn state(&mut self, what: &str, name: &str, value: String) {
        let subject = format!("{what} {name}");
        if self.told.get(&subject) != Some(&value) {
            self.say(format_args!("{subject} {value}"));
            self.told.insert(subject, value);
        }
    }
}
