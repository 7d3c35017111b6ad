//! `gene-bert predict`: the most probable labels of cells.

use anyhow::Result;

use super::reading::{OutputFlags, Place, ReadingFlags};
use crate::infer::output;
use crate::infer::predict::{self, CellPredictions};

/// Flags of `predict`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns, in obs or CSV: NAME_predicted and NAME_predicted_probability; the second and third best as
NAME_predicted_2 and NAME_predicted_3. Probabilities are over the values of NAME alone. With --checkpoint given several
times, the models vote: the mean of their probabilities counts.

Examples:
  gene-bert predict CELLS.h5ad --checkpoint RUN --phenotypes cell_type --output LABELLED.h5ad
  gene-bert predict 'donor_*.h5ad' --checkpoint RUN --in-place
  gene-bert predict CELLS.h5ad --checkpoint SEED1 --checkpoint SEED2 --output LABELS.csv")]
pub struct PredictArgs {
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    output: OutputFlags,
    /// Phenotypes to predict [default: all that the model was trained with and may not see]
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    phenotypes: Vec<String>,
}

/// Predicts and writes.
///
/// # Errors
/// A checkpoint or file that cannot be used, a place that cannot be written to.
pub fn run(args: PredictArgs) -> Result<()> {
    let checkpoints = args.reading.open_all()?;
    let (reading, files) = args.reading.settle(&checkpoints)?;
    let places = args.output.places(&files, &["h5ad", "csv"])?;
    for (file, place) in files.iter().zip(&places) {
        let predictions = predict::cells(&checkpoints, file, &reading, &args.phenotypes)?;
        eprint!("{}", agreement(&predictions));
        if let Place::Table(path) = place {
            output::write_predictions(path, &predictions)?;
            println!("{}", path.display());
        } else {
            let additions = output::predictions_for_h5ad(&predictions);
            args.output.add(file, place, &additions)?;
        }
    }
    Ok(())
}

fn agreement(predictions: &CellPredictions) -> String {
    let mut text = String::new();
    for column in &predictions.columns {
        if let Some(agreement) = column.agreement {
            let share = 100.0 * agreement.num_same as f64 / agreement.num_cells as f64;
            text += &format!(
                "{}: as the file's own in {share:.1} % of {} cells\n",
                column.category, agreement.num_cells
            );
        }
    }
    text
}
