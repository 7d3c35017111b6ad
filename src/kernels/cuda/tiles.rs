//! Attention's kernels on tensor cores, as launches see them: which of the two sets, how many threads
//! and how much shared memory a pass takes, and the table of tiles that its blocks read.
//!
//! *mma* (`attention.cu`, `mma.cuh`) runs on every device that this program takes; *wgmma*
//! (`attention_hopper.cu`, `wgmma.cuh`) uses instructions that compute capability 9.0 alone has. What
//! they compute is the same but for the order of sums within a product. The environment variable
//! [`VARIABLE`] chooses; without it *mma* is taken, as *wgmma* has not run on a GPU yet.

use std::sync::OnceLock;

use candle_core::{Result, bail};

use super::{Gpu, Grid, Source, THREADS};

/// Rows of a tile.
const TILE: usize = 64;
/// Rows that an entry of the table stands for, as in `tiles.cuh`.
const TABLE_ROWS: usize = 2 * TILE;
/// What chooses the set: `mma` or `wgmma`.
const VARIABLE: &str = "GENE_BERT_ATTENTION";

/// A set of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Mma,
    Wgmma,
}

/// What a kernel computes: the context, the gradients of keys and values, those of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Keys,
    Queries,
}

impl Pass {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Keys => "keys",
            Self::Queries => "queries",
        }
    }
}

impl Set {
    /// The set that the environment asks for, on this device.
    pub(super) fn of(gpu: &Gpu) -> Result<Self> {
        // Asked once: every pass of every block comes by here.
        static ASKED: OnceLock<Option<String>> = OnceLock::new();
        let asked = ASKED.get_or_init(|| {
            let name = std::env::var_os(VARIABLE)?;
            Some(name.to_string_lossy().into_owned())
        });
        Self::named(asked.as_deref(), || {
            let stream = gpu.inner.cuda_stream();
            let capability = stream.context().compute_capability();
            capability.map_err(candle_core::Error::wrap)
        })
    }

    fn named(asked: Option<&str>, capability: impl Fn() -> Result<(i32, i32)>) -> Result<Self> {
        match asked {
            None | Some("mma") => Ok(Self::Mma),
            Some("wgmma") => match capability()? {
                (9, 0) => Ok(Self::Wgmma),
                (major, minor) => bail!(
                    "{VARIABLE}=wgmma needs a device of compute capability 9.0 (Hopper), this one \
                     has {major}.{minor}\nhint: unset it, or set {VARIABLE}=mma"
                ),
            },
            Some(other) => bail!(
                "{VARIABLE}={other}: expected mma or wgmma\nhint: unset it; mma is taken then"
            ),
        }
    }

    pub(super) fn source(self) -> Source {
        match self {
            Self::Mma => Source::Attention,
            Self::Wgmma => Source::AttentionHopper,
        }
    }

    /// Groups of 128 threads, each with a tile of its own: the `*_shape` of `mma.cuh` and `wgmma.cuh`.
    fn groups(self, pass: Pass, head_width: usize) -> usize {
        match (self, pass) {
            (Self::Mma, _) | (Self::Wgmma, Pass::Keys) => 1,
            (Self::Wgmma, Pass::Queries) if head_width > 64 => 1,
            (Self::Wgmma, Pass::Forward | Pass::Queries) => 2,
        }
    }

    /// The launch of a pass over `entries` of the table, in numbers of 2 bytes.
    pub(super) fn grid(
        self,
        pass: Pass,
        head_width: usize,
        (entries, num_heads): (usize, usize),
    ) -> Grid {
        let groups = self.groups(pass, head_width);
        // Those of mma have 16 bytes between rows.
        let pitch = match self {
            Self::Mma => head_width + 8,
            Self::Wgmma => head_width,
        };
        let own = if pass == Pass::Forward { 1 } else { 2 };
        Grid {
            blocks: (entries * TABLE_ROWS / (TILE * groups), num_heads),
            threads: THREADS * groups as u32,
            shared: (own * groups + 4) * TILE * pitch * 2,
        }
    }
}

/// Start, length and first row of every [`TABLE_ROWS`] rows of every cell, 3 numbers each, the longest
/// cells first, so that no block begins one when the others are through.
pub(in crate::kernels) fn tiles(starts: &[u32]) -> Vec<u32> {
    let cells = starts.windows(2).map(|w| (w[0], w[1] - w[0]));
    let mut cells: Vec<(u32, u32)> = cells.collect();
    cells.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
    let of_cell = |(start, length): (u32, u32)| {
        let firsts = (0..length).step_by(TABLE_ROWS);
        firsts.flat_map(move |first| [start, length, first])
    };
    cells.into_iter().flat_map(of_cell).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tiles_cover_every_cell_longest_first() {
        let expected = [[5, 130, 0], [5, 130, 128], [0, 3, 0], [3, 2, 0]];
        assert_eq!(tiles(&[0, 3, 3, 5, 135]), expected.concat());
        assert!(tiles(&[0]).is_empty());
    }

    #[test]
    fn sets_are_chosen_by_name_and_device() {
        let hopper = || Ok((9, 0));
        assert_eq!(Set::named(None, hopper).unwrap(), Set::Mma);
        assert_eq!(Set::named(Some("mma"), hopper).unwrap(), Set::Mma);
        assert_eq!(Set::named(Some("wgmma"), hopper).unwrap(), Set::Wgmma);
        for (asked, device, says) in [
            ("wgmma", (10, 0), "this one has 10.0"),
            ("wgmma", (9, 1), "hint: unset it"),
            ("fast", (9, 0), "expected mma or wgmma"),
            ("", (9, 0), "hint: "),
        ] {
            let error = Set::named(Some(asked), || Ok(device)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
