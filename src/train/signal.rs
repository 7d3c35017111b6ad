//! Ctrl-C and SIGTERM: the first asks the run to finish its step, save and end with exit code 0;
//! a second one ends the process at once with exit code 130.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static INSTALL: Once = Once::new();

/// Installs the handler once per process; without it (it cannot be installed) signals end the
/// process as usual.
pub fn install() {
    INSTALL.call_once(|| {
        let installed = ctrlc::set_handler(|| {
            if RECEIVED.fetch_add(1, Ordering::SeqCst) == 0 {
                eprintln!("\nfinishing the step, then saving; once more to quit at once");
            } else {
                std::process::exit(130);
            }
        });
        if let Err(error) = installed {
            eprintln!("note: Ctrl-C will not save a checkpoint: {error}");
        }
    });
}

/// Whether the run was asked to end.
pub fn received() -> bool {
    RECEIVED.load(Ordering::SeqCst) > 0
}
