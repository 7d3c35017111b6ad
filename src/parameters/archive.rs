//! Safetensors files, read and written one tensor at a time, so that no file is ever held in memory
//! as a whole.
//!
//! Tensors are read as f32 whatever the file has them in, and written as f32, by name, each after
//! the one before it: the file that the `safetensors` crate makes of the same tensors, to the byte.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Error, Tensor, bail};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;

use super::ParameterError;
use crate::buffers;
use crate::file::{FileError, StagedFile, read_exact_at};

/// Tensors and metadata of a safetensors file, by name.
pub type TensorsAndMetadata = (BTreeMap<String, Tensor>, HashMap<String, String>);

/// Bytes before the header, which tell its length.
const LENGTH_BYTES: usize = 8;
/// Headers are filled up with spaces to a multiple of this.
const ALIGNMENT: usize = 8;
/// Values that are turned into bytes at a time.
const WRITTEN_AT_ONCE: usize = 1 << 16;

/// A safetensors file that is open for reading.
pub struct Archive {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the values begin.
    start: u64,
}

impl Archive {
    /// Reads the header.
    ///
    /// # Errors
    /// The file is absent, unreadable or damaged.
    pub fn open(path: &Path) -> Result<Self, ParameterError> {
        let io = |error| FileError::io("read it", path, error);
        let mut file = File::open(path).map_err(io)?;
        let whole = file.metadata().map_err(io)?.len();
        let mut bytes = vec![0; LENGTH_BYTES];
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong(path, SafeTensorError::HeaderTooSmall),
            _ => io(error).into(),
        };
        file.read_exact(&mut bytes).map_err(short)?;
        let length = bytes
            .iter()
            .rev()
            .fold(0, |all, &b| all << 8 | u64::from(b));
        if length > whole {
            return Err(wrong(path, SafeTensorError::HeaderTooLarge));
        }
        bytes.resize(LENGTH_BYTES + length as usize, 0);
        file.read_exact(&mut bytes[LENGTH_BYTES..]).map_err(short)?;
        let header = serde_json::from_slice(&bytes[LENGTH_BYTES..]);
        let header: Metadata = header
            .map_err(|error| wrong(path, SafeTensorError::InvalidHeaderDeserialization(error)))?;
        let start = bytes.len() as u64;
        if start + header.data_len() as u64 != whole {
            return Err(wrong(path, SafeTensorError::MetadataIncompleteBuffer));
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            header,
            start,
        })
    }

    /// The words that stand beside the tensors.
    pub fn words(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }

    /// The names of all tensors.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The shape of a tensor; `None`: there is none of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// A tensor, as f32; `None`: there is none of this name.
    ///
    /// # Errors
    /// The file cannot be read, or the tensor's type is none that can be f32.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, ParameterError> {
        let Some(info) = self.header.info(name) else {
            return Ok(None);
        };
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        read_exact_at(&self.file, self.start + from as u64, &mut bytes)
            .map_err(|error| FileError::io("read it", &self.path, error))?;
        let tensor = of_type(info.dtype)
            .and_then(|dtype| Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu))
            .and_then(|tensor| tensor.to_dtype(DType::F32));
        tensor.map(Some).map_err(|source| ParameterError::Format {
            path: self.path.clone(),
            source,
        })
    }
}

fn of_type(dtype: Dtype) -> candle_core::Result<DType> {
    Ok(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::U32 => DType::U32,
        Dtype::U8 => DType::U8,
        other => bail!("a tensor of {other:?} is none of weights"),
    })
}

fn wrong(path: &Path, error: SafeTensorError) -> ParameterError {
    ParameterError::Format {
        path: path.to_owned(),
        source: Error::Msg(error.to_string()),
    }
}

/// Every tensor of a safetensors file, as f32, and its metadata.
///
/// # Errors
/// The file is absent, unreadable or damaged.
pub fn read_tensors(path: &Path) -> Result<TensorsAndMetadata, ParameterError> {
    let archive = Archive::open(path)?;
    let mut tensors = BTreeMap::new();
    for name in archive.names() {
        if let Some(tensor) = archive.read(&name)? {
            tensors.insert(name, tensor);
        }
    }
    Ok((tensors, archive.words()))
}

/// Writes f32 tensors, given by name and shape, and a few words of metadata as a safetensors file,
/// whole or not at all. `values` is asked for each of them by its place in `tensors`, in the order
/// of the names.
///
/// # Errors
/// The file cannot be written; what `values` says.
pub fn write_tensors(
    path: &Path,
    tensors: &[(impl AsRef<str>, &[usize])],
    metadata: &[(&str, &str)],
    mut values: impl FnMut(usize) -> candle_core::Result<Tensor>,
) -> Result<(), ParameterError> {
    let io = |error| FileError::io("write it", path, error);
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&index| tensors[index].0.as_ref());
    let staged = StagedFile::new(path)?;
    let file = fs::OpenOptions::new().write(true).open(staged.path());
    let mut to = BufWriter::new(file.map_err(io)?);
    to.write_all(&header(tensors, &order, metadata)?)
        .map_err(io)?;
    for index in order {
        let tensor = buffers::to_host(&values(index)?)?;
        let values = buffers::read::<f32>(&tensor)?;
        for values in values.chunks(WRITTEN_AT_ONCE) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            to.write_all(&bytes).map_err(io)?;
        }
    }
    to.flush().map_err(io)?;
    drop(to);
    Ok(staged.commit()?)
}

/// Everything before the values.
fn header(
    tensors: &[(impl AsRef<str>, &[usize])],
    order: &[usize],
    metadata: &[(&str, &str)],
) -> candle_core::Result<Vec<u8>> {
    let mut end = 0;
    let infos = order.iter().map(|&index| {
        let (name, shape) = &tensors[index];
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data_offsets: (start, end),
        };
        (name.as_ref().to_owned(), info)
    });
    let words = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    let header = Metadata::new(Some(words.collect()), infos.collect()).map_err(Error::wrap)?;
    let mut header = serde_json::to_value(&header).map_err(Error::wrap)?;
    // The crate keeps them without an order, and files are the same for the same contents.
    if let Some(Value::Object(words)) = header.get_mut("__metadata__") {
        words.sort_keys();
    }
    let mut text = serde_json::to_vec(&header).map_err(Error::wrap)?;
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    Ok([&(text.len() as u64).to_le_bytes(), &text[..]].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::buffers::from_vec;

    #[test]
    fn the_words_of_a_file_stand_in_their_order() {
        let words = [("steps", "1"), ("good_steps", "2"), ("loss_scale", "3")];
        let none: [(&str, &[usize]); 0] = [];
        for _ in 0..20 {
            let text =
                String::from_utf8(header(&none, &[], &words).unwrap()[8..].to_vec()).unwrap();
            let expected = r#"{"good_steps":"2","loss_scale":"3","steps":"1"}"#;
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_file_is_that_of_the_safetensors_crate_and_its_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let values = [vec![1.0, -2.5, f32::MIN_POSITIVE], vec![7.0; 200_000]];
        let (b, a) = ([3], [400, 500]);
        let shapes: [(&str, &[usize]); 2] = [("b", &b), ("a", &a)];
        let whole = |i: usize| from_vec(values[i].clone(), shapes[i].1);
        write_tensors(&path, &shapes, &[("format", "pt")], whole).unwrap();
        let bytes = fs::read(&path).unwrap();
        let as_bytes = |i: usize| values[i].iter().flat_map(|v| v.to_le_bytes()).collect();
        let data: [Vec<u8>; 2] = [as_bytes(0), as_bytes(1)];
        let views = shapes.iter().zip(&data).map(|((name, shape), data)| {
            (
                *name,
                TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap(),
            )
        });
        let words = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        assert_eq!(
            bytes,
            safetensors::serialize(views, Some(words.clone())).unwrap()
        );

        let (tensors, found) = read_tensors(&path).unwrap();
        assert_eq!(found, words);
        assert_eq!(*buffers::read::<f32>(&tensors["b"]).unwrap(), values[0]);
        assert_eq!(tensors["a"].dims(), a);
        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.shape("a"), Some(&a[..]));
        assert!(archive.shape("c").is_none() && archive.read("c").unwrap().is_none());
        for length in [3, 20, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = Archive::open(&path).err().unwrap().to_string();
            assert!(error.contains("x.safetensors: not a readable"), "{error}");
        }
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left"
        );
    }
}
