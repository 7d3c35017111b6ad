//! `gene-bert check`: are the settings of a run sound, and what are they all?
//!
//! Looks at settings and small files only; the cells are not opened.

use std::io::Write;

use crate::config::RunFlags;
use crate::file::expand_paths;

/// Flags of `check`: those of a run.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    run: RunFlags,
}

/// Prints the resolved settings as TOML, ready for `--config`.
///
/// # Errors
/// Settings that cannot be read or cannot work.
pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    let config = args.run.resolve()?;
    config.validate(config.job(), false)?;
    let model = config.model_config()?;
    config.tokenize_config()?;
    let train = expand_paths(&config.train_data_paths)?.len();
    let eval = expand_paths(&config.eval_data_paths)?.len();
    eprintln!(
        "{train} training files, {eval} evaluation files; {} blocks, {} heads, width {}",
        model.num_hidden_layers, model.num_attention_heads, model.hidden_size
    );
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    std::io::stdout().write_all(config.to_toml()?.as_bytes())?;
    Ok(())
}
