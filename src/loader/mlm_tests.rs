//! What masking promises: shares, labels, and genes that are really absent.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::cell::{GeneId, TokenizedCell};
use crate::tokenize::Compat;
use crate::vocab::{CLS, EOS, MASK, PAD, Vocabulary};

const NUM_GENES: u32 = 500;

/// `[CLS]`, three phenotypes, 40 genes in the sequence and 20 more that were cut off, `[EOS]`.
fn cell(vocabulary: &Vocabulary) -> TokenizedCell {
    let bin_1 = vocabulary.bin_id(1).0;
    let mut cell = TokenizedCell {
        input_ids: vec![CLS],
        ..TokenizedCell::default()
    };
    cell.token_type_ids.push(0);
    for category in ["cell_type", "sex", "tissue"] {
        cell.input_ids
            .push(vocabulary.category_ids(category).unwrap().start);
        cell.token_type_ids
            .push(vocabulary.category_type(category).unwrap());
    }
    cell.expressed = (0..60).map(|i| i * 7).collect();
    for &gene in &cell.expressed[..40] {
        cell.input_ids.push(bin_1);
        cell.token_type_ids.push(vocabulary.gene_type(GeneId(gene)));
    }
    cell.input_ids.push(EOS);
    cell.token_type_ids.push(0);
    cell
}

fn measured() -> Vec<u32> {
    (0..NUM_GENES)
        .filter(|gene| gene % 11 != 5 || gene % 7 == 0)
        .collect()
}

struct Counts {
    genes: f64,
    masked_genes: f64,
    bin_0: f64,
    exchanged_cells: f64,
    masked_phenotypes: f64,
    dropped_phenotypes: f64,
}

/// Masks one cell `runs` times and checks every time what must hold always.
fn count(vocabulary: &Vocabulary, collator: &MlmCollator, runs: u64) -> Counts {
    let (plain, measured) = (cell(vocabulary), measured());
    let first_gene = vocabulary.gene_type(GeneId(0));
    let (mut genes, mut masked_genes, mut bin_0, mut exchanged_cells) = (0.0, 0.0, 0.0, 0.0);
    let (mut masked_phenotypes, mut left) = (0.0, 0.0);
    for id in 0..runs {
        let masked = collator.collate(plain.clone(), &measured, 1, id);
        let labelled: BTreeSet<u32> = masked.labels.iter().map(|label| label.position).collect();
        assert!(masked.labels.is_sorted_by(|a, b| a.position < b.position));
        assert_eq!(masked.input_ids.len(), masked.token_type_ids.len());
        let mut kinds = BTreeSet::new();
        let mut exchanged = false;
        for (position, (&input, &kind)) in masked
            .input_ids
            .iter()
            .zip(&masked.token_type_ids)
            .enumerate()
        {
            assert_eq!(input == MASK, labelled.contains(&(position as u32)));
            assert!(
                kind == 0 || kinds.insert(kind),
                "no gene and no category twice"
            );
            left += f64::from(u8::from(0 < kind && kind < first_gene));
            genes += f64::from(u8::from(kind >= first_gene));
        }
        for label in &masked.labels {
            let kind = masked.token_type_ids[label.position as usize];
            if kind < first_gene {
                masked_phenotypes += 1.0;
                let place = plain
                    .token_type_ids
                    .iter()
                    .position(|k| *k == kind)
                    .unwrap();
                assert_eq!(label.token, plain.input_ids[place]);
                continue;
            }
            masked_genes += 1.0;
            let expressed = plain.expressed.contains(&(kind - first_gene));
            assert_eq!(expressed, label.token == vocabulary.bin_id(1).0);
            assert_eq!(!expressed, label.token == vocabulary.bin_id(0).0);
            if !expressed {
                bin_0 += 1.0;
                exchanged = true;
                assert!(measured.contains(&(kind - first_gene)));
            }
        }
        exchanged_cells += f64::from(u8::from(exchanged));
    }
    let dropped_phenotypes = 3.0 * runs as f64 - left;
    Counts {
        genes,
        masked_genes,
        bin_0,
        exchanged_cells,
        masked_phenotypes,
        dropped_phenotypes,
    }
}

fn close(share: f64, expected: f64) {
    assert!(
        (share - expected).abs() < 0.012,
        "{share} instead of {expected}"
    );
}

#[test]
fn shares_are_those_of_the_specification() {
    for num_bin_edges in [1, 3, 9] {
        let vocabulary = fixture::vocabulary(NUM_GENES, num_bin_edges);
        let config = MlmConfig {
            gene_mask_prob: 0.3,
            ..MlmConfig::default()
        };
        let collator = MlmCollator::training(&vocabulary, &config, 3, None).unwrap();
        let runs = 20_000;
        let counts = count(&vocabulary, &collator, runs);
        close(counts.masked_genes / counts.genes, 0.3);
        close(
            counts.bin_0 / counts.masked_genes,
            1.0 / (num_bin_edges as f64 + 1.0),
        );
        if num_bin_edges == 1 {
            close(counts.exchanged_cells / runs as f64, 0.9); // none marked: 3 in 10,000
        }
        let drawn = counts.masked_phenotypes + counts.dropped_phenotypes;
        close(drawn / (3.0 * runs as f64), 0.5);
        close(counts.dropped_phenotypes / drawn, 0.1);
    }
}

#[test]
fn certain_and_impossible_masks() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    let masked = |gene_mask_prob, phenotype_mask_prob| {
        let config = MlmConfig {
            gene_mask_prob,
            phenotype_mask_prob,
            ..MlmConfig::default()
        };
        let collator = MlmCollator::training(&vocabulary, &config, 3, None).unwrap();
        count(&vocabulary, &collator, 200)
    };
    let none = masked(0.0, 0.0);
    assert_eq!(
        (
            none.masked_genes,
            none.masked_phenotypes,
            none.dropped_phenotypes
        ),
        (0.0, 0.0, 0.0)
    );
    let all = masked(1.0, 1.0);
    assert_eq!(all.masked_genes, all.genes);
    assert_eq!(all.masked_phenotypes + all.dropped_phenotypes, 600.0);
}

#[test]
fn evaluation_masks_are_fixed_and_drop_nothing() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    let (config, measured) = (MlmConfig::default(), measured());
    let evaluation = |masking: EvalMasking| {
        MlmCollator::evaluation(&vocabulary, &config, 3, None, &masking).unwrap()
    };
    let random = evaluation(EvalMasking::Random);
    assert_eq!(count(&vocabulary, &random, 2000).dropped_phenotypes, 0.0);
    let training = MlmCollator::training(&vocabulary, &config, 3, None).unwrap();
    let plain = cell(&vocabulary);
    let masks = |collator: &MlmCollator, epoch, id| {
        collator.collate(plain.clone(), &measured, epoch, id).labels
    };
    assert_eq!(masks(&random, 0, 7), masks(&random, 5, 7));
    assert_ne!(masks(&random, 0, 7), masks(&random, 0, 8));
    assert_ne!(masks(&training, 0, 7), masks(&training, 1, 7));
    assert_ne!(masks(&training, 0, 7), masks(&random, 0, 7));

    let sex = evaluation(EvalMasking::Phenotype("sex".to_owned()));
    let hidden = sex.collate(plain.clone(), &measured, 0, 1);
    let positions: Vec<_> = hidden.labels.iter().map(|label| label.position).collect();
    assert_eq!(
        (positions, hidden.labels[0].token),
        (vec![2], plain.input_ids[2])
    );
    let all = evaluation(EvalMasking::AllPhenotypes).collate(plain.clone(), &measured, 0, 1);
    assert_eq!(
        all.labels
            .iter()
            .map(|label| label.position)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(all.input_ids[4..], plain.input_ids[4..]);
    let unknown = EvalMasking::Phenotype("colour".to_owned());
    assert!(MlmCollator::evaluation(&vocabulary, &config, 3, None, &unknown).is_err());
}

#[test]
fn an_unknown_phenotype_gets_no_label() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    let config = MlmConfig {
        phenotype_mask_prob: 1.0,
        ..MlmConfig::default()
    };
    let training = MlmCollator::training(&vocabulary, &config, 3, None).unwrap();
    let all = MlmCollator::evaluation(&vocabulary, &config, 3, None, &EvalMasking::AllPhenotypes)
        .unwrap();
    let mut unknown = cell(&vocabulary);
    unknown.input_ids[2] = MASK;
    let sex = vocabulary.category_type("sex").unwrap();
    for collator in [&training, &all] {
        for id in 0..100 {
            let masked = collator.collate(unknown.clone(), &measured(), 0, id);
            let place = masked
                .token_type_ids
                .iter()
                .position(|kind| *kind == sex)
                .unwrap();
            assert!(
                masked
                    .labels
                    .iter()
                    .all(|label| label.position != place as u32)
            );
        }
    }
}

#[test]
fn a_dropped_phenotype_may_leave_a_pad_behind() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    let config = MlmConfig {
        phenotype_mask_prob: 1.0,
        compat: Some(Compat::Perturbgene),
        ..MlmConfig::default()
    };
    let collator = MlmCollator::training(&vocabulary, &config, 3, None).unwrap();
    let plain = cell(&vocabulary);
    let mut pads = 0;
    for id in 0..1000 {
        let masked = collator.collate(plain.clone(), &measured(), 0, id);
        assert_eq!(masked.input_ids.len(), plain.input_ids.len());
        for position in 1..4 {
            if masked.input_ids[position] == PAD {
                pads += 1;
                assert_eq!(masked.token_type_ids[position], 0);
                assert!(
                    masked
                        .labels
                        .iter()
                        .all(|label| label.position != position as u32)
                );
            }
        }
    }
    close(f64::from(pads) / 3000.0, 0.1);
}

#[test]
fn absent_genes_by_frequency_follow_the_weights() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    let config = MlmConfig {
        gene_mask_prob: 0.5,
        absent_gene_sampling: AbsentGeneSampling::Frequency,
        ..MlmConfig::default()
    };
    assert!(MlmCollator::training(&vocabulary, &config, 3, None).is_err());
    let weights: Vec<f64> = (0..NUM_GENES)
        .map(|gene| if gene < 250 { 3.0 } else { 1.0 })
        .collect();
    let collator = MlmCollator::training(&vocabulary, &config, 3, Some(&weights)).unwrap();
    let (first_gene, plain) = (vocabulary.gene_type(GeneId(0)), cell(&vocabulary));
    let (mut low, mut all) = (0.0, 0.0);
    for id in 0..3000 {
        let masked = collator.collate(plain.clone(), &measured(), 0, id);
        for label in masked
            .labels
            .iter()
            .filter(|l| l.token == vocabulary.bin_id(0).0)
        {
            all += 1.0;
            low += f64::from(u8::from(
                masked.token_type_ids[label.position as usize] - first_gene < 250,
            ));
        }
    }
    let weight = |half: std::ops::Range<u32>, weight: f64| {
        let absent = |g: &u32| measured().contains(g) && !plain.expressed.contains(g);
        half.filter(absent).count() as f64 * weight
    };
    let (light, heavy) = (weight(250..500, 1.0), weight(0..250, 3.0));
    assert!((low / all - heavy / (light + heavy)).abs() < 0.02);
}

#[test]
fn probabilities_are_checked() {
    let vocabulary = fixture::vocabulary(NUM_GENES, 1);
    for bad in [-0.1, 1.5, f64::NAN] {
        let config = MlmConfig {
            gene_mask_prob: bad,
            ..MlmConfig::default()
        };
        assert!(MlmCollator::training(&vocabulary, &config, 0, None).is_err());
    }
}
