//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that Ctrl-C sets.
pub fn flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    if let Err(e) = ctrlc::set_handler(move || set.store(true, Ordering::Relaxed)) {
        log::warn!("Ctrl-C will end the program at once: {e}");
    }
    flag
}
