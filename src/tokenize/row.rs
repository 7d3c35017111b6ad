//! One row of a source becomes the tokens of a cell.

use super::TokenizeError;
use super::bins::bin;
use super::bound::BoundSource;
use super::config::{Compat, UnknownPhenotype};
use super::order::{Expressed, keep_first};
use super::transform::Row;
use crate::cell::TokenizedCell;
use crate::vocab::{CLS, EOS, MASK, NO_GENE};

/// Names the random draws of a cell: its gene order, and what augments it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Run seed.
    pub seed: u64,
    /// Epoch.
    pub epoch: u64,
    /// The cell's index in the data set.
    pub cell: u64,
    /// Whether the cell is trained on, and so augmented where the settings say so.
    pub augments: bool,
}

impl BoundSource {
    /// The tokens of row `row`, whose non-zero values stand in ascending `columns`. `None`: the
    /// cell is to be left out, because a phenotype is unknown and the settings say `skip`.
    ///
    /// # Errors
    /// An unknown phenotype value, or a value that is negative or not finite; both with their
    /// place.
    pub fn tokenize(
        &self,
        row: u64,
        columns: &[u32],
        values: &[f32],
        draw: Draw,
    ) -> Result<Option<TokenizedCell>, TokenizeError> {
        let mut cell = TokenizedCell::default();
        let room = columns.len().min(self.max_length) + self.phenotypes.len() + 2;
        cell.input_ids.reserve_exact(room);
        cell.token_type_ids.reserve_exact(room);
        push(&mut cell, CLS, 0);
        if !self.push_phenotypes(row, &mut cell)? {
            return Ok(None);
        }
        let mut genes = self.expressed(row, columns, values, draw)?;
        cell.expressed = genes.iter().map(|e| e.gene).collect();
        if draw.augments && !self.augment.is_none() {
            // What augmenting took out is no gene that the cell does not express.
            let augments = false;
            let all = self.expressed(row, columns, values, Draw { augments, ..draw })?;
            cell.expressed.extend(all.iter().map(|e| e.gene));
            cell.expressed.sort_unstable();
            cell.expressed.dedup();
        }
        if !self.columns_ascend {
            cell.expressed.sort_unstable();
        }
        let keeps_eos = self.compat != Some(Compat::Perturbgene);
        let used = cell.input_ids.len() + usize::from(keeps_eos);
        let keep = self.max_length.saturating_sub(used).min(genes.len());
        keep_first(&mut genes, keep, self.order, self.ranks.as_deref(), draw);
        cell.input_ids
            .extend(genes.iter().map(|e| self.first_bin + e.bin));
        cell.token_type_ids
            .extend(genes.iter().map(|e| self.first_gene_type + e.gene));
        if keeps_eos || cell.input_ids.len() < self.max_length {
            push(&mut cell, EOS, 0);
        }
        Ok(Some(cell))
    }

    /// False: the cell is to be left out.
    fn push_phenotypes(&self, row: u64, cell: &mut TokenizedCell) -> Result<bool, TokenizeError> {
        for phenotype in &self.phenotypes {
            let token = match (phenotype.token(row), self.unknown) {
                (Some(token), _) => token,
                (None, UnknownPhenotype::Mask) => MASK,
                (None, UnknownPhenotype::Skip) => return Ok(false),
                (None, UnknownPhenotype::Error) => {
                    return Err(TokenizeError::UnknownValue {
                        source_path: self.source_path.clone(),
                        row,
                        column: phenotype.category.clone(),
                        value: phenotype.describe(row),
                    });
                }
            };
            push(cell, token, phenotype.token_type);
        }
        Ok(true)
    }

    /// The genes in bin 1 or above, in the order of the columns.
    fn expressed(
        &self,
        row: u64,
        columns: &[u32],
        values: &[f32],
        draw: Draw,
    ) -> Result<Vec<Expressed>, TokenizeError> {
        self.check_values(
            row,
            columns,
            values,
            "the run reads counts or their logs; give the \
             matrix that holds them with --matrix layers.NAME or raw.X, or --allow-scaled",
        )?;
        let mut changed = Row::default();
        let (mut columns, mut values) = (columns, values);
        let augments = draw.augments && !self.augment.is_none();
        if augments || !self.transform.is_none() {
            changed.columns.extend_from_slice(columns);
            changed.values.extend_from_slice(values);
            if augments {
                self.augment.apply(&mut changed, draw);
            }
            self.transform.apply(&mut changed, draw);
            (columns, values) = (&changed.columns, &changed.values);
            let hint = "the transform does not fit such values; --transform none leaves them";
            self.check_finite(row, columns, values, hint)?;
        }
        let (mut sorted, mut of_cell) = (Vec::new(), Vec::new());
        self.edges.cut(values, &mut sorted, &mut of_cell);
        let mut genes = Vec::with_capacity(columns.len());
        for (&column, &value) in columns.iter().zip(values) {
            let gene = self.columns[column as usize];
            if gene != NO_GENE {
                let bin = bin(value, self.edges.of(gene, &of_cell));
                if bin > 0 {
                    genes.push(Expressed { gene, bin, value });
                }
            }
        }
        Ok(genes)
    }

    fn check_values(
        &self,
        row: u64,
        columns: &[u32],
        values: &[f32],
        hint: &'static str,
    ) -> Result<(), TokenizeError> {
        if !self.allow_scaled
            && let Some(at) = values.iter().position(|&value| value < 0.0)
        {
            return Err(self.bad_value(row, columns[at], values[at], "negative", hint));
        }
        self.check_finite(
            row,
            columns,
            values,
            "correct the file; a missing value cannot be read",
        )
    }

    fn check_finite(
        &self,
        row: u64,
        columns: &[u32],
        values: &[f32],
        hint: &'static str,
    ) -> Result<(), TokenizeError> {
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.bad_value(row, columns[at], values[at], "not finite", hint)),
            None => Ok(()),
        }
    }

    fn bad_value(
        &self,
        row: u64,
        column: u32,
        value: f32,
        problem: &'static str,
        hint: &'static str,
    ) -> TokenizeError {
        let gene = match self.gene_names.get(column as usize) {
            Some(name) => name.clone(),
            None => format!("of column {column}"),
        };
        TokenizeError::Value {
            source_path: self.source_path.clone(),
            row,
            gene,
            value,
            problem,
            hint,
        }
    }
}

fn push(cell: &mut TokenizedCell, token: u32, token_type: u32) {
    cell.input_ids.push(token);
    cell.token_type_ids.push(token_type);
}
