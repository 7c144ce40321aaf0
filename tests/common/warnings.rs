//! What the library warns of, by the thread that it runs on.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Capture;

thread_local!(static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

impl Log for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && record.target().starts_with("sagittal") {
            TOLD.with(|told| told.borrow_mut().push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// What `work` gives, and the warnings meanwhile.
pub fn warnings<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    static SET: Once = Once::new();
    SET.call_once(|| {
        log::set_logger(&Capture).expect("no other logger");
        log::set_max_level(LevelFilter::Warn);
    });
    TOLD.with(|told| told.borrow_mut().clear());
    let done = work();
    (done, TOLD.with(|told| told.borrow_mut().drain(..).collect()))
}
