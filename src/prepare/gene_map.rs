//! What the genes of files are called elsewhere: symbols to Ensembl ids, or back.
//!
//! Names come from a table of the user's, and from the files themselves: many have symbols in the
//! index of var and Ensembl ids in a column, or the other way round. A gene that the table names is
//! called so; what files say counts for the rest, all files together, so that a file that has
//! both serves those that have one. A name is taken only if it is the only one: a symbol of two
//! Ensembl ids is told as ambiguous and keeps its name. Version suffixes of Ensembl ids are dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::gene_sets::SYMBOL_COLUMNS;
use super::{GenesError, PrepareError};
use crate::cell::CellSource;
use crate::file::{TableWriter, expand_paths, read_table};
use crate::h5ad::{GENE_MAP_COLUMNS, GeneStyle, H5ad, OpenOptions, VarColumn, gene_style};
use crate::vocab::canonical_gene_id;

/// What genes shall be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Ensembl ids without version.
    Ensembl,
    /// Symbols: whatever is no Ensembl id.
    Symbol,
}

impl Naming {
    /// Whether an id is of this kind.
    fn includes(self, id: &str) -> bool {
        let style = gene_style(id);
        let ensembl = matches!(style, GeneStyle::Ensembl | GeneStyle::EnsemblWithVersion);
        !id.is_empty() && ensembl == (self == Self::Ensembl)
    }
}

/// Which genes, and where their names are.
#[derive(Debug, Clone)]
pub struct Request {
    /// Patterns of h5ad files.
    pub files: Vec<String>,
    /// Where their gene ids are.
    pub open: OpenOptions,
    /// What the genes shall be called.
    pub to: Naming,
    /// A table in whose lines symbols and Ensembl ids stand side by side.
    pub table: Option<PathBuf>,
}

/// A gene of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Its id there, without version.
    pub gene: String,
    /// What it is called: no name, one, or several that are all refused.
    pub names: Vec<String>,
    /// Whether that is its id already.
    pub same: bool,
}

/// All genes of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// In the order in which the files have them.
    pub genes: Vec<Mapped>,
    /// The places in `genes` of each file's columns; files that have the same are told once.
    lists: HashSet<Vec<usize>>,
    /// Files read.
    pub num_files: usize,
}

/// Names of each gene, in both directions.
#[derive(Debug, Default)]
struct Names(HashMap<String, BTreeSet<String>>);

impl Names {
    fn add(&mut self, to: Naming, one: &str, other: &str) {
        let (one, other) = (canonical_gene_id(one), canonical_gene_id(other));
        for (from, name) in [(one, other), (other, one)] {
            if to.includes(name) && !to.includes(from) && !from.is_empty() {
                self.0
                    .entry(from.to_owned())
                    .or_default()
                    .insert(name.to_owned());
            }
        }
    }

    fn of(&self, gene: &str) -> Option<Vec<String>> {
        self.0
            .get(gene)
            .map(|names| names.iter().cloned().collect())
    }
}

/// Looks at the genes of all files, and names them.
///
/// # Errors
/// Files or a table that cannot be read; a table without a name of the kind asked for.
pub fn map_genes(request: &Request) -> Result<Map, PrepareError> {
    let table = match &request.table {
        Some(path) => names_in_table(path, request.to)?,
        None => Names::default(),
    };
    let (mut places, mut genes, mut names) = (HashMap::new(), Vec::new(), Names::default());
    let mut lists = HashSet::new();
    let paths = expand_paths(&request.files)?;
    for path in &paths {
        let file = H5ad::open(path, &request.open)?;
        let ids = file.gene_ids().iter().map(|id| canonical_gene_id(id));
        let list = ids.map(|id| {
            *places.entry(id.to_owned()).or_insert_with(|| {
                genes.push(id.to_owned());
                genes.len() - 1
            })
        });
        lists.insert(list.collect::<Vec<_>>());
        names_in_file(&file, request.to, &mut names)?;
        if request.open.gene_id_column.is_some() {
            let by_index = OpenOptions {
                gene_id_column: None,
                ..request.open.clone()
            };
            let index = H5ad::open(path, &by_index)?;
            for (id, name) in file.gene_ids().iter().zip(index.gene_ids()) {
                names.add(request.to, id, name);
            }
        }
    }
    let genes = genes.into_iter().map(|gene| {
        let same = request.to.includes(&gene) && table.of(&gene).is_none();
        let names = match same {
            true => vec![gene.clone()],
            false => table
                .of(&gene)
                .or_else(|| names.of(&gene))
                .unwrap_or_default(),
        };
        Mapped { gene, names, same }
    });
    Ok(Map {
        genes: genes.collect(),
        lists,
        num_files: paths.len(),
    })
}

/// Every pair of fields of a line, one of which is of the kind asked for.
fn names_in_table(path: &Path, to: Naming) -> Result<Names, PrepareError> {
    let mut names = Names::default();
    for row in read_table(path)? {
        for (at, one) in row.iter().enumerate() {
            for other in row.iter().skip(at + 1) {
                names.add(to, one, other);
            }
        }
    }
    if names.0.is_empty() {
        return Err(GenesError::NoNames {
            path: path.to_owned(),
        }
        .into());
    }
    Ok(names)
}

/// The gene ids beside the columns of var that hold symbols or Ensembl ids.
fn names_in_file(file: &H5ad, to: Naming, names: &mut Names) -> Result<(), PrepareError> {
    for column in file.var_column_names() {
        let known = SYMBOL_COLUMNS.contains(&column.as_str());
        let VarColumn::Texts(texts) = file.var_column(column)? else {
            continue;
        };
        let ensembl = |text: &&str| Naming::Ensembl.includes(text);
        let filled = texts.iter().flatten().map(String::as_str);
        let count = filled.clone().filter(ensembl).count();
        let holds_ensembl = 2 * count > filled.count();
        if known || holds_ensembl {
            for (id, text) in file.gene_ids().iter().zip(&texts) {
                names.add(to, id, text.as_deref().unwrap_or(""));
            }
        }
    }
    Ok(())
}

impl Map {
    /// Writes the table: gene, mapped_to (empty unless there is one name), status, candidates.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PrepareError> {
        let [gene, mapped_to] = GENE_MAP_COLUMNS;
        let mut table = TableWriter::new(path, &[gene, mapped_to, "status", "candidates"])?;
        for gene in &self.genes {
            let (mapped_to, candidates) = match gene.names.as_slice() {
                [name] => (name.as_str(), String::new()),
                names => ("", names.join(" ")),
            };
            table.row([&gene.gene, mapped_to, gene.status(), &candidates])?;
        }
        Ok(table.finish()?)
    }

    /// Genes with this status.
    pub fn with_status(&self, status: &str) -> impl Iterator<Item = &Mapped> {
        self.genes
            .iter()
            .filter(move |gene| gene.status() == status)
    }

    /// Names that several genes of one file got, with those genes: only the first of them is
    /// read from it.
    pub fn repeated(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut repeated: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for list in &self.lists {
            let mut first = HashMap::new();
            for gene in list.iter().filter_map(|&place| self.genes.get(place)) {
                let name = gene.names.first().filter(|_| gene.names.len() == 1);
                let name = name.unwrap_or(&gene.gene).as_str();
                let other = *first.entry(name).or_insert(gene.gene.as_str());
                if other != gene.gene {
                    repeated
                        .entry(name)
                        .or_default()
                        .extend([other, &gene.gene]);
                }
            }
        }
        repeated
    }
}

impl Mapped {
    /// `same`, `mapped`, `missing` or `ambiguous`.
    pub fn status(&self) -> &'static str {
        match (self.same, self.names.len()) {
            (true, _) => "same",
            (_, 0) => "missing",
            (_, 1) => "mapped",
            _ => "ambiguous",
        }
    }
}
