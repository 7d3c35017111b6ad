//! Writes pre-masked evaluation sets: cells with the masks of an evaluation, as
//! [`crate::loader::EvalSet`] and the Python program PerturbGene read them.
//!
//! Cells become tokens as in a run with the same settings; masks are those that the run's own
//! evaluations have, fixed by (seed, cell), but that absent genes drawn by frequency go by these
//! cells rather than by the training cells. Written cell by cell, in bounded memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::PrepareError;
use super::passes::Progress;
use super::tokens::{encoding_of, settle};
use crate::cell::{CellSource, PackedBatch};
use crate::config::{RunConfig, RunFlags};
use crate::file::{FileError, StagedFile};
use crate::loader::CellFile;
use crate::loader::{
    Attends, DataSet, EvalMasking, Example, Loader, MlmCollator, NO_LABEL, Origin, Sampler,
    SamplerConfig, Selection, Shuffle,
};
use crate::tokenize::Tokenizer;
use crate::vocab::Vocabulary;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Cells.
    pub num_cells: u64,
    /// Masked positions.
    pub num_labels: u64,
}

/// Writes the cells of `files`, masked as `flags` say, to `output`.
///
/// # Errors
/// Settings that cannot work or contradict the checkpoint; files that cannot be read or do not fit
/// it; settings by which nothing is masked; a place that cannot be written to.
pub fn write(
    files: &[PathBuf],
    flags: &RunFlags,
    output: &Path,
    progress: Progress<'_>,
) -> Result<Written, PrepareError> {
    let (config, checkpoint) = settle(flags)?;
    let opened = CellFile::all(files, &config.open_options())?;
    let encoding = encoding_of(&config, checkpoint.as_deref(), files)?;
    let vocabulary = encoding.vocabulary;
    let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), encoding.tokenize)?;
    let mut members = Vec::new();
    for file in opened {
        let bound = Arc::new(tokenizer.bind(file.as_ref())?);
        members.push((file as Arc<dyn CellSource>, bound));
    }
    let data = Arc::new(DataSet::new(members));
    let mut loader = masked(&config, &data, &vocabulary)?;
    let staged = StagedFile::new(output)?;
    let mut json = Json::begin(staged.path(), &metadata(&config, files, &vocabulary))?;
    while let Some(batch) = loader.next_batch()? {
        json.add(&batch)?;
        progress(json.written.num_cells as f64 / data.len().max(1) as f64);
    }
    let written = json.end()?;
    if written.num_labels == 0 {
        return Err(PrepareError::NothingMasked {
            num_cells: written.num_cells,
        });
    }
    staged.commit()?;
    Ok(written)
}

/// The cells in order, masked.
fn masked(
    config: &RunConfig,
    data: &Arc<DataSet>,
    vocabulary: &Vocabulary,
) -> Result<Loader, PrepareError> {
    let (sampling, num_genes) = (config.absent_gene_sampling, vocabulary.genes().len());
    let weights = data.gene_weights(sampling, &Selection::All, num_genes)?;
    let (masking, random) = (config.mlm_config(), EvalMasking::Random);
    let weights = weights.as_deref();
    let collator = MlmCollator::evaluation(vocabulary, &masking, config.seed, weights, &random)?;
    let order = SamplerConfig {
        shuffle: Shuffle::Sequential,
        ..SamplerConfig::default()
    };
    let sampler = Sampler::new(order, Selection::All, data.len())?;
    let settings = config.eval_loader_config();
    Ok(Loader::new(
        Arc::clone(data),
        sampler,
        Arc::new(collator),
        settings,
    )?)
}

/// What the Python program writes of its arguments, and where the ids come from.
fn metadata(config: &RunConfig, files: &[PathBuf], vocabulary: &Vocabulary) -> Value {
    json!({
        "subcommand": "mlm",
        "bin_edges": config.bin_edges,
        "bin_edges_path": config.bin_edges_path,
        "shard_size": config.shard_size,
        "eval_data_path": files,
        "max_length": config.max_length,
        "num_top_genes": config.num_top_genes,
        "vocab_path": config.vocab_path,
        "included_phenotypes": config.included_phenotypes,
        "gene_mask_prob": config.gene_mask_prob,
        "phenotype_mask_prob": config.phenotype_mask_prob,
        "gene_bert": Origin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vocabulary: vocabulary.fingerprint(),
            seed: config.seed,
        },
    })
}

/// A file that grows by one cell after the other.
struct Json<'a> {
    path: &'a Path,
    out: BufWriter<File>,
    written: Written,
}

impl<'a> Json<'a> {
    fn begin(path: &'a Path, metadata: &Value) -> Result<Self, PrepareError> {
        let file = File::create(path).map_err(|e| FileError::io("create it", path, e))?;
        let mut json = Self {
            path,
            out: BufWriter::new(file),
            written: Written {
                num_cells: 0,
                num_labels: 0,
            },
        };
        json.put(&format!("{{\"metadata\": {metadata}, \"data\": ["))?;
        Ok(json)
    }

    fn put(&mut self, text: &str) -> Result<(), PrepareError> {
        let wrong = |e| FileError::io("write it", self.path, e);
        Ok(self.out.write_all(text.as_bytes()).map_err(wrong)?)
    }

    fn add(&mut self, batch: &PackedBatch) -> Result<(), PrepareError> {
        let mut labels = batch.labels.iter().peekable();
        for ends in batch.cu_seqlens.windows(2) {
            let cell = ends[0] as usize..ends[1] as usize;
            let mut example = Example {
                input_ids: batch.input_ids[cell.clone()].to_vec(),
                token_type_ids: batch.token_type_ids[cell.clone()].to_vec(),
                attention_mask: vec![Attends(true); cell.len()],
                labels: vec![NO_LABEL; cell.len()],
            };
            while let Some(label) = labels.next_if(|label| label.position < ends[1]) {
                example.labels[label.position as usize - cell.start] = i64::from(label.token);
                self.written.num_labels += 1;
            }
            let comma = if self.written.num_cells == 0 { "" } else { "," };
            let cell = json!(example);
            self.put(&format!("{comma}\n{cell}"))?;
            self.written.num_cells += 1;
        }
        Ok(())
    }

    fn end(mut self) -> Result<Written, PrepareError> {
        self.put("]}\n")?;
        let wrong = |e| FileError::io("write it", self.path, e);
        self.out.flush().map_err(wrong)?;
        Ok(self.written)
    }
}
