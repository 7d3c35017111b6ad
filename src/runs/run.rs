//! What a run folder tells: settings, state, and the figures of its evaluations.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};
use serde_json::Value;

use super::find::is_run;
use crate::config::{RunConfig, Settings};
use crate::file::read_string;
use crate::train::figures::Evaluation;
use crate::train::run_folder;
use crate::train::trainer::INTERRUPTED;

/// So much of a log's end is searched for an error.
const LOG_BYTES: u64 = 1 << 16;

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A process works on it.
    Running,
    /// It came to its last step.
    Finished,
    /// A hook ended it: why.
    Stopped(String),
    /// A signal ended it; it can be resumed.
    Interrupted,
    /// It ended without a word: killed or crashed.
    BrokenOff,
}

impl State {
    /// One word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped(_) => "stopped early",
            Self::Interrupted => "interrupted",
            Self::BrokenOff => "broken off",
        }
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// Its settings.
    pub config: RunConfig,
    /// How it stands.
    pub state: State,
    /// The last step that is logged.
    pub step: u64,
    /// Epochs at that step.
    pub epoch: f64,
    /// The last training loss that is logged.
    pub train_loss: Option<f64>,
    /// Step and figures of each evaluation.
    pub evaluations: Vec<(u64, BTreeMap<String, f64>)>,
    /// Wall time of its steps and evaluations, in seconds.
    pub seconds: f64,
    /// When something was last logged.
    pub changed: Option<SystemTime>,
    /// The last error of its logs, if it was broken off and kept any.
    pub error: Option<String>,
}

/// The name that a figure is found by: `loss` is `eval_loss`.
pub fn figure_name(metric: &str) -> &str {
    if metric == "loss" {
        "eval_loss"
    } else {
        metric
    }
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// It is none, or its settings cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        if !is_run(path) {
            let hint = match path.parent().filter(|parent| is_run(parent)) {
                Some(parent) => format!("this is a checkpoint; its run is {}", parent.display()),
                None => "a run's folder holds run.toml; `gene-bert runs DIR` lists them".to_owned(),
            };
            bail!("{}: is no run folder\nhint: {hint}", path.display());
        }
        let settings = path.join("run.toml");
        let config = Settings::from_toml(&read_string(&settings)?, &settings)?.with_defaults();
        let metrics = path.join("metrics.jsonl");
        // Before the first step is logged there is none.
        let bytes = fs::read(&metrics).unwrap_or_default();
        let mut run = Self {
            path: path.to_owned(),
            config,
            state: State::BrokenOff,
            step: 0,
            epoch: 0.0,
            train_loss: None,
            evaluations: Vec::new(),
            seconds: 0.0,
            changed: fs::metadata(&metrics).and_then(|m| m.modified()).ok(),
            error: None,
        };
        // A line being written, or cut short by a crash, is not counted.
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Ok(line) = serde_json::from_str(line) {
                run.take(&line);
            }
        }
        if run_folder::is_running(path) {
            run.state = State::Running;
        }
        if run.state == State::BrokenOff {
            run.error = last_error(path);
        }
        Ok(run)
    }

    fn take(&mut self, line: &Value) {
        self.step = line["step"].as_u64().unwrap_or(self.step);
        self.epoch = line["epoch"].as_f64().unwrap_or(self.epoch);
        match line["event"].as_str() {
            Some("step") => {
                self.train_loss = line["loss"].as_f64();
                let cells = line["num_cells"].as_f64().unwrap_or_default();
                let rate = line["cells_per_second"].as_f64();
                self.seconds += rate.filter(|r| *r > 0.0).map_or(0.0, |rate| cells / rate);
            }
            Some("eval") => {
                self.seconds += line["seconds"].as_f64().unwrap_or_default();
                let figures = Evaluation::figures_of_line(line);
                self.evaluations.push((self.step, figures));
            }
            Some("end") => {
                self.state = match line["stopped"].as_str() {
                    None => State::Finished,
                    Some(INTERRUPTED) => State::Interrupted,
                    Some(why) => State::Stopped(why.to_owned()),
                };
            }
            _ => {}
        }
    }

    /// The subcommand that it is of.
    pub fn job(&self) -> &'static str {
        let classifies = self.config.phenotype_category.is_some();
        if classifies { "cls" } else { "mlm" }
    }

    /// The figure that decides which of its checkpoints is the best.
    pub fn metric(&self) -> &str {
        figure_name(&self.config.metric_for_best_model)
    }

    /// The evaluation at which `metric` is best: lowest for losses, highest for all else.
    pub fn best(&self, metric: &str) -> Option<(u64, &BTreeMap<String, f64>)> {
        let metric = figure_name(metric);
        let score = |figures: &BTreeMap<String, f64>| {
            let value = figures.get(metric).copied().filter(|v| v.is_finite())?;
            Some(if metric.ends_with("loss") {
                -value
            } else {
                value
            })
        };
        let scored = self
            .evaluations
            .iter()
            .filter_map(|(step, figures)| score(figures).map(|score| (score, *step, figures)));
        let best = scored.reduce(|best, one| if one.0 > best.0 { one } else { best });
        best.map(|(_, step, figures)| (step, figures))
    }
}

/// The last line of the run's logs that tells an error.
fn last_error(folder: &Path) -> Option<String> {
    let logs = [folder.join("stderr.log"), folder.join("logs/rank-0.log")];
    logs.iter().find_map(|path| {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))
            .ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .rev()
            .find_map(|l| Some(l.strip_prefix("error: ")?.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(lines: &str) -> Run {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run.toml"), "learning_rate = 1e-3\n").unwrap();
        fs::write(dir.path().join("metrics.jsonl"), lines).unwrap();
        Run::read(dir.path()).unwrap()
    }

    const STEP: &str = "{\"event\":\"step\",\"step\":5,\"epoch\":0.5,\"loss\":2.5,\
                        \"num_cells\":40,\"cells_per_second\":20.0}\n";

    fn eval(step: u64, loss: f64, accuracy: f64) -> String {
        format!(
            "{{\"event\":\"eval\",\"step\":{step},\"epoch\":1.0,\"eval_loss\":{loss},\"genes\":\
             {{\"accuracy\":{accuracy}}},\"phenotypes\":[],\"seconds\":0.5}}\n"
        )
    }

    #[test]
    fn state_time_and_the_best_evaluation_are_read() {
        let text = format!("{STEP}{}{}", eval(5, 1.0, 0.5), eval(10, 1.5, 0.75));
        let broken = run(&format!("{text}{{\"event\":\"st"));
        assert_eq!(broken.state, State::BrokenOff);
        assert_eq!((broken.step, broken.train_loss), (10, Some(2.5)));
        assert!((broken.seconds - 3.0).abs() < 1e-12);
        assert_eq!(broken.best("loss").unwrap().0, 5);
        assert_eq!(broken.best("gene_accuracy").unwrap().0, 10);
        assert!(broken.best("auroc").is_none());
        assert_eq!((broken.job(), broken.metric()), ("mlm", "eval_loss"));
        for (stopped, state) in [
            ("null", State::Finished),
            ("\"interrupted\"", State::Interrupted),
            ("\"no better\"", State::Stopped("no better".into())),
        ] {
            let end = format!("{text}{{\"event\":\"end\",\"step\":10,\"stopped\":{stopped}}}\n");
            assert_eq!(run(&end).state, state);
        }
        assert_eq!(run("").step, 0);
    }

    #[test]
    fn a_run_that_is_written_to_is_running() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run.toml"), "").unwrap();
        fs::write(dir.path().join("metrics.jsonl"), STEP).unwrap();
        let file = File::open(dir.path().join("metrics.jsonl")).unwrap();
        file.lock().unwrap();
        assert_eq!(Run::read(dir.path()).unwrap().state, State::Running);
        drop(file);
        fs::create_dir(dir.path().join("logs")).unwrap();
        let log = "step 3\nerror: a\nhint: b\nerror: the disk is full\nhint: c\n";
        fs::write(dir.path().join("logs/rank-0.log"), log).unwrap();
        let run = Run::read(dir.path()).unwrap();
        assert_eq!(run.state, State::BrokenOff);
        assert_eq!(run.error.unwrap(), "the disk is full");
    }
}
