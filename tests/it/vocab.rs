//! `gene-bert vocab build` through the real command: what it writes, extends, leaves out, refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gene_bert::vocab::{PhenotypeVocab, Repeats, Vocabulary, phenotype_token};

use crate::command::{done, refused};
use crate::golden_tokenize::find;
use crate::shared::shared_dir;

/// `simulated_1.h5ad` (120 cells) and `simulated_2.h5ad` (40), with different gene sets.
fn simulated() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    gene_bert::prepare::simulate::simulate(dir.path(), 7, 160).unwrap();
    dir
}

fn tokens(path: &Path) -> BTreeMap<String, Vec<String>> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_values_of_all_files_become_tokens() {
    let dir = simulated();
    let line = "vocab build simulated_{1,2}.h5ad --phenotypes sex tissue --output made/v.json";
    let text = done(dir.path(), line);
    let found = tokens(&dir.path().join("made/v.json"));
    assert_eq!(found["sex"], ["[female]", "[male]"]);
    assert_eq!(found["tissue"], ["[liver]", "[lung]"]);
    assert_eq!(found.len(), 2);
    for part in [
        "sex: 2 tokens; 2 in the files: [",
        "simulated_2.h5ad: 40 cells, ",
        "missing (",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(text.contains("in each of the 2 files"), "{text}");
    // The run that builds its own vocabulary from the same files has the same one.
    let own = "tokenize simulated_1.h5ad --train_data_paths simulated_1.h5ad simulated_2.h5ad \
               --bin_edges 1 --included_phenotypes tissue sex";
    let given = format!("{own} --vocab_path made/v.json");
    assert_eq!(done(dir.path(), own), done(dir.path(), &given));
}

#[test]
fn a_vocabulary_is_extended_behind_what_it_has() {
    let dir = simulated();
    let start = r#"{"sex": ["[unknown]", "[male]"], "disease": ["[normal]"]}"#;
    fs::write(dir.path().join("start.json"), start).unwrap();
    let line = "vocab build simulated_1.h5ad --phenotypes sex --start_from start.json";
    let text = done(dir.path(), line);
    let found = tokens(&dir.path().join("vocab.json"));
    assert_eq!(found["sex"], ["[unknown]", "[male]", "[female]"]);
    assert_eq!(found["disease"], ["[normal]"]);
    assert!(
        text.contains("sex: 3 tokens, 1 of them new; 2 in the files"),
        "{text}"
    );
    assert!(
        text.contains("disease: 1 tokens, 0 of them new; not counted"),
        "{text}"
    );
}

#[test]
fn a_value_of_two_categories_is_refused_or_left_out() {
    let dir = simulated();
    let start = r#"{"tissue": ["[male]", "[heart]"]}"#;
    fs::write(dir.path().join("start.json"), start).unwrap();
    let line = "vocab build simulated_1.h5ad --phenotypes sex --start_from start.json";
    let parts = [
        "\"male\"",
        "`tissue`",
        "`sex`",
        "[male]",
        "hint: --leave_out 'sex=male'",
    ];
    refused(dir.path(), line, &parts);
    let text = done(dir.path(), &format!("{line} --leave_out sex=male tissue=x"));
    let found = tokens(&dir.path().join("vocab.json"));
    assert_eq!(found["sex"], ["[female]"]);
    assert!(text.contains("cells with a value left out"), "{text}");
    assert!(text.contains("note: --leave_out \"tissue=x\""), "{text}");
    let both = format!("{line} --compat perturbgene --overwrite");
    done(dir.path(), &both);
    assert_eq!(
        tokens(&dir.path().join("vocab.json"))["sex"],
        ["[female]", "[male]"]
    );
}

#[test]
fn a_folder_also_holds_genes_and_bins() {
    let dir = simulated();
    let line = "vocab build simulated_1.h5ad simulated_2.h5ad --phenotypes cell_type --output made";
    refused(
        dir.path(),
        line,
        &["made: a folder", "hint: give --bin_edges"],
    );
    let line = format!("{line} --bin_edges 0.5 2");
    done(dir.path(), &line);
    let (union, _) = Vocabulary::load(&dir.path().join("made")).unwrap();
    assert_eq!(union.num_bin_edges(), 2);
    assert!(union.phenotypes().tokens("cell_type").unwrap().len() == 6);
    assert!(dir.path().join("made/vocab.json").is_file());
    refused(dir.path(), &line, &["made: exists already", "--overwrite"]);
    let line = format!("{line} --overwrite --genes intersection");
    done(dir.path(), &line);
    let (common, _) = Vocabulary::load(&dir.path().join("made")).unwrap();
    assert!(common.genes().len() < union.genes().len());
    let shown = "tokenize simulated_2.h5ad --pretrained_model_path made --rows 0 --max_length 9";
    let text = done(dir.path(), shown);
    assert!(text.contains("] : cell_type"), "{text}");
    fs::write(dir.path().join("made/mine.txt"), "").unwrap();
    refused(dir.path(), &line, &["made: exists already", "other files"]);
}

#[test]
fn bad_use_of_vocab_build() {
    let dir = simulated();
    let bad = |line: &str, parts: &[&str]| refused(dir.path(), &format!("vocab {line}"), parts);
    bad("build", &["<FILE>"]);
    bad("biuld x", &["biuld", "build"]);
    bad(
        "build no.h5ad --phenotypes sex",
        &["no.h5ad: no such file", "hint: "],
    );
    let parts = [
        "no obs column was named",
        "hint: ",
        "cell_type, sex, tissue",
    ];
    bad("build simulated_1.h5ad", &parts);
    let parts = ["simulated_1.h5ad", "\"tribe\"", "cell_type", "hint: "];
    bad("build simulated_1.h5ad --phenotypes sex tribe", &parts);
    let line = "build simulated_1.h5ad --phenotypes sex --vocab_path v.json";
    bad(line, &["--vocab-path"]);
    let line = "build simulated_1.h5ad --phenotypes sex --start_from no.json";
    bad(line, &["no.json: no such file", "hint: "]);
    fs::write(dir.path().join("odd.json"), r#"{"sex": ["male"]}"#).unwrap();
    let line = "build simulated_1.h5ad --phenotypes sex --start_from odd.json";
    bad(line, &["odd.json: ", "`sex`", "\"male\"", "[T_cell]"]);
    fs::write(dir.path().join("vocab.json"), "{}").unwrap();
    let parts = ["vocab.json: exists already", "hint: ", "--overwrite"];
    bad("build simulated_1.h5ad --phenotypes sex", &parts);
}

#[test]
fn the_human_vocabulary_is_sound_and_a_run_takes_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vocab/human.json");
    let vocabulary = PhenotypeVocab::load(&path, Repeats::Refused).unwrap();
    let readme = fs::read_to_string(path.with_file_name("README.md")).unwrap();
    for (category, tokens) in vocabulary.categories() {
        for token in tokens {
            let value = token.trim_matches(['[', ']']).replace('_', " ");
            assert_eq!(*token, phenotype_token(&value), "{category}");
            assert!(
                token.len() > 2 && value.trim() == value,
                "{category}: {token}"
            );
        }
        let row = format!("| `{category}` | {} |", tokens.len());
        assert!(readme.contains(&row), "README does not say {row}");
    }
    let has = |category: &str, value: &str| {
        let tokens = vocabulary.tokens(category).unwrap();
        assert!(
            tokens.contains(&phenotype_token(value)),
            "{category}: {value}"
        );
    };
    has(
        "cell_type",
        "naive thymus-derived CD4-positive, alpha-beta T cell",
    );
    has("development_stage", "74-year-old stage");
    has("disease", "normal");
    assert_eq!(vocabulary.tokens("sex").unwrap(), ["[female]", "[male]"]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("[unknown]"));

    // Saved again it is the same file, so that what `vocab build` adds shows in a diff.
    let dir = simulated();
    vocabulary.save(&dir.path().join("again.json")).unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("again.json")).unwrap(),
        text
    );

    // Simulated cells are labelled in its spelling: nothing is new, and a run takes it.
    let columns = "cell_type sex tissue";
    let human = path.display();
    let line = format!(
        "vocab build simulated_1.h5ad --phenotypes {columns} --start_from {human} --output o.json"
    );
    assert_eq!(done(dir.path(), &line).matches(" 0 of them new").count(), 6);
    let line = format!(
        "mlm --train_data_paths simulated_1.h5ad --vocab_path {human} --included_phenotypes \
         {columns} --bin_edges 0.5 --model_arch quickstart --num_hidden_layers 1 --max_length 32 \
         --max_steps 1 --eval_fraction 0.1 --output_dir run"
    );
    done(dir.path(), &line);
    let (saved, _) = Vocabulary::load(&dir.path().join("run/checkpoint-1")).unwrap();
    assert_eq!(saved.phenotypes(), &vocabulary);
}

#[test]
fn a_run_on_columns_that_share_a_value_says_how_to_go_on() {
    let Some(data) = shared_dir("data/accuracy") else {
        return;
    };
    // Its sex is `unknown` all through, and so are some of its cell types.
    let file = find(
        &data,
        "AyushBhardwaj261+LoRA-Fine-Tuning-and-Deployment-of-SCimilarity__val.h5ad",
    );
    let file = file.unwrap().display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let line = format!("tokenize {file} --bin_edges 1 --included_phenotypes cell_type sex");
    let parts = [
        "[unknown]",
        "`cell_type`",
        "`sex`",
        "vocab build",
        "'sex=unknown'",
    ];
    refused(dir.path(), &line, &parts);
    let build = format!("vocab build {file} --phenotypes cell_type sex");
    refused(dir.path(), &build, &["--leave_out 'sex=unknown'"]);
    let text = done(dir.path(), &format!("{build} --leave_out unknown"));
    assert!(
        text.contains("sex: 0 tokens; none in the files; 2237 cells with"),
        "{text}"
    );
    let line = format!("{line} --vocab_path vocab.json --unknown_phenotype mask --rows 0");
    assert!(done(dir.path(), &line).contains("[MASK] : sex"));
}
