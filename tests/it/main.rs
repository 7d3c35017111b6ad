//! The integration tests: goldens, and the real command in a fresh folder.

mod bad_run;
mod bad_use;
mod classify;
mod folder;
mod genes_rank;
mod golden_genes;
mod golden_metrics;
mod golden_model;
mod golden_tokenize;
mod hostile_h5ad;
mod infer;
mod info;
mod layering;
mod loading;
mod long_line;
mod memory;
mod model;
mod orders;
mod pretrain;
mod quickstart;
mod shared;
mod tokens;
mod torture;
mod unknown_filter;
mod values;
mod vocab;
