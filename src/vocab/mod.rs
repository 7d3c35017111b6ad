//! Genes and phenotype values ↔ frozen ids.
