//! `gene-bert eval-set` through the real command: what it writes is read again by `eval` and `mlm`,
//! with the figures of the cells it was made from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::{Value, json};

use crate::eval::{FIGURES, Folder, same};

fn read(folder: &Folder, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.path(name)).unwrap()).unwrap()
}

/// A run whose absent genes are drawn uniformly, so that masks follow from seed and cell alone.
fn with_run() -> Folder {
    let folder = Folder::new();
    folder.done(
        "mlm --included_phenotypes cell_type sex --output_dir run --bin_edges 0.5 2 --max_length 32 \
         --max_steps 3 --threads 1 --pretrained_model_path tiny.json --eval_fraction 0 \
         --train_data_paths simulated_1.h5ad --per_device_train_batch_size 4 --learning_rate 0.01",
    );
    folder
}

#[test]
fn the_set_gives_the_figures_of_its_cells() {
    let folder = with_run();
    let made =
        "eval-set simulated_2.h5ad --pretrained_model_path run/checkpoint-3 --output SET.json";
    let shown = folder.done(made);
    assert!(shown.contains("masked tokens"), "{shown}");
    let set = read(&folder, "SET.json");
    assert_eq!(
        set["metadata"]["included_phenotypes"],
        json!(["cell_type", "sex"])
    );
    let cells = set["data"].as_array().unwrap();
    for cell in cells {
        let list = |key: &str| cell[key].as_array().unwrap();
        let length = list("input_ids").len();
        assert!(length <= 32 && list("token_type_ids").len() == length);
        assert!(list("attention_mask").iter().all(|seen| *seen == true));
        for (id, label) in list("input_ids").iter().zip(list("labels")) {
            // [MASK] stands exactly where something is asked.
            assert_eq!(*id == 2, *label != -100, "{cell}");
        }
    }
    folder.done("eval SET.json --checkpoint run --output of-set --threads 1");
    folder
        .done("eval simulated_2.h5ad --checkpoint run --output of-file --threads 1 --map-cells 0");
    let (of_set, of_file) = (folder.metrics("of-set"), folder.metrics("of-file"));
    same(
        &of_set,
        &of_file,
        &["eval_loss", "num_cells", "baselines_from"],
    );
    same(
        &of_set["genes"],
        &of_file["genes"],
        &["num_genes", "mode_accuracy", "confusion"],
    );
    same(&of_set["genes"], &of_file["genes"], &FIGURES);
    assert_eq!(of_set["num_cells"].as_u64(), Some(cells.len() as u64));
    assert_eq!(of_set["columns"][0]["setting"], "as_masked");
    assert!(folder.path("of-set/report.html").is_file());

    // A run evaluates on it, and is evaluated on it again without being told.
    let line = "mlm --train_data_paths simulated_1.h5ad --eval_data_paths SET.json --max_steps 2 \
                --pretrained_model_path run/checkpoint-3 --output_dir next --threads 1 \
                --included_phenotypes cell_type sex --per_device_train_batch_size 4 \
                --learning_rate 1e-3";
    folder.done(line);
    folder.done("eval --checkpoint next/checkpoint-2 --output again --threads 1 --bootstrap 10");
    let (again, run) = (folder.metrics("again"), folder.last_evaluation("next"));
    same(&again, &run, &["eval_loss", "num_cells"]);
    same(&again["columns"][0], &run["phenotypes"][0], &FIGURES);
}

#[test]
fn sets_of_others_are_read_and_misfits_refused() {
    let folder = with_run();
    let made =
        "eval-set simulated_2.h5ad --pretrained_model_path run/checkpoint-3 --output SET.json";
    folder.done(made);
    folder.refused(made, &["SET.json", "--overwrite"]);
    folder.done(&format!("{made} --overwrite"));
    // As PerturbGene leaves it: nothing of ours in metadata, padded, masks as numbers.
    let mut set = read(&folder, "SET.json");
    set["metadata"].as_object_mut().unwrap().remove("gene_bert");
    for cell in set["data"].as_array_mut().unwrap() {
        let length = cell["input_ids"].as_array().unwrap().len();
        for (key, value, padding) in [
            ("attention_mask", Some(1), 0),
            ("labels", None, -100),
            ("input_ids", None, 3),
            ("token_type_ids", None, 0),
        ] {
            let list = cell[key].as_array_mut().unwrap();
            if let Some(value) = value {
                list.fill(json!(value));
            }
            list.resize(length + 5, json!(padding));
        }
    }
    fs::write(folder.path("theirs.json"), set.to_string()).unwrap();
    folder.done("eval SET.json --checkpoint run --output ours --threads 1");
    folder.done("eval theirs.json --checkpoint run --output theirs --threads 1");
    same(
        &folder.metrics("theirs"),
        &folder.metrics("ours"),
        &["eval_loss", "num_cells"],
    );

    let text = fs::read_to_string(folder.path("SET.json")).unwrap();
    fs::write(folder.path("cut.json"), &text[..text.len() / 2]).unwrap();
    let other = text.replace("\"vocabulary\":\"", "\"vocabulary\":\"0");
    fs::write(folder.path("other.json"), other).unwrap();
    set["data"][1]["input_ids"][0] = json!(100_000);
    fs::write(folder.path("beyond.json"), set.to_string()).unwrap();
    for (line, parts) in [
        ("eval cut.json --checkpoint run", &["cut.json", "line "][..]),
        (
            "eval beyond.json --checkpoint run",
            &["beyond.json", "data[1]", "100000"],
        ),
        ("eval absent.json --checkpoint run", &["absent.json"]),
        (
            "eval other.json --checkpoint run",
            &["other.json", "another vocabulary"],
        ),
        ("eval SET.json --checkpoint cls", &["SET.json", "classes"]),
        (
            "eval SET.json simulated_2.h5ad --checkpoint run",
            &["SET.json", "one kind"],
        ),
        (
            "eval SET.json --checkpoint run --group-by sex",
            &["--group-by", "SET.json"],
        ),
        (
            "eval-set simulated_2.h5ad --pretrained_model_path run/checkpoint-3 --gene_mask_prob 0 \
          --phenotype_mask_prob 0",
            &["nothing to evaluate"],
        ),
    ] {
        let output = if line.starts_with("eval-set") {
            "x.json"
        } else {
            "x"
        };
        folder.refused(&format!("{line} --output {output}"), parts);
    }
}
