//! Highly variable genes as scanpy ranks them.
//!
//! scanpy leaves the order of genes with the same variance to the sort of the machine at hand, so
//! that of such genes a golden rank only tells between which bounds it lies; those who stand alone
//! must have it exactly. Golden median ranks have lost their half.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use gene_bert::cell::CellSource;
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::prepare::passes::FileChoice;
use gene_bert::prepare::ranking::{Flavor, Ranked, Ranking, Request, rank};
use gene_bert::vocab::GenesFrom;
use serde::Deserialize;

use crate::shared::shared_dir;

/// Variances nearer than this, relatively, are one value.
const TIED: f64 = 1e-9;
const NUM_TOP: usize = 2000;

#[derive(Deserialize)]
struct Golden {
    file: String,
    batch_key: Option<String>,
    n_top_genes: usize,
    means: Vec<f64>,
    variances: Vec<f64>,
    variances_norm: Vec<f64>,
    highly_variable_rank: Vec<Option<f64>>,
}

fn goldens() -> Vec<(PathBuf, Golden)> {
    let (Some(folder), Some(data)) = (shared_dir("golden/genes"), shared_dir("data")) else {
        return Vec::new();
    };
    let golden = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let golden: Golden = serde_json::from_str(&text).unwrap();
        assert_eq!(golden.n_top_genes, NUM_TOP);
        let place = ["main", "accuracy"].map(|f| data.join(f).join(&golden.file));
        let file = place.into_iter().find(|f| f.exists()).unwrap();
        (file, golden)
    };
    fs::read_dir(folder).unwrap().map(golden).collect()
}

fn ranked(files: &[&Path], batch_key: Option<&str>) -> Ranking {
    let request = Request {
        choice: FileChoice {
            files: files.iter().map(|f| f.display().to_string()).collect(),
            ..FileChoice::default()
        },
        num_top_genes: NUM_TOP,
        flavor: Flavor::SeuratV3,
        batch_key: batch_key.map(str::to_owned),
        span: 0.3,
        genes: GenesFrom::Intersection,
        allow_fractions: false,
    };
    rank(&request, &mut |_| {}).unwrap()
}

/// The genes in the file's order.
fn in_file_order(ranking: &Ranking, file: &Path) -> Vec<Ranked> {
    let file = H5ad::open(file, &OpenOptions::default()).unwrap();
    let genes = ranking.genes.iter().map(|g| (g.gene.clone(), g));
    let genes: HashMap<String, &Ranked> = genes.collect();
    let ids = file.gene_ids().iter();
    ids.map(|id| genes[id].clone()).collect()
}

/// The first and the last rank that each gene can have where equal variances change places.
fn bounds(variances: &[f64]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..variances.len()).collect();
    order.sort_by(|&a, &b| variances[b].total_cmp(&variances[a]));
    let near = |a: usize, b: usize| {
        let (a, b) = (variances[a], variances[b]);
        (a - b).abs() <= TIED * a.abs()
    };
    let mut bounds = vec![(0, 0); order.len()];
    for tied in order.chunk_by(|&a, &b| near(a, b)).scan(0, |at, tied| {
        let first = *at;
        *at += tied.len();
        Some((first, tied))
    }) {
        let (first, genes) = tied;
        for &gene in genes {
            bounds[gene] = (first, first + genes.len() - 1);
        }
    }
    bounds
}

/// `file` cut into one file for each value of `column`.
fn by_value(file: &Path, column: &str, folder: &Path) -> Vec<PathBuf> {
    let source = H5ad::open(file, &OpenOptions::default()).unwrap();
    let labels = source.obs_labels(column).unwrap();
    let names = source.cell_names().unwrap();
    let cut = |(code, value): (usize, &String)| {
        let rows: Vec<u64> = (0..source.num_cells())
            .filter(|&row| labels.codes[row as usize] == code as i32)
            .collect();
        let ranges: Vec<_> = rows.iter().map(|&row| row..row + 1).collect();
        let path = folder.join(format!("{value}.h5ad"));
        let one = gene_bert::cell::Labels {
            categories: vec![value.clone()],
            codes: vec![0; rows.len()],
        };
        let part = AnnData {
            x: source.read(&ranges).unwrap(),
            value_type: ValueType::Float32,
            layers: Vec::new(),
            cell_names: rows.iter().map(|&r| names[r as usize].clone()).collect(),
            obs: vec![(column.to_owned(), one)],
            gene_ids: source.gene_ids().to_vec(),
            var: Vec::new(),
        };
        write_h5ad(&path, &part).unwrap();
        path
    };
    labels.categories.iter().enumerate().map(cut).collect()
}

#[test]
fn golden_genes_without_batches() {
    for (file, golden) in goldens() {
        if golden.batch_key.is_some() {
            continue;
        }
        let genes = in_file_order(&ranked(&[&file], None), &file);
        check_moments(&genes, &golden);
        let variances: Vec<f64> = genes.iter().map(|g| g.normalised_variance).collect();
        let mut alone = 0;
        for (gene, ((first, last), expected)) in genes.iter().zip(
            bounds(&variances)
                .into_iter()
                .zip(&golden.highly_variable_rank),
        ) {
            let name = &gene.gene;
            assert_eq!(gene.rank.is_some(), gene.highly_variable, "{name}");
            match expected {
                Some(rank) => {
                    let within = first as f64 <= *rank && *rank <= last as f64;
                    assert!(within, "{name}: {first}..={last}, scanpy {rank}");
                }
                None => assert!(last >= NUM_TOP, "{name}: {first}..={last}"),
            }
            if first == last {
                assert_eq!(gene.rank, *expected, "{name}");
                alone += usize::from(expected.is_some());
            }
        }
        assert!(alone > 1500, "only {alone} genes stand alone");
    }
}

#[test]
fn golden_genes_of_batches() {
    let dir = tempfile::tempdir().unwrap();
    for (file, golden) in goldens() {
        let Some(column) = &golden.batch_key else {
            continue;
        };
        let whole = ranked(&[&file], Some(column));
        let genes = in_file_order(&whole, &file);
        check_moments(&genes, &golden);
        let parts = by_value(&file, column, dir.path());
        let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
        // The same cells in a file for each batch.
        let apart = ranked(&parts, Some(column));
        assert_eq!(apart.genes, whole.genes);
        assert_eq!(apart.batches, whole.batches);
        let bounds: Vec<Vec<(usize, usize)>> = parts
            .iter()
            .map(|part| {
                let genes = in_file_order(&ranked(&[part], None), &file);
                let variances: Vec<f64> = genes.iter().map(|g| g.normalised_variance).collect();
                bounds(&variances)
            })
            .collect();
        let mut alone = 0;
        for (at, (gene, expected)) in genes.iter().zip(&golden.highly_variable_rank).enumerate() {
            let of_batches: Vec<(usize, usize)> = bounds.iter().map(|b| b[at]).collect();
            // Whether a gene is among the first in a batch can depend on a tie.
            let at_limit = |(first, last): &(usize, usize)| *first < NUM_TOP && *last >= NUM_TOP;
            if of_batches.iter().any(at_limit) {
                continue;
            }
            let inside = |&&(first, _): &&(usize, usize)| first < NUM_TOP;
            let ranks: Vec<_> = of_batches.iter().filter(inside).collect();
            let median = |of: &dyn Fn(&(usize, usize)) -> usize| {
                let mut of: Vec<f64> = ranks.iter().map(|r| of(r) as f64).collect();
                of.sort_by(f64::total_cmp);
                (!of.is_empty()).then(|| (of[(of.len() - 1) / 2] + of[of.len() / 2]) / 2.0)
            };
            let (low, high) = (median(&|r| r.0), median(&|r| r.1));
            assert_eq!(gene.num_batches as usize, ranks.len(), "{}", gene.gene);
            for rank in [gene.rank.map(f64::floor), *expected] {
                let within = low.map(f64::floor) <= rank && rank <= high;
                assert!(within, "{}: {low:?}..={high:?}, {rank:?}", gene.gene);
            }
            alone += usize::from(low == high && expected.is_some());
        }
        assert!(alone > 1000, "only {alone} genes stand alone");
    }
}

fn check_moments(genes: &[Ranked], golden: &Golden) {
    let near = |a: f64, b: f64, within: f64| (a - b).abs() <= within * b.abs();
    assert_eq!(genes.len(), golden.means.len());
    for (at, gene) in genes.iter().enumerate() {
        let name = &gene.gene;
        assert!(near(gene.mean, golden.means[at], 1e-14), "{name}: mean");
        let (found, expected) = (gene.variance, golden.variances[at]);
        assert!(
            near(found, expected, 1e-14),
            "{name}: variance {found} {expected}"
        );
        let (found, expected) = (gene.normalised_variance, golden.variances_norm[at]);
        assert!(
            near(found, expected, 1e-11),
            "{name}: normalised {found} {expected}"
        );
    }
}
