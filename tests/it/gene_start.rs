//! `--init_gene_embeddings components`: what a model's genes start from, seen in its first weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use gene_bert::model::TOKEN_TYPE_TABLE;
use gene_bert::parameters::read_tensors;

use super::folder::{Folder, write_cells};

const WIDTH: usize = 16;
/// Special tokens and one category stand before the genes.
const FIRST_GENE: usize = 2;

/// Genes 0 and 1 vary together, 2 and 3 in another way, 4 and 5 not at all.
fn folder() -> Folder {
    let folder = Folder::new();
    write_cells(&folder.path("cells.h5ad"), &["a", "b"], |values| {
        for (cell, values) in values.chunks_exact_mut(6).enumerate() {
            let high = |is: bool| if is { 5.0 } else { 1.0 };
            values[..2].fill(high(cell % 2 == 0));
            values[2..4].fill(high(cell % 4 < 2));
            values[4..].fill(1.0);
        }
    });
    folder
}

/// The weights after a step that changes nothing worth speaking of, and what was printed.
fn start(folder: &Folder, name: &str, more: &str) -> (BTreeMap<String, Vec<f32>>, String) {
    let said = folder.train(&format!(
        "--train_data_paths cells.h5ad --max_steps 1 --learning_rate 1e-30 --eval_fraction 0 \
         --output_dir {name} {more}"
    ));
    let path = folder.path(name).join("checkpoint-1/model.safetensors");
    let (tensors, _) = read_tensors(&path).unwrap();
    let values = tensors.into_iter().map(|(name, tensor)| {
        let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        (name, values)
    });
    (values.collect(), said)
}

fn gene(weights: &BTreeMap<String, Vec<f32>>, gene: usize) -> &[f32] {
    &weights[TOKEN_TYPE_TABLE][(FIRST_GENE + gene) * WIDTH..][..WIDTH]
}

fn cosine(x: &[f32], y: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

#[test]
fn genes_that_vary_together_start_alike_and_all_else_at_random() {
    let folder = folder();
    let (random, _) = start(&folder, "random", "");
    let (mut set, said) = start(&folder, "set", "--init_gene_embeddings components");
    assert!(
        said.contains("4 genes from 4 components of 8 cells"),
        "{said}"
    );
    for (one, other) in [(0, 1), (2, 3)] {
        assert!(cosine(gene(&set, one), gene(&set, other)) > 0.999);
    }
    assert!(cosine(gene(&set, 0), gene(&set, 2)).abs() < 0.95);
    assert!(cosine(gene(&random, 0), gene(&random, 1)).abs() < 0.95);
    let squares: f32 = (0..4).flat_map(|g| gene(&set, g)).map(|x| x * x).sum();
    let deviation = (squares / (4 * WIDTH) as f32).sqrt();
    assert!((deviation - 0.02).abs() < 1e-5, "{deviation}");
    // What does not vary keeps its random vector; so do all other weights.
    let table = set.get_mut(TOKEN_TYPE_TABLE).unwrap();
    let set_part = FIRST_GENE * WIDTH..(FIRST_GENE + 4) * WIDTH;
    table[set_part.clone()].copy_from_slice(&random[TOKEN_TYPE_TABLE][set_part]);
    assert!(set.keys().eq(random.keys()));
    for (name, values) in &set {
        let pairs = values.iter().zip(&random[name]);
        assert!(
            pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9),
            "{name}"
        );
    }
}

#[test]
fn labels_do_not_matter_and_a_checkpoint_keeps_its_own() {
    let folder = folder();
    let components = "--init_gene_embeddings components";
    let (set, _) = start(&folder, "set", components);
    let classes = folder.path("classes");
    let line = format!(
        "cls --phenotype_category cell_type --pretrained_model_path model.json --bin_edges 0.5 2 \
         --seed 1 --train_data_paths cells.h5ad --max_steps 1 --learning_rate 1e-30 \
         --eval_fraction 0 --vocab_path set/vocab.json --output_dir classes {components}"
    );
    let vocabulary = r#"{"cell_type": ["[a]", "[b]"]}"#;
    std::fs::write(folder.path("set/vocab.json"), vocabulary).unwrap();
    super::command::done(folder.0.path(), &line);
    let (tensors, _) = read_tensors(&classes.join("checkpoint-1/model.safetensors")).unwrap();
    let table = &tensors[TOKEN_TYPE_TABLE];
    let table: Vec<f32> = table.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(
        table[FIRST_GENE * WIDTH..][..4 * WIDTH],
        set[TOKEN_TYPE_TABLE][FIRST_GENE * WIDTH..][..4 * WIDTH]
    );
    folder.refused(
        &format!("--pretrained_model_path set/checkpoint-1 {components} --output_dir more"),
        &["init_gene_embeddings", "from a checkpoint", "hint: "],
    );
    // Cells that are all the same have no components.
    write_cells(&folder.path("same.h5ad"), &["a", "b"], |values| {
        values.fill(1.0)
    });
    folder.refused(
        &format!("--train_data_paths same.h5ad --output_dir more {components}"),
        &["do not differ in any gene", "hint: "],
    );
}
