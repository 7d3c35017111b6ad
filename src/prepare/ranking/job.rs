//! The two passes that rank genes.

use super::batches::Batches;
use super::order::{Flavor, Ranked, Ranking, best_first, standings};
use super::variable::{Exceeding, Expected, TooFew};
use crate::cell::CellSource;
use crate::h5ad::H5ad;
use crate::prepare::moments::Moments;
use crate::prepare::passes::{FileChoice, FileSet, Progress, Rows};
use crate::prepare::shared_genes::Genes;
use crate::prepare::{GenesError, PrepareError};
use crate::vocab::{GeneVocab, GenesFrom, NO_GENE};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The files.
    pub choice: FileChoice,
    /// Genes that count as highly variable.
    pub num_top_genes: usize,
    /// How batches are put together.
    pub flavor: Flavor,
    /// The obs column whose values are batches; `None`: all cells are one.
    pub batch_key: Option<String>,
    /// Share of the genes that a fit takes, above 0.
    pub span: f64,
    /// Which genes of several files count.
    pub genes: GenesFrom,
    /// Whether values that are no counts are let through.
    pub allow_fractions: bool,
}

/// Ranks the genes of the files.
///
/// # Errors
/// Files that cannot be read, that share no gene, that hold no counts or lack the batch column; a
/// batch of one cell, or in which hardly a gene varies.
pub fn rank(request: &Request, progress: Progress<'_>) -> Result<Ranking, PrepareError> {
    check(request)?;
    let (mut genes, mut batches) = (Genes::default(), Batches::new(request.batch_key.as_deref()));
    let files = FileSet::new(&request.choice, |file| {
        genes.look(file);
        batches.look(file)
    })?;
    let (genes, notes) = genes.finish(request.genes)?;
    batches.check(files.num_cells())?;
    let job = Job {
        request,
        files,
        genes,
        batches,
    };
    let moments = job.moments(&mut |share| progress(0.5 * share))?;
    let expected = job.expected(&moments)?;
    let exceeding = job.exceeding(&expected, &mut |share| progress(0.5 + 0.5 * share))?;
    Ok(job.ranking(&moments, &expected, &exceeding, notes))
}

fn check(request: &Request) -> Result<(), PrepareError> {
    if !(request.span > 0.0 && request.span <= 1.0) {
        return Err(GenesError::Number {
            flag: "span",
            given: request.span.to_string(),
            expected: "a share above 0 and at most 1",
        }
        .into());
    }
    if request.num_top_genes == 0 {
        return Err(GenesError::Number {
            flag: "n-top-genes",
            given: "0".to_owned(),
            expected: "at least 1",
        }
        .into());
    }
    Ok(())
}

struct Job<'a> {
    request: &'a Request,
    files: FileSet,
    genes: GeneVocab,
    batches: Batches,
}

/// What a file's rows and columns are.
struct Opened {
    genes: Vec<u32>,
    batches: Option<Vec<u32>>,
}

/// Rows with genes of the list in place of columns.
struct Values {
    batches: Vec<u32>,
    starts: Vec<usize>,
    genes: Vec<u32>,
    values: Vec<f32>,
}

/// A value that is clipped: its batch, gene and size.
type Clipped = (u32, u32, f64);

impl Job<'_> {
    fn open(&self, file: &H5ad) -> Result<Opened, PrepareError> {
        Ok(Opened {
            genes: self.genes.of_columns(file.gene_ids()),
            batches: self.batches.of(file)?,
        })
    }

    /// First pass: the sums of each batch.
    fn moments(&self, progress: Progress<'_>) -> Result<Vec<Moments>, PrepareError> {
        let mut all = vec![Moments::new(self.genes.len()); self.batches.cells.len()];
        let map = |rows: Rows<'_, Opened>| {
            if !self.request.allow_fractions {
                check_counts(&rows)?;
            }
            Ok(Values::of(rows))
        };
        let merge = |block: Values| {
            block.for_each(|batch, gene, value| {
                if let Some(moments) = all.get_mut(batch as usize) {
                    moments.add(gene, f64::from(value));
                }
            });
            Ok(())
        };
        self.files
            .pass(|file| self.open(file), map, merge, progress)?;
        Ok(all)
    }

    /// The curve of each batch.
    fn expected(&self, moments: &[Moments]) -> Result<Vec<Expected>, PrepareError> {
        let batches = moments.iter().zip(&self.batches.cells);
        let curve = |(moments, (name, &cells)): (&Moments, (&String, &u64))| {
            let few = |few: TooFew| GenesError::FewGenes {
                place: self.batches.place(name),
                found: few.found,
                least: few.least,
                remedy: self.batches.remedy(),
            };
            let (genes, span) = (self.genes.len(), self.request.span);
            Ok(Expected::new(moments, genes, cells, span).map_err(few)?)
        };
        batches.map(curve).collect()
    }

    /// Second pass: the values that are clipped.
    fn exceeding(
        &self,
        expected: &[Expected],
        progress: Progress<'_>,
    ) -> Result<Vec<Exceeding>, PrepareError> {
        let mut all = vec![Exceeding::new(self.genes.len()); expected.len()];
        let map = |rows: Rows<'_, Opened>| {
            let mut clipped: Vec<Clipped> = Vec::new();
            Values::of(rows).for_each(|batch, gene, value| {
                let (expected, value) = (expected.get(batch as usize), f64::from(value));
                if expected.is_some_and(|expected| expected.exceeds(gene, value)) {
                    clipped.push((batch, gene, value));
                }
            });
            Ok(clipped)
        };
        let merge = |clipped: Vec<Clipped>| {
            for (batch, gene, value) in clipped {
                if let Some(exceeding) = all.get_mut(batch as usize) {
                    exceeding.add(gene, value);
                }
            }
            Ok(())
        };
        self.files
            .pass(|file| self.open(file), map, merge, progress)?;
        Ok(all)
    }

    fn ranking(
        &self,
        moments: &[Moments],
        expected: &[Expected],
        exceeding: &[Exceeding],
        notes: Vec<String>,
    ) -> Ranking {
        let batches = expected.iter().zip(moments).zip(exceeding);
        let normalised: Vec<Vec<f64>> = batches
            .map(|((expected, moments), exceeding)| expected.normalised(moments, exceeding))
            .collect();
        let standings = standings(&normalised, self.request.num_top_genes);
        let num_cells = self.files.num_cells();
        let mut whole = Moments::new(self.genes.len());
        moments.iter().for_each(|batch| whole.merge(batch));
        let order = best_first(&standings, self.request.flavor);
        let ranked = |(place, gene): (usize, usize)| Ranked {
            gene: self.genes.ids()[gene].clone(),
            highly_variable: place < self.request.num_top_genes,
            rank: standings[gene].rank,
            num_batches: standings[gene].num_batches,
            mean: whole.mean(gene, num_cells),
            variance: whole.variance(gene, num_cells),
            normalised_variance: standings[gene].normalised,
        };
        Ranking {
            genes: order.into_iter().enumerate().map(ranked).collect(),
            num_files: self.files.len(),
            num_cells,
            batches: self.batches.cells.clone().into_iter().collect(),
            notes,
        }
    }
}

impl Values {
    fn of(rows: Rows<'_, Opened>) -> Self {
        let (opened, first) = (rows.opened, rows.first as usize);
        let num_rows = rows.cells.rows();
        let batches = opened.batches.as_ref();
        let batches = batches.and_then(|b| b.get(first..first + num_rows));
        let batches = batches.map_or_else(|| vec![0; num_rows], <[u32]>::to_vec);
        let (starts, mut genes, values) = rows.cells.into_raw_storage();
        for column in &mut genes {
            *column = opened
                .genes
                .get(*column as usize)
                .copied()
                .unwrap_or(NO_GENE);
        }
        Self {
            batches,
            starts,
            genes,
            values,
        }
    }

    /// Hands over batch, gene and value of each entry; genes that are not in the list are
    /// [`NO_GENE`].
    fn for_each(&self, mut each: impl FnMut(u32, u32, f32)) {
        for (&batch, row) in self.batches.iter().zip(self.starts.windows(2)) {
            let entries = self.genes.get(row[0]..row[1]).unwrap_or(&[]).iter();
            let values = self.values.get(row[0]..row[1]).unwrap_or(&[]);
            for (&gene, &value) in entries.zip(values) {
                each(batch, gene, value);
            }
        }
    }
}

/// Refuses the first value that is no whole number.
fn check_counts(rows: &Rows<'_, Opened>) -> Result<(), PrepareError> {
    if rows.cells.data().iter().all(|value| value.fract() == 0.0) {
        return Ok(());
    }
    let entries = rows.cells.iter();
    let mut fractions = entries.filter(|(value, _)| value.fract() != 0.0);
    let Some((value, (row, column))) = fractions.next() else {
        return Ok(());
    };
    let source = rows.source;
    let genes = source.gene_ids();
    Err(GenesError::NotCounts {
        path: source.path().to_owned(),
        matrix: source.matrix().to_string(),
        row: rows.first + row as u64,
        gene: genes.get(column as usize).cloned().unwrap_or_default(),
        value: *value,
        kind: source.sample_values()?.kind.to_string(),
        remedy: counts_elsewhere(source)?,
    }
    .into())
}

/// Where counts may be instead.
fn counts_elsewhere(file: &H5ad) -> Result<String, PrepareError> {
    let mut others = file.matrices()?;
    others.retain(|name| *name != file.matrix().to_string());
    Ok(match others.as_slice() {
        [] => "the file holds no other matrix; counts must come from where it was made".to_owned(),
        names => format!(
            "choose the matrix with counts by --matrix: {}",
            names.join(", ")
        ),
    })
}
