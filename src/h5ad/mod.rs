//! AnnData (h5ad) files of any encoding, as row blocks and obs columns.
