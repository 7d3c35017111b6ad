//! Compiles the CUDA kernels where the feature `cuda` asks for it; otherwise does nothing.
//!
//! Each `src/kernels/cuda/*.cu` becomes a fatbin in `OUT_DIR`: machine code for sm_90 and PTX for
//! what comes after, those for Hopper alone machine code for sm_90a. nvcc is the one on `PATH`, or `NVCC`; `scripts/cuda-toolkit` fetches one.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

const SOURCES: &str = "src/kernels/cuda";
const TARGETS: &str = "-gencode=arch=compute_90,code=[sm_90,compute_90]";
const HOPPER: &str = "-gencode=arch=compute_90a,code=sm_90a";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=scripts/cuda/build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-changed={SOURCES}");
    println!("cargo:rerun-if-env-changed=NVCC");
    println!("cargo:rerun-if-env-changed=GENE_BERT_CUDA_LOADERS");
    if let Ok(folder) = env::var("GENE_BERT_CUDA_LOADERS") {
        println!("cargo:rustc-link-search=native={folder}");
    }
    let mut sources: Vec<PathBuf> = std::fs::read_dir(SOURCES)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    sources.retain(|path| path.extension().is_some_and(|kind| kind == "cu"));
    sources.iter().try_for_each(compile)
}

fn compile(source: &PathBuf) -> io::Result<()> {
    let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    let name = source.file_stem().unwrap_or_default();
    let is_hopper = name.to_string_lossy().ends_with("_hopper");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let status = Command::new(&nvcc)
        .args([
            "--fatbin",
            "-O3",
            "-std=c++17",
            "--expt-relaxed-constexpr",
            if is_hopper { HOPPER } else { TARGETS },
        ])
        .arg(source)
        .arg("-o")
        .arg(out.join(name).with_extension("fatbin"))
        .status()
        .map_err(|error| {
            let hint = "hint: eval \"$(scripts/cuda-toolkit)\" gets one";
            io::Error::other(format!(
                "the feature `cuda` needs nvcc ({nvcc}): {error}\n{hint}"
            ))
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "nvcc refused {}",
            source.display()
        ))),
    }
}
