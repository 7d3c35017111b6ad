//! Learning rate by step, as Hugging Face's schedulers: a linear warm-up from 0, then one of four
//! shapes.

use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Falls in a line to 0 at the last step.
    #[default]
    Linear,
    /// Falls as half a cosine to 0 at the last step.
    Cosine,
    /// Stays.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// Falls as 1/√step from the end of the warm-up (from 10,000 steps on, where there is none).
    #[serde(alias = "inverse-sqrt")]
    InverseSqrt,
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.replace('_', "-").as_str() {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            "constant" | "constant-with-warmup" => Ok(Self::Constant),
            "inverse-sqrt" => Ok(Self::InverseSqrt),
            _ => Err(format!(
                "`{text}` is no schedule: there are linear, cosine, constant, inverse_sqrt"
            )),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::Constant => "constant",
            Self::InverseSqrt => "inverse_sqrt",
        })
    }
}

/// A schedule with its highest rate and its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Highest learning rate, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Optimizer steps of warm-up.
    pub warmup_steps: u64,
    /// What follows.
    #[serde(default)]
    pub schedule: Schedule,
}

/// Steps that 1/√step counts from where there is no warm-up.
const INVERSE_SQRT_TIMESCALE: u64 = 10_000;

impl ScheduleConfig {
    /// The warm-up of `ratio` of all steps, rounded up, as Hugging Face's `warmup_ratio`.
    pub fn with_warmup_ratio(
        learning_rate: f64,
        ratio: f64,
        total_steps: u64,
        schedule: Schedule,
    ) -> Self {
        Self {
            learning_rate,
            warmup_steps: (total_steps as f64 * ratio).ceil().max(0.0) as u64,
            schedule,
        }
    }

    /// The learning rate of optimizer step `step` (from 0) of `total` steps.
    pub fn lr_at(&self, step: u64, total: u64) -> f64 {
        let (step, warmup) = (step as f64, self.warmup_steps as f64);
        if step < warmup {
            return self.learning_rate * step / warmup.max(1.0);
        }
        let left = (total as f64 - step).max(0.0);
        let after_warmup = (total as f64 - warmup).max(1.0);
        let progress = ((step - warmup) / after_warmup).min(1.0);
        let factor = match self.schedule {
            Schedule::Linear => left / after_warmup,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Schedule::Constant => 1.0,
            Schedule::InverseSqrt => {
                let timescale = match self.warmup_steps {
                    0 => INVERSE_SQRT_TIMESCALE as f64,
                    _ => warmup,
                };
                (timescale / (step - warmup + timescale)).sqrt()
            }
        };
        self.learning_rate * factor.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rates(schedule: Schedule, warmup_steps: u64) -> Vec<f64> {
        let config = ScheduleConfig {
            learning_rate: 2.0,
            warmup_steps,
            schedule,
        };
        (0..=10).map(|step| config.lr_at(step, 10)).collect()
    }

    #[test]
    fn every_schedule_warms_up_and_ends_where_it_should() {
        for name in ["linear", "cosine", "constant", "inverse_sqrt"] {
            let schedule: Schedule = name.parse().unwrap();
            let rates = rates(schedule, 4);
            assert_eq!(rates[..5], [0.0, 0.5, 1.0, 1.5, 2.0], "{name}");
            let last = rates[10];
            match schedule {
                Schedule::Linear | Schedule::Cosine => assert!(last.abs() < 1e-12),
                Schedule::Constant => assert_eq!(last, 2.0),
                Schedule::InverseSqrt => assert!((last - 2.0 * 0.4f64.sqrt()).abs() < 1e-12),
            }
        }
        assert_eq!(rates(Schedule::Linear, 0)[0], 2.0);
        assert!((rates(Schedule::Cosine, 0)[5] - 1.0).abs() < 1e-12);
        assert!("step".parse::<Schedule>().unwrap_err().contains("cosine"));
        let ratio = ScheduleConfig::with_warmup_ratio(1.0, 0.1, 25, Schedule::Linear);
        assert_eq!(ratio.warmup_steps, 3);
    }
}
