//! `gene-bert check`: are the settings of a run sound, and what are they all?

use std::io::Write;

use crate::config::RunFlags;

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
    config.validate()?;
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    std::io::stdout().write_all(config.to_toml()?.as_bytes())?;
    Ok(())
}
