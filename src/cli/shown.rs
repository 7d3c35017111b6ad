//! Which flags of a run the help of other subcommands shows: they accept them all, so that the
//! line of a run can be used as it is, but most would only be in the way.

/// Settings that concern the tokens of a cell.
const TOKENS: [&str; 21] = [
    "config",
    "layer",
    "matrix",
    "gene_id_column",
    "gene_map",
    "min_gene_overlap",
    "allow_scaled",
    "train_data_paths",
    "bin_edges",
    "bin_edges_path",
    "quantile_bins",
    "transform",
    "vocab_path",
    "included_phenotypes",
    "unknown_phenotype",
    "max_length",
    "gene_ranking",
    "num_top_genes",
    "gene_order",
    "compat",
    "pretrained_model_path",
];

/// Hides the flags of a run (those under a help heading) that do not concern tokens.
pub(super) fn tokens_only(arg: clap::Arg) -> clap::Arg {
    let of_run = arg.get_help_heading().is_some();
    let hidden = of_run && !TOKENS.contains(&arg.get_id().as_str());
    arg.hide(hidden)
}

/// Settings that concern masks.
const MASKS: [&str; 4] = [
    "gene_mask_prob",
    "phenotype_mask_prob",
    "absent_gene_sampling",
    "seed",
];

/// Hides the flags of a run that concern neither tokens nor masks.
pub(super) fn tokens_and_masks(arg: clap::Arg) -> clap::Arg {
    if MASKS.contains(&arg.get_id().as_str()) {
        return arg;
    }
    tokens_only(arg)
}

/// Settings that concern a vocabulary.
const VOCABULARY: [&str; 10] = [
    "config",
    "layer",
    "matrix",
    "gene_id_column",
    "gene_map",
    "bin_edges",
    "bin_edges_path",
    "quantile_bins",
    "gene_ranking",
    "compat",
];
/// Settings that a vocabulary does not come from, though their names sound like it.
const NOT_ITS_OWN: [&str; 4] = [
    "included_phenotypes",
    "output_dir",
    "train_data_paths",
    "vocab_path",
];

/// Hides the flags of a run that do not concern a vocabulary, and refuses those that could be
/// mistaken for one of its own.
pub(super) fn vocabulary_only(arg: clap::Arg) -> clap::Arg {
    let id = arg.get_id().as_str().to_owned();
    let of_run = arg.get_help_heading().is_some();
    let hidden = of_run && !VOCABULARY.contains(&id.as_str());
    if NOT_ITS_OWN.contains(&id.as_str()) {
        return arg.hide(hidden).conflicts_with("files");
    }
    arg.hide(hidden)
}
