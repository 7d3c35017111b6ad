//! A fresh folder with a few simulated cells, in which the real command trains a tiny model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gene_bert::cell::{CsrBlock, Labels};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::prepare::simulate::simulate;

const MODEL: &str = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;

/// A folder with simulated cells (`simulated_1.h5ad`, `simulated_2.h5ad`) and a tiny model config.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    /// The two files hold 48 cells together.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        simulate(dir.path(), 3, 48).unwrap();
        fs::write(dir.path().join("model.json"), MODEL).unwrap();
        Self(dir)
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Everything in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = walk(self.0.path());
        names.sort();
        names
    }

    /// `mlm` on the first file with settings that suffice for a few steps, then `more`.
    pub fn mlm(&self, more: &str) -> Output {
        self.command(more).output().unwrap()
    }

    /// What [`Folder::mlm`] runs.
    pub fn command(&self, more: &str) -> Command {
        let sound = "mlm --bin_edges 0.5 2 --seed 1 --threads 1 --dataloader_num_workers 1";
        let mut line: Vec<&str> = sound
            .split_whitespace()
            .chain(more.split_whitespace())
            .collect();
        let given = |flag: &str| more.contains(flag);
        for (flag, value) in [
            ("--max_steps", "2"),
            ("--max_length", "24"),
            ("--per_device_train_batch_size", "4"),
        ] {
            if !given(flag) {
                line.extend([flag, value]);
            }
        }
        if !given("--train_data_paths") && !given("--resume") {
            line.extend(["--train_data_paths", "simulated_1.h5ad"]);
        }
        if !given("--pretrained_model_path") && !given("--resume") {
            line.extend(["--pretrained_model_path", "model.json"]);
        }
        if !given("--included_phenotypes") && !given("--resume") {
            line.extend(["--included_phenotypes", "cell_type"]);
        }
        if !given("--output_dir") {
            line.extend(["--output_dir", "out"]);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        command.args(line).current_dir(self.0.path());
        command
    }

    /// Runs to the end; gives back what was written to standard output and error.
    pub fn train(&self, more: &str) -> String {
        let output = self.mlm(more);
        assert!(output.status.success(), "{}", said(&output));
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            said(&output)
        )
    }

    /// Must be refused with a message that has all of `parts`, and leave the folder as it was.
    pub fn refused(&self, more: &str, parts: &[&str]) {
        let before = self.names();
        let output = self.mlm(more);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{more}\n{text}");
        for part in parts {
            assert!(
                text.contains(part),
                "`{more}` does not say `{part}`:\n{text}"
            );
        }
        assert!(
            !text.contains("panicked") && !text.contains("internal error"),
            "{text}"
        );
        assert_eq!(self.names(), before, "{more} left something behind\n{text}");
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(walk(&path));
        }
        names.push(path.display().to_string());
    }
    names
}

/// What a command wrote to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// 8 cells and 6 genes, counts of 1 to 5 everywhere, with `cell_type` labels in turn.
pub fn few_cells(types: &[&str]) -> AnnData {
    let data = (0..48).map(|i| (i % 5 + 1) as f32).collect();
    let indices = (0..48).map(|i| i % 6).collect();
    AnnData {
        x: CsrBlock::new((8, 6), (0..=8).map(|row| row * 6).collect(), indices, data),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (0..8).map(|cell| format!("cell_{cell}")).collect(),
        obs: vec![(
            "cell_type".to_owned(),
            Labels {
                categories: types.iter().map(|t| (*t).to_owned()).collect(),
                codes: (0..8).map(|cell| cell % types.len() as i32).collect(),
            },
        )],
        gene_ids: (0..6).map(|gene| format!("GENE{gene}")).collect(),
        var: Vec::new(),
    }
}

/// A file of [`few_cells`], `change` made to the values, row after row.
pub fn write_cells(path: &Path, types: &[&str], change: impl Fn(&mut [f32])) {
    let mut cells = few_cells(types);
    change(cells.x.data_mut());
    write_h5ad(path, &cells).unwrap();
}
