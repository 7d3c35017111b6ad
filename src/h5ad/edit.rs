//! Adding to an h5ad file that exists: obs columns and obsm arrays, nothing else touched.
//!
//! What is added stands behind the end of the file, and the file's root is pointed at it last
//! (`hdf5-pure`'s in-place editing): every other data set keeps its bytes and its place. A file is
//! either copied first and the copy appears whole ([`add_to_copy`]), or is edited where it stands
//! ([`add_in_place`]); there too a failure leaves the old content. A machine that goes down between
//! the last two writes leaves an array without rows, which `replace` replaces.
//!
//! What is in memory does not grow with the file (see `foundation` for the few it does with) nor
//! with arrays, whose numbers come from the disk and go behind the end first (`late_rows`).
//!
//! Written is anndata's current encoding: categoricals, f32 columns, dense arrays. Files from before
//! anndata 0.7, whose obs is one compound array, are refused: they have no room for a column. So are
//! some of anndata 0.7's own, whose attributes carry a flag that `hdf5-pure` does not rewrite.

use std::fs;
use std::path::Path;

use hdf5_pure::{AttrValue, Error, File, Group};

use crate::cell::Labels;
use crate::file::{Spool, StagedFile};

use super::H5adError;
use super::foundation::Foundation;
use super::late_rows::{self, LateRows};
use super::write::{codes, encode, strings, text};

/// A column for obs.
#[derive(Debug, Clone, PartialEq)]
pub enum ObsColumn {
    /// Categories and codes, −1 where there is no value.
    Categorical(Labels),
    /// Numbers, NaN where there is none.
    Numbers(Vec<f32>),
}

/// An array for obsm, one row per cell.
#[derive(Debug)]
pub struct ObsmArray {
    /// Numbers per cell.
    pub width: usize,
    /// Row after row: [cells, width].
    pub values: Spool,
}

/// What is added to a file.
#[derive(Debug, Default)]
pub struct Additions {
    /// Columns of obs by name.
    pub obs: Vec<(String, ObsColumn)>,
    /// Arrays of obsm by name.
    pub obsm: Vec<(String, ObsmArray)>,
}

impl ObsmArray {
    fn num_rows(&self) -> u64 {
        self.values.len() / self.width.max(1) as u64
    }
}

/// Copies `source` to `target` with `additions`; `target` appears whole or not at all. Where a name
/// is there already, it is replaced if `replace`.
///
/// # Errors
/// A file that cannot be read or edited, a name that is taken, a full disk.
pub fn add_to_copy(
    source: &Path,
    target: &Path,
    additions: &Additions,
    replace: bool,
) -> Result<(), H5adError> {
    let write = |error| H5adError::Write {
        path: target.to_owned(),
        source: Box::new(error),
    };
    let staged = StagedFile::new(target).map_err(write)?;
    fs::copy(source, staged.path()).map_err(|source| H5adError::Write {
        path: target.to_owned(),
        source: Box::new(source),
    })?;
    make_writable(staged.path()).map_err(|source| H5adError::Write {
        path: target.to_owned(),
        source: Box::new(source),
    })?;
    Edit {
        file: staged.path(),
        named: source,
    }
    .add(additions, replace)?;
    staged.commit().map_err(write)
}

/// Edits `path` where it stands; otherwise as [`add_to_copy`].
///
/// # Errors
/// As [`add_to_copy`], and a file that cannot be written to.
pub fn add_in_place(path: &Path, additions: &Additions, replace: bool) -> Result<(), H5adError> {
    Edit {
        file: path,
        named: path,
    }
    .add(additions, replace)
}

/// A copy of a read-only file is to be edited all the same.
fn make_writable(path: &Path) -> std::io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.readonly() {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            permissions.set_mode(permissions.mode() | 0o200);
        }
        #[cfg(not(unix))]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions)?;
    }
    Ok(())
}

/// One edit of `file`, which messages call `named`.
struct Edit<'a> {
    file: &'a Path,
    named: &'a Path,
}

impl Edit<'_> {
    fn add(&self, additions: &Additions, replace: bool) -> Result<(), H5adError> {
        let foundation = Foundation::open(self.file).map_err(|error| self.unwritten(error))?;
        let added = self.add_on(&foundation, additions, replace);
        if added.is_err() {
            foundation
                .restore()
                .map_err(|error| self.unwritten(error))?;
        }
        added
    }

    fn add_on(
        &self,
        foundation: &Foundation,
        additions: &Additions,
        replace: bool,
    ) -> Result<(), H5adError> {
        let unwritten = |error| self.unwritten(error);
        foundation.modernise().map_err(unwritten)?;
        let mut late = Vec::new();
        for (_, array) in &additions.obsm {
            let address = foundation.append(&array.values).map_err(unwritten)?;
            late.push(address.filter(|_| !array.values.is_empty()));
        }
        let file = File::open_rw(self.file).map_err(|error| self.failed("/", error))?;
        if !additions.obs.is_empty() {
            self.add_columns(&file, &additions.obs, replace)?;
        }
        if !additions.obsm.is_empty() {
            self.add_arrays(&file, (&additions.obsm, &late), replace)?;
        }
        file.commit().map_err(|error| self.failed("/", error))?;
        file.sync().map_err(|error| self.failed("/", error))?;
        drop(file);
        for ((name, array), address) in additions.obsm.iter().zip(late) {
            let root = foundation.root().map_err(unwritten)?;
            if let (Some(address), Some(root)) = (address, root) {
                let rows = LateRows {
                    address,
                    num_rows: array.num_rows(),
                    num_bytes: 4 * array.values.len(),
                };
                let (file, keys) = (&foundation.file, ["obsm", name]);
                late_rows::give(file, root, &keys, &rows).map_err(unwritten)?;
            }
        }
        foundation.file.sync_all().map_err(unwritten)
    }

    fn add_columns(
        &self,
        file: &File,
        columns: &[(String, ObsColumn)],
        replace: bool,
    ) -> Result<(), H5adError> {
        let obs = file.group("obs").map_err(|_| H5adError::Invalid {
            path: self.named.to_owned(),
            key: "obs".to_owned(),
            what: "expected a group with a member per column, found one compound array or \
                   nothing (anndata before 0.7): no column can be added\n\
                   hint: write the result as CSV, or the file anew: adata = \
                   anndata.read_h5ad(F); adata.write_h5ad(G)"
                .to_owned(),
        })?;
        let failed = |error| self.failed("obs", error);
        let attributes = obs.attrs().map_err(failed)?;
        let mut order = match attributes.get("column-order") {
            Some(value) => (value.as_strings().map(<[String]>::to_vec))
                .or_else(|| value.as_str().map(|one| vec![one.to_owned()]))
                .unwrap_or_default(),
            None => Vec::new(),
        };
        for (name, column) in columns {
            self.make_room(&obs, "obs", name, replace)?;
            add_column(&obs, name, column).map_err(failed)?;
            if !order.contains(name) {
                order.push(name.clone());
            }
        }
        let order = AttrValue::VarLenStringArray(order);
        obs.set_attr("column-order", order).map_err(failed)
    }

    fn add_arrays(
        &self,
        file: &File,
        (arrays, late): (&[(String, ObsmArray)], &[Option<u64>]),
        replace: bool,
    ) -> Result<(), H5adError> {
        let failed = |error| self.failed("obsm", error);
        let root = file.root();
        let there = root.groups().map_err(failed)?;
        let obsm = if there.iter().any(|name| name == "obsm") {
            file.group("obsm").map_err(failed)?
        } else {
            let obsm = root.create_group("obsm").map_err(failed)?;
            obsm.set_attr("encoding-type", text("dict"))
                .and_then(|()| obsm.set_attr("encoding-version", text("0.1.0")))
                .map_err(failed)?;
            obsm
        };
        for ((name, array), late) in arrays.iter().zip(late) {
            self.make_room(&obsm, "obsm", name, replace)?;
            let (mut rows, mut values) = (0, Vec::new());
            if late.is_none() {
                rows = array.num_rows();
                values.resize(array.values.len() as usize, 0.0);
                array.values.read(0, &mut values)?;
            }
            let build = |dataset: &mut hdf5_pure::DatasetBuilder| {
                dataset
                    .with_f32_data(&values)
                    .with_shape(&[rows, array.width as u64]);
                encode(dataset, "array");
            };
            obsm.create_dataset(name, build).map_err(failed)?;
        }
        Ok(())
    }

    /// Checks the name, and deletes what stands under it where it may be replaced.
    fn make_room(
        &self,
        group: &Group,
        key: &str,
        name: &str,
        replace: bool,
    ) -> Result<(), H5adError> {
        let key = format!("{key}/{name}");
        let invalid = |what: &str| H5adError::Invalid {
            path: self.named.to_owned(),
            key: key.clone(),
            what: what.to_owned(),
        };
        if name.is_empty() || name.contains('/') || name == "_index" {
            return Err(invalid("not a name that can be added"));
        }
        let members = (group.groups())
            .and_then(|mut names| {
                names.extend(group.datasets()?);
                Ok(names)
            })
            .map_err(|error| self.failed(&key, error))?;
        if !members.iter().any(|member| member == name) {
            return Ok(());
        }
        if !replace {
            return Err(invalid(
                "is in the file already\nhint: choose another name, or --overwrite to replace it",
            ));
        }
        group.delete(name).map_err(|error| self.failed(&key, error))
    }

    fn unwritten(&self, error: std::io::Error) -> H5adError {
        H5adError::Write {
            path: self.named.to_owned(),
            source: Box::new(error),
        }
    }

    fn failed(&self, key: &str, error: Error) -> H5adError {
        H5adError::Edit {
            path: self.named.to_owned(),
            key: key.to_owned(),
            source: Box::new(error),
        }
    }
}

fn add_column(obs: &Group, name: &str, column: &ObsColumn) -> Result<(), Error> {
    match column {
        ObsColumn::Numbers(values) => {
            obs.create_dataset(name, |dataset| {
                dataset
                    .with_f32_data(values)
                    .with_shape(&[values.len() as u64]);
                encode(dataset, "array");
            })?;
        }
        ObsColumn::Categorical(labels) => {
            obs.create_group_with(name, |group| {
                group.set_attr("encoding-type", text("categorical"));
                group.set_attr("encoding-version", text("0.2.0"));
                group.set_attr("ordered", AttrValue::U8(0));
                group.create_dataset("categories", |dataset| {
                    strings(dataset, labels.categories.iter().map(String::as_str));
                });
                group.create_dataset("codes", |dataset| codes(dataset, labels));
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::cell::CsrBlock;
    use crate::h5ad::write::{AnnData, ValueType, write_h5ad};
    use crate::h5ad::{H5ad, OpenOptions};

    fn file(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("cells.h5ad");
        let data = AnnData {
            x: CsrBlock::new((2, 2), vec![0, 1, 2], vec![0, 1], vec![1.0, 2.0]),
            value_type: ValueType::Float32,
            layers: Vec::new(),
            cell_names: vec!["c0".into(), "c1".into()],
            obs: Vec::new(),
            gene_ids: vec!["g0".into(), "g1".into()],
            var: Vec::new(),
        };
        write_h5ad(&path, &data).unwrap();
        path
    }

    fn spool(numbers: &[f32]) -> Spool {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        spool.extend(numbers).unwrap();
        spool
    }

    fn additions(values: [f32; 2]) -> Additions {
        let labels = Labels {
            categories: vec!["B cell".into(), "T cell".into()],
            codes: vec![1, -1],
        };
        Additions {
            obs: vec![
                ("label".into(), ObsColumn::Categorical(labels)),
                ("p".into(), ObsColumn::Numbers(values.to_vec())),
            ],
            obsm: vec![(
                "X_gene_bert".into(),
                ObsmArray {
                    width: 3,
                    values: spool(&[1.0, 2.0, 3.0, 4.0, 5.0, values[0]]),
                },
            )],
        }
    }

    #[test]
    fn columns_and_arrays_are_added_to_a_copy_and_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let source = file(folder.path());
        let bytes = fs::read(&source).unwrap();
        let copy = folder.path().join("copy.h5ad");
        add_to_copy(&source, &copy, &additions([0.5, 0.25]), false).unwrap();
        assert_eq!(fs::read(&source).unwrap(), bytes);
        let open = |path: &Path| H5ad::open(path, &OpenOptions::default()).unwrap();
        let labels = open(&copy).obs_labels("label").unwrap();
        assert_eq!((labels.value(0), labels.value(1)), (Some("T cell"), None));
        let taken = add_in_place(&copy, &additions([0.5, 0.25]), false).unwrap_err();
        assert!(taken.to_string().contains("obs/label"), "{taken}");
        add_in_place(&copy, &additions([0.75, 0.25]), true).unwrap();
        let file = File::open(&copy).unwrap();
        let array = file.dataset("obsm/X_gene_bert").unwrap();
        assert_eq!(array.shape().unwrap(), [2, 3]);
        assert_eq!(array.read_f32().unwrap()[5], 0.75);
        let order = file.group("obs").unwrap().attrs().unwrap();
        let order = order["column-order"].as_strings().unwrap().to_vec();
        assert_eq!(order, ["label", "p"]);
        assert_eq!(
            open(&copy).read(&[0..2]).unwrap(),
            open(&source).read(&[0..2]).unwrap()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.h5ad");
        let mut bad = additions([0.5, 0.25]);
        bad.obs[0].0 = "a/b".into();
        assert!(add_to_copy(&file(folder.path()), &copy, &bad, false).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
