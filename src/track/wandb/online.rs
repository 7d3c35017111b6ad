//! W&B online: GraphQL `UpsertBucket` begins or continues the run, `file_stream` takes lines of
//! history, figures of the machine and the summary, `CreateRunFiles` says where files go.
//!
//! Lines are numbered: what is sent again after a lost answer overwrites the same lines. A run that
//! the server knows already (`WANDB_RUN_ID`) is continued after its last line.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::account::Account;
use super::labels::Labels;
use super::offline::exit_code;
use super::run::{METADATA, Run, metadata, run_id, system};
use crate::file::write_atomic;
use crate::track::State;
use crate::track::entry::{End, Entry, Start};
use crate::track::http::part;
use crate::track::sink::{Sink, Trouble};
use crate::track::tracker::tracking_folder;

/// Time between requests, as of W&B's own client; its servers limit how many there may be.
const PACE: Duration = Duration::from_secs(15);
/// Longest silence; a run that says nothing for some minutes counts as crashed.
const HEARTBEAT: Duration = Duration::from_secs(30);

const UPSERT: &str = "mutation UpsertBucket($name: String, $project: String, $entity: String, \
    $groupName: String, $displayName: String, $notes: String, $config: JSONString, \
    $host: String, $program: String, $jobType: String, $tags: [String!]) { \
    upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, \
    groupName: $groupName, displayName: $displayName, notes: $notes, config: $config, \
    host: $host, jobProgram: $program, jobType: $jobType, tags: $tags}) { \
    bucket { id name displayName project { name entity { name } } historyLineCount } inserted } }";

const CREATE_FILES: &str = "mutation CreateRunFiles($entity: String!, $project: String!, \
    $run: String!, $files: [String!]!) { createRunFiles(input: {entityName: $entity, \
    projectName: $project, runName: $run, files: $files}) { \
    runID uploadHeaders files { name uploadUrl } } }";

/// The run as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    entity: String,
    project: String,
    /// Its name in addresses.
    id: String,
}

/// How far the server is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sent {
    run: Run,
    history_lines: u64,
    events_lines: u64,
}

/// A run on a W&B server.
pub(in crate::track) struct Online {
    labels: Labels,
    account: Account,
    run_folder: PathBuf,
    bucket: Option<Bucket>,
    /// Whether this process has begun or continued the run.
    is_open: bool,
    /// Whether the user knows where to look at it.
    is_told: bool,
    sent: Sent,
    last_request: Option<Instant>,
}

impl Online {
    /// Of the run in `run_folder`.
    pub(in crate::track) fn new(labels: Labels, account: Account, run_folder: &Path) -> Self {
        Self {
            labels,
            account,
            run_folder: run_folder.to_owned(),
            bucket: None,
            is_open: false,
            is_told: false,
            sent: Sent::default(),
            last_request: None,
        }
    }

    fn graphql(&self, query: &str, variables: &Value) -> Result<Value, Trouble> {
        let url = format!("{}/graphql", self.account.url);
        let body = json!({ "query": query, "variables": variables });
        let mut answer = self.account.http.post(&url, &body)?;
        match answer["errors"].as_array() {
            Some(errors) if !errors.is_empty() => {
                let said = errors.iter().filter_map(|error| error["message"].as_str());
                let said = said.collect::<Vec<_>>().join("; ");
                Err(Trouble::Never(format!("{url} refuses: {said}")))
            }
            _ => Ok(answer["data"].take()),
        }
    }

    /// Begins or continues the run on the server.
    fn open(&mut self, start: &Start, sent: &mut Sent) -> Result<(), Trouble> {
        let (about, labels) = (&start.about, &self.labels);
        let mut config: Map<String, Value> = Map::new();
        for (key, value) in about.config.as_object().into_iter().flatten() {
            config.insert(key.clone(), json!({ "value": value }));
        }
        // A run without `t` counts as never begun where it is to be continued.
        config.insert("_wandb".to_owned(), json!({ "value": { "t": {} } }));
        let variables = json!({
            "name": run_id(labels, start),
            "project": labels.project,
            "entity": labels.entity,
            "groupName": labels.group,
            "displayName": labels.name.as_ref().unwrap_or(&about.name),
            "notes": labels.notes,
            "config": Value::Object(config).to_string(),
            "host": start.host,
            "program": "gene-bert",
            "jobType": labels.job_type.as_ref().unwrap_or(&about.command),
            "tags": labels.tags,
        });
        let answer = self.graphql(UPSERT, &variables)?;
        let told = &answer["upsertBucket"]["bucket"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let bucket = (|| {
            Some(Bucket {
                entity: text(&told["project"]["entity"]["name"])?,
                project: text(&told["project"]["name"])?,
                id: text(&told["name"])?,
            })
        })();
        let bucket = bucket.ok_or_else(|| {
            Trouble::Never(format!(
                "{} does not say where the run is",
                self.account.url
            ))
        })?;
        if self.bucket.is_none() && self.labels.run_id.is_some() {
            // Lines that others wrote under this name; afterwards only this run counts them.
            sent.history_lines = told["historyLineCount"].as_u64().unwrap_or(0);
            self.sent.history_lines = sent.history_lines;
        }
        if !std::mem::replace(&mut self.is_told, true) {
            let Bucket {
                entity,
                project,
                id,
            } = &bucket;
            eprintln!(
                "note: wandb: {}/{}/{}/runs/{}",
                self.account.pages(),
                part(entity),
                part(project),
                part(id)
            );
        }
        self.bucket = Some(bucket);
        self.is_open = true;
        Ok(())
    }

    fn stream(&mut self, body: &Value) -> Result<(), Trouble> {
        let Some(Bucket {
            entity,
            project,
            id,
        }) = &self.bucket
        else {
            return Ok(());
        };
        let (entity, project, id) = (part(entity), part(project), part(id));
        let url = &self.account.url;
        let url = format!("{url}/files/{entity}/{project}/{id}/file_stream");
        // The answer's text is of no use here; a status that is fine says that it arrived.
        self.account.http.post_for(&url, body)?.check(&url)?;
        self.last_request = Some(Instant::now());
        Ok(())
    }

    /// Sends entries; `sent` is brought forward as they arrive.
    fn send(&mut self, entries: &[Entry], sent: &mut Sent) -> Result<(), Trouble> {
        let mut lines = Lines::default();
        for entry in entries {
            if matches!(entry, Entry::Start(_)) {
                if !lines.is_empty() {
                    self.flush(&mut lines, sent)?;
                }
                self.is_open = false;
            }
            sent.run.see(entry);
            match entry {
                Entry::Start(_) => {}
                Entry::Row(row) => {
                    lines
                        .history
                        .push(Value::Object(sent.run.history(row)).to_string());
                    lines.last = (row.time, row.step);
                }
                Entry::System(figures) => {
                    let time = figures.time;
                    let mut line = json!({ "_wandb": true, "_timestamp": time });
                    line["_runtime"] = sent.run.runtime(time).into();
                    for (name, value) in system(figures) {
                        line[format!("system.{name}")] = value;
                    }
                    lines.events.push(line.to_string());
                }
                Entry::End(end) => {
                    self.flush(&mut lines, sent)?;
                    self.end(end, sent)?;
                }
            }
        }
        self.flush(&mut lines, sent)
    }

    /// Sends the lines gathered so far.
    fn flush(&mut self, lines: &mut Lines, sent: &mut Sent) -> Result<(), Trouble> {
        if !self.is_open {
            let Some(start) = sent.run.start.clone() else {
                return Err(Trouble::Never(
                    "the journal lacks the run's start".to_owned(),
                ));
            };
            self.open(&start, sent)?;
        }
        let mut files = Map::new();
        let mut put = |name: &str, offset: u64, content: &[String]| {
            if !content.is_empty() {
                let content = json!({ "offset": offset, "content": content });
                files.insert(name.to_owned(), content);
            }
        };
        put("wandb-history.jsonl", sent.history_lines, &lines.history);
        put("wandb-events.jsonl", sent.events_lines, &lines.events);
        if !lines.history.is_empty() {
            let (time, step) = lines.last;
            let summary = Value::Object(sent.run.summary(time, step)).to_string();
            put("wandb-summary.json", 0, &[summary]);
        }
        if !files.is_empty() {
            self.stream(&json!({ "files": files }))?;
        }
        sent.history_lines += lines.history.len() as u64;
        sent.events_lines += lines.events.len() as u64;
        *lines = Lines::default();
        Ok(())
    }

    fn end(&mut self, end: &End, sent: &Sent) -> Result<(), Trouble> {
        let uploaded = match self.upload(end, sent) {
            Err(Trouble::Never(why)) => {
                eprintln!("warning: wandb: the run's files are not kept there: {why}");
                Vec::new()
            }
            uploaded => uploaded?,
        };
        let mut body = json!({
            "uploaded": uploaded,
            "complete": true,
            "exitcode": exit_code(end.state),
        });
        if end.state == State::Interrupted {
            body["preempting"] = true.into();
        }
        self.stream(&body)
    }

    /// Uploads the files to keep; returns their names.
    fn upload(&self, end: &End, sent: &Sent) -> Result<Vec<String>, Trouble> {
        let (
            Some(Bucket {
                entity,
                project,
                id,
            }),
            Some(start),
        ) = (&self.bucket, &sent.run.start)
        else {
            return Ok(Vec::new());
        };
        let metadata_path = tracking_folder(&self.run_folder).join(METADATA);
        let bytes = serde_json::to_vec_pretty(&metadata(start)).unwrap_or_default();
        write_atomic(&metadata_path, &bytes).map_err(|e| Trouble::Never(e.to_string()))?;
        let mut names = end.files.clone();
        names.push(METADATA.to_owned());
        let variables = json!({ "entity": entity, "project": project, "run": id, "files": names });
        let answer = self.graphql(CREATE_FILES, &variables)?;
        let answer = &answer["createRunFiles"];
        let headers = answer["uploadHeaders"].as_array().into_iter().flatten();
        let headers = headers.filter_map(|header| header.as_str()?.split_once(':'));
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut uploaded = Vec::new();
        for file in answer["files"].as_array().into_iter().flatten() {
            let (name, url) = (file["name"].as_str(), file["uploadUrl"].as_str());
            let (Some(name), Some(url)) = (name, url) else {
                continue;
            };
            if !names.iter().any(|known| known == name) {
                continue;
            }
            let own = format!("{}/", self.account.url);
            let is_own = url.starts_with('/') || url.starts_with(&own);
            let url = if url.starts_with('/') {
                format!("{}{url}", self.account.url)
            } else {
                url.to_owned()
            };
            let path = match name {
                METADATA => metadata_path.clone(),
                name => self.run_folder.join(name),
            };
            self.account.http.put_file(&url, &headers, &path, is_own)?;
            uploaded.push(name.to_owned());
        }
        Ok(uploaded)
    }
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.history.is_empty() && self.events.is_empty()
    }
}

/// Lines not yet sent.
#[derive(Debug, Default)]
struct Lines {
    history: Vec<String>,
    events: Vec<String>,
    /// Time and step of the last line of the history.
    last: (f64, u64),
}

impl Sink for Online {
    fn name(&self) -> &'static str {
        "wandb"
    }

    fn resume(&mut self, state: &Value) -> bool {
        let bucket: Option<Bucket> = serde_json::from_value(state["bucket"].clone()).ok();
        let sent: Option<Sent> = serde_json::from_value(state["sent"].clone()).ok();
        let (Some(bucket), Some(sent)) = (bucket, sent) else {
            return false;
        };
        if self
            .labels
            .run_id
            .as_ref()
            .is_some_and(|id| *id != bucket.id)
        {
            // Another run is asked for: it gets everything.
            return false;
        }
        self.labels.run_id = Some(bucket.id.clone());
        (self.bucket, self.sent) = (Some(bucket), sent);
        true
    }

    fn state(&self) -> Value {
        json!({ "bucket": self.bucket, "sent": self.sent })
    }

    fn deliver(&mut self, entries: &[Entry]) -> Result<(), Trouble> {
        let mut sent = self.sent.clone();
        self.send(entries, &mut sent)?;
        self.sent = sent;
        Ok(())
    }

    fn alive(&mut self) -> Result<(), Trouble> {
        let due = |at: Instant| at.elapsed() >= HEARTBEAT;
        if self.is_open && self.last_request.is_none_or(due) {
            return self.stream(&json!({}));
        }
        Ok(())
    }

    fn pace(&self) -> Duration {
        PACE
    }
}
