//! Settings that are a choice among names, and how a name is read.

use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Serialize, de::IntoDeserializer};

/// Reads a value from its name as the TOML file spells it: for clap's `value_parser`.
pub(super) fn named<T: DeserializeOwned>(name: &str) -> Result<T, Error> {
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    T::deserialize(name)
}

/// Where to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The best there is: today the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number; refused by `validate` in builds without CUDA.
    Cuda(usize),
}

/// A device name that is none.
#[derive(Debug, thiserror::Error)]
#[error("no device is called `{0}`: auto, cpu or cuda:N is expected")]
pub struct UnknownDevice(String);

impl TryFrom<String> for Device {
    type Error = UnknownDevice;

    fn try_from(name: String) -> Result<Self, UnknownDevice> {
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(number) => Ok(Self::Cuda(number)),
                None => Err(UnknownDevice(name)),
            },
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => "auto".to_owned(),
            Device::Cpu => "cpu".to_owned(),
            Device::Cuda(number) => format!("cuda:{number}"),
        }
    }
}
