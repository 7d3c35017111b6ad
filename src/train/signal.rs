//! Ctrl-C and SIGTERM: the first asks the run to finish its step, save and end with exit code 0;
//! a second one ends the process at once with exit code 130, unless it comes with the first: what
//! stops a process and its group (`timeout`, some schedulers) signals it twice.
//!
//! A run that another process started, and that is to end with it, is told so by [`STOP_AT_EOF`]:
//! the end of its standard input then is such a first signal, however that process died.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static FIRST: OnceLock<Instant> = OnceLock::new();
static INSTALL: Once = Once::new();

/// Signals so soon after the first are that one.
const TOGETHER: Duration = Duration::from_millis(500);

/// The environment variable that makes the end of standard input a signal.
pub const STOP_AT_EOF: &str = "GENE_BERT_STOP_AT_EOF";
/// What a run says to the first signal.
pub const OF_A_RUN: &str = "finishing the step, then saving; once more to quit at once";

/// Installs the handler once per process, which answers the first signal with `message`; without
/// it (it cannot be installed) signals end the process as usual.
pub fn install(message: &'static str) {
    INSTALL.call_once(|| {
        let installed = ctrlc::set_handler(move || {
            if RECEIVED.fetch_add(1, Ordering::SeqCst) == 0 {
                eprintln!("\n{message}");
                let _ = FIRST.set(Instant::now());
            } else if FIRST.get().is_none_or(|first| first.elapsed() >= TOGETHER) {
                std::process::exit(130);
            }
        });
        if let Err(error) = installed {
            eprintln!("note: Ctrl-C will not save a checkpoint: {error}");
        }
        if std::env::var_os(STOP_AT_EOF).is_some() {
            std::thread::spawn(|| {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                RECEIVED.fetch_max(1, Ordering::SeqCst);
            });
        }
    });
}

/// Whether the run was asked to end.
pub fn received() -> bool {
    RECEIVED.load(Ordering::SeqCst) > 0
}
