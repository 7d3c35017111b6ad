//! A run says what memory it needs, and halves its batch where that is more than there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Output};

use crate::folder::{Folder, said};

const MODEL: &str = r#"{"dim": 64, "n_heads": 2, "hidden_dim": 256, "n_layers": 8}"#;
const LINE: &str = "--pretrained_model_path wide.json --max_length 400 --max_steps 1";

#[test]
fn what_is_needed_is_said_before_the_run() {
    let folder = Folder::new();
    let said = folder.train("");
    assert!(said.contains("\nMemory: needs about "), "{said}");
    let said = folder.train("--auto_find_batch_size --output_dir auto");
    assert!(!said.contains("is halved"), "{said}");
    let settings = fs::read_to_string(folder.path("auto/run.toml")).unwrap();
    assert!(
        settings.contains("per_device_train_batch_size = 4\n"),
        "{settings}"
    );
}

/// Whatever a program takes before the first step, one of a few limits on it is too tight for the
/// whole batch and wide enough for a part of it.
#[test]
#[cfg(target_os = "linux")]
fn the_batch_is_halved_where_memory_is_short() {
    let folder = Folder::new();
    fs::write(folder.path("wide.json"), MODEL).unwrap();
    let asked = format!("{LINE} --auto_find_batch_size --per_device_train_batch_size 32");
    let limited = |mebibytes: u32| -> Output {
        let whole = folder.command(&format!("{asked} --overwrite-output-dir"));
        let limit = format!("ulimit -v {}; exec \"$0\" \"$@\"", mebibytes << 10);
        let mut command = Command::new("bash");
        command.args(["-c", &limit]).arg(whole.get_program());
        command.args(whole.get_args()).current_dir(folder.path("."));
        command.output().unwrap()
    };
    let is_halved = |output: &Output| said(output).contains("is halved from 32 to ");
    let outputs = (8..30).map(|step| limited(40 * step));
    let output = outputs
        .into_iter()
        .find(is_halved)
        .expect("one that halves");
    assert!(output.status.success(), "{}", said(&output));
    let settings = fs::read_to_string(folder.path("out/run.toml")).unwrap();
    assert!(
        !settings.contains("per_device_train_batch_size = 32\n"),
        "{settings}"
    );
    // The same line goes on with the batch that was found, with memory or without.
    let again = folder.mlm(&format!("{asked} --resume"));
    assert!(again.status.success(), "{}", said(&again));
    let after = fs::read_to_string(folder.path("out/run.toml")).unwrap();
    assert_eq!(after, settings);
}
