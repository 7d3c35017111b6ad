//! The area under the ROC curve, by ranks.

/// The probability that a positive has a higher score than a negative, ties counting half; `None`
/// where there are no positives or no negatives.
pub(super) fn auroc(scores: impl Iterator<Item = (f32, bool)>) -> Option<f64> {
    let mut scores: Vec<(f32, bool)> = scores.collect();
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scores.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scores.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // For each group of equal scores: its positives beat all negatives below and half of its own.
    let (mut below, mut won) = (0.0, 0.0);
    for group in scores.chunk_by(|a, b| a.0 == b.0) {
        let inside = group.iter().filter(|(_, positive)| *positive).count() as f64;
        let others = group.len() as f64 - inside;
        won += inside * (below + others / 2.0);
        below += others;
    }
    Some(won / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_and_one_class_alone_has_no_curve() {
        let area = |scores: &[(f32, bool)]| auroc(scores.iter().copied());
        let (yes, no) = (true, false);
        assert_eq!(area(&[(0.1, no), (0.4, yes), (0.3, no)]), Some(1.0));
        assert_eq!(area(&[(0.4, no), (0.1, yes)]), Some(0.0));
        assert_eq!(area(&[(0.5, no), (0.5, yes), (0.5, yes)]), Some(0.5));
        assert_eq!(area(&[(0.5, yes)]), None);
        assert_eq!(area(&[]), None);
    }
}
