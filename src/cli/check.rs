//! `gene-bert check`: are the settings of a run sound, and what are they all?
//!
//! Looks at settings and small files only, those of a checkpoint that is resumed or started from
//! included; the cells are not opened.

use std::io::Write;
use std::time::Duration;

use crate::config::RunFlags;
use crate::file::expand_paths;
use crate::model::GeneBertConfig;
use crate::prepare::encoding::Encoding;
use crate::track::Plan;
use crate::train::resume;

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
    let (config, resumed) = resume::settle(&args.run)?;
    args.run.validate_for(config.job())?;
    config.validate(config.job(), resumed.is_some())?;
    let started_from = config.pretrained_model_path.as_deref();
    let (model, started_from) = match &resumed {
        Some(checkpoint) => (
            GeneBertConfig::from_file(&checkpoint.join("config.json"))?,
            None,
        ),
        None => (
            config.model_config()?,
            started_from.filter(|path| path.is_dir()),
        ),
    };
    match started_from {
        Some(checkpoint) => drop(Encoding::from_checkpoint(&config, checkpoint)?),
        None if resumed.is_some() => {}
        None => drop(config.bins()?),
    }
    let train = expand_paths(&config.train_data_paths)?.len();
    let eval = expand_paths(&config.eval_data_paths)?.len();
    Plan::new(
        &config.report_to,
        Duration::from_secs_f64(config.report_wait),
    )?;
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
