//! `gene-bert tokenize` through the real command: the original's tokens, a run's tokens, bad use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use crate::command::{gene_bert, refused, with_words};
use crate::golden_tokenize::{Case, Cell, goldens};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What a line that must succeed prints.
fn printed(folder: &Path, words: &[String]) -> String {
    let output = with_words(folder, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn cells(json: &str) -> Vec<Cell> {
    let lines = json.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// `tokenize` of a golden's file with the flags that restore the original's behaviour.
fn golden_line(file: &Path, vocab: &Path, matrix: &str, case: &Case) -> Vec<String> {
    let rows: Vec<String> = case.cells.iter().map(|c| c.row.to_string()).collect();
    let mut line = words("tokenize --json --compat perturbgene --gene_order file");
    line.extend(words("--unknown-phenotype mask"));
    let text = |path: &Path| path.display().to_string();
    line.extend([text(file), "--rows".to_owned(), rows.join(",")]);
    line.extend(["--matrix".to_owned(), matrix.to_owned()]);
    line.extend(["--vocab_path".to_owned(), text(vocab)]);
    line.extend(words(&format!("--max_length {}", case.max_length)));
    line.extend(words(&format!("--num_top_genes {}", case.num_top_genes)));
    line.push("--bin_edges".to_owned());
    line.extend(case.bin_edges.iter().map(f64::to_string));
    if !case.included_phenotypes.is_empty() {
        line.push("--included_phenotypes".to_owned());
        line.extend(case.included_phenotypes.iter().cloned());
    }
    line
}

#[test]
fn golden_tokens_of_the_command() {
    for (vocab, file, golden) in goldens() {
        for case in &golden.cases {
            let line = golden_line(&file, &vocab, &golden.matrix, case);
            let found = cells(&printed(Path::new("."), &line));
            assert_eq!(found.len(), case.cells.len(), "{line:?}");
            for (found, expected) in found.iter().zip(&case.cells) {
                assert_eq!(found, expected, "{line:?}");
            }
        }
    }
}

/// A folder with `simulated_1.h5ad` (120 cells) and `simulated_2.h5ad` (40).
fn simulated() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let files = gene_bert::prepare::simulate::simulate(dir.path(), 7, 160).unwrap();
    (dir, files)
}

#[test]
fn cells_read_as_text_and_rows_come_in_the_order_asked_for() {
    let (dir, _) = simulated();
    let line = "tokenize simulated_1.h5ad --rows 7,0-1,3..4 --bin_edges 0.5 3 --max_length 20 \
                --included_phenotypes cell_type sex";
    let text = printed(dir.path(), &words(line));
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("row ")).collect();
    let starts = ["row 7, ", "row 0, ", "row 1, ", "row 3, "];
    assert_eq!(rows.len(), starts.len(), "{text}");
    for (row, start) in rows.iter().zip(starts) {
        assert!(row.starts_with(start), "{row}");
        assert!(row.contains("20 tokens, truncated: 16 of "), "{row}");
    }
    assert!(text.contains("simulated_1.h5ad: 120 cells, X, "), "{text}");
    for part in [
        "[CLS] : special",
        "] : cell_type",
        "] : sex",
        "bin_1 : ",
        "[EOS] : special",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let json = printed(dir.path(), &words(&format!("{line} --json")));
    let json = cells(&json);
    assert_eq!(json.iter().map(|c| c.row).collect::<Vec<_>>(), [7, 0, 1, 3]);
    let tokens: usize = json.iter().map(|c| c.input_ids.len()).sum();
    let shown = text.lines().filter(|l| l.contains(" : ")).count();
    assert_eq!(shown, tokens);
    let first = printed(
        dir.path(),
        &words("tokenize simulated_1.h5ad --bin_edges 1 --json"),
    );
    assert_eq!(cells(&first).len(), 3);
}

#[test]
fn a_checkpoint_gives_the_tokens_of_its_run() {
    let (dir, _) = simulated();
    let run = "mlm --train_data_paths simulated_{1,2}.h5ad --bin_edges 0.5 3 --max_length 40 \
               --included_phenotypes sex cell_type --gene_order expression \
               --model_arch quickstart --num_hidden_layers 1 --max_steps 1 --eval_fraction 0 \
               --threads 1 --output_dir run";
    printed(dir.path(), &words(run));
    let of_run = "tokenize simulated_2.h5ad --json --rows 0-9 --config run/run.toml";
    let of_run = printed(dir.path(), &words(of_run));
    let of_checkpoint = "tokenize simulated_2.h5ad --json --rows 0-9 --pretrained_model_path \
                         run/checkpoint-1";
    let expected = printed(dir.path(), &words(of_checkpoint));
    assert_eq!(of_run, expected);
    let longer = printed(
        dir.path(),
        &words(&format!("{of_checkpoint} --max_length 50")),
    );
    assert_eq!(cells(&expected)[0].input_ids.len(), 40);
    assert_eq!(cells(&longer)[0].input_ids.len(), 50);
    let other = format!("{of_checkpoint} --bin_edges 0.5");
    refused(dir.path(), &other, &["run/checkpoint-1", "other bins"]);
}

#[test]
fn unknown_values_are_hidden_left_out_or_refused() {
    let (dir, _) = simulated();
    let vocab = r#"{"sex": ["[female]"]}"#;
    std::fs::write(dir.path().join("vocab.json"), vocab).unwrap();
    let line = "tokenize simulated_1.h5ad --bin_edges 1 --vocab_path vocab.json --json \
                --included_phenotypes sex --rows 0-19";
    refused(
        dir.path(),
        line,
        &["simulated_1.h5ad: row ", "`sex`: \"male\" is not in"],
    );
    let masked = words(&format!("{line} --unknown_phenotype mask"));
    let masked = cells(&printed(dir.path(), &masked));
    assert_eq!(masked.len(), 20);
    let hidden = masked.iter().filter(|c| c.input_ids[1] == 2).count();
    let skipped = gene_bert(dir.path(), &format!("{line} --unknown_phenotype skip"));
    assert_eq!(
        cells(&String::from_utf8(skipped.stdout).unwrap()).len(),
        20 - hidden
    );
    let notes = String::from_utf8(skipped.stderr).unwrap();
    assert_eq!(notes.matches("left out").count(), hidden);
    assert!(hidden > 0 && hidden < 20);
}

#[test]
fn bad_use_of_tokenize() {
    let (dir, _) = simulated();
    let sound = "tokenize simulated_1.h5ad --bin_edges 1";
    let bad = |more: &str, parts: &[&str]| {
        refused(dir.path(), &format!("{sound} {more}"), parts);
    };
    bad(
        "--rows 3,120",
        &["simulated_1.h5ad: there is no row 120", "120 rows"],
    );
    bad("--rows 3,x", &["--rows", "`x`", "0-4"]);
    bad("--rows -3", &["--rows", "`-3`"]);
    bad("--included_phenotypes tribe", &["\"tribe\"", "cell_type"]);
    bad("--max_length 2", &["max_length"]);
    bad("--matrix layers.no", &["layers.no"]);
    bad("--gene_id_column no", &["\"no\"", "column of var"]);
    bad("--vocab_path no.json", &["no.json: no such file"]);
    refused(dir.path(), "tokenize no.h5ad --bin_edges 1", &["no.h5ad"]);
    refused(dir.path(), "tokenize simulated_1.h5ad", &["bin_edges"]);
    let strangers = format!("{sound} --train_data_paths no.h5ad");
    refused(dir.path(), &strangers, &["no.h5ad"]);
}
