//! `report.html`: one file for the eye, without scripts, without anything from elsewhere.
//!
//! A page is put together from sections: what matters at a glance, a section per obs column and
//! setting ([`columns`]), the run's own curves ([`training`]), the map of embeddings ([`map`]),
//! settings. [`crate::page`] has the parts that other pages have, too.

mod charts;
mod columns;
mod map;
mod page;
mod training;

pub use page::{Report, page};
pub use training::Training;
