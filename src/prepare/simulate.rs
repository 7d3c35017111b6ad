//! Simulated cells for a first run: two small h5ad files whose labels can be learnt.
//!
//! Counts are negative binomial (a Poisson whose mean is gamma distributed). A gene's share of a
//! cell depends on the cell type (well-known marker genes of six types, and anonymous ones), on
//! sex (XIST and genes of the Y chromosome), on tissue (what lung or liver leaks into every cell)
//! and on the donor; sequencing depth differs from cell to cell. The files share most genes, and
//! each lacks some that the other has, in another order. Three quarters of the cells stand in the
//! first file, its donors are not those of the second.
//!
//! Nothing here is real data: names of marker genes are textbook facts, every number is drawn
//! from the seed. Draws depend on (seed, cell) only.

use std::path::{Path, PathBuf};

use rand::Rng;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, Gamma, LogNormal, Poisson, StandardNormal};

use crate::cell::{CsrBlock, Labels};
use crate::file::FileError;
use crate::h5ad::H5adError;
use crate::h5ad::write::{AnnData, ValueType, write_h5ad};
use crate::rng::{ChaCha8Rng, Stream, stream};

/// Cell types (CELLxGENE's spelling), how common each is, and its marker genes.
const CELL_TYPES: [(&str, f64, &[&str]); 6] = [
    (
        "T cell",
        0.26,
        &[
            "CD3D", "CD3E", "CD3G", "CD2", "TRAC", "IL7R", "LCK", "CD247",
        ],
    ),
    (
        "B cell",
        0.16,
        &[
            "MS4A1", "CD79A", "CD79B", "CD19", "BANK1", "PAX5", "CD22", "TCL1A",
        ],
    ),
    (
        "natural killer cell",
        0.12,
        &[
            "GNLY", "NKG7", "KLRD1", "KLRF1", "PRF1", "GZMB", "NCR1", "FCGR3A",
        ],
    ),
    (
        "macrophage",
        0.20,
        &[
            "CD68", "CD163", "MRC1", "C1QA", "C1QB", "C1QC", "MARCO", "MSR1",
        ],
    ),
    (
        "fibroblast",
        0.14,
        &[
            "COL1A1", "COL1A2", "COL3A1", "DCN", "LUM", "PDGFRA", "FBLN1", "MFAP5",
        ],
    ),
    (
        "endothelial cell",
        0.12,
        &[
            "PECAM1", "VWF", "CDH5", "KDR", "CLDN5", "ERG", "EGFL7", "TEK",
        ],
    ),
];
/// Tissues and the genes of their most common cells.
const TISSUES: [(&str, &[&str]); 2] = [
    (
        "lung",
        &[
            "SFTPC", "SFTPB", "SFTPA1", "SFTPA2", "SCGB1A1", "SCGB3A1", "NAPSA", "AGER",
        ],
    ),
    (
        "liver",
        &[
            "ALB", "APOA1", "APOA2", "APOC3", "TTR", "FGB", "SERPINA1", "HP",
        ],
    ),
];
/// Sexes and the genes that tell them apart.
const SEXES: [(&str, &[&str]); 2] = [
    ("female", &["XIST", "TSIX"]),
    (
        "male",
        &[
            "RPS4Y1", "DDX3Y", "KDM5D", "UTY", "EIF1AY", "USP9Y", "ZFY", "TXLNGY",
        ],
    ),
];
/// Genes without a name: `SIM0001`, …
const NUM_ANONYMOUS: usize = 900;
/// Anonymous genes that each cell type has more of.
const NUM_ANONYMOUS_MARKERS: usize = 25;
/// Anonymous genes that a file lacks.
const NUM_LACKING: usize = 60;
const DONORS_PER_FILE: usize = 4;
/// Mean counts of a cell over all genes, and how depth varies (standard deviation of its log).
const MEAN_COUNTS: f64 = 450.0;
const DEPTH_SPREAD: f64 = 0.35;
/// Shape of the gamma distribution: the smaller, the more a gene's count varies.
const SHAPE: f64 = 2.0;

/// Cells could not be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The folder cannot be made.
    #[error(transparent)]
    Folder(#[from] FileError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] H5adError),
    /// Too few cells to show anything, or more than matrices can hold.
    #[error("{0} cells cannot be simulated\nhint: ask for 20 to 1,000,000")]
    NumCells(usize),
}

/// Writes `simulated_1.h5ad` and `simulated_2.h5ad` into `folder` (created), `num_cells` together.
/// obs has `cell_type`, `sex`, `tissue`, `donor_id`; X holds counts; the var index holds symbols.
///
/// # Errors
/// A number of cells out of range, or a folder that cannot be written to.
pub fn simulate(folder: &Path, seed: u64, num_cells: usize) -> Result<Vec<PathBuf>, SimulateError> {
    if !(20..=1_000_000).contains(&num_cells) {
        return Err(SimulateError::NumCells(num_cells));
    }
    std::fs::create_dir_all(folder).map_err(|e| FileError::io("create the folder", folder, e))?;
    let world = World::new(seed);
    let first = num_cells - num_cells / 4;
    let mut paths = Vec::new();
    for (file, cells) in [0..first, first..num_cells].into_iter().enumerate() {
        let path = folder.join(format!("simulated_{}.h5ad", file + 1));
        write_h5ad(&path, &world.file(file, cells))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Numbers of the streams' epochs: what a draw is for.
#[derive(Clone, Copy)]
enum Draw {
    Genes = 0,
    Cell = 1,
    Donor = 2,
    File = 3,
}

/// All genes, and the logs of their shares.
struct World {
    seed: u64,
    genes: Vec<String>,
    /// Log share of each gene without any effect.
    base: Vec<f64>,
    /// Effects on the log share: per cell type, tissue and sex, one number per gene.
    by_type: Vec<Vec<f64>>,
    by_tissue: Vec<Vec<f64>>,
    by_sex: Vec<Vec<f64>>,
}

/// What one cell is.
struct Identity {
    cell_type: usize,
    tissue: usize,
    donor: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = stream(seed, Stream::Simulate, Draw::Genes as u64, 0);
        let named = |groups: &[&[&str]]| -> Vec<String> {
            groups
                .iter()
                .flat_map(|g| g.iter())
                .map(|g| (*g).to_owned())
                .collect()
        };
        let mut genes = named(&CELL_TYPES.map(|t| t.2));
        genes.extend(named(&TISSUES.map(|t| t.1)));
        genes.extend(named(&SEXES.map(|s| s.1)));
        let num_named = genes.len();
        genes.extend((1..=NUM_ANONYMOUS).map(|number| format!("SIM{number:04}")));
        // Named genes are all but silent until an effect switches them on.
        let base = (0..genes.len())
            .map(|gene| {
                if gene < num_named {
                    -3.0
                } else {
                    1.4 * normal(&mut rng)
                }
            })
            .collect();
        let effect = |names: &[&str], low: f64, high: f64, rng: &mut ChaCha8Rng| -> Vec<f64> {
            let of = |gene: &String| names.contains(&gene.as_str());
            genes
                .iter()
                .map(|g| {
                    if of(g) {
                        rng.random_range(low..high)
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        let mut by_type: Vec<Vec<f64>> = CELL_TYPES
            .iter()
            .map(|t| effect(t.2, 4.0, 6.0, &mut rng))
            .collect();
        for effects in &mut by_type {
            for gene in &mut effects[num_named..] {
                *gene += 0.15 * normal(&mut rng);
            }
            for _ in 0..NUM_ANONYMOUS_MARKERS {
                let gene = rng.random_range(num_named..genes.len());
                effects[gene] += rng.random_range(1.0..2.5);
            }
        }
        let by_tissue = TISSUES
            .iter()
            .map(|t| effect(t.1, 4.5, 6.0, &mut rng))
            .collect();
        let by_sex = SEXES
            .iter()
            .map(|s| effect(s.1, 4.5, 6.0, &mut rng))
            .collect();
        Self {
            seed,
            genes,
            base,
            by_type,
            by_tissue,
            by_sex,
        }
    }

    fn rng(&self, draw: Draw, id: u64) -> ChaCha8Rng {
        stream(self.seed, Stream::Simulate, draw as u64, id)
    }

    /// Every second donor is male.
    fn sex(donor: usize) -> usize {
        donor % SEXES.len()
    }

    fn file(&self, file: usize, cells: std::ops::Range<usize>) -> AnnData {
        let columns = self.columns(file);
        let donors: Vec<Vec<f64>> = (0..DONORS_PER_FILE)
            .map(|donor| self.donor_effects(file * DONORS_PER_FILE + donor))
            .collect();
        let (mut indptr, mut indices, mut data) = (vec![0usize], Vec::new(), Vec::new());
        let mut identities = Vec::new();
        for cell in cells.clone() {
            let mut rng = self.rng(Draw::Cell, cell as u64);
            let identity = draw_identity(&mut rng);
            let counts = self.counts(&identity, file, &donors[identity.donor], &mut rng);
            for (column, &gene) in columns.iter().enumerate() {
                if counts[gene] > 0.0 {
                    indices.push(column as u32);
                    data.push(counts[gene]);
                }
            }
            indptr.push(indices.len());
            identities.push(identity);
        }
        let x = CsrBlock::new((cells.len(), columns.len()), indptr, indices, data);
        AnnData {
            x,
            value_type: ValueType::Float32,
            layers: Vec::new(),
            cell_names: cells.map(|cell| format!("simulated_cell_{cell}")).collect(),
            obs: obs(&identities, file),
            gene_ids: columns
                .iter()
                .map(|&gene| self.genes[gene].clone())
                .collect(),
            var: Vec::new(),
        }
    }

    /// The genes that a file has, in its order.
    fn columns(&self, file: usize) -> Vec<usize> {
        let mut rng = self.rng(Draw::File, file as u64);
        let first_anonymous = self.genes.len() - NUM_ANONYMOUS;
        let mut anonymous: Vec<usize> = (first_anonymous..self.genes.len()).collect();
        anonymous.shuffle(&mut rng);
        let mut columns: Vec<usize> = (0..first_anonymous).collect();
        columns.extend(&anonymous[NUM_LACKING..]);
        columns.shuffle(&mut rng);
        columns
    }

    fn donor_effects(&self, donor: usize) -> Vec<f64> {
        let mut rng = self.rng(Draw::Donor, donor as u64);
        (0..self.genes.len())
            .map(|_| 0.2 * normal(&mut rng))
            .collect()
    }

    /// The counts of one cell, one per gene of the world.
    fn counts(
        &self,
        identity: &Identity,
        file: usize,
        donor: &[f64],
        rng: &mut ChaCha8Rng,
    ) -> Vec<f32> {
        let by_type = &self.by_type[identity.cell_type];
        let by_tissue = &self.by_tissue[identity.tissue];
        let by_sex = &self.by_sex[Self::sex(file * DONORS_PER_FILE + identity.donor)];
        let effects = by_type.iter().zip(by_tissue).zip(by_sex).zip(donor);
        let shares: Vec<f64> = (self.base.iter().zip(effects))
            .map(|(base, (((a, b), c), d))| (base + a + b + c + d).exp())
            .collect();
        let depth = LogNormal::new(-DEPTH_SPREAD * DEPTH_SPREAD / 2.0, DEPTH_SPREAD)
            .map_or(1.0, |depth| depth.sample(rng));
        let scale = MEAN_COUNTS * depth / shares.iter().sum::<f64>();
        shares
            .iter()
            .map(|share| negative_binomial(share * scale, rng))
            .collect()
    }
}

fn draw_identity(rng: &mut ChaCha8Rng) -> Identity {
    let mut left: f64 = rng.random();
    let mut cell_type = CELL_TYPES.len() - 1;
    for (index, (_, share, _)) in CELL_TYPES.iter().enumerate() {
        if left < *share {
            cell_type = index;
            break;
        }
        left -= share;
    }
    let tissue = usize::from(rng.random_bool(0.4));
    Identity {
        cell_type,
        tissue,
        donor: rng.random_range(0..DONORS_PER_FILE),
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// A draw with this mean and variance mean + mean² / [`SHAPE`].
fn negative_binomial(mean: f64, rng: &mut ChaCha8Rng) -> f32 {
    let rate = Gamma::new(SHAPE, mean / SHAPE).map_or(0.0, |gamma| gamma.sample(rng));
    Poisson::new(rate).map_or(0.0, |poisson| poisson.sample(rng)) as f32
}

fn obs(identities: &[Identity], file: usize) -> Vec<(String, Labels)> {
    let column = |name: &str, categories: Vec<String>, code: &dyn Fn(&Identity) -> usize| {
        let codes = identities
            .iter()
            .map(|identity| code(identity) as i32)
            .collect();
        (name.to_owned(), Labels { categories, codes })
    };
    let first = file * DONORS_PER_FILE;
    let donors = (first..first + DONORS_PER_FILE)
        .map(|d| format!("donor_{}", d + 1))
        .collect();
    vec![
        column(
            "cell_type",
            CELL_TYPES.map(|t| t.0.to_owned()).into(),
            &|i| i.cell_type,
        ),
        column("sex", SEXES.map(|s| s.0.to_owned()).into(), &|i| {
            World::sex(first + i.donor)
        }),
        column("tissue", TISSUES.map(|t| t.0.to_owned()).into(), &|i| {
            i.tissue
        }),
        column("donor_id", donors, &|i| i.donor),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::cell::CellSource;
    use crate::h5ad::{H5ad, OpenOptions};

    fn open(paths: &[PathBuf]) -> Vec<H5ad> {
        paths
            .iter()
            .map(|path| H5ad::open(path, &OpenOptions::default()).unwrap())
            .collect()
    }

    /// Mean of gene `name` over the cells where `column` is `value`.
    fn mean(file: &H5ad, name: &str, column: &str, value: &str) -> f64 {
        let gene = file.gene_ids().iter().position(|g| g == name).unwrap();
        let labels = file.labels(column).unwrap();
        let x = file.read_ranges(&[0..file.num_cells()]).unwrap();
        let rows = (0..x.rows()).filter(|&row| labels.value(row) == Some(value));
        let values: Vec<f64> = rows
            .map(|row| f64::from(x.get(row, gene).copied().unwrap_or(0.0)))
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn files_read_back_with_the_effects_they_were_given() {
        let dir = tempfile::tempdir().unwrap();
        let files = open(&simulate(&dir.path().join("new"), 1, 400).unwrap());
        assert_eq!(
            files.iter().map(CellSource::num_cells).collect::<Vec<_>>(),
            [300, 100]
        );
        for file in &files {
            let x = file.read_ranges(&[0..file.num_cells()]).unwrap();
            let density = x.nnz() as f64 / (x.rows() * x.cols()) as f64;
            assert!((0.15..0.45).contains(&density), "density {density}");
            assert!(
                x.data().iter().all(|v| *v >= 1.0 && v.fract() == 0.0),
                "counts"
            );
            let (high, low) = (
                mean(file, "CD3D", "cell_type", "T cell"),
                mean(file, "CD3D", "cell_type", "B cell"),
            );
            assert!(high > 10.0 * low && high > 0.3, "{high} {low}");
            assert!(mean(file, "XIST", "sex", "female") > 10.0 * mean(file, "XIST", "sex", "male"));
            assert!(
                mean(file, "ALB", "tissue", "liver") > 5.0 * mean(file, "ALB", "tissue", "lung")
            );
            assert_eq!(file.labels("cell_type").unwrap().categories.len(), 6);
        }
        let [a, b] = &files[..] else {
            panic!("two files")
        };
        let only = |a: &H5ad, b: &H5ad| {
            a.gene_ids()
                .iter()
                .filter(|gene| !b.gene_ids().contains(gene))
                .count()
        };
        assert!(only(a, b) > 20 && only(b, a) > 20 && a.gene_ids() != b.gene_ids());
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, seed| -> Vec<Vec<u8>> {
            let paths = simulate(&dir.path().join(name), seed, 40).unwrap();
            paths
                .iter()
                .map(|path| std::fs::read(path).unwrap())
                .collect()
        };
        assert_eq!(read("a", 1), read("b", 1));
        assert_ne!(read("a", 1), read("c", 2));
    }

    #[test]
    fn too_few_cells_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(simulate(dir.path(), 1, 3).is_err());
    }
}
