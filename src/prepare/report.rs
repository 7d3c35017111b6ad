//! How a vocabulary built from files reads on the screen.

use std::fmt;

use super::columns::ColumnCounts;
use super::vocabulary::Built;

/// Values named of each category.
const NAMED: usize = 8;

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (category, tokens) in self.phenotypes.categories() {
            let started = self.started_with.get(category).copied();
            write!(f, "{category}: {} tokens", tokens.len())?;
            if let Some(started) = started {
                write!(f, ", {} of them new", tokens.len() - started)?;
            }
            match self.columns.iter().find(|c| c.column == category) {
                Some(counts) => write_counts(f, counts)?,
                None => writeln!(f, "; not counted in the files")?,
            }
        }
        self.write_genes(f)
    }
}

impl Built {
    fn write_genes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "genes: {}", self.genes.len())?;
        let is_ranked = self.genes.ranks().is_some();
        f.write_str(if is_ranked {
            ", ranked"
        } else {
            ", without ranks"
        })?;
        if self.files.len() > 1 {
            let (files, common) = (self.files.len(), self.num_common_genes);
            write!(f, "; {common} genes stand in each of the {files} files")?;
        }
        writeln!(f)?;
        for (path, num_cells, genes) in &self.files {
            writeln!(f, "  {}: {num_cells} cells, {genes}", path.display())?;
        }
        Ok(())
    }
}

fn write_counts(f: &mut fmt::Formatter<'_>, counts: &ColumnCounts) -> fmt::Result {
    let found = counts.tokens.len();
    let named: Vec<String> = counts
        .tokens
        .iter()
        .take(NAMED)
        .map(|(token, cells)| format!("{token} ({cells})"))
        .collect();
    let more = if found > NAMED { ", …" } else { "" };
    match found {
        0 => f.write_str("; none in the files")?,
        _ => write!(f, "; {found} in the files: {}{more}", named.join(", "))?,
    }
    for (cells, what) in [
        (counts.missing, "without a value"),
        (counts.left_out, "with a value left out"),
    ] {
        if cells > 0 {
            write!(f, "; {cells} cells {what}")?;
        }
    }
    writeln!(f)
}
