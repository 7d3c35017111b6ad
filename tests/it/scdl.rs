//! SCDL archives: what is written is read, and nothing that is damaged is believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use gene_bert::cell::{CellSource, CsrBlock};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::prepare::simulate::simulate;
use gene_bert::store::{ScalarType, ScdlArchive, ScdlOptions};

use crate::command::{done, gene_bert};
use crate::shared::shared_dir;

fn convert(folder: &Path, line: &str) -> String {
    done(folder, &format!("convert {line}"))
}

fn open(folder: &Path) -> Result<Vec<ScdlArchive>, String> {
    let opened = ScdlArchive::open(&folder.join("out.scdl"), &ScdlOptions::default());
    opened.map_err(|error| error.to_string())
}

/// Two files, each with genes that the other lacks.
fn files(folder: &Path) -> Vec<(PathBuf, H5ad)> {
    let paths = simulate(folder, 3, 60).unwrap().into_iter();
    let open = |path: PathBuf| {
        let file = H5ad::open(&path, &OpenOptions::default()).unwrap();
        (path, file)
    };
    paths.map(open).collect()
}

fn all(source: &dyn CellSource) -> CsrBlock {
    source.read_ranges(&[0..source.num_cells()]).unwrap()
}

#[test]
fn files_of_other_genes_are_parts_of_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    for (dtype, scalar) in [
        ("keep", ScalarType::F32),
        ("narrowest", ScalarType::U8),
        ("float64", ScalarType::F64),
        ("uint16", ScalarType::U16),
    ] {
        let line = "simulated_1.h5ad simulated_2.h5ad --output out.scdl --format scdl";
        convert(
            dir.path(),
            &format!("{line} --genes ragged --dtype {dtype}"),
        );
        let parts = open(dir.path()).unwrap();
        assert_eq!(parts.len(), 2);
        for (part, (_, file)) in parts.iter().zip(&files) {
            assert!(dtype == "narrowest" || part.scalar() == scalar, "{dtype}");
            assert_eq!(part.gene_ids(), file.gene_ids());
            assert_eq!(all(part), all(file), "{dtype}");
            assert_eq!(part.cell_names().unwrap(), file.cell_names().unwrap());
            for column in ["cell_type", "sex"] {
                let (found, expected) =
                    (part.labels(column).unwrap(), file.labels(column).unwrap());
                for row in 0..file.num_cells() as usize {
                    assert_eq!(found.value(row), expected.value(row), "{column} {row}");
                }
            }
            let some = [1..3, 5..6, 9..10];
            assert_eq!(
                part.read_ranges(&some).unwrap(),
                file.read_ranges(&some).unwrap()
            );
            let outside = part.num_cells()..part.num_cells() + 1;
            assert!(part.read_ranges(std::slice::from_ref(&outside)).is_err());
            let error = part.labels("colour").unwrap_err().to_string();
            assert!(
                error.contains("cell_type") && error.contains("hint: "),
                "{error}"
            );
        }
    }
}

#[test]
fn files_of_the_same_genes_are_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    fs::copy(
        dir.path().join("simulated_1.h5ad"),
        dir.path().join("again.h5ad"),
    )
    .unwrap();
    let line = "simulated_1.h5ad again.h5ad --output out.scdl --format scdl";
    convert(dir.path(), line);
    let parts = open(dir.path()).unwrap();
    let ([part], (_, file)) = (parts.as_slice(), &files[0]) else {
        panic!("{} parts", parts.len());
    };
    assert_eq!(part.num_cells(), 2 * file.num_cells());
    let (first, second) = (0..file.num_cells(), file.num_cells()..part.num_cells());
    for own in [first, second] {
        assert_eq!(part.read_ranges(&[own]).unwrap(), all(file));
    }
    let flags = "data out.scdl --rows --passes 1 --readers 2 --json --check --entropy sex";
    let output = gene_bert(dir.path(), &format!("bench {flags}"));
    let said = String::from_utf8(output.stderr).unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(rows[0]["cells"].as_u64(), Some(part.num_cells()));
    let values: f64 = all(part).data().iter().map(|value| f64::from(*value)).sum();
    assert_eq!(rows[0]["sum_of_values"].as_f64(), Some(values));
}

#[test]
fn no_damaged_header_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    convert(
        dir.path(),
        "simulated_1.h5ad simulated_2.h5ad --output out.scdl --format scdl --genes ragged",
    );
    let header = dir.path().join("out.scdl/header.sch");
    let whole = fs::read(&header).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&header, bytes).unwrap();
        let error = open(dir.path()).map(|_| ()).expect_err(what);
        assert!(error.contains("out.scdl"), "{what}: {error}");
    };
    for end in 0..whole.len() {
        refused(&whole[..end], &format!("{end} bytes"));
    }
    refused(&[whole.as_slice(), &[0]].concat(), "a byte more");
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped, &format!("bit {bit}"));
    }
    fs::write(&header, &whole).unwrap();
    assert!(open(dir.path()).is_ok());
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let line = "simulated_1.h5ad --output out.scdl --format scdl";
    convert(dir.path(), line);
    for name in [
        "data.npy",
        "row_ptr.npy",
        "col_ptr.npy",
        "var_features/cumulative_sum_index.npy",
        "var_features/dataframe_0.parquet",
        "obs_features/dataframe_0.parquet",
        "obs_features/labels.npy",
    ] {
        let path = dir.path().join("out.scdl").join(name);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(open(dir.path()).is_err(), "{name}");
        if !name.ends_with("labels.npy") {
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            let error = open(dir.path()).map(|_| ()).expect_err(name);
            assert!(error.contains("out.scdl"), "{name}: {error}");
        }
        fs::write(&path, &whole).unwrap();
    }
    // A column beyond the genes.
    let path = dir.path().join("out.scdl/col_ptr.npy");
    let mut columns = fs::read(&path).unwrap();
    let len = columns.len();
    columns[len - 2..].fill(0xff);
    fs::write(&path, &columns).unwrap();
    let parts = open(dir.path()).unwrap();
    let error = parts[0]
        .read_ranges(&[0..parts[0].num_cells()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row ") && error.contains("column 65535"),
        "{error}"
    );
    // What cannot be is said, and an archive is replaced as a whole.
    for (flags, part) in [
        ("--contiguous", "--contiguous"),
        ("--cells-per-file 5", "--cells-per-file"),
        ("--dtype int8", "--dtype narrowest"),
    ] {
        let output = gene_bert(dir.path(), &format!("convert {line} {flags}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.contains("hint: "), "{said}");
        assert_eq!(fs::read(&path).unwrap(), columns, "{flags}");
    }
    convert(dir.path(), line);
    assert!(open(dir.path()).unwrap()[0].read_ranges(&[0..5]).is_ok());
    let ragged = "simulated_1.h5ad simulated_2.h5ad --output out.h5ad --genes ragged";
    let output = gene_bert(dir.path(), &format!("convert {ragged}"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--format scdl"), "{said}");
}

/// A row as (name, columns, values), and its obs column `sex`.
type NamedRow = (String, Vec<u32>, Vec<f32>, Option<String>);

fn rows(parts: &[ScdlArchive]) -> Vec<NamedRow> {
    let mut rows = Vec::new();
    for part in parts {
        let (names, labels) = (part.cell_names().unwrap(), part.labels("sex").unwrap());
        for (row, (values, name)) in all(part).outer_iterator().zip(names).enumerate() {
            let sex = labels.value(row).map(str::to_owned);
            rows.push((name, values.indices().to_vec(), values.data().to_vec(), sex));
        }
    }
    rows
}

#[test]
fn a_shuffled_archive_has_the_same_cells_in_another_order() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let line = "simulated_1.h5ad simulated_2.h5ad --output out.scdl --format scdl --genes union";
    convert(dir.path(), line);
    let plain = rows(&open(dir.path()).unwrap());
    convert(dir.path(), &format!("{line} --shuffle --seed 3"));
    let shuffled = rows(&open(dir.path()).unwrap());
    assert_ne!(plain, shuffled);
    convert(dir.path(), &format!("{line} --shuffle --seed 4"));
    assert_ne!(shuffled, rows(&open(dir.path()).unwrap()));
    let sorted = |mut rows: Vec<NamedRow>| {
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    assert_eq!(sorted(shuffled), sorted(plain));
    let output = gene_bert(
        dir.path(),
        "convert simulated_1.h5ad --output r.scdl --format scdl --genes ragged --shuffle",
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: choose --genes union"), "{said}");
}

#[test]
fn a_conversion_that_was_killed_goes_on_after_its_mark() {
    use gene_bert::h5ad::{ColumnMap, Kind};
    use gene_bert::store::{ScdlTable, ScdlWriter};

    let dir = tempfile::tempdir().unwrap();
    let (path, file) = &files(dir.path())[0];
    let table = |names: Vec<String>| ScdlTable {
        label: path.display().to_string(),
        num_rows: file.num_cells(),
        names,
        columns: Vec::new(),
    };
    let most = file.gene_ids().len();
    let part = |rows| file.read_bytes(rows, Kind::F32, &ColumnMap::Same).unwrap();
    let push = |writer: &mut ScdlWriter, rows| {
        let rows = part(rows);
        writer
            .push(&rows.lengths, &rows.columns, &rows.values)
            .unwrap();
    };
    for (marked, lost) in [(0, 5), (4, 4), (4, 9), (file.num_cells(), 0)] {
        let folder = dir.path().join("out.scdl");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let mut writer = ScdlWriter::open(&folder, ScalarType::F32, most).unwrap();
        push(&mut writer, 0..marked);
        writer.mark(7).unwrap();
        push(&mut writer, marked..file.num_cells().min(marked + lost));
        drop(writer); // As if killed: what came after the mark may be there, or in part.
        let mut writer = ScdlWriter::open(&folder, ScalarType::F32, most).unwrap();
        assert_eq!((writer.num_rows(), writer.note()), (marked, 7));
        push(&mut writer, marked..file.num_cells());
        let genes = table(file.gene_ids().to_vec());
        writer
            .finish(vec![genes], vec![table(file.cell_names().unwrap())])
            .unwrap();
        let found = open(dir.path()).unwrap();
        assert_eq!(all(&found[0]), all(file), "{marked} marked");
        let left = fs::read_dir(&folder).unwrap().flatten();
        let left: Vec<_> = left
            .map(|e| e.file_name().into_string().unwrap())
            .filter(|name| name.contains("unfinished"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn killed_at_any_moment_convert_leaves_the_old_archive_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    simulate(folder, 3, 3000).unwrap();
    convert(folder, "simulated_1.h5ad --output out.scdl --format scdl");
    let names = |parts: &[ScdlArchive]| {
        let names = parts.iter().flat_map(|part| part.cell_names().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let old = names(&open(folder).unwrap());
    let file = H5ad::open(&folder.join("simulated_2.h5ad"), &OpenOptions::default()).unwrap();
    let new: std::collections::BTreeSet<String> = file.cell_names().unwrap().into_iter().collect();
    assert_ne!(old, new);
    let line = "convert simulated_2.h5ad --output out.scdl --format scdl --shuffle --resume";
    for kill in 0..8u64 {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gene-bert"))
            .args(line.split_whitespace())
            .current_dir(folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 + 20 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        // Between two renames the old one stands beside its place.
        if folder.join("out.scdl").exists() {
            let found = names(&open(folder).unwrap());
            assert!(found == old || found == new);
        } else {
            assert!(folder.join(".out.scdl.replaced").exists());
        }
    }
    assert!(gene_bert(folder, line).status.success());
    assert_eq!(names(&open(folder).unwrap()), new);
    let hidden: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// A conversion that fails before anything of it can be gone on with leaves nothing behind.
#[test]
fn a_failed_conversion_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 400).unwrap();
    let sound = fs::read(dir.path().join("simulated_2.h5ad")).unwrap();
    let mut failed = 0;
    for place in 1..20 {
        let mut damaged = sound.clone();
        let begin = sound.len() * place / 20;
        damaged[begin..begin + 64].fill(0xff);
        fs::write(dir.path().join("simulated_2.h5ad"), damaged).unwrap();
        let line = "convert simulated_1.h5ad simulated_2.h5ad --output all --format scdl";
        let output = gene_bert(dir.path(), line);
        failed += usize::from(!output.status.success());
        let names = fs::read_dir(dir.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(
            names.find(|name| name.starts_with('.')),
            None,
            "damaged at {place}/20"
        );
        let _ = fs::remove_dir_all(dir.path().join("all"));
    }
    assert!(failed > 3, "{failed} of 19 damages were noticed");
}

#[test]
fn graphs_of_cells_become_neighbours() {
    use gene_bert::store::NeighborChoice;

    let Some(source) = shared_dir("data/torture") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let source = source.join("scverse+anndataR__example.h5ad");
    for name in ["a.h5ad", "b.h5ad"] {
        fs::copy(&source, dir.path().join(name)).unwrap();
    }
    let file = H5ad::open(&source, &OpenOptions::default()).unwrap();
    let (graph, cells) = (file.graph("distances").unwrap(), file.num_cells());
    let graph = graph.read(0..cells).unwrap();
    let own = |cell: u64| {
        let row = cell as usize;
        let within = graph.starts[row]..graph.starts[row + 1];
        (
            graph.cells[within.clone()].to_vec(),
            graph.weights[within].to_vec(),
        )
    };
    assert!(graph.cells.len() as u64 > cells);
    let line = "a.h5ad b.h5ad --output out.scdl --format scdl --matrix layers.counts";
    let line = format!("{line} --neighbors distances");
    convert(dir.path(), &line);
    let parts = open(dir.path()).unwrap();
    let neighbors = parts[0].neighbors().unwrap().unwrap();
    for cell in 0..2 * cells {
        let (mut expected, weights) = own(cell % cells);
        let offset = (cell / cells * cells) as u32;
        expected.iter_mut().for_each(|other| *other += offset);
        assert_eq!(
            neighbors.of(cell).unwrap(),
            (expected.clone(), weights),
            "{cell}"
        );
        let first = neighbors.sample(cell, NeighborChoice::First).unwrap();
        assert_eq!(
            first,
            expected.first().map_or(cell, |other| u64::from(*other))
        );
        let drawn = |epoch| {
            let choice = NeighborChoice::Random { seed: 1, epoch };
            neighbors.sample(cell, choice).unwrap() as u32
        };
        let drawn: std::collections::BTreeSet<u32> = (0..200).map(drawn).collect();
        assert!(expected.is_empty() || drawn == expected.iter().copied().collect());
    }
    assert!(neighbors.of(2 * cells).is_err());
    // Shuffled: the same edges between the same cells.
    let names = parts[0].cell_names().unwrap();
    let plain = edges(&names, &neighbors);
    convert(dir.path(), &format!("{line} --shuffle"));
    let parts = open(dir.path()).unwrap();
    let shuffled = parts[0].neighbors().unwrap().unwrap();
    assert_eq!(edges(&parts[0].cell_names().unwrap(), &shuffled), plain);
    // Damaged files are refused, an absent graph is said.
    for name in [
        "neighbor_indptr.npy",
        "neighbor_indices.npy",
        "neighbor_values.npy",
    ] {
        let path = dir.path().join("out.scdl").join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = parts[0].neighbors().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        fs::write(&path, &whole).unwrap();
    }
    let output = gene_bert(
        dir.path(),
        "convert a.h5ad --output no.scdl --format scdl --neighbors absent",
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("obsp.distances") && said.contains("hint: "),
        "{said}"
    );
    convert(dir.path(), "a.h5ad --output out.scdl --format scdl");
    assert!(open(dir.path()).unwrap()[0].neighbors().unwrap().is_none());
}

/// Edges by the names of their cells; a name may stand for several cells.
fn edges(
    names: &[String],
    neighbors: &gene_bert::store::ScdlNeighbors,
) -> std::collections::BTreeMap<(String, String, u32), usize> {
    let mut edges = std::collections::BTreeMap::new();
    for (cell, name) in (0..).zip(names) {
        let (others, weights) = neighbors.of(cell).unwrap();
        for (other, weight) in others.iter().zip(weights) {
            let edge = (
                name.clone(),
                names[*other as usize].clone(),
                weight.to_bits(),
            );
            *edges.entry(edge).or_default() += 1;
        }
    }
    edges
}

#[test]
fn a_run_on_an_archive_is_that_on_the_files_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    simulate(folder, 5, 60).unwrap();
    let tiny = r#"{"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 1}"#;
    fs::write(folder.join("tiny.json"), tiny).unwrap();
    for (genes, inputs) in [
        ("ragged", "simulated_1.h5ad simulated_2.h5ad"),
        ("same", "simulated_1.h5ad"),
    ] {
        let line = format!("{inputs} --output out.scdl --format scdl --genes {genes}");
        convert(folder, &line);
        let common = "--bin_edges 0.5 2 --max_length 32 --max_steps 3 --threads 1 --seed 4 \
                      --pretrained_model_path tiny.json --per_device_train_batch_size 4";
        let weights = |data: &str, kind: &str, flags: &str, output: &str| {
            let paths = format!("--train_data_paths {data} --output_dir {output}");
            done(folder, &format!("{kind} {flags} {common} {paths}"));
            fs::read(folder.join(output).join("checkpoint-3/model.safetensors")).unwrap()
        };
        let mlm = "--included_phenotypes cell_type sex";
        let cls = "--phenotype_category cell_type";
        for (kind, flags) in [("mlm", mlm), ("cls", cls)] {
            let files = weights(inputs, kind, flags, &format!("{kind}_{genes}_files"));
            let archive = weights("out.scdl", kind, flags, &format!("{kind}_{genes}_archive"));
            assert!(files == archive, "{kind}, {genes}");
        }
        let told = |input: &str, output: &str| {
            let line = "predict --checkpoint cls_same_files --threads 1 --overwrite";
            done(folder, &format!("{line} --output {output} {input}"));
            fs::read_to_string(folder.join(output)).unwrap()
        };
        if genes == "same" {
            assert_eq!(told(inputs, "a.csv"), told("out.scdl", "b.csv"));
            done(
                folder,
                "embed --checkpoint mlm_same_files --output e.npy out.scdl",
            );
            let output = gene_bert(
                folder,
                "predict --checkpoint cls_same_files --output c.h5ad out.scdl",
            );
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains("out.scdl: an archive") && said.contains("hint: "),
                "{said}"
            );
        }
    }
}
