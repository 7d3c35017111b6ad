//! `gene-bert embed` and `predict` through the real command: results beside the cells, every other
//! data set as it was, and no trace of what failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gene_bert::cell::{CellSource, CsrBlock};
use gene_bert::file::Spool;
use gene_bert::h5ad::edit::{Additions, ObsColumn, ObsmArray, add_in_place, add_to_copy};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::prepare::simulate::simulate;
use hdf5_pure::{File, Group};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;

use crate::command;
use crate::shared::shared_dir;

/// A folder with simulated cells and a tiny model of each kind, trained for a few steps.
struct Folder(tempfile::TempDir);

const TINY: &str = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        simulate(folder.0.path(), 5, 60).unwrap();
        fs::write(folder.path("tiny.json"), TINY).unwrap();
        folder
    }

    fn with_runs() -> Self {
        let folder = Self::new();
        let common = "--train_data_paths simulated_1.h5ad --bin_edges 0.5 2 --max_length 32 \
                      --max_steps 2 --threads 1 --pretrained_model_path tiny.json \
                      --per_device_train_batch_size 4";
        let mlm = "mlm --included_phenotypes cell_type sex --output_dir mlm";
        folder.done(&format!("{mlm} {common}"));
        let cls = "cls --phenotype_category cell_type --output_dir cls";
        folder.done(&format!("{cls} {common}"));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn done(&self, line: &str) -> String {
        command::done(self.0.path(), line)
    }

    fn refused(&self, line: &str, parts: &[&str]) {
        command::refused(self.0.path(), line, parts);
    }

    fn open(&self, name: &str) -> H5ad {
        H5ad::open(&self.path(name), &OpenOptions::default()).unwrap()
    }
}

/// The bytes of every data set of a file, by path.
fn data_sets(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(group: &Group, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
        for name in group.datasets().unwrap() {
            let data = group.dataset(&name).unwrap();
            // What cannot be read raw (variable-length texts) is compared as text.
            let bytes = match data.read_string() {
                Ok(texts) => texts.join("\n").into_bytes(),
                Err(_) => data.read_raw().unwrap_or_default(),
            };
            into.insert(format!("{prefix}/{name}"), bytes);
        }
        for name in group.groups().unwrap() {
            walk(
                &group.group(&name).unwrap(),
                &format!("{prefix}/{name}"),
                into,
            );
        }
    }
    let mut found = BTreeMap::new();
    walk(&File::open(path).unwrap().root(), "", &mut found);
    found
}

/// Checks that `after` is `before` and the data sets whose path begins with one of `added`.
fn only_added(before: &Path, after: &Path, added: &[&str]) {
    let (before, after) = (data_sets(before), data_sets(after));
    for (key, bytes) in &before {
        assert_eq!(after.get(key), Some(bytes), "{key} has changed");
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        let expected = added.iter().any(|prefix| key.starts_with(prefix));
        assert!(expected, "{key} was added");
    }
}

/// The numbers of a table of embeddings, row by row.
fn parquet_numbers(path: &Path) -> Vec<f32> {
    let file = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap();
    let numbers = rows.flat_map(|row| {
        let row = row.unwrap();
        (1..row.len())
            .map(move |at| row.get_float(at).unwrap())
            .collect::<Vec<_>>()
    });
    numbers.collect()
}

#[test]
fn embeddings_stand_beside_the_cells() {
    let folder = Folder::with_runs();
    // The file need not have the phenotypes' columns: these cells have none.
    let cells = folder.open("simulated_2.h5ad");
    let bare = AnnData {
        x: cells.read(&[0..cells.num_cells()]).unwrap(),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: cells.cell_names().unwrap(),
        obs: Vec::new(),
        gene_ids: cells.gene_ids().to_vec(),
        var: Vec::new(),
    };
    write_h5ad(&folder.path("bare.h5ad"), &bare).unwrap();
    folder.done("embed bare.h5ad --checkpoint mlm --output with.h5ad");
    only_added(
        &folder.path("bare.h5ad"),
        &folder.path("with.h5ad"),
        &["/obsm/X_gene_bert"],
    );
    let read = |name: &str, key: &str| {
        let data = File::open(folder.path(name)).unwrap().dataset(key).unwrap();
        (data.shape().unwrap(), data.read_f32().unwrap())
    };
    let (shape, cls) = read("with.h5ad", "obsm/X_gene_bert");
    assert_eq!(shape, [15, 16]);
    assert!(cls.iter().all(|x| x.is_finite()) && cls[..16] != cls[16..32]);

    // The same numbers from other batches and reader threads, in place, and as .npy.
    let other = "--per_device_eval_batch_size 4 --dataloader_num_workers 0";
    folder.done(&format!(
        "embed bare.h5ad --checkpoint mlm/checkpoint-2 --in-place {other}"
    ));
    let (_, again) = read("bare.h5ad", "obsm/X_gene_bert");
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near(&cls, &again));
    folder.done("embed bare.h5ad --checkpoint mlm --output out.npy");
    let npy = fs::read(folder.path("out.npy")).unwrap();
    let numbers = npy[npy.len() - cls.len() * 4..].chunks_exact(4);
    let numbers: Vec<f32> = numbers
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, cls);

    folder.done("embed bare.h5ad --checkpoint mlm --output out.csv");
    let text = fs::read_to_string(folder.path("out.csv")).unwrap();
    let fields = text
        .lines()
        .skip(1)
        .flat_map(|line| line.split(',').skip(1));
    assert_eq!(
        fields.map(|f| f.parse().unwrap()).collect::<Vec<f32>>(),
        cls
    );
    folder.done("embed bare.h5ad --checkpoint mlm --output out.parquet");
    assert_eq!(parquet_numbers(&folder.path("out.parquet")), cls);

    // Other poolings are other vectors; a classifier embeds too.
    for (pooling, run) in [("mean", "mlm"), ("cell_type", "mlm"), ("mean", "cls")] {
        let line = format!("embed bare.h5ad --checkpoint {run} --pooling {pooling}");
        folder.done(&format!(
            "{line} --output other.h5ad --obsm-key X_other --overwrite"
        ));
        assert_ne!(read("other.h5ad", "obsm/X_other").1, cls);
    }
    folder.done("embed bare.h5ad --checkpoint mlm --genes in-context --output genes.csv");
    let text = fs::read_to_string(folder.path("genes.csv")).unwrap();
    assert!(text.starts_with("gene,num_cells,embedding_0,"), "{text}");
    // The table of genes is the model's: no file is read for it, nothing of cells is asked.
    folder.done("embed --checkpoint mlm --genes context-free --output table.csv");
    assert_eq!(
        fs::read_to_string(folder.path("table.csv"))
            .unwrap()
            .lines()
            .count(),
        text.lines().count()
    );
    for (line, part) in [
        ("embed --checkpoint mlm --output cells.csv", "<FILE>"),
        (
            "embed --checkpoint mlm --genes in-context --output g.csv",
            "<FILE>",
        ),
        (
            "embed --checkpoint mlm --genes context-free --output g.csv --pooling mean",
            "--pooling",
        ),
        (
            "embed --checkpoint mlm --genes context-free --output g.csv --obsm-key X",
            "--obsm-key",
        ),
    ] {
        folder.refused(line, &[part]);
    }
    folder.refused(
        "embed bare.h5ad --checkpoint mlm --in-place",
        &["X_gene_bert", "--overwrite"],
    );
    let line = "embed bare.h5ad --checkpoint mlm --in-place --overwrite";
    refused_while_locked(&folder, line);
    folder.done(line);
}

fn refused_while_locked(folder: &Folder, line: &str) {
    let in_use = fs::File::options()
        .read(true)
        .write(true)
        .open(folder.path("bare.h5ad"))
        .unwrap();
    in_use.lock().unwrap();
    let locked = ["bare.h5ad: cannot be written", "has locked", "hint: close"];
    folder.refused(line, &locked);
}

#[test]
fn predictions_are_columns_that_say_the_files_values() {
    let folder = Folder::with_runs();
    let said = folder.done("predict simulated_2.h5ad --checkpoint mlm --output labelled.h5ad");
    assert!(
        said.contains("cell_type: as the file's own in") && said.contains("sex: as"),
        "{said}"
    );
    let added = ["/obs/cell_type_predicted", "/obs/sex_predicted"];
    only_added(
        &folder.path("simulated_2.h5ad"),
        &folder.path("labelled.h5ad"),
        &added,
    );
    let file = folder.open("labelled.h5ad");
    let columns = file.obs_column_names();
    for name in [
        "cell_type_predicted_3_probability",
        "sex_predicted_2",
        "donor_id",
    ] {
        assert!(
            columns.iter().any(|column| column == name),
            "{name} of {columns:?}"
        );
    }
    let (truth, predicted) = (
        file.obs_labels("sex").unwrap(),
        file.obs_labels("sex_predicted").unwrap(),
    );
    let (mut there, mut own) = (predicted.categories.clone(), truth.categories.clone());
    there.sort();
    own.sort();
    assert_eq!(there, own, "spelled as the file does");

    // A classifier's answers; the numbers of the CSV are those of the h5ad.
    folder.done("predict simulated_2.h5ad --checkpoint cls --output cls.h5ad");
    folder.done("predict simulated_2.h5ad --checkpoint cls --output cls.csv");
    let labels = folder
        .open("cls.h5ad")
        .obs_labels("cell_type_predicted")
        .unwrap();
    let text = fs::read_to_string(folder.path("cls.csv")).unwrap();
    assert_eq!(text.lines().count(), 16);
    for (row, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(Some(fields[1]), labels.value(row));
        let best: f32 = fields[2].parse().unwrap();
        let second: f32 = fields[4].parse().unwrap();
        assert!(best >= second && best <= 1.0 && second > 0.0);
    }

    // A model that votes with itself says the same; other phenotypes do not vote together.
    let twice = "predict simulated_2.h5ad --checkpoint cls --checkpoint cls";
    folder.done(&format!("{twice} --output twice.csv"));
    let again = fs::read_to_string(folder.path("twice.csv")).unwrap();
    let answers = |text: &str| -> Vec<String> {
        let column = text.lines().map(|line| line.split(',').nth(1));
        column.map(|answer| answer.unwrap().to_owned()).collect()
    };
    assert_eq!(answers(&again), answers(&text));

    // Several files into a folder; what the model may see, it does not predict.
    fs::create_dir(folder.path("out")).unwrap();
    let line = "predict simulated_{1,2}.h5ad --checkpoint mlm --output out";
    let said = folder.done(&format!("{line} --visible-phenotypes sex"));
    assert!(
        said.contains("cell_type: as") && !said.contains("sex: as"),
        "{said}"
    );
    assert!(folder.path("out/simulated_1.h5ad").exists());
    assert!(folder.path("out/simulated_2.h5ad").exists());
}

#[test]
fn what_cannot_be_used_is_refused() {
    let folder = Folder::with_runs();
    let cells = "simulated_1.h5ad --checkpoint mlm";
    for (line, parts) in [
        (format!("embed {cells}"), &["--output", "--in-place"][..]),
        (
            format!("embed {cells} --output x.feather"),
            &["x.feather", "h5ad", "npy"],
        ),
        (
            format!("embed {cells} --output tiny.csv --pooling age"),
            &["age", "cell_type, sex"],
        ),
        (
            format!("predict {cells} --output x.csv --phenotypes age"),
            &["age", "cell_type, sex"],
        ),
        (
            format!("predict {cells} --output x.csv --phenotypes sex --visible-phenotypes sex"),
            &["sex", "--visible-phenotypes"],
        ),
        (
            "predict simulated_1.h5ad --checkpoint cls --output x.csv --phenotypes sex".to_owned(),
            &["classifier of cell_type"],
        ),
        (
            "embed simulated_1.h5ad --checkpoint absent --output x.h5ad".to_owned(),
            &["absent", "hint: "],
        ),
        (
            format!("predict {cells} --checkpoint cls --output x.csv"),
            &["cls", "other values than the first checkpoint", "hint: "],
        ),
        (
            format!("embed {cells} --checkpoint mlm --output x.npy"),
            &["2 times", "hint: "],
        ),
        (format!("embed {cells} --output tiny.json"), &["tiny.json"]),
        (
            format!("embed {cells} --output simulated_2.h5ad"),
            &["simulated_2.h5ad", "--overwrite"],
        ),
        (
            format!("embed simulated_2.h5ad {cells} --output x.h5ad"),
            &["x.h5ad", "2 files"],
        ),
        (
            format!("embed {cells} --output absent/x.h5ad"),
            &["absent", "hint: "],
        ),
    ] {
        folder.refused(&line, parts);
    }
    let strangers = AnnData {
        x: CsrBlock::new((2, 2), vec![0, 1, 2], vec![0, 1], vec![1.0, 2.0]),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: vec!["a".into(), "b".into()],
        obs: Vec::new(),
        gene_ids: vec!["CD3D".into(), "G2".into()],
        var: Vec::new(),
    };
    write_h5ad(&folder.path("strangers.h5ad"), &strangers).unwrap();
    let line = "predict strangers.h5ad --checkpoint mlm --output x.csv";
    folder.refused(line, &["strangers.h5ad", "genes"]);
    // The second cell expresses no gene that the model knows: that is no error.
    let line = "predict strangers.h5ad --checkpoint mlm --output x.csv --min-gene-overlap 0.001";
    folder.done(line);
    let weights = folder.path("mlm/checkpoint-best/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    folder.refused(
        &format!("embed {cells} --output y.npy"),
        &["model.safetensors"],
    );
}

/// Real files of every generation: columns and arrays are added and all else stays, or the file is
/// refused, named, because its structure is in the way
/// (obs as one compound array; groups as libhdf5 wrote them for anndata 0.7).
#[test]
fn real_files_can_be_added_to() {
    let folders = ["data/main", "data/accuracy", "data/torture"];
    let folders: Vec<PathBuf> = folders.iter().filter_map(|name| shared_dir(name)).collect();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.h5ad");
    let (mut added, mut refused) = (0, Vec::new());
    for entry in folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
    {
        let path = entry.unwrap().path();
        let Ok(file) = H5ad::open(&path, &OpenOptions::default()) else {
            continue;
        };
        let cells = file.num_cells() as usize;
        let numbers: Vec<f32> = (0..2 * cells).map(|x| x as f32 / 7.0).collect();
        let mut values = Spool::new(dir.path()).unwrap();
        values.extend(&numbers).unwrap();
        let additions = Additions {
            obs: vec![("p".into(), ObsColumn::Numbers(vec![0.5; cells]))],
            obsm: vec![("X_gene_bert".into(), ObsmArray { width: 2, values })],
        };
        match add_to_copy(&path, &copy, &additions, true) {
            Ok(()) => {
                added += 1;
                only_added(&path, &copy, &["/obs/p", "/obsm/X_gene_bert"]);
                let again = H5ad::open(&copy, &OpenOptions::default()).unwrap();
                assert!(again.obs_column_names().iter().any(|name| name == "p"));
                let array = File::open(&copy).unwrap().dataset("obsm/X_gene_bert");
                let array = array.unwrap();
                assert_eq!(array.shape().unwrap(), [cells as u64, 2]);
                assert_eq!(array.read_f32().unwrap(), numbers);
                let bytes = fs::read(&copy).unwrap();
                add_in_place(&copy, &additions, false).unwrap_err();
                assert_eq!(fs::read(&copy).unwrap(), bytes);
                add_in_place(&copy, &additions, true).unwrap();
                only_added(&path, &copy, &["/obs/p", "/obsm/X_gene_bert"]);
                fs::remove_file(&copy).unwrap();
            }
            Err(error) => {
                assert!(error.to_string().contains("hint: "), "{error}");
                refused.push(format!(
                    "{error} {:?}",
                    std::error::Error::source(&error).map(ToString::to_string)
                ));
                assert!(!copy.exists());
            }
        }
    }
    println!(
        "{added} files added to, {} refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
    assert!(folders.is_empty() || added >= 30);
}
