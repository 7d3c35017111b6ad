//! How a ranking reads on the screen.

use std::fmt;

use super::order::Ranking;

/// Genes and batches named.
const NAMED: usize = 10;

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = self.genes.iter().filter(|gene| gene.highly_variable);
        writeln!(
            f,
            "{} cells of {} files, {} genes, {} of them highly variable",
            self.num_cells,
            self.num_files,
            self.genes.len(),
            top.clone().count()
        )?;
        let is_divided = self.batches.iter().any(|(name, _)| !name.is_empty());
        if is_divided {
            let named = self.batches.iter().take(NAMED);
            let named: Vec<String> = named
                .map(|(name, cells)| format!("{name} ({cells} cells)"))
                .collect();
            let (number, more) = (self.batches.len(), more(self.batches.len()));
            writeln!(f, "{number} batches: {}{more}", named.join(", "))?;
        }
        let first: Vec<&str> = top.take(NAMED).map(|gene| gene.gene.as_str()).collect();
        writeln!(
            f,
            "the first: {}{}",
            first.join(", "),
            more(self.genes.len())
        )
    }
}

fn more(number: usize) -> &'static str {
    if number > NAMED { ", …" } else { "" }
}
