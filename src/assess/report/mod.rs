//! `report.html`: one file for the eye, without scripts, without anything from elsewhere.
//!
//! A page is put together from sections: what matters at a glance, a section per obs column and
//! setting ([`columns`]), the run's own curves ([`training`]), the map of embeddings ([`map`]),
//! settings. Charts are SVG ([`svg`], [`charts`]); colours follow the reader's light or dark mode
//! by CSS alone.

mod charts;
mod columns;
mod html;
mod map;
mod page;
mod svg;
mod training;

pub use page::{Report, page};
pub use training::Training;
