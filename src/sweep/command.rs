//! What a trial runs: `program`, a training command of this program, or `command`, a list of words
//! with W&B's macros.
//!
//! | macro | becomes |
//! |---|---|
//! | `${env}` | `/usr/bin/env`, where there is one |
//! | `${interpreter}` | this program (W&B: python) |
//! | `${program}` | the study's `program` |
//! | `${args}` | `--name=value …`; several values as `--name a b` |
//! | `${args_no_boolean_flags}` | the same, `true` as `--name`, `false` left out |
//! | `${args_no_hyphens}` | `name=value …` |
//! | `${args_json}` | one word of JSON |
//! | `${args_json_file}` | a file of it in the trial's folder |
//! | `${envvar:NAME}` | an environment variable, also within a word |
//! | `${output_dir}`, `${threads}` | the trial's folder, its share of the cores, also within a word |
//! | `${device}` | where it computes, by `--devices`: cpu, cuda:1; else auto; also within a word |
//!
//! A command that runs this program gets `--output_dir` and `--threads` besides, unless it has them,
//! and `--device` where `--devices` was asked for.
//! Others say where their run folder goes with `${output_dir}`.

use std::path::Path;

use anyhow::bail;
use clap::Parser;

use super::error::Fault;
use super::value::Value;
use super::yaml::At;
use crate::config::{Device, Job, RunFlags, nearest};
use crate::file::{FileError, write_atomic};

const PROGRAMS: [(&str, Job); 3] = [
    ("mlm", Job::Mlm),
    ("cls", Job::Cls),
    ("bincls", Job::Bincls),
];
/// Flags that a sweep sets itself.
const OWN: [&str; 3] = ["output_dir", "resume", "overwrite_output_dir"];
const MACROS: [&str; 11] = [
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_boolean_flags",
    "args_no_hyphens",
    "args_json",
    "args_json_file",
    "output_dir",
    "threads",
    "device",
];
/// Those that may stand within a word, besides `envvar:NAME`.
const WITHIN: [&str; 3] = ["output_dir", "threads", "device"];
/// The file of `${args_json_file}`, in the trial's folder.
const ARGS_FILE: &str = "args.json";

/// The command of every trial, its macros not yet replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    program: Option<String>,
    job: Option<Job>,
    words: Vec<String>,
}

/// What the macros of one trial stand for.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// Names and values of its parameters.
    pub values: &'a [(&'a str, Value)],
    /// Its folder.
    pub folder: &'a Path,
    /// Its share of the cores.
    pub threads: usize,
    /// Where it computes, if the sweep says it.
    pub device: Option<Device>,
    /// What makes a command of this program go on where an earlier try ended.
    pub again: &'a [String],
}

/// The flags of a run, as clap reads them.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    flags: RunFlags,
}

impl Template {
    /// From the keys `program` and `command`, and words to append.
    pub(super) fn read(
        program: Option<&At<'_>>,
        command: Option<&At<'_>>,
        root: &At<'_>,
        more: &[String],
    ) -> Result<Self, Fault> {
        let words = match command {
            Some(at) => words(at)?,
            None => ["${interpreter}", "${program}", "${args}"]
                .map(str::to_owned)
                .to_vec(),
        };
        let has = |word: &str| words.iter().any(|w| w == word);
        if has("${program}") && program.is_none() {
            return Err(root.fault(
                "`program` is not there",
                "write `program: mlm`, cls or bincls",
            ));
        }
        let job = match program {
            Some(at) if has("${interpreter}") => Some(at.one_of(&PROGRAMS).map_err(|fault| {
                let own = "a program of your own goes into `command`, as in command: [python, \
                           train.py, '--out=${output_dir}', '${args}']";
                let hint = format!("{}; {own}", fault.hint);
                Fault { hint, ..fault }
            })?),
            _ => None,
        };
        if !has("${interpreter}") && !words.iter().any(|w| w.contains("${output_dir}")) {
            let what = "does not say where the trial's run folder is to be";
            let hint = "add ${output_dir}, such as `- --output_dir=${output_dir}`";
            return Err(command.unwrap_or(root).fault(what, hint));
        }
        Ok(Self {
            program: program.map(At::text).transpose()?,
            job,
            words: words.into_iter().chain(more.iter().cloned()).collect(),
        })
    }

    fn runs_this_program(&self) -> bool {
        self.words.iter().any(|word| word == "${interpreter}")
    }

    /// Whether trials are runs of this program, whose flags are known.
    pub(super) fn takes_flags(&self) -> bool {
        self.job.is_some()
    }

    /// Whether trials are runs of this program in the trial's folder, which can go on where they
    /// were interrupted.
    pub fn can_resume(&self) -> bool {
        let names_folder = |word: &String| word.contains("${output_dir}");
        self.job.is_some() && !self.words.iter().any(names_folder)
    }

    /// Whether the sweep can say where trials compute, whose parameters have these `names`.
    ///
    /// # Errors
    /// The study says it itself, or its command does not take it.
    pub fn check_takes_device(&self, names: &[&str]) -> anyhow::Result<()> {
        let takes_it = self.words.iter().any(|word| word.contains("${device}"));
        let sets_it = names.contains(&"device") || names_flag(&self.words, "--device");
        if sets_it && !takes_it {
            bail!(
                "--devices: the study sets `device` itself\nhint: take `device` out of it, or leave \
                 --devices out"
            );
        }
        if !takes_it && !self.runs_this_program() {
            bail!(
                "--devices: the study's command does not take the device of a trial\nhint: add \
                 ${{device}} to it, such as `- --device=${{device}}`"
            );
        }
        Ok(())
    }

    /// Whether a value can be given to the program's flag of that name; else what is wrong, and the
    /// remedy.
    pub(super) fn check_flag(&self, name: &str, value: &Value) -> Result<(), (String, String)> {
        let Some(job) = self.job else { return Ok(()) };
        let program = self.program.as_deref().unwrap_or_default();
        let flag = name.replace('-', "_");
        if OWN.contains(&flag.as_str()) {
            return Err((
                "this is set by the sweep itself".to_owned(),
                "leave it out".to_owned(),
            ));
        }
        let known = flags();
        if !known.contains(&flag) {
            let hint = match nearest(&flag, known.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("`gene-bert {program} --help` lists the settings"),
            };
            return Err((
                format!("`gene-bert {program}` has no setting `{name}`"),
                hint,
            ));
        }
        let said = |error: &dyn std::fmt::Display| {
            let text = error.to_string();
            let line = text.lines().find(|line| !line.trim().is_empty());
            line.unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        };
        let hint = || {
            format!(
                "`gene-bert {program} --help` says what it takes; whole numbers come from int_uniform or q"
            )
        };
        let words = arguments(&[(name, value.clone())], Form::Flags);
        let words = words.iter().map(|word| dashed(word));
        let line = Line::try_parse_from(words).map_err(|error| (said(&error), hint()))?;
        let foreign = |error: crate::config::Invalid| (said(&error), "leave it out".to_owned());
        line.flags.validate_for(job).map_err(foreign)
    }

    /// What hinders the trial with these values, as far as settings alone tell.
    pub fn hindrance(&self, filling: &Filling<'_>) -> Option<String> {
        let job = self.job?;
        if self.words.iter().any(|word| word == "${args_json_file}") {
            return None;
        }
        let words = self.fill(filling).ok()?;
        let start = words
            .iter()
            .position(|word| Some(word) == self.program.as_ref())?
            + 1;
        let words = words[start..].iter().map(|word| dashed(word));
        let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
        match Line::try_parse_from(words) {
            Err(error) => Some(first(
                error.to_string().trim_start_matches("error: ").to_owned(),
            )),
            Ok(line) => match line.flags.resolve() {
                Err(error) => Some(first(error.to_string())),
                Ok(config) => config
                    .validate(job, false)
                    .err()
                    .map(|error| error.to_string()),
            },
        }
    }

    /// The environment variables that are named and not set.
    pub fn unset_variables(&self) -> Vec<String> {
        let named = self
            .words
            .iter()
            .flat_map(|word| word.split("${envvar:").skip(1));
        let named = named.filter_map(|rest| Some(rest.split_once('}')?.0));
        named
            .filter(|name| std::env::var_os(name).is_none())
            .map(str::to_owned)
            .collect()
    }

    /// The words of a trial, the program to run first.
    ///
    /// # Errors
    /// The file of `${args_json_file}` cannot be written.
    pub fn fill(&self, filling: &Filling<'_>) -> Result<Vec<String>, FileError> {
        let mut words = Vec::new();
        for word in &self.words {
            match word.as_str() {
                "${env}" => words.extend(env()),
                "${interpreter}" => words.push(this_program()),
                "${program}" => words.extend(self.program.clone()),
                "${args}" => words.extend(arguments(filling.values, Form::Flags)),
                "${args_no_boolean_flags}" => {
                    words.extend(arguments(filling.values, Form::BareBooleans));
                }
                "${args_no_hyphens}" => words.extend(arguments(filling.values, Form::Plain)),
                "${args_json}" => words.push(json(filling.values)),
                "${args_json_file}" => {
                    let path = filling.folder.join(ARGS_FILE);
                    write_atomic(&path, json(filling.values).as_bytes())?;
                    words.push(path.display().to_string());
                }
                word => words.push(within(word, filling)),
            }
        }
        if self.runs_this_program() {
            self.add_own_flags(&mut words, filling);
        }
        Ok(words)
    }

    /// The words of a trial as one would type them.
    pub fn show(&self, filling: &Filling<'_>) -> String {
        let words: Vec<String> = self
            .words
            .iter()
            .filter(|word| *word != "${args_json_file}")
            .cloned()
            .collect();
        let shown = Self {
            words,
            ..self.clone()
        };
        let quoted = |word: String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        };
        let words = shown
            .fill(filling)
            .unwrap_or_default()
            .into_iter()
            .map(quoted);
        words.collect::<Vec<_>>().join(" ")
    }

    fn add_own_flags(&self, words: &mut Vec<String>, filling: &Filling<'_>) {
        let has = |flag: &str| names_flag(words, flag);
        let mut own = Vec::new();
        if !has("--output-dir") {
            own.push(format!("--output_dir={}", filling.folder.display()));
        }
        if !has("--threads") {
            own.push(format!("--threads={}", filling.threads));
        }
        let device = filling.device.filter(|_| !has("--device"));
        own.extend(device.map(|device| format!("--device={}", String::from(device))));
        words.extend(own);
        if self.can_resume() {
            words.extend(filling.again.iter().cloned());
        }
    }
}

/// Whether one of the words gives this flag (`--a-b`), with or without its value.
pub(super) fn names_flag(words: &[String], flag: &str) -> bool {
    let given = |word: &String| {
        let word = word.replace('_', "-");
        word == flag || word.starts_with(&format!("{flag}="))
    };
    words.iter().any(given)
}

/// Names of all flags of a run, with `_`.
fn flags() -> Vec<String> {
    let command = <Line as clap::CommandFactory>::command();
    let names = command.get_arguments().filter_map(clap::Arg::get_long);
    names.map(|name| name.replace('-', "_")).collect()
}

/// The words of `command`, every macro in them known.
fn words(at: &At<'_>) -> Result<Vec<String>, Fault> {
    let items = at.list()?;
    let words: Vec<String> = items.iter().map(At::text).collect::<Result<_, _>>()?;
    for (item, word) in items.iter().zip(&words) {
        for rest in word.split("${").skip(1) {
            let Some((name, _)) = rest.split_once('}') else {
                return Err(item.fault("a macro without its `}`", "write ${name}"));
            };
            let whole = *word == format!("${{{name}}}");
            let inside = name.starts_with("envvar:") || WITHIN.contains(&name);
            if !inside && !MACROS.contains(&name) {
                let hint = match nearest(name, MACROS) {
                    Some(meant) => format!("did you mean `${{{meant}}}`?"),
                    None => format!("the macros are {}, envvar:NAME", MACROS.join(", ")),
                };
                return Err(item.fault(format!("unknown macro `${{{name}}}`"), hint));
            }
            if !inside && !whole {
                let what = format!("`${{{name}}}` stands within a word");
                return Err(item.fault(what, "make it an item of its own"));
            }
        }
    }
    if words.is_empty() {
        return Err(at.fault("no word", "leave `command` out, or list its words"));
    }
    Ok(words)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Flags,
    BareBooleans,
    Plain,
}

fn arguments(values: &[(&str, Value)], form: Form) -> Vec<String> {
    let mut words = Vec::new();
    for (name, value) in values {
        match (value, form) {
            (Value::Null, _) | (Value::Bool(false), Form::BareBooleans) => {}
            (Value::Bool(true), Form::BareBooleans) => words.push(format!("--{name}")),
            (Value::List(items), Form::Plain) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                words.push(format!("{name}=[{}]", items.join(",")));
            }
            (Value::List(items), _) if items.is_empty() => {}
            (Value::List(items), _) => {
                words.push(format!("--{name}"));
                words.extend(items.iter().map(ToString::to_string));
            }
            (value, Form::Plain) => words.push(format!("{name}={value}")),
            (value, _) => words.push(format!("--{name}={value}")),
        }
    }
    words
}

fn json(values: &[(&str, Value)]) -> String {
    let table: serde_json::Map<String, serde_json::Value> = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.json()))
        .collect();
    serde_json::Value::Object(table).to_string()
}

/// A word with the macros that may stand within one replaced.
fn within(word: &str, filling: &Filling<'_>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        out += before;
        let Some((name, behind)) = after.split_once('}') else {
            break;
        };
        match name.split_once(':') {
            Some(("envvar", name)) => out += &std::env::var(name).unwrap_or_default(),
            _ if name == "threads" => out += &filling.threads.to_string(),
            _ if name == "device" => out += &String::from(filling.device.unwrap_or(Device::Auto)),
            _ => out += &filling.folder.display().to_string(),
        }
        rest = behind;
    }
    out + rest
}

/// `--a_b=c_d` as `--a-b=c_d`, as clap knows the flags.
fn dashed(word: &str) -> String {
    match (word.strip_prefix("--"), word.split_once('=')) {
        (Some(_), Some((name, value))) => format!("{}={value}", name.replace('_', "-")),
        (Some(_), None) => word.replace('_', "-"),
        _ => word.to_owned(),
    }
}

fn env() -> Option<String> {
    cfg!(unix).then(|| "/usr/bin/env".to_owned())
}

fn this_program() -> String {
    let path = std::env::current_exe();
    path.map_or_else(
        |_| "gene-bert".to_owned(),
        |path| path.display().to_string(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sweep::yaml::parse;

    fn template(text: &str, more: &[&str]) -> Result<Template, Fault> {
        let document = parse(text)?;
        let root = At::root(&document);
        let fields = root.table_of(&["program", "command"])?;
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        Template::read(fields.get("program"), fields.get("command"), &root, &more)
    }

    fn filled(text: &str, more: &[&str]) -> Vec<String> {
        let list = Value::List(vec![Value::plain("0.1"), Value::plain("2")]);
        let values = [
            ("learning_rate", Value::plain("1e-4")),
            ("bin_edges", list),
            ("recompute", Value::Bool(true)),
            ("allow_scaled", Value::Bool(false)),
            ("num_top_genes", Value::Null),
        ];
        let folder = std::env::temp_dir();
        let filling = Filling {
            values: &values,
            folder: &folder,
            threads: 2,
            device: None,
            again: &["--resume".to_owned()],
        };
        template(text, more).unwrap().fill(&filling).unwrap()
    }

    #[test]
    fn the_command_without_command() {
        let words = filled("program: mlm", &["--seed", "3"]);
        let dir = format!("--output_dir={}", std::env::temp_dir().display());
        assert_eq!(
            words[1..],
            [
                "mlm",
                "--learning_rate=1e-4",
                "--bin_edges",
                "0.1",
                "2",
                "--recompute=true",
                "--allow_scaled=false",
                "--seed",
                "3",
                &dir,
                "--threads=2",
                "--resume"
            ]
        );
    }

    #[test]
    fn macros() {
        let text = "program: cls\ncommand: [\"${env}\", \"${interpreter}\", \"${program}\", \
                    --threads=1, \"${args_no_boolean_flags}\", --output-dir, \"${output_dir}/x\"]";
        let words = filled(text, &[]);
        let dir = format!("{}/x", std::env::temp_dir().display());
        assert_eq!(
            (words[0].as_str(), words[2].as_str()),
            ("/usr/bin/env", "cls")
        );
        assert_eq!(words[3..5], ["--threads=1", "--learning_rate=1e-4"]);
        assert_eq!(words[8..], ["--recompute", "--output-dir", &dir]);
        let text = "command: [run.sh, \"${output_dir}\", \"${threads}\", \"${args_no_hyphens}\", \
                    \"${args_json}\", \"x${envvar:CARGO_PKG_NAME}y\"]";
        let words = filled(text, &[]);
        assert_eq!(
            words[2..5],
            ["2", "learning_rate=1e-4", "bin_edges=[0.1,2]"]
        );
        assert!(words[7].starts_with("{\"learning_rate\":0.0001,\"bin_edges\":[0.1,2]"));
        assert!(words[8].starts_with('x') && words[8].ends_with('y') && words.len() == 9);
    }

    #[test]
    fn macros_that_mean_nothing_are_refused() {
        for (text, part) in [
            (
                "command: [\"${interpretor}\"]",
                "did you mean `${interpreter}`?",
            ),
            ("command: [\"x${args}\"]", "item of its own"),
            ("command: [\"${args\"]", "without its"),
            ("command: [run.sh]", "${output_dir}"),
            ("command: []", "no word"),
            ("command: run.sh", "expected a list"),
            (
                "command: [\"${interpreter}\", \"${program}\"]",
                "`program` is not there",
            ),
        ] {
            let said = template(text, &[]).unwrap_err().to_string();
            assert!(said.contains(part), "{text}\n{said}");
        }
    }
}
