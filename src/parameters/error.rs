//! What can be wrong with a file of weights.

use std::path::PathBuf;

use crate::file::FileError;

/// A file of weights that cannot be read, or that does not fit the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a safetensors file, or a damaged one.
    #[error("{}: not a readable safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: candle_core::Error,
    },
    /// Tensors have other shapes than the model's.
    #[error("{}: {} of the model's tensors have another shape there:\n{}\n\
             hint: the file belongs to a model of another size or vocabulary; \
             use the config.json and tokenizer.json saved beside it",
            path.display(), mismatches.len(), lines(mismatches))]
    Shapes {
        /// The file.
        path: PathBuf,
        /// One line per tensor: name, shape in the file, shape expected.
        mismatches: Vec<String>,
    },
    /// Tensors that the model needs are not in the file.
    #[error("{}: {} of the model's tensors are missing there:\n{}\n\
             hint: the file belongs to a model of another kind or depth",
            path.display(), names.len(), lines(names))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A tensor operation failed.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

/// The first ten, one per line.
fn lines(names: &[String]) -> String {
    let mut text: Vec<String> = names.iter().take(10).map(|n| format!("  {n}")).collect();
    if names.len() > 10 {
        text.push(format!("  … and {} more", names.len() - 10));
    }
    text.join("\n")
}
