//! The progress bar on standard error: loss, real and padded tokens per second, cells per second,
//! remaining time. Where standard error is not a terminal, a plain line every ten seconds instead.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::{EpochReport, Request, RunEnd, RunStart, StepReport, TrainHook};
use crate::train::figures::Evaluation;

const PLAIN_LINE_EVERY: Duration = Duration::from_secs(10);

/// Sums since the run (re)started.
#[derive(Debug, Default)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total_steps: u64,
    first_step: u64,
    cells: u64,
    tokens: u64,
    padded_tokens: u64,
    seconds: f64,
    smooth_loss: Option<f64>,
    last_plain_line: Option<Instant>,
}

impl Progress {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn rates(&self) -> String {
        let per_second = |n: u64| compact(n as f64 / self.seconds.max(1e-9));
        format!(
            "loss {:.4} · {} tokens/s ({} padded) · {} cells/s",
            self.smooth_loss.unwrap_or(f64::NAN),
            per_second(self.tokens),
            per_second(self.padded_tokens),
            per_second(self.cells),
        )
    }

    fn plain_line(&mut self, report: &StepReport) {
        let due = self
            .last_plain_line
            .is_none_or(|at| at.elapsed() >= PLAIN_LINE_EVERY);
        if due || report.step == self.total_steps {
            let done = (report.step - self.first_step) as f64;
            let left = self.seconds / done.max(1.0) * (self.total_steps - report.step) as f64;
            let left = HumanDuration(Duration::from_secs_f64(left));
            let rates = self.rates();
            eprintln!(
                "step {}/{} · {rates} · {left} left",
                report.step, self.total_steps
            );
            self.last_plain_line = Some(Instant::now());
        }
    }
}

fn compact(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

impl TrainHook for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn on_start(&mut self, start: &RunStart) -> Result<()> {
        self.total_steps = start.total_steps;
        self.first_step = start.first_step;
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(start.total_steps).with_position(start.first_step);
            let style = "{bar:24} step {pos}/{len} · {msg} · {eta} left";
            bar.set_style(ProgressStyle::with_template(style)?);
            bar.enable_steady_tick(Duration::from_millis(250));
            self.bar = Some(bar);
        }
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<Request> {
        self.cells += report.num_cells;
        self.tokens += report.num_tokens;
        self.padded_tokens += report.num_padded_tokens;
        self.seconds += report.seconds;
        if report.loss.is_finite() {
            let smooth = self
                .smooth_loss
                .map_or(report.loss, |s| 0.95 * s + 0.05 * report.loss);
            self.smooth_loss = Some(smooth);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(self.rates());
        } else {
            self.plain_line(report);
        }
        Ok(Request::none())
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Result<Request> {
        if report.skipped_cells > 0 {
            self.say(&format!(
                "note: epoch {}: {} cells were skipped, as a phenotype is missing or unknown",
                report.epochs, report.skipped_cells
            ));
        }
        Ok(Request::none())
    }

    fn on_evaluation(&mut self, evaluation: &Evaluation) -> Result<Request> {
        self.say(&evaluation.one_line());
        Ok(Request::none())
    }

    fn on_save(&mut self, checkpoint: &Path) -> Result<()> {
        self.say(&format!("saved {}", checkpoint.display()));
        Ok(())
    }

    fn on_end(&mut self, _: &RunEnd) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.seconds > 0.0 {
            eprintln!("{}", self.rates());
        }
        Ok(())
    }
}
