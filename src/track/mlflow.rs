//! MLflow: a tracking server's REST API, by the environment variables of its own client:
//! `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID`, `MLFLOW_RUN_NAME`,
//! `MLFLOW_RUN_ID` (to go on with a run), `MLFLOW_TRACKING_TOKEN` or `MLFLOW_TRACKING_USERNAME`
//! and `MLFLOW_TRACKING_PASSWORD`.
//!
//! Figures go by `runs/log-batch`, many at a time; a figure that is sent again after a lost answer
//! is the same to the server. Settings become parameters, cut at 500 characters, which every
//! version takes; the whole of them is the artifact `run.toml`. Files are kept where the server
//! passes artifacts on (`mlflow-artifacts:`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entry::{End, Entry, Number, Row, Start, State, System};
use super::environment::Environment;
use super::error::TrackError;
use super::http::{Http, Login, base, part};
use super::sink::{Sink, Trouble};

/// Figures in one request; the server takes 1,000 figures, parameters and tags together.
const MOST_METRICS: usize = 1_000;
/// Parameters in one request.
const MOST_PARAMS: usize = 100;
/// Characters of a parameter; versions before 2.8 take no more.
const PARAM_CHARS: usize = 500;
const DEFAULT_EXPERIMENT: &str = "Default";
/// The tag by which a run is found again after a lost answer.
const ID_TAG: &str = "gene_bert.id";
/// Figures of the machine, as MLflow calls what it shows itself.
const SYSTEM_NAMES: [(&str, &str); 5] = [
    ("cpu", "cpu_utilization_percentage"),
    ("memory_percent", "system_memory_usage_percentage"),
    ("proc.memory.availableMB", "available_memory_megabytes"),
    ("proc.memory.rssMB", "process_memory_megabytes"),
    ("proc.cpu.threads", "process_threads"),
];

/// A tracking server and where runs stand on it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    url: String,
    http: Http,
    experiment: Experiment,
    run_name: Option<String>,
    run_id: Option<String>,
    user: Option<String>,
}

#[derive(Debug, Clone)]
enum Experiment {
    Name(String),
    Id(String),
}

impl Server {
    /// That of the environment.
    pub(super) fn of(environment: &Environment<'_>) -> Result<Self, TrackError> {
        let wrong = |problem: String| TrackError {
            tracker: "mlflow",
            problem,
            hint: "set MLFLOW_TRACKING_URI to a tracking server, such as http://localhost:5000 \
                   after `mlflow server`"
                .to_owned(),
        };
        let uri = environment.get("MLFLOW_TRACKING_URI");
        let uri = uri.ok_or_else(|| wrong("MLFLOW_TRACKING_URI is not set".to_owned()))?;
        let url = base(&uri);
        let url = url.ok_or_else(|| {
            wrong(format!(
                "MLFLOW_TRACKING_URI is `{uri}`, which is no server's address"
            ))
        })?;
        let user = environment.get("MLFLOW_TRACKING_USERNAME");
        let login = match (environment.get("MLFLOW_TRACKING_TOKEN"), user) {
            (_, Some(user)) => Login::Basic {
                user,
                password: environment
                    .get("MLFLOW_TRACKING_PASSWORD")
                    .unwrap_or_default(),
            },
            (Some(token), None) => Login::Token(token),
            (None, None) => Login::Nobody,
        };
        let experiment = match environment.get("MLFLOW_EXPERIMENT_ID") {
            Some(id) => Experiment::Id(id),
            None => {
                let name = environment.get("MLFLOW_EXPERIMENT_NAME");
                Experiment::Name(name.unwrap_or_else(|| DEFAULT_EXPERIMENT.to_owned()))
            }
        };
        Ok(Self {
            url,
            http: Http::new("mlflow", login, environment)?,
            experiment,
            run_name: environment.get("MLFLOW_RUN_NAME"),
            run_id: environment.get("MLFLOW_RUN_ID"),
            user: environment
                .get("USER")
                .or_else(|| environment.get("LOGNAME")),
        })
    }

    fn call(&self, method: &str) -> String {
        format!("{}/api/2.0/mlflow/{method}", self.url)
    }

    fn post(&self, method: &str, body: &Value) -> Result<Value, Trouble> {
        self.http.post(&self.call(method), body)
    }

    /// The experiment's number, as text; it is made where there is none.
    fn experiment_id(&self) -> Result<String, Trouble> {
        let name = match &self.experiment {
            Experiment::Id(id) => return Ok(id.clone()),
            Experiment::Name(name) => name,
        };
        let url = self.call("experiments/get-by-name");
        let url = format!("{url}?experiment_name={}", part(name));
        let answer = self.http.get_for(&url)?;
        let id = if answer.status == 404 && answer.text.contains("RESOURCE_DOES_NOT_EXIST") {
            let url = self.call("experiments/create");
            let made = self.http.post_for(&url, &json!({ "name": name }))?;
            if made.status == 400 && made.text.contains("RESOURCE_ALREADY_EXISTS") {
                // Another run made it in between, or it was deleted.
                return Err(Trouble::Later(format!(
                    "the experiment `{name}` exists and does not: was it deleted?"
                )));
            }
            made.json(&url)?["experiment_id"].take()
        } else {
            answer.json(&url)?["experiment"]["experiment_id"].take()
        };
        text(&id, "experiment_id")
    }
}

/// The run on the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remote {
    run_id: String,
    artifact_uri: String,
    /// Whether its parameters are there.
    has_params: bool,
}

/// A run on an MLflow server.
pub(super) struct Mlflow {
    server: Server,
    run_folder: PathBuf,
    remote: Option<Remote>,
    num_system: u64,
}

impl Mlflow {
    /// Of the run in `run_folder`.
    pub(super) fn new(server: Server, run_folder: &Path) -> Self {
        Self {
            server,
            run_folder: run_folder.to_owned(),
            remote: None,
            num_system: 0,
        }
    }

    /// Begins the run on the server, or goes on with it.
    fn start(&mut self, start: &Start) -> Result<(), Trouble> {
        let mut remote = match self.remote.take() {
            Some(remote) => self.restart(remote)?,
            None => self.find_or_create(start)?,
        };
        // Kept at once: it must not be made a second time.
        self.remote = Some(remote.clone());
        if !remote.has_params {
            let mut params = Vec::new();
            flatten("", &start.about.config, &mut params);
            for params in params.chunks(MOST_PARAMS) {
                let body = json!({ "run_id": remote.run_id, "params": params });
                match self.server.post("runs/log-batch", &body) {
                    Err(Trouble::Never(why)) => {
                        eprintln!("warning: mlflow: some settings are not kept there: {why}");
                    }
                    answer => drop(answer?),
                }
            }
            remote.has_params = true;
            self.remote = Some(remote);
        }
        Ok(())
    }

    fn restart(&mut self, remote: Remote) -> Result<Remote, Trouble> {
        let body = json!({ "run_id": remote.run_id, "status": "RUNNING" });
        let answer = self.server.post("runs/update", &body);
        self.remote = Some(remote.clone());
        answer.map(|_| remote)
    }

    fn find_or_create(&self, start: &Start) -> Result<Remote, Trouble> {
        if let Some(run_id) = &self.server.run_id {
            let body = json!({ "run_id": run_id, "status": "RUNNING" });
            let answer = self.server.post("runs/update", &body)?;
            return remote(&answer["run_info"]);
        }
        let experiment_id = self.server.experiment_id()?;
        let filter = format!("tags.`{ID_TAG}` = '{}'", start.id);
        let search = json!({ "experiment_ids": [experiment_id], "filter": filter });
        let found = self.server.post("runs/search", &search)?;
        let run = match found["runs"].get(0) {
            Some(run) => run.clone(),
            None => {
                let body = self.creation(start, &experiment_id);
                self.server.post("runs/create", &body)?["run"].take()
            }
        };
        let remote = remote(&run["info"])?;
        eprintln!(
            "note: mlflow: {}/#/experiments/{experiment_id}/runs/{}",
            self.server.url, remote.run_id
        );
        Ok(remote)
    }

    fn creation(&self, start: &Start, experiment_id: &str) -> Value {
        let server = &self.server;
        let about = &start.about;
        let name = server.run_name.as_ref().unwrap_or(&about.name);
        let mut tags = vec![
            json!({ "key": ID_TAG, "value": start.id }),
            json!({ "key": "mlflow.source.name", "value": "gene-bert" }),
            json!({ "key": "mlflow.source.type", "value": "LOCAL" }),
            json!({ "key": "command", "value": about.command }),
            json!({ "key": "host", "value": start.host }),
        ];
        let user = server.user.iter();
        tags.extend(user.map(|user| json!({ "key": "mlflow.user", "value": user })));
        json!({
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": milliseconds(start.time),
            "tags": tags,
        })
    }

    fn log(&self, metrics: &mut Vec<Value>) -> Result<(), Trouble> {
        let Some(remote) = &self.remote else {
            return Err(Trouble::Never(
                "the journal lacks the run's start".to_owned(),
            ));
        };
        for metrics in metrics.chunks(MOST_METRICS) {
            let body = json!({ "run_id": remote.run_id, "metrics": metrics });
            self.server.post("runs/log-batch", &body)?;
        }
        metrics.clear();
        Ok(())
    }

    fn end(&self, end: &End) -> Result<(), Trouble> {
        let Some(remote) = &self.remote else {
            return Ok(());
        };
        match self.upload(remote, end) {
            Err(Trouble::Never(why)) => {
                eprintln!("warning: mlflow: the run's files are not kept there: {why}");
            }
            uploaded => uploaded?,
        }
        let status = match end.state {
            State::Finished => "FINISHED",
            State::Interrupted => "KILLED",
            State::Failed => "FAILED",
        };
        let time = milliseconds(end.time);
        let body = json!({ "run_id": remote.run_id, "status": status, "end_time": time });
        self.server.post("runs/update", &body).map(drop)
    }

    fn upload(&self, remote: &Remote, end: &End) -> Result<(), Trouble> {
        let Some(place) = remote.artifact_uri.strip_prefix("mlflow-artifacts:") else {
            let uri = &remote.artifact_uri;
            return Err(Trouble::Never(format!(
                "they belong to {uri}, and the server passes nothing on (it does with \
                 --serve-artifacts)"
            )));
        };
        // `mlflow-artifacts:/PATH`, or with the server's own address before the path.
        let place = match place.strip_prefix("//") {
            Some(with_host) => with_host.split_once('/').map_or("", |(_, path)| path),
            None => place.trim_start_matches('/'),
        };
        for file in &end.files {
            let path = place.split('/').chain(file.split('/')).map(part);
            let path = path.collect::<Vec<_>>().join("/");
            let url = &self.server.url;
            let url = format!("{url}/api/2.0/mlflow-artifacts/artifacts/{path}");
            let http = &self.server.http;
            http.put_file(&url, &[], &self.run_folder.join(file), true)?;
        }
        Ok(())
    }
}

fn remote(info: &Value) -> Result<Remote, Trouble> {
    Ok(Remote {
        run_id: text(&info["run_id"], "run_id")?,
        artifact_uri: info["artifact_uri"].as_str().unwrap_or("").to_owned(),
        has_params: false,
    })
}

fn text(value: &Value, name: &str) -> Result<String, Trouble> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| Trouble::Never(format!("the server's answer lacks {name}")))
}

fn milliseconds(time: f64) -> u64 {
    (time * 1000.0) as u64
}

/// A name with what MLflow does not take replaced by `_`.
fn fit(name: &str) -> String {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "_-. /".contains(sign);
    let signs = name.chars();
    signs
        .map(|sign| if fits(sign) { sign } else { '_' })
        .collect()
}

/// `value` as parameters, with `.` between the names of objects in one another.
fn flatten(name: &str, value: &Value, params: &mut Vec<Value>) {
    if let Some(object) = value.as_object() {
        for (key, value) in object {
            let name = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            flatten(&name, value, params);
        }
        return;
    }
    let text = match value {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text: String = text.chars().take(PARAM_CHARS).collect();
    params.push(json!({ "key": fit(name), "value": text }));
}

fn metric(name: &str, number: Number, time: f64, step: u64) -> Value {
    json!({ "key": fit(name), "value": number, "timestamp": milliseconds(time), "step": step })
}

fn row(row: &Row) -> impl Iterator<Item = Value> {
    let figures = row.figures.iter();
    figures.map(|(name, number)| metric(name, *number, row.time, row.step))
}

fn system(system: &System, step: u64) -> impl Iterator<Item = Value> {
    let figures = system.figures.iter();
    figures.map(move |(name, number)| {
        let known = SYSTEM_NAMES.iter().find(|(ours, _)| ours == name);
        let name = known.map_or(name.as_str(), |(_, theirs)| theirs);
        metric(&format!("system/{name}"), *number, system.time, step)
    })
}

impl Sink for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn resume(&mut self, state: &Value) -> bool {
        let remote: Option<Remote> = serde_json::from_value(state["remote"].clone()).ok();
        let asked = self.server.run_id.as_ref();
        let remote = remote.filter(|remote| asked.is_none_or(|id| *id == remote.run_id));
        self.num_system = state["num_system"].as_u64().unwrap_or(0);
        self.remote = remote;
        self.remote.is_some()
    }

    fn state(&self) -> Value {
        json!({ "remote": self.remote, "num_system": self.num_system })
    }

    fn deliver(&mut self, entries: &[Entry]) -> Result<(), Trouble> {
        let mut metrics = Vec::new();
        let mut num_system = self.num_system;
        for entry in entries {
            match entry {
                Entry::Start(start) => {
                    if !metrics.is_empty() {
                        self.log(&mut metrics)?;
                    }
                    self.start(start)?;
                }
                Entry::Row(figures) => metrics.extend(row(figures)),
                Entry::System(figures) => {
                    metrics.extend(system(figures, num_system));
                    num_system += 1;
                }
                Entry::End(end) => {
                    if !metrics.is_empty() {
                        self.log(&mut metrics)?;
                    }
                    self.end(end)?;
                }
            }
        }
        if !metrics.is_empty() {
            self.log(&mut metrics)?;
        }
        self.num_system = num_system;
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_become_parameters() {
        let config =
            json!({ "seed": 3, "a": { "b": [1, 2], "c": null }, "p (x)": "y".repeat(600) });
        let mut params = Vec::new();
        flatten("", &config, &mut params);
        let keys: Vec<_> = params.iter().map(|p| p["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["seed", "a.b", "p _x_"]);
        assert_eq!(params[1]["value"], "[1,2]");
        assert_eq!(params[2]["value"].as_str().unwrap().len(), PARAM_CHARS);
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for uri in [
            None,
            Some("sqlite:///x.db"),
            Some("./mlruns"),
            Some("databricks"),
        ] {
            let get = |name: &str| match name {
                "MLFLOW_TRACKING_URI" => uri.map(str::to_owned),
                _ => None,
            };
            let error = Server::of(&Environment::new(&get)).unwrap_err().to_string();
            assert!(error.contains("MLFLOW_TRACKING_URI"), "{error}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_texts() {
        let metric = metric("a", Number(f64::NAN), 1.5, 2);
        assert_eq!(
            metric,
            json!({ "key": "a", "value": "NaN", "timestamp": 1500, "step": 2 })
        );
    }
}
