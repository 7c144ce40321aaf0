//! Ctrl-C.

use sagittal::CancelToken;

/// A token that Ctrl-C cancels.
pub fn token() -> CancelToken {
    caught(|token| token.cancel())
}

/// The same for work that may be aborted at any time: a second Ctrl-C exits at once.
pub fn impatient_token() -> CancelToken {
    caught(|token| {
        if token.is_cancelled() {
            std::process::exit(130);
        }
        token.cancel();
    })
}

fn caught(on_signal: impl Fn(&CancelToken) + Send + 'static) -> CancelToken {
    let token = CancelToken::new();
    let cancelled = token.clone();
    if let Err(e) = ctrlc::set_handler(move || on_signal(&cancelled)) {
        log::warn!("Ctrl-C will end the program at once: {e}");
    }
    token
}
