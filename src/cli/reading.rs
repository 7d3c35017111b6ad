//! Flags that `embed`, `predict` and `eval` share: the checkpoint, the files, how they are read, and where
//! the results go.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::device::open_device;
use super::split::PartFlags;
use crate::config::{Device, Dtype, Settings, named};
use crate::file::expand_paths;
use crate::h5ad::MatrixKey;
use crate::h5ad::edit::{Additions, add_in_place, add_to_copy};
use crate::infer::{Checkpoint, Reading};
use crate::kernels::parallel::compute_with;
use crate::loader::LoaderConfig;

/// Cells, and how they are read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReadingFlags {
    /// The h5ad files, with braces ({0..43}, {a,b}) and globs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    #[command(flatten)]
    model: ModelFlags,
    /// obs columns whose values the model may see; its other phenotypes are masked [default: a
    /// classifier sees those it was trained with, other models none]
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    visible_phenotypes: Vec<String>,
}

/// The checkpoint, and how files are read for it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ModelFlags {
    /// Checkpoint folder, or run folder: its checkpoint-best, else its last one; predict takes
    /// several, each after a --checkpoint of its own
    #[arg(
        long,
        value_name = "FOLDER",
        alias = "pretrained-model-path",
        required = true
    )]
    checkpoint: Vec<PathBuf>,
    /// Matrix to read: X, layers.NAME or raw.X [default: as in training]
    #[arg(long)]
    matrix: Option<MatrixKey>,
    /// Column of var that holds the gene ids, or index for the var index [default: as in training]
    #[arg(long, value_name = "COLUMN")]
    gene_id_column: Option<String>,
    /// Other names for the files' gene ids: a table with the columns gene and mapped_to, such as
    /// `gene-bert genes map` writes [default: as in training]
    #[arg(long, value_name = "FILE")]
    gene_map: Option<PathBuf>,
    /// Least share of the checkpoint's genes that each file must have [default: as in training]
    #[arg(long, value_name = "SHARE")]
    min_gene_overlap: Option<f64>,
    /// Accept values that look scaled rather than counts or their logs [default: as in training]
    #[arg(long)]
    allow_scaled: bool,
    /// Factors of the matrix products: f32, bf16, f16 (on a GPU) or auto [default: as in training]
    #[arg(long, value_name = "DTYPE", value_parser = named::<Dtype>)]
    dtype: Option<Dtype>,
    /// Cells per batch
    #[arg(long, value_name = "CELLS", default_value_t = 64)]
    per_device_eval_batch_size: usize,
    /// Threads that read and tokenise cells; results do not depend on it
    #[arg(long, value_name = "THREADS", default_value_t = 4)]
    dataloader_num_workers: usize,
    /// Threads that compute [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Where to compute: cpu, cuda:N, or auto: a GPU where one can be used
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = named::<Device>)]
    device: Device,
    #[command(flatten)]
    part: PartFlags,
}

/// Where results go.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OutputFlags {
    /// File to write; with several input files, a folder
    #[arg(long, value_name = "PATH", conflicts_with = "in_place")]
    output: Option<PathBuf>,
    /// Add to the h5ad files themselves; every other data set keeps its bytes
    #[arg(long)]
    in_place: bool,
    /// Replace columns, arrays and files of the same name
    #[arg(long)]
    overwrite: bool,
}

/// Where the results of one file go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    TheFile,
    Copy(PathBuf),
    Table(PathBuf),
    Npy(PathBuf),
    Parquet(PathBuf),
}

impl Place {
    /// The folder on whose disk the results of `file` will be.
    pub(super) fn folder<'a>(&'a self, file: &'a Path) -> &'a Path {
        let path = match self {
            Self::TheFile => file,
            Self::Copy(path) | Self::Table(path) | Self::Npy(path) | Self::Parquet(path) => path,
        };
        let folder = path.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }
}

impl ReadingFlags {
    pub(super) fn open(&self) -> Result<Checkpoint> {
        self.model.open()
    }

    pub(super) fn open_all(&self) -> Result<Vec<Checkpoint>> {
        self.model.open_all()
    }

    /// How the files are read for `checkpoints`, and those of them that have cells to read.
    ///
    /// # Errors
    /// A split that cannot be used; no file has cells of the part that was asked for.
    pub(super) fn settle(&self, checkpoints: &[Checkpoint]) -> Result<(Reading, Vec<PathBuf>)> {
        let reading = Reading {
            visible: self.visible_phenotypes.clone(),
            ..self.model.reading()?
        };
        let (mut kept, files) = (Vec::new(), expand_paths(&self.files)?);
        for file in &files {
            match checkpoints.first() {
                Some(checkpoint) if !reading.has_cells(file, checkpoint)? => {
                    eprintln!("note: {}: no cell is in this part", file.display());
                }
                _ => kept.push(file.clone()),
            }
        }
        ensure!(
            !kept.is_empty(),
            "none of the {} files has a cell in the part that was asked for\nhint: `gene-bert split` \
             says how many cells each part has",
            files.len()
        );
        Ok((reading, kept))
    }
}

impl ModelFlags {
    /// Opens the one checkpoint, having set the number of threads.
    pub(super) fn open(&self) -> Result<Checkpoint> {
        let mut checkpoints = self.open_all()?;
        match (checkpoints.pop(), checkpoints.len()) {
            (Some(checkpoint), 0) => Ok(checkpoint),
            (_, others) => bail!(
                "--checkpoint was given {} times: expected one\nhint: only `gene-bert predict` lets \
                 several models vote; run them one by one",
                others + 1
            ),
        }
    }

    /// Opens all checkpoints, having set the number of threads.
    pub(super) fn open_all(&self) -> Result<Vec<Checkpoint>> {
        if let Some(threads) = self.threads {
            ensure!(threads > 0, "--threads 0: at least one thread must compute");
        }
        compute_with(self.threads);
        let device = open_device(self.device, false)?;
        let open = |path: &PathBuf| {
            let checkpoint = Checkpoint::open_as(path, self.dtype, &device)?;
            eprintln!("{}", checkpoint.describe());
            Ok(checkpoint)
        };
        self.checkpoint.iter().map(open).collect()
    }

    /// How files are read.
    ///
    /// # Errors
    /// A split that cannot be used.
    pub(super) fn reading(&self) -> Result<Reading> {
        let given = Settings {
            matrix: self.matrix.clone(),
            gene_id_column: self.gene_id_column.clone(),
            gene_map: self.gene_map.clone(),
            min_gene_overlap: self.min_gene_overlap,
            allow_scaled: self.allow_scaled.then_some(true),
            ..Settings::default()
        };
        Ok(Reading {
            given,
            loader: LoaderConfig {
                num_workers: self.dataloader_num_workers,
                batch_cells: self.per_device_eval_batch_size,
                ..LoaderConfig::default()
            },
            visible: Vec::new(),
            part: self.part.choice()?,
        })
    }
}

impl OutputFlags {
    /// The place of each file's results, checked before anything is computed.
    pub(super) fn places(&self, files: &[PathBuf], formats: &[&str]) -> Result<Vec<Place>> {
        if self.in_place {
            return Ok(files.iter().map(|_| Place::TheFile).collect());
        }
        let output = self.output.as_deref().with_context(|| {
            format!(
                "no place for the results was given\nhint: --output FILE ({}), or --in-place",
                formats.join(", ")
            )
        })?;
        if let [_] = files
            && !output.is_dir()
        {
            return Ok(vec![self.place(output, formats)?]);
        }
        ensure!(
            output.is_dir(),
            "{}: {} files are read, so this must be a folder that exists\nhint: mkdir it first",
            output.display(),
            files.len()
        );
        let mut places = Vec::new();
        for file in files {
            let name = file.file_name().unwrap_or_default();
            let place = self.place(&output.join(name), formats)?;
            ensure!(
                !places.contains(&place),
                "{}: two of the files have this name\nhint: run them one by one",
                Path::new(name).display()
            );
            places.push(place);
        }
        Ok(places)
    }

    fn place(&self, path: &Path, formats: &[&str]) -> Result<Place> {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let place = match extension {
            known if !formats.contains(&known) => bail!(
                "{}: the format is told by the name's end: expected one of {}\nhint: name a file \
                 such as cells.{}",
                path.display(),
                formats.join(", "),
                formats[0]
            ),
            "csv" => Place::Table(path.to_owned()),
            "npy" => Place::Npy(path.to_owned()),
            "parquet" => Place::Parquet(path.to_owned()),
            _ => Place::Copy(path.to_owned()),
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        ensure!(
            folder.is_none_or(Path::is_dir),
            "{}: its folder does not exist\nhint: mkdir it first, or correct the path",
            path.display()
        );
        ensure!(
            self.overwrite || !path.exists(),
            "{}: exists already\nhint: --overwrite replaces it",
            path.display()
        );
        Ok(place)
    }

    /// Adds to `file` itself, or to a copy of it.
    pub(super) fn add(&self, file: &Path, place: &Place, additions: &Additions) -> Result<()> {
        ensure!(
            !file.is_dir(),
            "{}: an archive cannot be added to, nor be copied as an h5ad file\n\
             hint: name an output of its own: .csv, .npy or .parquet",
            file.display()
        );
        match place {
            Place::Copy(path) => {
                add_to_copy(file, path, additions, self.overwrite)?;
                println!("{}", path.display());
            }
            _ => {
                add_in_place(file, additions, self.overwrite)?;
                println!("{}", file.display());
            }
        }
        Ok(())
    }
}
