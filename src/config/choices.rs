//! Settings that are a choice among names, and how a name is read.

use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Serialize, de::IntoDeserializer};

use crate::kernels::device::{self, Gpu, NoGpu};
use crate::kernels::peak;
use crate::kernels::products::Precision;

/// Reads a value from its name as the TOML file spells it: for clap's `value_parser`.
pub fn named<T: DeserializeOwned>(name: &str) -> Result<T, Error> {
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    T::deserialize(name)
}

/// How much the loss of a cell counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// The rarer its class among the training cells, the more.
    #[default]
    InverseFrequency,
    /// As much as any other's.
    None,
}

/// Where the vectors of genes of a new model start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneStart {
    /// At random.
    #[default]
    Random,
    /// At the genes' loadings on the principal components of the training cells.
    Components,
}

/// Which part of the encoder stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FreezeEncoder {
    /// All of it.
    All,
    /// The embeddings and so many blocks, counted from below.
    Blocks(usize),
}

/// A part of the encoder that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no part of the encoder: all or a number of blocks is expected")]
pub struct UnknownPart(String);

impl TryFrom<String> for FreezeEncoder {
    type Error = UnknownPart;

    fn try_from(name: String) -> Result<Self, UnknownPart> {
        match name.parse() {
            Ok(blocks) => Ok(Self::Blocks(blocks)),
            Err(_) if name == "all" => Ok(Self::All),
            Err(_) => Err(UnknownPart(name)),
        }
    }
}

impl From<FreezeEncoder> for String {
    fn from(part: FreezeEncoder) -> Self {
        match part {
            FreezeEncoder::All => "all".to_owned(),
            FreezeEncoder::Blocks(blocks) => blocks.to_string(),
        }
    }
}

/// In what matrix products are computed; weights, sums and everything else are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// The faster of the two on this machine.
    Auto,
    /// 32-bit factors.
    F32,
    /// Factors rounded to bf16.
    Bf16,
    /// Factors rounded to f16, with a scaled loss; on a GPU only.
    F16,
}

impl Dtype {
    /// In what matrix products are computed; `auto` is settled by measuring, for a tenth of a
    /// second.
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::F16 => Precision::F16,
            Self::Auto => peak::faster_precision(),
        }
    }
}

impl From<Precision> for Dtype {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The first GPU where one can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: the first, or that of the process's number where several share a machine; refused by
    /// `validate` where none can be used.
    Gpu,
    /// A CUDA device by its number; refused by `validate` where it cannot be used.
    Cuda(usize),
}

/// A device name that is none.
#[derive(Debug, thiserror::Error)]
#[error("no device is called `{0}`: auto, cpu, cuda or cuda:N is expected")]
pub struct UnknownDevice(String);

impl Device {
    /// Whether it can be used.
    ///
    /// # Errors
    /// It is a CUDA device that cannot be; the error says why.
    pub fn check(self) -> Result<(), NoGpu> {
        match self {
            Self::Gpu => device::probe(0).map(|_| ()),
            Self::Cuda(number) => device::probe(number).map(|_| ()),
            Self::Auto | Self::Cpu => Ok(()),
        }
    }

    /// The GPU that is computed on, if it is one.
    pub fn gpu(self) -> Option<Gpu> {
        match self {
            Self::Cpu => None,
            Self::Cuda(number) => device::probe(number).ok(),
            Self::Auto | Self::Gpu => device::probe(0).ok(),
        }
    }

    /// Opens it, and says where is computed, and under `auto` why not on a GPU, if this build has
    /// CUDA. With `tf32` a GPU computes products of f32 in tf32. Threads must have been settled.
    ///
    /// # Errors
    /// It is a CUDA device that cannot be used; the error says why.
    pub fn open(self, tf32: bool) -> Result<(candle_core::Device, String), NoGpu> {
        let cpu = || format!("Device: CPU, {} threads", rayon::current_num_threads());
        let number = match self {
            Self::Cpu => return Ok((candle_core::Device::Cpu, cpu())),
            Self::Auto | Self::Gpu => 0,
            Self::Cuda(number) => number,
        };
        match device::cuda(number, tf32) {
            Ok((device, gpu)) => Ok((device, format!("Device: cuda:{number}, {}", gpu.name))),
            Err(error) if self != Self::Auto => Err(error),
            Err(error) if device::IS_BUILT => {
                let text = format!("{}; no GPU is used: {error}", cpu());
                Ok((candle_core::Device::Cpu, text))
            }
            Err(_) => Ok((candle_core::Device::Cpu, cpu())),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = UnknownDevice;

    fn try_from(name: String) -> Result<Self, UnknownDevice> {
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Gpu),
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
            Device::Gpu => "cuda".to_owned(),
            Device::Cuda(number) => format!("cuda:{number}"),
        }
    }
}
