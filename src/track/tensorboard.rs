//! TensorBoard: `events.out.tfevents.…` files in `tensorboard/` of the run folder, one for each
//! process that worked on the run; `tensorboard --logdir` on it, or on a folder of runs, shows them.
//!
//! A file is a sequence of TFRecords: u64 length, masked CRC-32C of the length, the protobuf
//! `Event`, its masked CRC-32C, all little-endian. The messages are those of TensorFlow's
//! `event.proto`, `summary.proto` and `tensor.proto`, with the fields used here.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde_json::Value;

use super::crc::{CASTAGNOLI, check};
use super::entry::{Entry, Figures, Start, now};
use super::environment::host;
use super::sink::{Sink, Trouble};
use super::tracker::TENSORBOARD_FOLDER;

/// What every file begins with.
const FILE_VERSION: &str = "brain.Event:2";
/// TensorFlow's number for tensors of texts.
const DT_STRING: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    tensor_shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

/// The event files of a run.
pub(super) struct Events {
    folder: PathBuf,
    /// The file of this process, once there is something to write.
    file: Option<File>,
    /// When the run began, to place figures of the machine.
    began: Option<f64>,
}

impl Events {
    /// Of the run in `run_folder`.
    pub(super) fn new(run_folder: &Path) -> Self {
        Self {
            folder: run_folder.join(TENSORBOARD_FOLDER),
            file: None,
            began: None,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            fs::create_dir_all(&self.folder)?;
            let process = std::process::id();
            let name = format!("events.out.tfevents.{}.{}.{process}", now() as u64, host());
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .append(true)
                .open(self.folder.join(name))?;
            let version = Event {
                wall_time: now(),
                file_version: Some(FILE_VERSION.to_owned()),
                ..Event::default()
            };
            file.write_all(&record(&version.encode_to_vec()))?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let whole = file.metadata()?.len();
        file.write_all(bytes).inspect_err(|_| {
            // A part of it may have been written.
            let _ = file.set_len(whole);
        })
    }

    fn event(&mut self, entry: &Entry) -> Option<Event> {
        match entry {
            Entry::Start(start) => {
                self.began.get_or_insert(start.time);
                Some(settings(start))
            }
            Entry::Row(row) => Some(scalars(row.time, row.step as i64, &row.figures, "")),
            Entry::System(system) => {
                let began = *self.began.get_or_insert(system.time);
                let seconds = (system.time - began).round() as i64;
                Some(scalars(system.time, seconds, &system.figures, "system/"))
            }
            Entry::End(_) => None,
        }
    }
}

impl Sink for Events {
    fn name(&self) -> &'static str {
        "tensorboard"
    }

    fn resume(&mut self, state: &Value) -> bool {
        self.began = state["began"].as_f64();
        true
    }

    fn state(&self) -> Value {
        serde_json::json!({ "began": self.began })
    }

    fn deliver(&mut self, entries: &[Entry]) -> Result<(), Trouble> {
        let mut bytes = Vec::new();
        for entry in entries {
            if let Some(event) = self.event(entry) {
                bytes.extend(record(&event.encode_to_vec()));
            }
        }
        self.write(&bytes).map_err(|error| {
            let folder = self.folder.display();
            Trouble::Later(format!("{folder}: cannot write an event file: {error}"))
        })
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

/// Figures as one event; `step` is that of the run, or seconds for figures of the machine.
fn scalars(wall_time: f64, step: i64, figures: &Figures, prefix: &str) -> Event {
    let value = figures.iter().map(|(name, number)| SummaryValue {
        tag: format!("{prefix}{name}"),
        simple_value: Some(number.0 as f32),
        ..SummaryValue::default()
    });
    Event {
        wall_time,
        step,
        summary: Some(Summary {
            value: value.collect(),
        }),
        ..Event::default()
    }
}

/// The settings as a text, indented so that it is shown as it is.
fn settings(start: &Start) -> Event {
    let json = serde_json::to_string_pretty(&start.about.config).unwrap_or_default();
    let text: String = json.lines().map(|line| format!("    {line}\n")).collect();
    let tensor = Tensor {
        dtype: DT_STRING,
        tensor_shape: Some(Shape {
            dim: vec![Dim { size: 1 }],
        }),
        string_val: vec![text.into_bytes()],
    };
    let plugin_data = Some(PluginData {
        plugin_name: "text".to_owned(),
    });
    let value = SummaryValue {
        tag: "config/text_summary".to_owned(),
        tensor: Some(tensor),
        metadata: Some(Metadata { plugin_data }),
        ..SummaryValue::default()
    };
    Event {
        wall_time: start.time,
        summary: Some(Summary { value: vec![value] }),
        ..Event::default()
    }
}

/// A TFRecord of `bytes`.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let of_length = masked(&length).to_le_bytes();
    [&length, &of_length[..], bytes, &masked(bytes).to_le_bytes()].concat()
}

/// CRC-32C, rotated right by 15 bits plus a constant, as TFRecord wants it.
fn masked(bytes: &[u8]) -> u32 {
    check(&CASTAGNOLI, &[bytes])
        .rotate_right(15)
        .wrapping_add(0xA282_EAD8)
}
