//! `--device` of the subcommands that are no run.

use anyhow::{Result, anyhow};

use crate::config::Device;
use crate::kernels::device::NoGpu;

/// Opens the device and says which it is. Threads must have been settled.
///
/// # Errors
/// The device asked for cannot be used.
pub(super) fn open_device(device: Device, tf32: bool) -> Result<candle_core::Device> {
    let refused = |error: NoGpu| anyhow!("--device: {error}\nhint: {}", error.hint());
    let (device, text) = device.open(tf32).map_err(refused)?;
    eprintln!("{text}");
    Ok(device)
}
