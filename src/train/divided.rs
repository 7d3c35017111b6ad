//! Which cells of a run train and which are evaluated.
//!
//! With evaluation files, all of theirs. Else a split says it (see [`crate::loader::split`]); where
//! there is none, or none of its cells validate, a share of the training cells is held out: which
//! ones depends on the seed and the cell alone, so that a resumed run holds out the same.

use std::sync::Arc;

use anyhow::{Result, bail};
use rand::Rng;

use crate::cell::CellSource;
use crate::config::RunConfig;
use crate::loader::split::{FoldChoice, Part, cells_of, shared_donors};
use crate::loader::{DataSet, Selection};
use crate::rng::{self, Stream};

/// The cells that train, and those that are evaluated.
pub(super) struct Divided {
    pub(super) train: Selection,
    pub(super) eval: Option<(Arc<DataSet>, Selection)>,
    /// A line for the screen, where there is something to say.
    pub(super) report: Option<String>,
}

impl Divided {
    /// All training cells, and those of the evaluation files.
    pub(super) fn by_files(config: &RunConfig, eval: Arc<DataSet>) -> Self {
        let cells = Selection::All.at_most(eval.len(), config.eval_max_cells, (config.seed, 1));
        Self {
            train: Selection::All,
            eval: Some((eval, cells)),
            report: None,
        }
    }

    /// All training cells; what is evaluated on is elsewhere.
    pub(super) fn all_train() -> Self {
        Self {
            train: Selection::All,
            eval: None,
            report: None,
        }
    }

    /// Cells of the same files.
    ///
    /// # Errors
    /// A split that cannot be read, or was not made from these files, or by which no cell trains.
    pub(super) fn within(config: &RunConfig, data: &Arc<DataSet>) -> Result<Self> {
        if config.split_file.is_none() && config.eval_fraction == 0.0 {
            return Ok(Self {
                train: Selection::All,
                eval: None,
                report: None,
            });
        }
        let sources: Vec<&dyn CellSource> = data.sources().collect();
        let (parts, report) = match &config.split_file {
            Some(path) => {
                let parts = FoldChoice::load(path, config.fold)?.parts(&sources)?;
                let left = parts
                    .iter()
                    .filter(|p| matches!(p, None | Some(Part::Test)));
                let report = format!("{}: {} cells are left alone", path.display(), left.count());
                (parts, Some(report))
            }
            None => (vec![Some(Part::Train); data.len() as usize], None),
        };
        let (mut train, mut val) = (cells_of(&parts, Part::Train), cells_of(&parts, Part::Val));
        if train.is_empty() && !parts.is_empty() {
            bail!(
                "--split_file: no cell of the files trains\nhint: name the files it was made from"
            );
        }
        if val.is_empty() && config.eval_fraction > 0.0 {
            (train, val) = hold_out(train, config.eval_fraction, config.seed);
            note_donors(&sources, &train, &val);
        }
        let eval = (!val.is_empty()).then(|| {
            let val = Selection::Rows(val.into());
            let cells = val.at_most(data.len(), config.eval_max_cells, (config.seed, 1));
            (Arc::clone(data), cells)
        });
        Ok(Self {
            train: Selection::Rows(train.into()),
            eval,
            report,
        })
    }
}

/// Says so where held-out cells are of donors that are trained on.
fn note_donors(sources: &[&dyn CellSource], train: &[u64], held_out: &[u64]) {
    let num_cells = sources.iter().map(|source| source.num_cells()).sum::<u64>();
    let mut parts = vec![None; num_cells as usize];
    for (cells, part) in [(train, Part::Train), (held_out, Part::Val)] {
        cells
            .iter()
            .for_each(|cell| parts[*cell as usize] = Some(part));
    }
    let shared = match shared_donors(sources, &parts) {
        Ok(shared) => shared.filter(|shared| shared.num_shared > 0),
        Err(error) => {
            eprintln!("note: whether held-out cells are of new donors is not known: {error}");
            return;
        }
    };
    let Some(shared) = shared else {
        return;
    };
    eprintln!(
        "warning: the held-out cells are of donors that are trained on ({} of {}, obs column \
         `{2}`), and say nothing of new donors; `gene-bert split --by {2}` keeps donors whole",
        shared.num_shared, shared.num_donors, shared.column
    );
}

/// Cells kept and held out, by a draw for each cell.
fn hold_out(cells: Vec<u64>, share: f64, seed: u64) -> (Vec<u64>, Vec<u64>) {
    let mut rng = rng::stream(seed, Stream::Split, 0, 0);
    cells
        .into_iter()
        .partition(|_| rng.random::<f64>() >= share)
}
