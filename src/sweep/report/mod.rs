//! `study.html`: what came of a study, in one file for the eye.
//!
//! Sections: the best trial, the way there, the best trials' curves, parallel coordinates
//! ([`coordinates`]), the importance of parameters, and the table of all trials, which a small
//! script sorts. Without the script all of it is still there.

mod charts;
mod coordinates;
mod page;
mod table;

use anyhow::Result;

use super::folder::{PAGE, StudyFolder};
use crate::file::write_atomic;

/// Writes `study.csv` and `study.html`.
///
/// # Errors
/// The disk is full.
pub fn write(folder: &StudyFolder) -> Result<()> {
    folder.write_table()?;
    let page = page::page(folder);
    Ok(write_atomic(&folder.path.join(PAGE), page.as_bytes())?)
}
