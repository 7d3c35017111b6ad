//! Where the linker finds CUDA's libraries if the feature `cuda` is on; otherwise does nothing.
//!
//! `scripts/cuda-toolkit` makes archives that stand in for them, so that the program starts without.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=scripts/cuda/build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-env-changed=GENE_BERT_CUDA_LOADERS");
    if let Ok(folder) = env::var("GENE_BERT_CUDA_LOADERS") {
        println!("cargo:rustc-link-search=native={folder}");
    }
}
