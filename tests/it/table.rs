//! Cells by their number from Rust, on real files: the same as the files say, in any order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, MatrixKey, OpenOptions, ValuePolicy};
use gene_bert::loader::table::{CellTable, TableConfig, View};
use gene_bert::loader::{CellColumn, random_split};
use gene_bert::vocab::GenesFrom;

use super::shared::shared_dir;

fn view(matrix: &str, transform: &str) -> View {
    View {
        matrix: matrix.parse().unwrap(),
        transform: transform.parse().unwrap(),
    }
}

/// Two technologies with other genes each, 274 and 225 cells.
fn mixology() -> Option<Vec<PathBuf>> {
    let one = shared_dir("data/accuracy/scmixology_sc_celseq2.h5ad")?;
    Some(vec![
        one,
        shared_dir("data/accuracy/scmixology_sc_dropseq.h5ad")?,
    ])
}

/// What `cell` of the files holds of gene `id`, read by itself.
fn value(file: &H5ad, row: u64, id: &str) -> Option<f32> {
    let column = file.gene_ids().iter().position(|gene| gene == id)?;
    let block = file.read(&[row..row + 1]).unwrap();
    Some(block.get(0, column).copied().unwrap_or(0.0))
}

#[test]
fn genes_of_several_files_are_matched_by_id() {
    let Some(paths) = mixology() else { return };
    let files: Vec<H5ad> = paths
        .iter()
        .map(|p| H5ad::open(p, &OpenOptions::default()).unwrap())
        .collect();
    for genes in [GenesFrom::Union, GenesFrom::Intersection] {
        let config = TableConfig {
            obs: vec!["cell_line".into(), "platform_file".into()],
            genes,
            ..TableConfig::default()
        };
        let cells = CellTable::open(&paths, &config).unwrap();
        assert_eq!(cells.len(), 499);
        let item = cells.get(274 + 9).unwrap();
        let dense = cells.dense(&item, 0);
        for at in (0..cells.columns(0).len()).step_by(97) {
            let expected = value(&files[1], 9, &cells.columns(0)[at]);
            assert_eq!(
                dense[at],
                expected.unwrap_or(0.0),
                "{}",
                cells.columns(0)[at]
            );
        }
        assert_eq!(
            cells.value(&item, 0),
            files[1].labels("cell_line").unwrap().value(9)
        );
        assert!(dense.iter().sum::<f32>() > 1000.0);
    }
}

#[test]
fn many_cells_are_the_single_ones_in_the_order_asked_for() {
    let Some(paths) = mixology() else { return };
    let config = TableConfig {
        views: vec![
            view("X", "none"),
            view("X", "normalize_total:1e4+log1p"),
            view("X", "thin:0.5"),
        ],
        obs: vec!["cell_line".into(), "platform_file".into()],
        ..TableConfig::default()
    };
    let cells = CellTable::open(&paths, &config).unwrap();
    let asked = [498, 3, 280, 3, 0, 274, 4, 5];
    let items = cells.get_many(&asked).unwrap();
    for (cell, item) in asked.iter().zip(&items) {
        assert_eq!(*item, cells.get(*cell).unwrap());
        assert_eq!(item.cell, *cell);
        let [counts, logs, thinned] = &item.rows[..] else {
            panic!("three views")
        };
        let total: f32 = counts.values.iter().sum();
        for (count, log) in counts.values.iter().zip(&logs.values) {
            assert!(((count / total * 1e4).ln_1p() - log).abs() < 1e-4);
        }
        let kept = thinned.values.iter().sum::<f32>() / total;
        assert!((kept - 0.5).abs() < 0.05, "{kept}");
    }
    assert_ne!(
        cells.get_many_in(1, &[3]).unwrap()[0].rows[2],
        items[1].rows[2]
    );
    assert_eq!(
        cells.get_many_in(1, &[3]).unwrap()[0].rows[0],
        items[1].rows[0]
    );
    assert!(cells.get_many(&[]).unwrap().is_empty());
    let error = cells.get(499).unwrap_err().to_string();
    assert!(error.contains("no cell 499: there are 499"), "{error}");
    let parts = cells.random_split(&[0.8, 0.2], 1).unwrap();
    assert_eq!(parts, random_split(499, &[0.8, 0.2], 1).unwrap());
    assert_eq!((parts[0].len(), parts[1].len()), (399, 100));
    let both = CellColumn::product(&cells.obs_columns().iter().collect::<Vec<_>>());
    assert_eq!(both.values.len(), 6);
}

#[test]
fn arrays_of_obsm_and_raw_stand_beside_x() {
    let Some(path) = shared_dir("data/torture/scverse+scanpy__10x_pbmc68k_reduced@d53464f.h5ad")
    else {
        return;
    };
    let config = TableConfig {
        views: vec![
            view("X", "none"),
            view("raw.X", "none"),
            view("obsm.X_pca", "none"),
            view("obsm.X_umap", "none"),
        ],
        obs: vec!["bulk_labels".into(), "louvain".into()],
        ..TableConfig::default()
    };
    let cells = CellTable::open(std::slice::from_ref(&path), &config).unwrap();
    let item = cells.get(3).unwrap();
    // As anndata reads them.
    let near = |found: &[f32], expected: &[f32]| {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(found.iter().zip(expected).all(close), "{found:?}");
    };
    near(&cells.dense(&item, 0), &[-0.326, -0.191, 1.134]);
    near(
        &cells.dense(&item, 2),
        &[6.595_943, 0.700_732_2, 0.132_765_89],
    );
    let widths: Vec<usize> = (0..5).map(|view| cells.columns(view).len()).collect();
    assert_eq!(widths, [765, 765, 50, 2, 0]);
    assert_eq!(cells.value(&item, 0), Some("CD4+/CD25 T Reg"));
    assert_eq!(cells.value(&item, 1), Some("9"));
    // Settings of a file.
    let text = "seed = 7\nobs = [\"louvain\"]\n\n[[views]]\nmatrix = \"obsm.X_pca\"\ntransform = \"clip:3\"\n";
    let config: TableConfig = toml::from_str(text).unwrap();
    let clipped = CellTable::open(std::slice::from_ref(&path), &config).unwrap();
    assert_eq!(clipped.get(3).unwrap().rows[0].values[0], 3.0);
    for (matrix, part) in [("obsm.X_tsne", "obsm.X_umap"), ("layers.counts", "raw.X")] {
        let config = TableConfig {
            views: vec![view(matrix, "none")],
            ..TableConfig::default()
        };
        let error = CellTable::open(std::slice::from_ref(&path), &config)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_array_of_another_width_is_refused() {
    let (Some(one), Some(other)) = (
        shared_dir("data/torture/scverse+scanpy__10x_pbmc68k_reduced@d53464f.h5ad"),
        shared_dir("data/torture/single-cell-data+TileDB-SOMA__pbmc-small@1e912f7.h5ad"),
    ) else {
        return;
    };
    let config = TableConfig {
        views: vec![view("obsm.X_pca", "none")],
        ..TableConfig::default()
    };
    let error = CellTable::open(&[one, other], &config)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has 19 columns") && error.contains("has 50"),
        "{error}"
    );
}

#[test]
fn an_array_of_obsm_is_no_matrix_to_train_on() {
    let Some(path) = shared_dir("data/torture/scverse+scanpy__10x_pbmc68k_reduced@d53464f.h5ad")
    else {
        return;
    };
    let options = OpenOptions {
        matrix: MatrixKey::Obsm("X_pca".into()),
        values: ValuePolicy::Any,
        ..OpenOptions::default()
    };
    assert_eq!(H5ad::open(&path, &options).unwrap().gene_ids().len(), 50);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gene-bert"))
        .args([
            "mlm",
            "--matrix",
            "obsm.X_pca",
            "--bin_edges",
            "1",
            "--output_dir",
            "x",
        ])
        .args(["--model_arch", "quickstart", "--train_data_paths"])
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("columns are no genes"), "{text}");
}
