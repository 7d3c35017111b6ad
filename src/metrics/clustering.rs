//! Clusters against labels (adjusted Rand index, normalised mutual information), and labels against
//! distances (silhouette).

use std::collections::BTreeMap;

use super::confusion::mean;

/// Counts of (label, cluster), of labels and of clusters.
struct Contingency {
    total: f64,
    both: BTreeMap<(u32, u32), f64>,
    labels: BTreeMap<u32, f64>,
    clusters: BTreeMap<u32, f64>,
}

impl Contingency {
    fn new(labels: &[u32], clusters: &[u32]) -> Self {
        let mut counts = Self {
            total: 0.0,
            both: BTreeMap::new(),
            labels: BTreeMap::new(),
            clusters: BTreeMap::new(),
        };
        for (&label, &cluster) in labels.iter().zip(clusters) {
            counts.total += 1.0;
            *counts.both.entry((label, cluster)).or_default() += 1.0;
            *counts.labels.entry(label).or_default() += 1.0;
            *counts.clusters.entry(cluster).or_default() += 1.0;
        }
        counts
    }
}

/// Adjusted Rand index of Hubert and Arabie: 1 for the same partition, 0 expected by chance.
/// Entries beyond the shorter list are left out, here and below.
pub fn adjusted_rand_index(labels: &[u32], clusters: &[u32]) -> f64 {
    let counts = Contingency::new(labels, clusters);
    let pairs = |n: &f64| n * (n - 1.0) / 2.0;
    let together: f64 = counts.both.values().map(pairs).sum();
    let in_labels: f64 = counts.labels.values().map(pairs).sum();
    let in_clusters: f64 = counts.clusters.values().map(pairs).sum();
    let expected = in_labels * in_clusters / pairs(&counts.total).max(1.0);
    let best = (in_labels + in_clusters) / 2.0;
    // Both partitions trivial in the same way.
    if best == expected {
        return 1.0;
    }
    (together - expected) / (best - expected)
}

/// Mutual information divided by the mean of both entropies: 1 for the same partition.
pub fn normalized_mutual_information(labels: &[u32], clusters: &[u32]) -> f64 {
    let counts = Contingency::new(labels, clusters);
    let entropy = |sizes: &BTreeMap<u32, f64>| -> f64 {
        let shares = sizes.values().map(|n| n / counts.total);
        shares.map(|share| -share * share.ln()).sum()
    };
    let shared = |(&(label, cluster), n): (&(u32, u32), &f64)| {
        let by_chance = counts.labels[&label] * counts.clusters[&cluster] / counts.total;
        n / counts.total * (n / by_chance).ln()
    };
    let mean_entropy = (entropy(&counts.labels) + entropy(&counts.clusters)) / 2.0;
    if mean_entropy == 0.0 {
        return 1.0;
    }
    counts.both.iter().map(shared).sum::<f64>() / mean_entropy
}

/// Mean silhouette over the rows of `embedding` \[N, width\] by Euclidean distance: (b − a) /
/// max(a, b), a the mean distance to the row's own label, b that to the nearest other label; 0 for
/// a row that is alone. `None` where there is only one label. Takes time N².
pub fn silhouette(embedding: &[f32], width: usize, labels: &[u32]) -> Option<f64> {
    let rows: Vec<&[f32]> = embedding.chunks_exact(width.max(1)).collect();
    let mut sizes: BTreeMap<u32, f64> = BTreeMap::new();
    for &label in labels {
        *sizes.entry(label).or_default() += 1.0;
    }
    if sizes.len() < 2 {
        return None;
    }
    let of = |(row, label): (&&[f32], &u32)| {
        let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
        for (other, &label) in rows.iter().zip(labels) {
            *sums.entry(label).or_default() += distance(row, other);
        }
        let own_size = sizes[label];
        if own_size < 2.0 {
            return 0.0;
        }
        let own = sums[label] / (own_size - 1.0);
        let others = sums.iter().filter(|(other, _)| *other != label);
        let nearest = others
            .map(|(other, sum)| sum / sizes[other])
            .fold(f64::INFINITY, f64::min);
        let larger = own.max(nearest);
        if larger == 0.0 {
            0.0
        } else {
            (nearest - own) / larger
        }
    };
    Some(mean(rows.iter().zip(labels).map(of)))
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    a.iter().zip(b).map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_partition_under_other_names_is_one() {
        let (a, b) = ([0, 0, 1, 1, 2], [5, 5, 3, 3, 9]);
        assert_eq!(adjusted_rand_index(&a, &b), 1.0);
        assert!((normalized_mutual_information(&a, &b) - 1.0).abs() < 1e-12);
        assert_eq!(adjusted_rand_index(&[0; 3], &[1; 3]), 1.0);
        assert_eq!(normalized_mutual_information(&[0; 3], &[1; 3]), 1.0);
    }

    #[test]
    fn far_groups_have_a_high_silhouette_and_one_group_has_none() {
        let far = [0.0, 0.1, 9.0, 9.1];
        assert!(silhouette(&far, 1, &[0, 0, 1, 1]).is_some_and(|s| s > 0.9));
        assert!(silhouette(&far, 1, &[0, 1, 0, 1]).is_some_and(|s| s < 0.0));
        assert_eq!(silhouette(&far, 1, &[0; 4]), None);
    }
}
