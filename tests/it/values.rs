//! What a run says of each file before it trains: the kind of its values, and how its genes meet the
//! vocabulary's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gene_bert::h5ad::write::write_h5ad;

use crate::folder::{Folder, few_cells, write_cells};

const TYPES: [&str; 2] = ["a", "b"];

/// Counts, their logarithms, and both at once.
#[test]
fn counts_and_logarithms_are_told_apart() {
    let folder = Folder::new();
    write_cells(&folder.path("counts.h5ad"), &TYPES, |_| ());
    let logs = |data: &mut [f32]| data.iter_mut().for_each(|x| *x = x.ln_1p());
    write_cells(&folder.path("logs.h5ad"), &TYPES, logs);
    let many = |data: &mut [f32]| data.iter_mut().for_each(|x| *x = x.mul_add(1e3, 0.5));
    write_cells(&folder.path("normalized.h5ad"), &TYPES, many);

    let said = folder.train("--train_data_paths counts.h5ad --output_dir 1");
    assert!(
        said.contains("counts.h5ad: 8 cells; X: integer counts; 6 genes matched"),
        "{said}"
    );
    assert!(!said.contains("note: "), "{said}");
    let said = folder.train("--train_data_paths logs.h5ad --output_dir 2 --transform log1p");
    assert!(
        said.contains("logs.h5ad: 8 cells; X: log-transformed"),
        "{said}"
    );
    assert!(
        said.contains("note: logs.h5ad: the values look like logarithms already"),
        "{said}"
    );
    let said = folder.train("--train_data_paths normalized.h5ad --output_dir 3");
    assert!(said.contains("X: not whole and not logarithms"), "{said}");
    let said = folder.train("--train_data_paths counts.h5ad logs.h5ad --output_dir 4");
    assert!(
        said.contains("note: the files hold different kinds of values"),
        "{said}"
    );
}

/// Refused with the place and the matrices there are instead; taken where `--allow-scaled` says so.
#[test]
fn scaled_values_are_refused_unless_told_otherwise() {
    let folder = Folder::new();
    let mut cells = few_cells(&TYPES);
    let counts = cells.x.clone();
    cells.x.data_mut().iter_mut().for_each(|x| *x -= 2.5);
    cells.layers.push(("counts".to_owned(), counts));
    write_h5ad(&folder.path("scaled.h5ad"), &cells).unwrap();
    let parts = [
        "scaled.h5ad: X looks scaled",
        "of 48 values",
        "row 0, gene GENE0: -1.5",
        "hint: ",
        "layers.counts",
        "--allow-scaled",
    ];
    folder.refused("--train_data_paths scaled.h5ad --output_dir new", &parts);
    let said = folder.train("--train_data_paths scaled.h5ad --allow-scaled --output_dir 1");
    assert!(said.contains("X: scaled or centred"), "{said}");
    let said = folder.train("--train_data_paths scaled.h5ad --layer counts --output_dir 2");
    assert!(said.contains("layers.counts: integer counts"), "{said}");
}

/// The second simulated file has other genes than the first.
#[test]
fn genes_are_counted_as_matched_missing_and_extra() {
    let folder = Folder::new();
    let said = folder.train("--output_dir first");
    let line = |said: &str, file: &str| {
        let line = said.lines().find(|line| line.starts_with(file));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let first = line(&said, "simulated_1.h5ad");
    assert!(
        !first.contains("missing") && !first.contains("extra"),
        "{first}"
    );
    let said = folder.train(
        "--pretrained_model_path first/checkpoint-2 --train_data_paths simulated_2.h5ad \
         --output_dir second",
    );
    let second = line(&said, "simulated_2.h5ad");
    for what in ["genes matched", "missing (", "extra ("] {
        assert!(second.contains(what), "{second}");
    }
    let missing = second.split("missing (").nth(1).unwrap();
    let names = missing.split(')').next().unwrap();
    assert_eq!(
        names.split(", ").filter(|name| *name != "…").count(),
        10,
        "{second}"
    );
}
