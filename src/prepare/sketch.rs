//! The middle of many values in bounded memory.
//!
//! Values are counted by their bits, all of them at first: exact where a gene has few different
//! values, as counts do. Where there are more than [`MOST`], the last bits are left out until there
//! are not; a median then lies within its bucket, whose width is at most 1/32 of the value where
//! values span less than 16 octaves. Unlike a t-digest, what comes out does not depend on the order
//! of the values.

/// Most different values that are kept apart.
const MOST: usize = 512;

/// Counts of values, grouped so that there are at most [`MOST`] groups.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    /// Low bits that are left out.
    dropped: u32,
    /// Ascending.
    keys: Vec<u32>,
    counts: Vec<u64>,
}

impl Sketch {
    pub(super) const fn new() -> Self {
        Self {
            dropped: 0,
            keys: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Counts a value, which is no NaN.
    pub(super) fn add(&mut self, value: f32) {
        let key = ordered(value) >> self.dropped;
        match self.keys.binary_search(&key) {
            Ok(at) => self.counts[at] += 1,
            Err(at) => {
                self.keys.insert(at, key);
                self.counts.insert(at, 1);
                while self.keys.len() > MOST {
                    self.coarsen();
                }
            }
        }
    }

    /// Leaves out one more bit.
    fn coarsen(&mut self) {
        self.dropped += 1;
        let mut last = 0;
        for at in 0..self.keys.len() {
            let (key, count) = (self.keys[at] >> 1, self.counts[at]);
            if at > 0 && self.keys[last] == key {
                self.counts[last] += count;
                continue;
            }
            last += usize::from(at > 0);
            (self.keys[last], self.counts[last]) = (key, count);
        }
        self.keys.truncate(last + 1);
        self.counts.truncate(last + 1);
    }

    /// The value in the middle; of two, their mean; `None` where there is no value.
    pub(super) fn median(&self) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        let last = total.checked_sub(1)?;
        Some(self.at(last / 2)?.midpoint(self.at(total / 2)?))
    }

    /// The value at a place in ascending order.
    fn at(&self, place: u64) -> Option<f64> {
        let mut before = 0;
        for (&key, &count) in self.keys.iter().zip(&self.counts) {
            if place < before + count {
                let low = value(key << self.dropped);
                if self.dropped == 0 {
                    return Some(low);
                }
                let high = value((key << self.dropped) | ((1 << self.dropped) - 1));
                let share = ((place - before) as f64 + 0.5) / count as f64;
                return Some(low + share * (high - low));
            }
            before += count;
        }
        None
    }
}

/// A number that orders as the value does.
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

fn value(ordered: u32) -> f64 {
    let bits = if ordered >> 31 == 1 {
        ordered & !(1 << 31)
    } else {
        !ordered
    };
    f64::from(f32::from_bits(bits))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn median(values: impl Iterator<Item = f32>) -> Option<f64> {
        let mut sketch = Sketch::new();
        values.for_each(|v| sketch.add(v));
        assert!(sketch.keys.len() <= MOST);
        sketch.median()
    }

    #[test]
    fn few_different_values_have_their_exact_median() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0].into_iter()), Some(3.0));
        assert_eq!(median([5.0, 1.0, 2.0, 1.0].into_iter()), Some(1.5));
        assert_eq!(median([-2.5, 0.1, -0.5].into_iter()), Some(-0.5));
        let counts = (0..25 * 401).map(|i| (i * 7 % 401) as f32);
        assert_eq!(median(counts), Some(200.0));
    }

    #[test]
    fn many_different_values_have_it_nearly_and_in_any_order() {
        let value = |i: u64| ((i * 2_654_435_761 % 100_003) as f32 / 2e4).exp();
        let found = median((0..100_003).map(value)).unwrap();
        assert_eq!(Some(found), median((0..100_003).rev().map(value)));
        let exact = (50_001f64 / 2e4).exp();
        assert!((found / exact - 1.0).abs() < 0.01, "{found} {exact}");
    }
}
