//! Which flags of a run the help of other subcommands shows: they accept them all, so that the
//! line of a run can be used as it is, but most would only be in the way.

/// Settings that concern the tokens of a cell.
const TOKENS: [&str; 17] = [
    "config",
    "layer",
    "matrix",
    "gene_id_column",
    "gene_map",
    "min_gene_overlap",
    "allow_scaled",
    "bin_edges",
    "bin_edges_path",
    "quantile_bins",
    "transform",
    "included_phenotypes",
    "unknown_phenotype",
    "max_length",
    "num_top_genes",
    "gene_order",
    "compat",
];
/// Settings that say where genes and phenotypes are known from.
const KNOWN_FROM: [&str; 4] = [
    "train_data_paths",
    "vocab_path",
    "gene_ranking",
    "pretrained_model_path",
];

/// Hides the flags of a run (those under a help heading) that are in none of the lists.
fn only(arg: clap::Arg, lists: &[&[&str]]) -> clap::Arg {
    let of_run = arg.get_help_heading().is_some();
    let id = arg.get_id().as_str();
    let hidden = of_run && !lists.iter().any(|names| names.contains(&id));
    arg.hide(hidden)
}

/// Hides the flags of a run that do not concern tokens.
pub(super) fn tokens_only(arg: clap::Arg) -> clap::Arg {
    only(arg, &[&TOKENS, &KNOWN_FROM])
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
    only(arg, &[&TOKENS, &KNOWN_FROM, &MASKS])
}

/// Settings that concern which cells come when.
const ORDER: [&str; 9] = [
    "augment",
    "balance_by",
    "block_cells",
    "buffer_cells",
    "group_by",
    "remainder",
    "shuffle",
    "threads",
    "weight_by",
];

/// Hides the flags of a run that change nothing in how fast cells are read.
pub(super) fn for_reading(arg: clap::Arg) -> clap::Arg {
    let batch = ["per_device_train_batch_size"];
    only(arg, &[&TOKENS, &MASKS, &ORDER, &batch])
}

/// Settings that concern what a step of training computes.
const STEPS: [&str; 11] = [
    "attention_probs_dropout_prob",
    "dataloader_num_workers",
    "device",
    "dtype",
    "hidden_dropout_prob",
    "model_arch",
    "num_attention_heads",
    "num_hidden_layers",
    "pretrained_model_path",
    "recompute",
    "tf32",
];

/// Hides the flags of a run that change nothing in how fast steps are.
pub(super) fn for_steps(arg: clap::Arg) -> clap::Arg {
    only(arg, &[&TOKENS, &MASKS, &ORDER, &STEPS])
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
