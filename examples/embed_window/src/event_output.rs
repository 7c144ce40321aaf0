//! `--tell`: events and states of the window on standard output, one per line, for programs.
//!
//! ```text
//! at NAME X Y WIDTH HEIGHT     where a control is, in pixels of the window
//! is NAME VALUE                what it is set to
//! is pointer X Y DOWN          where a frame has found the pointer, and whether it was pressed
//! step N TOTAL WIDTH HEIGHT    a step, with the size of its preview
//! made, cancelled, error TEXT  how a generation ended
//! saved FILE                   where the picture was saved
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;

pub struct EventOutput {
    on: bool,
    /// The last printed value of each state: only changes are printed.
    printed: BTreeMap<String, String>,
}

impl EventOutput {
    pub fn new(on: bool) -> Self {
        Self { on, printed: BTreeMap::new() }
    }

    /// Prints an event.
    pub fn print(&self, line: impl Display) {
        if self.on {
            // A closed pipe must not close the window.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// Prints where a control is and what it is set to, if that has changed.
    pub fn control(&mut self, name: &str, at: &egui::Response, value: impl Display) {
        let pixels = at.ctx.pixels_per_point();
        let (from, size) = (at.rect.min * pixels, at.rect.size() * pixels);
        self.state("at", name, format!("{:.0} {:.0} {:.0} {:.0}", from.x, from.y, size.x, size.y));
        self.is(name, value);
    }

    /// Prints the value of `name`, if that has changed.
    pub fn is(&mut self, name: &str, value: impl Display) {
        self.state("is", name, value.to_string());
    }

    fn state(&mut self, what: &str, name: &str, value: String) {
        let subject = format!("{what} {name}");
        if self.printed.get(&subject) != Some(&value) {
            self.print(format_args!("{subject} {value}"));
            self.printed.insert(subject, value);
        }
    }
}
