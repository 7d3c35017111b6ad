//! The metrics room against scikit-learn's figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gene_bert::metrics::{Predictions, clustering};
use serde_json::Value;

use crate::shared::shared_dir;

fn golden() -> Option<Value> {
    let path = shared_dir("golden/metrics.json")?;
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|n| n.as_f64().unwrap()).collect()
}

fn assert_close(case: usize, name: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    // The probabilities were written with six digits, the figures computed before that, so that
    // some that differed are equal.
    let from_probabilities = ["log_loss", "macro_auroc_ovr_present"].contains(&name);
    let tolerance = if from_probabilities { 5e-6 } else { 1e-9 };
    assert!(
        (found - expected).abs() < tolerance,
        "case {case}: {name} is {found}, expected {expected}"
    );
}

#[test]
fn golden_figures_of_predictions() {
    let Some(golden) = golden() else { return };
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for (number, case) in cases.iter().enumerate() {
        let num_classes = case["num_classes"].as_u64().unwrap() as usize;
        let mut predictions = Predictions::new(num_classes);
        let rows = case["proba"].as_array().unwrap();
        for (truth, row) in ids(&case["y_true"]).iter().zip(rows) {
            predictions.add(*truth as usize, &numbers(row)).unwrap();
        }
        let figures = predictions.figures().unwrap();
        assert_eq!(predictions.len() as usize, rows.len());
        for (name, found) in [
            ("accuracy", figures.accuracy),
            ("balanced_accuracy", figures.balanced_accuracy),
            ("macro_precision", figures.macro_precision),
            ("macro_recall", figures.macro_recall),
            ("macro_f1", figures.macro_f1),
            ("weighted_f1", figures.weighted_f1),
            ("harmonic_f1", figures.f1_harmonic),
            ("top3_accuracy", figures.top3_accuracy),
            ("mcc", figures.mcc),
            ("cohen_kappa", figures.kappa),
            ("log_loss", figures.log_loss),
            ("macro_auroc_ovr_present", figures.auroc.unwrap()),
        ] {
            assert_close(number, name, found, &case[name]);
        }
        let confusion = case["confusion"].as_array().unwrap();
        let expected: Vec<Vec<u32>> = confusion.iter().map(ids).collect();
        let found = predictions.confusion().rows();
        let found: Vec<Vec<u32>> = found
            .map(|row| row.iter().map(|&n| n as u32).collect())
            .collect();
        assert_eq!(found, expected, "case {number}");
    }
}

#[test]
fn golden_figures_of_clusters_and_embeddings() {
    let Some(golden) = golden() else { return };
    let golden = &golden["clustering"];
    let (labels, clusters) = (ids(&golden["labels"]), ids(&golden["clusters"]));
    let ari = clustering::adjusted_rand_index(&labels, &clusters);
    assert_close(0, "ari", ari, &golden["ari"]);
    let nmi = clustering::normalized_mutual_information(&labels, &clusters);
    assert_close(0, "nmi", nmi, &golden["nmi"]);
    let rows = golden["embedding"].as_array().unwrap();
    let embedding: Vec<f32> = rows
        .iter()
        .flat_map(|row| numbers(row).into_iter().map(|x| x as f32))
        .collect();
    let width = embedding.len() / rows.len();
    let found = clustering::silhouette(&embedding, width, &labels).unwrap();
    let expected = golden["silhouette"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
}
