//! A bar on the terminal for work that takes long.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How long work may take before its progress is shown.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shown once the work takes long and where standard error is a terminal; gone when dropped.
pub(super) struct Bar {
    message: String,
    start: Instant,
    visible: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar for the work that `message` names.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            start: Instant::now(),
            visible: std::io::stderr().is_terminal(),
            bar: None,
        }
    }

    /// Names the work differently from now on.
    pub(super) fn set_message(&mut self, message: impl Into<String>) {
        self.message = message.into();
    }

    /// Prints a line above the bar, to standard output.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Shows the share that is done, 0..=1.
    pub(super) fn show(&mut self, share: f64) {
        if self.visible && self.start.elapsed() > PATIENCE {
            let bar = self.bar.get_or_insert_with(new_bar);
            bar.set_message(self.message.clone());
            bar.set_position((share * 100.0) as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %");
    let bar = ProgressBar::new(100);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
