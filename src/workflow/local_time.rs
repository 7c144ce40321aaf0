//! The time, for names of files.

/// A point in local time, for file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, four digits.
    pub year: u32,
    /// Month, from 1.
    pub month: u32,
    /// Day, from 1.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute.
    pub minute: u32,
    /// Second.
    pub second: u32,
}

impl Default for LocalTime {
    /// The beginning of Unix time, for those who have no clock.
    fn default() -> Self {
        Self { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0 }
    }
}

impl LocalTime {
    /// `yyyy-MM-dd hh:mm:ss` and the like, letters by letters: `d`, `M`, `h`, `m`, `s` once or twice,
    /// `yy` and `yyyy`.
    pub(super) fn format(&self, pattern: &str) -> String {
        let chars: Vec<char> = pattern.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            let letter = chars[at];
            let most = if letter == 'y' { 4 } else { 2 };
            let run = chars[at..].iter().take(most).take_while(|c| **c == letter).count();
            let number = match letter {
                'd' => self.day,
                'M' => self.month,
                'h' => self.hour,
                'm' => self.minute,
                's' => self.second,
                'y' if run == 2 => {
                    out.push_str(&format!("{:02}", self.year % 100));
                    at += run;
                    continue;
                }
                'y' if run == 4 => self.year,
                _ => {
                    out.extend(&chars[at..at + run.max(1)]);
                    at += run.max(1);
                    continue;
                }
            };
            out.push_str(&format!("{number:0run$}"));
            at += run;
        }
        out
    }
}
