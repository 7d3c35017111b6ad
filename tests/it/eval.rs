//! `gene-bert eval` through the real command: the figures of a run's own evaluation come out again,
//! the files agree with one another, and bad use leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use gene_bert::cell::{CellSource, CsrBlock, Labels};
use gene_bert::h5ad::edit::{Additions, ObsColumn, add_to_copy};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::prepare::simulate::simulate;
use serde_json::Value;

use crate::command;

/// A folder with simulated cells and a tiny model of each kind, trained for a few steps.
pub struct Folder(tempfile::TempDir);

const TINY: &str = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        simulate(folder.0.path(), 5, 60).unwrap();
        fs::write(folder.path("tiny.json"), TINY).unwrap();
        let common = "--train_data_paths simulated_1.h5ad --bin_edges 0.5 2 --max_length 32 \
                      --max_steps 6 --threads 1 --pretrained_model_path tiny.json \
                      --per_device_train_batch_size 4 --eval_fraction 0.5 --learning_rate 0.01";
        let mlm = "mlm --included_phenotypes cell_type sex --absent_gene_sampling frequency \
                   --output_dir mlm";
        folder.done(&format!("{mlm} {common}"));
        let cls = "cls --phenotype_category cell_type --output_dir cls";
        folder.done(&format!("{cls} {common}"));
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn done(&self, line: &str) -> String {
        command::done(self.0.path(), line)
    }

    pub fn refused(&self, line: &str, parts: &[&str]) {
        command::refused(self.0.path(), line, parts);
    }

    pub fn metrics(&self, folder: &str) -> Value {
        let text = fs::read_to_string(self.path(folder).join("metrics.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The last evaluation that a run wrote itself.
    pub fn last_evaluation(&self, run: &str) -> Value {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.rfind(|line: &Value| line["event"] == "eval").unwrap()
    }

    fn csv(&self, path: &str) -> Vec<Vec<String>> {
        let mut reader = csv_reader(self.path(path));
        let rows = reader.records().map(|row| row.unwrap());
        rows.map(|row| row.iter().map(str::to_owned).collect())
            .collect()
    }
}

fn csv_reader(path: PathBuf) -> csv::Reader<fs::File> {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).from_path(path).unwrap()
}

pub const FIGURES: [&str; 12] = [
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_f1",
    "f1_harmonic",
    "top3_accuracy",
    "mcc",
    "kappa",
    "auroc",
    "log_loss",
];

pub fn same(found: &Value, expected: &Value, keys: &[&str]) {
    for key in keys {
        assert_eq!(found[key], expected[key], "{key}");
    }
}

#[test]
fn the_runs_own_figures_come_out_again() {
    let folder = Folder::new();
    let shown = folder.done("eval --checkpoint mlm/checkpoint-6 --output eval --threads 1");
    assert!(
        shown.contains("cell_type") && shown.contains("others visible"),
        "{shown}"
    );
    let (found, run) = (folder.metrics("eval"), folder.last_evaluation("mlm"));
    same(&found, &run, &["num_cells", "eval_loss"]);
    let genes = ["num_genes", "accuracy_whole_vocabulary", "mode_accuracy"];
    same(&found["genes"], &run["genes"], &genes);
    same(&found["genes"], &run["genes"], &FIGURES);
    assert_eq!(found["baselines_from"], "the training cells");
    let (columns, phenotypes) = (&found["columns"], run["phenotypes"].as_array().unwrap());
    assert_eq!(phenotypes.len(), 4);
    for (column, phenotype) in columns.as_array().unwrap().iter().zip(phenotypes) {
        let other = [
            "category",
            "setting",
            "num_cells",
            "accuracy_whole_vocabulary",
        ];
        same(column, phenotype, &other);
        same(column, phenotype, &FIGURES);
        let majority = &column["majority"];
        assert_eq!(majority["accuracy"], phenotype["majority_accuracy"]);
        // The run tells the token, without its brackets.
        let class = majority["class"].as_str().unwrap().replace(' ', "_");
        assert_eq!(class, phenotype["majority"].as_str().unwrap());
    }
    // Another batch size, readers and threads: the same.
    let other = "--per_device_eval_batch_size 7 --dataloader_num_workers 0 --threads 2";
    folder.done(&format!(
        "eval --checkpoint mlm/checkpoint-6 --output other {other}"
    ));
    let other = folder.metrics("other");
    same(
        &other["genes"],
        &found["genes"],
        &["num_genes", "mode_accuracy", "confusion"],
    );

    folder.done("eval --checkpoint cls/checkpoint-6 --output eval-cls --threads 1");
    let (found, run) = (folder.metrics("eval-cls"), folder.last_evaluation("cls"));
    let (column, run) = (&found["columns"][0], &run["classification"]);
    same(column, run, &["category", "num_cells", "majority"]);
    same(column, run, &FIGURES);
    assert_eq!(column["setting"], Value::Null);
}

#[test]
fn files_groups_and_intervals() {
    let folder = Folder::new();
    let asked = "--phenotypes cell_type --group-by sex --bootstrap 50";
    let line = format!("eval simulated_2.h5ad --checkpoint mlm {asked} --threads 1");
    folder.done(&format!("{line} --output eval"));
    let column = &folder.metrics("eval")["columns"][0];
    let table = folder.csv("eval/confusion_cell_type_all_hidden.csv");
    let classes = column["classes"].as_array().unwrap();
    assert_eq!(table.len(), classes.len() + 1);
    for (row, class) in table[1..].iter().zip(classes) {
        let sum: u64 = row[1..].iter().map(|n| n.parse::<u64>().unwrap()).sum();
        assert_eq!(
            (row[0].as_str(), sum),
            (
                class["name"].as_str().unwrap(),
                class["support"].as_u64().unwrap()
            )
        );
    }
    assert_eq!(
        folder.csv("eval/per_class.csv").len(),
        2 * classes.len() + 1
    );
    let groups = folder.csv("eval/groups.csv");
    let groups: Vec<(&str, u64)> = groups[1..]
        .iter()
        .map(|row| (row[2].as_str(), row[3].parse().unwrap()))
        .collect();
    assert_eq!(groups.len(), 4, "{groups:?}");
    assert_eq!(
        groups[0].1 + groups[1].1,
        column["num_cells"].as_u64().unwrap()
    );
    for key in FIGURES {
        let value = column[key].as_f64().unwrap();
        let (low, high) = (
            &column["intervals"][key]["low"],
            &column["intervals"][key]["high"],
        );
        let (low, high) = (low.as_f64().unwrap(), high.as_f64().unwrap());
        assert!(
            low <= high && low <= value + 0.2 && value - 0.2 <= high,
            "{key} {low} {high}"
        );
    }
    let bins = column["reliability"]["bins"].as_array().unwrap();
    let counted: u64 = bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum();
    assert_eq!(Some(counted), column["num_cells"].as_u64());
    // The same again, in place of the first.
    let first = fs::read(folder.path("eval/metrics.json")).unwrap();
    folder.refused(
        &format!("{line} --output eval"),
        &["exists already", "--overwrite"],
    );
    folder.done(&format!("{line} --output eval --overwrite"));
    assert_eq!(fs::read(folder.path("eval/metrics.json")).unwrap(), first);
    let by = folder.done(&format!("{line} --output by-sex --bootstrap-by sex"));
    assert!(by.contains('['), "{by}");
}

#[test]
fn the_report_is_one_whole_page() {
    let folder = Folder::new();
    for run in ["mlm", "cls"] {
        let line = format!("eval --checkpoint {run} --output of-{run} --threads 1");
        folder.done(&format!("{line} --bootstrap 20 --group-by sex"));
        let page = fs::read_to_string(folder.path(&format!("of-{run}/report.html"))).unwrap();
        for foreign in ["http:", "https:", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{run} {foreign}");
        }
        for section in [
            "At a glance",
            "Confusion matrix",
            "Reliability",
            "Embeddings",
            "Training",
        ] {
            assert!(page.contains(section), "{run} {section}");
        }
        assert!(page.contains("T cell") && page.contains("Coloured by sex"));
        for tag in ["svg", "figure", "table", "div", "details", "tr", "g"] {
            let opened = page.matches(&format!("<{tag} ")).count()
                + page.matches(&format!("<{tag}>")).count();
            assert_eq!(
                opened,
                page.matches(&format!("</{tag}>")).count(),
                "{run} {tag}"
            );
        }
        let embedding = &folder.metrics(&format!("of-{run}"))["embedding"];
        assert_eq!(embedding["width"].as_u64(), Some(16));
        let label = &embedding["labels"][0];
        let figure = |key: &str| label[key].as_f64().unwrap();
        assert!((-1.0..=1.0).contains(&figure("silhouette")));
        assert!((0.0..=1.0).contains(&figure("normalized_mutual_information")));
        assert!((-1.0..=1.0).contains(&figure("adjusted_rand_index")));
        // The same page again.
        folder.done(&format!("{line} --bootstrap 20 --group-by sex --overwrite"));
        let again = fs::read_to_string(folder.path(&format!("of-{run}/report.html"))).unwrap();
        assert!(page == again, "{run}");
        folder.done(&format!("{line} --map-cells 0 --overwrite"));
        assert_eq!(
            folder.metrics(&format!("of-{run}"))["embedding"],
            Value::Null
        );
    }
}

#[test]
fn simple_methods_answer_for_the_same_cells() {
    let folder = Folder::new();
    for run in ["mlm", "cls"] {
        let line = format!("eval --checkpoint {run} --baselines --bootstrap 20 --threads 1");
        let shown = folder.done(&format!("{line} --output of-{run}"));
        assert!(shown.contains("logistic regression"), "{shown}");
        let column = &folder.metrics(&format!("of-{run}"))["columns"][0];
        let methods = column["baselines"].as_array().unwrap();
        assert_eq!(methods.len(), 2);
        // Few cells to learn from, but simulated cell types have marker genes.
        assert!(
            methods[0]["auroc"].as_f64().unwrap() > 0.7,
            "{}",
            methods[0]
        );
        for method in methods {
            assert!(method["intervals"]["accuracy"]["low"].is_number());
            let name = method["description"]
                .as_str()
                .unwrap()
                .replace('\'', "&#39;");
            let page = fs::read_to_string(folder.path(&format!("of-{run}/report.html"))).unwrap();
            assert!(page.contains(&name), "{name}");
        }
    }
    fs::rename(folder.path("simulated_1.h5ad"), folder.path("moved.h5ad")).unwrap();
    let line = "eval simulated_2.h5ad --checkpoint cls --baselines --output x";
    folder.refused(line, &["--baselines", "--train-data-paths"]);
    folder.done(&format!("{line} --train-data-paths moved.h5ad"));
}

#[test]
fn values_that_were_never_learned_are_counted() {
    let folder = Folder::new();
    let before = H5ad::open(&folder.path("simulated_2.h5ad"), &OpenOptions::default()).unwrap();
    let mut labels: Labels = before.obs_labels("cell_type").unwrap();
    labels.categories.push("unheard of".to_owned());
    let new = labels.categories.len() as i32 - 1;
    labels.codes[..3].fill(new);
    labels.codes[3] = -1;
    let num_cells = before.num_cells();
    let additions = Additions {
        obs: vec![("cell_type".to_owned(), ObsColumn::Categorical(labels))],
        ..Additions::default()
    };
    let (from, to) = (folder.path("simulated_2.h5ad"), folder.path("new.h5ad"));
    fs::copy(&from, &to).unwrap();
    add_to_copy(&from, &to, &additions, true).unwrap();
    for run in ["mlm", "cls"] {
        let shown = folder.done(&format!(
            "eval new.h5ad --checkpoint {run} --output of-{run}"
        ));
        assert!(shown.contains("unheard of"), "{shown}");
        let column = &folder.metrics(&format!("of-{run}"))["columns"][0];
        assert_eq!(column["num_cells"].as_u64(), Some(num_cells - 4), "{run}");
        assert_eq!(
            (
                column["num_unknown"].as_u64(),
                column["num_missing"].as_u64()
            ),
            (Some(3), Some(1))
        );
    }
}

#[test]
fn bad_use_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let line = "eval simulated_2.h5ad --checkpoint mlm --output out";
    folder.refused(
        &format!("{line} --phenotypes tissue"),
        &["tissue", "cell_type, sex"],
    );
    folder.refused(
        &format!("{line} --group-by nothing"),
        &["nothing", "simulated_2.h5ad"],
    );
    folder.refused(&format!("{line} --bootstrap-by nothing"), &["nothing"]);
    folder.refused(
        "eval simulated_2.h5ad --checkpoint mlm --output mlm --overwrite",
        &["something else"],
    );
    folder.refused(
        "eval --checkpoint nowhere --output out",
        &["nowhere", "no checkpoint"],
    );
    folder.refused(&format!("{line} --max-cells 0"), &["--max-cells 0"]);
    folder.refused(
        &format!("{line} --gene-mask-prob 2"),
        &["--gene-mask-prob 2"],
    );
    fs::create_dir(folder.path("mine")).unwrap();
    fs::write(folder.path("mine/notes.txt"), "mine").unwrap();
    folder.refused(
        "eval simulated_2.h5ad --checkpoint mlm --output mine --overwrite",
        &["mine", "something else"],
    );
    fs::rename(folder.path("simulated_1.h5ad"), folder.path("moved.h5ad")).unwrap();
    folder.refused(
        "eval --checkpoint mlm --output out",
        &["name the files", "simulated_1.h5ad"],
    );
    // Files alone do: the constant answers then come from them, which is said.
    let shown = folder.done(line);
    assert!(shown.contains("evaluated cells themselves"), "{shown}");
    folder.done(&format!("{line}-2 --train-data-paths moved.h5ad"));
    assert_eq!(
        folder.metrics("out-2")["baselines_from"],
        "the training cells"
    );
}

/// Six cells with these genes, of which the first expresses none.
fn write_cells(path: &Path, gene_ids: Vec<String>, cell_type: &str) {
    let (num_cells, expressed) = (6, 8u32);
    let (mut indptr, mut indices, mut values) = (vec![0, 0], Vec::new(), Vec::new());
    for cell in 1..num_cells as u32 {
        indices.extend((0..expressed).map(|n| 4 * n + cell % 4));
        values.extend((0..expressed).map(|n| (n + cell) as f32));
        indptr.push(values.len());
    }
    let cells = AnnData {
        x: CsrBlock::new((num_cells, gene_ids.len()), indptr, indices, values),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (0..num_cells).map(|cell| format!("cell{cell}")).collect(),
        obs: vec![(
            "cell_type".to_owned(),
            Labels {
                categories: vec![cell_type.to_owned()],
                codes: vec![0; num_cells],
            },
        )],
        gene_ids,
        var: Vec::new(),
    };
    write_h5ad(path, &cells).unwrap();
}

#[test]
fn odd_cells_and_foreign_files() {
    let folder = Folder::new();
    let known = H5ad::open(&folder.path("simulated_1.h5ad"), &OpenOptions::default()).unwrap();
    let genes = known.gene_ids().to_vec();
    write_cells(&folder.path("bare.h5ad"), genes.clone(), "T cell");
    write_cells(&folder.path("news.h5ad"), genes.clone(), "unheard of");
    let strangers = genes.iter().map(|gene| format!("X{gene}")).collect();
    write_cells(&folder.path("strangers.h5ad"), strangers, "T cell");
    for run in ["mlm", "cls"] {
        let line = |file: &str| format!("eval {file} --checkpoint {run} --output of-{run}");
        folder.refused(
            &line("strangers.h5ad"),
            &["strangers.h5ad", "genes", "hint: "],
        );
        // A cell without an expressed gene is a cell.
        folder.done(&line("bare.h5ad"));
        let column = &folder.metrics(&format!("of-{run}"))["columns"][0];
        assert_eq!(column["num_cells"].as_u64(), Some(6), "{run}");
        let files = [
            format!("of-{run}/metrics.json"),
            format!("of-{run}/per_class.csv"),
        ];
        assert!(files.iter().all(|file| folder.path(file).is_file()));
    }
    folder.refused(
        "eval news.h5ad --checkpoint cls --output of-news",
        &["nothing to evaluate", "unheard of (6)", "hint: "],
    );
    folder.refused(
        "eval news.h5ad --checkpoint mlm --gene-mask-prob 0 --output of-news",
        &["nothing to evaluate", "unheard of (6)", "hint: "],
    );
    // Masked genes are left to be evaluated.
    let text = folder.done("eval news.h5ad --checkpoint mlm --output of-news");
    assert!(text.contains("unheard of (6)"), "{text}");
    assert_eq!(
        folder.metrics("of-news")["columns"],
        Value::Array(Vec::new())
    );
}
