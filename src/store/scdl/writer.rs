//! An archive that is written, block of rows by block of rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::error::ScdlError;
use super::features::{Block, Columns, Feature, file_names, write_blocks};
use super::header::{Entry, Header, ScalarType};
use super::{ARRAYS, CELL_NAMES, GENE_IDS, HEADER, OBS, VAR, VERSION};
use crate::file::{StagedDir, write_synced};

const BUFFER_BYTES: usize = 4 << 20;

/// An archive under construction: it appears under its name when it is finished.
#[derive(Debug)]
pub struct ScdlWriter {
    folder: StagedDir,
    values: BufWriter<File>,
    columns: BufWriter<File>,
    scalar: ScalarType,
    column_scalar: ScalarType,
    starts: Vec<u64>,
    var: Vec<Block>,
    obs: Vec<Block>,
}

impl ScdlWriter {
    /// Begins the archive `target`, of values of `scalar` and at most `most_genes` genes in a row.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(target: &Path, scalar: ScalarType, most_genes: usize) -> Result<Self, ScdlError> {
        let folder = StagedDir::new(target)?;
        let create = |name: &str| -> Result<BufWriter<File>, ScdlError> {
            let path = folder.path().join(name);
            let file = File::create(&path).map_err(ScdlError::io("create it", &path))?;
            Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
        };
        let (values, columns) = (create(ARRAYS[0].1)?, create(ARRAYS[2].1)?);
        Ok(Self {
            folder,
            values,
            columns,
            scalar,
            column_scalar: ScalarType::narrowest(most_genes.saturating_sub(1) as u64),
            starts: vec![0],
            var: Vec::new(),
            obs: Vec::new(),
        })
    }

    /// Appends rows of `lengths` entries each: `columns` as bytes of `i32`, `values` as bytes of
    /// the archive's type, both little-endian.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(
        &mut self,
        lengths: &[u32],
        columns: &[u8],
        values: &[u8],
    ) -> Result<(), ScdlError> {
        let mut end = self.starts.last().copied().unwrap_or(0);
        self.starts.extend(lengths.iter().map(|len| {
            end += u64::from(*len);
            end
        }));
        let size = self.column_scalar.size();
        let columns: Vec<u8> = match size {
            4 => columns.to_vec(),
            _ => {
                let wide = columns.as_chunks::<4>().0.iter();
                wide.flat_map(|column| column.iter().take(size).copied())
                    .collect()
            }
        };
        self.write(&columns, values)
            .map_err(ScdlError::io("write to it", self.folder.path()))
    }

    fn write(&mut self, columns: &[u8], values: &[u8]) -> std::io::Result<()> {
        self.columns.write_all(columns)?;
        self.values.write_all(values)
    }

    /// Ends a run of rows that come from `label` and share their genes: `gene_ids` and what else is
    /// told of genes, `cell_names` and what else is told of its cells.
    pub fn end_block(
        &mut self,
        label: &str,
        (gene_ids, mut var): (Vec<String>, Vec<(String, Feature)>),
        (cell_names, mut obs): (Vec<String>, Vec<(String, Feature)>),
    ) {
        let num_rows = cell_names.len() as u64;
        let named = |name: &str, names: Vec<String>, columns: &mut Columns| {
            columns.retain(|(column, _)| column != name);
            let names = Feature::Texts(names.into_iter().map(Some).collect());
            columns.insert(0, (name.to_owned(), names));
        };
        named(GENE_IDS, gene_ids, &mut var);
        named(CELL_NAMES, cell_names, &mut obs);
        let block = |columns| Block {
            columns,
            num_rows,
            label: label.to_owned(),
        };
        match self.var.last_mut() {
            Some(last) if last.columns == var => last.num_rows += num_rows,
            _ => self.var.push(block(var)),
        }
        self.obs.push(block(obs));
    }

    /// Writes what is left and gives the archive its name.
    ///
    /// # Errors
    /// The disk is full; rows that belong to no block, or none at all.
    pub fn finish(mut self) -> Result<(), ScdlError> {
        let target = self.folder.path().to_owned();
        let num_rows = self.starts.len() as u64 - 1;
        let told: u64 = self.obs.iter().map(|block| block.num_rows).sum();
        let num_values = self.starts.last().copied().unwrap_or(0);
        if told != num_rows || num_values == 0 {
            let what = format!(
                "{num_rows} rows with {num_values} values, {told} of them in tables\n\
                 hint: an archive needs at least one value"
            );
            return Err(ScdlError::invalid(&target, what));
        }
        for (writer, name) in [
            (&mut self.values, ARRAYS[0].1),
            (&mut self.columns, ARRAYS[2].1),
        ] {
            let synced = writer.flush().and_then(|()| writer.get_ref().sync_all());
            synced.map_err(ScdlError::io("write it", &target.join(name)))?;
        }
        let start_scalar = ScalarType::narrowest(num_values);
        let size = start_scalar.size();
        let bytes = |start: &u64| start.to_le_bytes().into_iter().take(size);
        let starts: Vec<u8> = self.starts.iter().flat_map(bytes).collect();
        write_synced(&target.join(ARRAYS[1].1), &starts)?;
        let array = |name: &str, len, scalar| Entry {
            name: name.to_owned(),
            len,
            scalar: Some(scalar),
            files: Vec::new(),
        };
        let mut header = Header {
            arrays: vec![
                array(ARRAYS[0].0, num_values, self.scalar),
                array(ARRAYS[1].0, num_rows + 1, start_scalar),
                array(ARRAYS[2].0, num_values, self.column_scalar),
            ],
            tables: Vec::new(),
        };
        for (name, blocks) in [(VAR, &self.var), (OBS, &self.obs)] {
            write_blocks(&target.join(name), blocks, VERSION)?;
            header.tables.push(Entry {
                name: name.to_owned(),
                len: num_rows,
                scalar: None,
                files: file_names(name, blocks.len()),
            });
        }
        let metadata = format!("{{\"num_rows\": {num_rows}}}");
        write_synced(&target.join("metadata.json"), metadata.as_bytes())?;
        write_synced(
            &target.join("version.json"),
            format!("\"{VERSION}\"").as_bytes(),
        )?;
        write_synced(&target.join(HEADER), &header.to_bytes())?;
        Ok(self.folder.commit()?)
    }
}
