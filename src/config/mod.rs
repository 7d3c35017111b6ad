//! `RunConfig`.
