//! Jobs on data.
