//! `--device` on the commands that compute: where nothing but a CPU can be used, `auto` computes
//! there (and says why, if the build has CUDA), and a GPU asked for by its number is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::command::{done, refused};
use crate::eval::Folder;

const TRAINING: &str = "--output_dir run --bin_edges 0.5 2 --max_length 32 --max_steps 2 --threads 1 \
     --pretrained_model_path tiny.json --train_data_paths simulated_1.h5ad \
     --per_device_train_batch_size 4 --learning_rate 0.01";

/// What a build without CUDA, or on a machine without a GPU, says of cuda:0.
fn reason() -> &'static str {
    match cfg!(feature = "cuda") {
        true => "cuda:0 cannot be used",
        false => "this build has no CUDA",
    }
}

#[test]
fn auto_computes_on_the_cpu_and_a_missing_gpu_is_refused() {
    let folder = Folder::new();
    let dir = folder.path("");
    let mlm = format!("mlm --included_phenotypes cell_type --eval_fraction 0.5 {TRAINING}");
    let said = done(&dir, &mlm);
    assert!(said.contains("Device: CPU, 1 threads"), "{said}");
    assert_eq!(said.contains("no GPU is used"), cfg!(feature = "cuda"));
    let lines = [
        format!("{mlm} --overwrite-output-dir"),
        format!("cls --phenotype_category cell_type --overwrite-output-dir {TRAINING}"),
        "embed simulated_2.h5ad --checkpoint run --output e.npy".to_owned(),
        "predict simulated_2.h5ad --checkpoint run --output p.csv".to_owned(),
        "eval simulated_2.h5ad --checkpoint run --output figures".to_owned(),
        "bench train --shape 1,8,2,16 --batch 1 --length 8 --steps 1".to_owned(),
    ];
    for line in lines {
        let line = format!("{line} --device cuda:0");
        refused(&dir, &line, &[reason(), "device", "hint: set cpu"]);
    }
    let line = "embed simulated_2.h5ad --checkpoint run --output e.npy --threads 1 --device";
    let said = done(&dir, &format!("{line} cpu"));
    assert!(
        said.contains("Device: CPU, 1 threads") && !said.contains("GPU"),
        "{said}"
    );
    refused(&dir, &format!("{line} gpu --overwrite"), &["gpu", "cuda:N"]);
}
