//! Ends a run whose evaluation figure has not improved for a number of evaluations.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Request, TrainHook};
use crate::train::figures::Evaluation;

/// Counts evaluations since the best one.
#[derive(Debug)]
pub struct EarlyStopping {
    metric: String,
    patience: Option<u64>,
    best: Option<f64>,
    evaluations_since: u64,
}

impl EarlyStopping {
    /// Watches `metric`; `None` as patience never stops.
    pub fn new(metric: &str, patience: Option<u64>) -> Self {
        Self {
            metric: metric.to_owned(),
            patience,
            best: None,
            evaluations_since: 0,
        }
    }
}

impl TrainHook for EarlyStopping {
    fn name(&self) -> &'static str {
        "early_stopping"
    }

    fn on_evaluation(&mut self, evaluation: &Evaluation) -> Result<Request> {
        let Some(patience) = self.patience else {
            return Ok(Request::none());
        };
        if let Some(better) = evaluation.better(&self.metric, self.best) {
            self.best = Some(better);
            self.evaluations_since = 0;
            return Ok(Request::none());
        }
        self.evaluations_since += 1;
        let stop = (self.evaluations_since >= patience).then(|| {
            format!(
                "{} has not improved for {patience} evaluations",
                self.metric
            )
        });
        Ok(Request {
            stop,
            ..Request::none()
        })
    }

    fn state(&self) -> Value {
        json!({ "best": self.best, "evaluations_since": self.evaluations_since })
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.best = state["best"].as_f64();
        self.evaluations_since = state["evaluations_since"]
            .as_u64()
            .context("early_stopping.evaluations_since")?;
        Ok(())
    }
}
