//! Whether probabilities can be believed: how often the answer is right, by its probability.

use serde::Serialize;

use super::predictions::Predictions;

/// Number of equally wide bins of the answer's probability.
const NUM_BINS: usize = 10;

/// Predictions whose answer has about the same probability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// How many.
    pub count: u64,
    /// Mean probability of the answer.
    pub confidence: f64,
    /// Share that is right.
    pub accuracy: f64,
}

/// The reliability curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// Mean of |accuracy − confidence| over the bins, weighted by their counts.
    pub expected_calibration_error: f64,
    /// Bin i holds the answers with a probability above i/10, up to (i+1)/10.
    pub bins: Vec<ReliabilityBin>,
}

impl Reliability {
    /// That of predictions, which must have been kept.
    pub fn new(predictions: &Predictions) -> Self {
        let mut bins = vec![ReliabilityBin::default(); NUM_BINS];
        let known = predictions.truths().iter().zip(predictions.answers());
        for (&probability, (truth, answer)) in predictions.confidences().iter().zip(known) {
            let probability = f64::from(probability);
            let place = (probability * NUM_BINS as f64).ceil() as usize;
            let bin = &mut bins[place.clamp(1, NUM_BINS) - 1];
            bin.count += 1;
            bin.confidence += probability;
            bin.accuracy += f64::from(u8::from(truth == answer));
        }
        let total: u64 = bins.iter().map(|bin| bin.count).sum();
        let mut gap = 0.0;
        for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
            gap += (bin.accuracy - bin.confidence).abs();
            bin.confidence /= bin.count as f64;
            bin.accuracy /= bin.count as f64;
        }
        Self {
            expected_calibration_error: gap / (total as f64).max(1.0),
            bins,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_fall_into_the_bin_of_their_probability() {
        let mut predictions = Predictions::new(2);
        for (truth, p) in [(0, 1.0), (1, 0.95), (0, 0.75), (0, 0.75)] {
            predictions.add(truth, &[p, 1.0 - p]).unwrap();
        }
        let curve = Reliability::new(&predictions);
        let counts: Vec<u64> = curve.bins.iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 2, 0, 2]);
        assert_eq!((curve.bins[9].accuracy, curve.bins[7].accuracy), (0.5, 1.0));
        // (|1 − 1.95| + |2 − 1.5|) / 4
        assert!((curve.expected_calibration_error - 1.45 / 4.0).abs() < 1e-6);
    }
}
