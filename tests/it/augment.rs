//! Steps that change cells at random: in training only, resumed to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use super::folder::Folder;

#[test]
fn training_cells_are_augmented_and_evaluated_ones_are_not() {
    let folder = Folder::new();
    let evaluated = |more: &str| {
        let line = format!("{more} --max_steps 4 --eval_steps 4 --eval_fraction 0.3");
        folder.train(&format!(
            "{line} --learning_rate 1e-30 --overwrite_output_dir"
        ));
        let lines = fs::read_to_string(folder.path("out/metrics.jsonl")).unwrap();
        let figure = |key: &str| {
            let line = lines
                .lines()
                .find(|line| line.contains(&format!("\"{key}\"")))
                .unwrap();
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line[key].as_f64().unwrap()
        };
        (figure("loss"), figure("eval_loss"))
    };
    let plain = evaluated("--logging_steps 1");
    let thinned = evaluated("--logging_steps 1 --augment thin:0.3+gene_dropout:0.2");
    assert_ne!(plain.0, thinned.0);
    assert_eq!(plain.1, thinned.1);
    assert!(
        fs::read_to_string(folder.path("out/run.toml"))
            .unwrap()
            .contains("thin:0.3")
    );
}

#[test]
fn an_augmented_run_resumes_to_the_bit() {
    let folder = Folder::new();
    let augment = "--augment gene_dropout:0.3 --save_steps 2 --eval_fraction 0";
    let weights =
        |run: &str| fs::read(folder.path(run).join("checkpoint-6/model.safetensors")).unwrap();
    folder.train(&format!("{augment} --max_steps 6 --output_dir whole"));
    folder.train(&format!("{augment} --max_steps 6 --output_dir parts"));
    for late in ["checkpoint-4", "checkpoint-6"] {
        fs::remove_dir_all(folder.path("parts").join(late)).unwrap();
    }
    folder.train("--resume parts --max_steps 6 --output_dir parts");
    assert!(weights("whole") == weights("parts"));
}

#[test]
fn steps_stand_where_they_can() {
    let folder = Folder::new();
    folder.refused(
        "--transform thin:0.5",
        &["step thin:0.5 draws at random", "augment"],
    );
    folder.refused("--augment z_score:t.csv", &["reads a table of genes"]);
    folder.refused("--augment thin:2", &["thin:SHARE", "gene_dropout:P"]);
    folder.refused("--transform log2", &["log1p", "normalize_total:TARGET"]);
}
