//! What `inspect` tells about a file, as data and as text.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// A column of more numbers than this shows their range instead of the most frequent.
const MOST_NUMBERS_SHOWN: usize = 10;

/// Everything there is to know about a file before training on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Rows of X.
    pub num_cells: u64,
    /// Columns of X.
    pub num_genes: u64,
    /// Which generation of anndata wrote it.
    pub encoding: String,
    /// Bytes before the HDF5 part; 0 in most files.
    pub user_block_bytes: u64,
    /// X, the layers, raw.X.
    pub matrices: Vec<MatrixReport>,
    /// Which matrices hold integer counts.
    pub counts_in: Vec<String>,
    /// The gene ids.
    pub genes: GeneReport,
    /// The columns of obs.
    pub obs: Vec<ColumnReport>,
    /// Everything that is wrong or unusual.
    pub problems: Vec<String>,
}

/// One matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixReport {
    /// `X`, `layers.<name>` or `raw.X`.
    pub name: String,
    /// csr_matrix, csc_matrix or array.
    pub encoding: String,
    /// Rows and columns.
    pub shape: (u64, u64),
    /// The type of the values.
    pub value_type: String,
    /// The type of the indices of a sparse matrix.
    pub index_type: Option<String>,
    /// The shape of a chunk of values; empty where they lie in one piece.
    pub chunks: Vec<u64>,
    /// The filters of the values; empty where they are not compressed.
    pub compression: String,
    /// What the values are.
    pub values: ValueKind,
    /// The smallest and the largest finite value, zeros that are not stored not counted.
    pub range: Option<(f32, f32)>,
    /// Non-zeros of all cells.
    pub num_nonzero: u64,
    /// Non-zeros of a cell.
    pub nonzero_per_cell: Option<Spread>,
}

/// What a matrix holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueKind {
    /// Nothing but zeros.
    Empty,
    /// Whole numbers, none negative.
    IntegerCounts,
    /// Small numbers with fractions: logarithms.
    Log,
    /// Larger numbers with fractions: normalized, or expected counts.
    Fractional,
    /// Some are negative: scaled or centred.
    Negative,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueKind::Empty => "nothing but zeros",
            ValueKind::IntegerCounts => "integer counts",
            ValueKind::Log => "log-transformed (small, with fractions)",
            ValueKind::Fractional => "not whole and not logarithms (normalized or expected counts)",
            ValueKind::Negative => "scaled or centred (some are negative)",
        })
    }
}

/// The least, the middle and the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: u32,
    /// The middle (the lower one of two).
    pub median: u32,
    /// The most.
    pub max: u32,
}

/// The gene ids of var.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GeneReport {
    /// The name of var's index.
    pub index: Option<String>,
    /// What its entries look like.
    pub style: GeneStyle,
    /// The first few.
    pub first: Vec<String>,
    /// Columns of var that hold Ensembl ids.
    pub ensembl_columns: Vec<String>,
    /// All columns of var.
    pub columns: Vec<String>,
}

/// What gene ids look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneStyle {
    /// ENSG00000139618.
    Ensembl,
    /// ENSG00000139618.2.
    EnsemblWithVersion,
    /// BRCA2.
    Symbols,
    /// Numbers, regions, anything else.
    #[default]
    Other,
}

impl fmt::Display for GeneStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GeneStyle::Ensembl => "Ensembl ids",
            GeneStyle::EnsemblWithVersion => "Ensembl ids with version",
            GeneStyle::Symbols => "symbols",
            GeneStyle::Other => "neither Ensembl ids nor symbols",
        })
    }
}

/// One column of obs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// categories, text, integers, booleans or floats.
    pub kind: &'static str,
    /// Distinct values (categories, for categories).
    pub num_values: usize,
    /// Cells without a value.
    pub num_missing: usize,
    /// The least and the most, of numbers.
    pub range: Option<(f64, f64)>,
    /// The first few values and how many cells have each, the most frequent first.
    pub first: Vec<(String, usize)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        writeln!(
            f,
            "  {} cells x {} genes, {} bytes",
            self.num_cells, self.num_genes, self.bytes
        )?;
        writeln!(f, "  written by {}", self.encoding)?;
        if self.user_block_bytes > 0 {
            writeln!(f, "  user block of {} bytes", self.user_block_bytes)?;
        }
        for matrix in &self.matrices {
            write!(f, "{matrix}")?;
        }
        match self.counts_in.as_slice() {
            [] => writeln!(f, "  integer counts: nowhere")?,
            names => writeln!(f, "  integer counts: {}", names.join(", "))?,
        }
        write!(f, "{}", self.genes)?;
        writeln!(f, "  obs: {} columns", self.obs.len())?;
        for column in &self.obs {
            writeln!(f, "    {column}")?;
        }
        match self.problems.as_slice() {
            [] => writeln!(f, "  problems: none found"),
            problems => {
                writeln!(f, "  problems:")?;
                problems
                    .iter()
                    .try_for_each(|problem| writeln!(f, "    - {problem}"))
            }
        }
    }
}

impl fmt::Display for MatrixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = self.shape;
        write!(
            f,
            "  {}: {} {rows} x {columns} of {}",
            self.name, self.encoding, self.value_type
        )?;
        if let Some(index) = &self.index_type {
            write!(f, " at {index}")?;
        }
        let chunks: Vec<String> = self.chunks.iter().map(u64::to_string).collect();
        match chunks.as_slice() {
            [] => write!(f, ", in one piece")?,
            chunks => write!(f, ", chunks of {}", chunks.join(" x "))?,
        }
        match self.compression.as_str() {
            "" => writeln!(f, ", not compressed")?,
            filters => writeln!(f, ", {filters}")?,
        }
        write!(f, "    values: {}", self.values)?;
        if let Some((least, most)) = self.range {
            write!(f, ", {least} to {most}")?;
        }
        writeln!(f)?;
        let Some(spread) = self.nonzero_per_cell else {
            return Ok(());
        };
        let (total, Spread { min, median, max }) = (self.num_nonzero, spread);
        writeln!(
            f,
            "    non-zeros: {total}; per cell {min} to {max}, median {median}"
        )
    }
}

impl fmt::Display for GeneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index.as_deref().unwrap_or("none");
        write!(f, "  genes: {} (var index {index:?}", self.style)?;
        if !self.first.is_empty() {
            write!(f, ": {}, ...", self.first.join(", "))?;
        }
        writeln!(f, ")")?;
        if !self.ensembl_columns.is_empty() {
            writeln!(
                f,
                "    Ensembl ids in var: {}",
                self.ensembl_columns.join(", ")
            )?;
        }
        if !self.columns.is_empty() {
            writeln!(f, "    var columns: {}", self.columns.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for ColumnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.num_values, self.kind)?;
        if self.num_missing > 0 {
            write!(f, ", {} missing", self.num_missing)?;
        }
        if let Some((least, most)) = self.range.filter(|_| self.num_values > MOST_NUMBERS_SHOWN) {
            return write!(f, ": {least} to {most}");
        }
        let shown: Vec<String> = self
            .first
            .iter()
            .map(|(value, cells)| format!("{value} ({cells})"))
            .collect();
        if shown.is_empty() {
            return Ok(());
        }
        let more = if self.num_values > shown.len() {
            ", ..."
        } else {
            ""
        };
        write!(f, ": {}{more}", shown.join(", "))
    }
}
