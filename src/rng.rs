//! Every random stream of the program. A stream is named by (run seed, [`Stream`], epoch, id) and
//! nothing else, so that draws do not depend on threads, ranks, batch size or resume.
//!
//! Each stream is ChaCha8 keyed with those four numbers; two streams never share a key.

use rand::SeedableRng;
pub use rand_chacha::ChaCha8Rng;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Initial weights; id = index of the parameter.
    Init = 1,
    /// Order of cells; id = index of the block or buffer.
    Shuffle = 2,
    /// Masks of a training cell; id = index of the cell.
    Mask = 3,
    /// Masks of an evaluation cell (epoch 0 always); id = index of the cell.
    EvalMask = 4,
    /// A fresh gene order; id = index of the cell.
    GeneOrder = 5,
    /// Dropout; epoch = optimizer step, id = the place in the model.
    Dropout = 6,
    /// Simulated cells; id = index of the cell or gene.
    Simulate = 7,
    /// Which cells are held out; id = index of the file.
    Split = 8,
    /// Which cells a balanced data set keeps; id = class.
    Balance = 9,
    /// Keys of orders whose positions are computed one by one; id = 0, or index of the group + 1.
    Permute = 10,
    /// Which cells or groups a bootstrap draws; id = number of the resample.
    Bootstrap = 11,
    /// Starts of clusterings and layouts; epoch = the method, id = number of the start.
    Layout = 12,
    /// What is done to the values of a cell at random; id = index of the cell.
    Transform = 13,
    /// The matrix that sends genes' loadings to the model's width.
    GeneStart = 14,
    /// Which neighbour of a cell is taken; id = index of the cell.
    Neighbors = 15,
    /// Trials of a study; epoch = number of the trial, id = number of the draw.
    Sweep = 16,
}

/// The generator of one stream.
pub fn stream(seed: u64, stream: Stream, epoch: u64, id: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (part, number) in key
        .chunks_exact_mut(8)
        .zip([seed, stream as u64, epoch, id])
    {
        part.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_differ_in_every_part_of_their_name() {
        let first = |a, s, e, i| stream(a, s, e, i).random::<u64>();
        let base = first(1, Stream::Mask, 1, 1);
        assert_eq!(base, first(1, Stream::Mask, 1, 1));
        for other in [
            first(2, Stream::Mask, 1, 1),
            first(1, Stream::EvalMask, 1, 1),
            first(1, Stream::Mask, 2, 1),
            first(1, Stream::Mask, 1, 2),
        ] {
            assert_ne!(base, other);
        }
    }
}
