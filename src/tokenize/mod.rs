//! Cell + vocabulary + settings → tokens, purely.
//!
//! [`TokenizeConfig`] says how; [`Tokenizer`] checks it against a vocabulary once;
//! [`Tokenizer::bind`] matches a source's genes (by id, never by position) and phenotype values
//! with it; [`BoundSource::tokenize`] then makes `[CLS]`, phenotypes, genes, `[EOS]` of a row.
//! Steps of a row: [`Transform`] of the values, binning ([`Bins`]), gene order, truncation.
//!
//! Knows no file format and no masks. To add a transform: a file in `transform/` and a line in
//! its enum.

mod bins;
mod bound;
mod config;
mod error;
mod matching;
mod order;
mod row;
mod transform;

pub use bins::Bins;
pub use bound::{BoundSource, Tokenizer};
pub use config::{Compat, GeneOrder, TokenizeConfig, UnknownPhenotype};
pub use error::TokenizeError;
pub use matching::GeneMatch;
pub use row::Draw;
pub use transform::{BoundTransform, Needs, Row, Transform};
