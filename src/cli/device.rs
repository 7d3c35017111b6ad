//! `--device` of the subcommands that are no run.

use anyhow::{Result, anyhow};

use crate::config::Device;
use crate::kernels::device::NoGpu;

/// Says where is computed. Threads must have been settled.
///
/// # Errors
/// The device asked for cannot be used.
pub(super) fn say_device(device: Device) -> Result<()> {
    let refused = |error: NoGpu| anyhow!("--device: {error}\nhint: {}", error.hint());
    device.check().map_err(refused)?;
    eprintln!("{}", device.describe());
    Ok(())
}
