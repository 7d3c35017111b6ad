//! From files to batches: the loader on h5ad files, and `gene-bert bench`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use gene_bert::cell::{CellSource, CsrBlock, PackedBatch, SparseBatch};
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::loader::{
    DataSet, Loader, LoaderConfig, LoaderError, MlmCollator, MlmConfig, Sampler, SamplerConfig,
    Selection,
};
use gene_bert::prepare::simulate::simulate;
use gene_bert::tokenize::{TokenizeConfig, Tokenizer};
use gene_bert::vocab::{GeneVocab, PhenotypeVocab, Repeats, Vocabulary};

use crate::command::gene_bert;

/// The files as one data set, with one phenotype, and its vocabulary.
fn data_set(paths: &[PathBuf], phenotype: Option<&str>) -> (Arc<DataSet>, Arc<Vocabulary>) {
    let open = |path: &PathBuf| H5ad::open(path, &OpenOptions::default()).unwrap();
    let files: Vec<H5ad> = paths.iter().map(open).collect();
    let mut genes: Vec<String> = files.iter().flat_map(|f| f.gene_ids().to_vec()).collect();
    genes.sort();
    genes.dedup();
    let mut phenotypes = PhenotypeVocab::new(Default::default(), Repeats::Refused).unwrap();
    for (file, category) in files.iter().flat_map(|file| phenotype.map(|p| (file, p))) {
        let labels = file.obs_labels(category).unwrap();
        phenotypes = phenotypes.with_values([(category, &labels)]).unwrap();
    }
    let genes = GeneVocab::new(genes, None).unwrap();
    let vocabulary = Arc::new(Vocabulary::new(phenotypes, genes, 1));
    let included_phenotypes = phenotype.map(str::to_owned).into_iter().collect();
    let config = TokenizeConfig {
        included_phenotypes,
        ..TokenizeConfig::default()
    };
    let tokenizer = Tokenizer::new(Arc::clone(&vocabulary), config).unwrap();
    let bind = |file: H5ad| {
        let bound = Arc::new(tokenizer.bind(&file).unwrap());
        (Arc::new(file) as Arc<dyn CellSource>, bound)
    };
    (
        Arc::new(DataSet::new(files.into_iter().map(bind).collect())),
        vocabulary,
    )
}

fn loader(data: &Arc<DataSet>, vocabulary: &Vocabulary, num_workers: usize) -> Loader {
    let plan = SamplerConfig {
        block_cells: 8,
        buffer_cells: 64,
        ..SamplerConfig::default()
    };
    let sampler = Sampler::new(plan, Selection::All, data.len()).unwrap();
    let masks = MlmCollator::training(vocabulary, &MlmConfig::default(), 1, None).unwrap();
    let config = LoaderConfig {
        num_workers,
        batch_cells: 7,
        ..LoaderConfig::default()
    };
    Loader::new(Arc::clone(data), sampler, Arc::new(masks), config).unwrap()
}

#[test]
fn files_of_different_genes_are_one_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let paths = simulate(dir.path(), 3, 300).unwrap();
    let (data, vocabulary) = data_set(&paths, Some("cell_type"));
    let epoch = |workers| -> Vec<PackedBatch> {
        let mut loader = loader(&data, &vocabulary, workers);
        std::iter::from_fn(|| loader.next_batch().unwrap()).collect()
    };
    let batches = epoch(0);
    assert_eq!(batches, epoch(4));
    let mut cells: Vec<u64> = batches
        .iter()
        .flat_map(|batch| batch.cells.clone())
        .collect();
    cells.sort_unstable();
    assert_eq!(cells, (0..300).collect::<Vec<_>>());
    // A gene asked for as not expressed is one that the cell's own file measures.
    let bin_0 = vocabulary.bin_id(0).0;
    let mut asked = 0;
    for batch in &batches {
        for label in batch.labels.iter().filter(|label| label.token == bin_0) {
            let token_type = batch.token_type_ids[label.position as usize];
            let gene = vocabulary.type_gene(token_type).unwrap().0;
            let at = batch
                .cu_seqlens
                .partition_point(|start| *start <= label.position)
                - 1;
            let (source, _) = data.locate(batch.cells[at]).unwrap();
            let measured = data.bound(source).unwrap().measured_genes();
            assert!(measured.binary_search(&gene).is_ok());
            asked += 1;
        }
    }
    assert!(asked > 100);
}

#[test]
fn rows_come_in_the_order_of_tokens_with_the_values_of_their_genes() {
    let dir = tempfile::tempdir().unwrap();
    let paths = simulate(dir.path(), 3, 300).unwrap();
    let (data, vocabulary) = data_set(&paths, None);
    let rows = |workers| -> Vec<SparseBatch> {
        let tokens = loader(&data, &vocabulary, workers);
        let config = LoaderConfig {
            num_workers: workers,
            batch_cells: 7,
            ..LoaderConfig::default()
        };
        let mut rows = Loader::rows(Arc::clone(&data), tokens.sampler().clone(), config).unwrap();
        std::iter::from_fn(|| rows.next_batch().unwrap()).collect()
    };
    let batches = rows(0);
    assert_eq!(batches, rows(3));
    let mut tokens = loader(&data, &vocabulary, 0);
    for batch in &batches {
        assert_eq!(batch.cells, tokens.next_batch().unwrap().unwrap().cells);
        assert_eq!(batch.num_genes, vocabulary.genes().len());
        for (at, cell) in batch.cells.iter().enumerate() {
            let (source, row) = data.locate(*cell).unwrap();
            let source = data.source(source).unwrap();
            let block = source.read_ranges(&[row..row + 1]).unwrap();
            let gene = |column: &u32| {
                let id = &source.gene_ids()[*column as usize];
                vocabulary.genes().get(id).unwrap().0
            };
            let mut expected: Vec<(u32, f32)> = block
                .indices()
                .iter()
                .map(gene)
                .zip(block.data().iter().copied())
                .collect();
            expected.sort_by_key(|(gene, _)| *gene);
            let own = batch.starts[at]..batch.starts[at + 1];
            let found = batch.columns[own.clone()].iter().copied();
            let found = found.zip(batch.values[own].iter().copied());
            assert_eq!(found.collect::<Vec<_>>(), expected, "cell {cell}");
        }
    }
    assert!(tokens.next_batch().unwrap().is_none());
}

#[test]
fn a_bad_value_deep_in_a_file_is_named_by_the_loader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.h5ad");
    let mut values = vec![1.0; 200];
    values[150] = f32::NAN;
    let columns = (0..200).map(|row| row % 5).collect();
    let data = AnnData {
        x: CsrBlock::new((200, 5), (0..=200).collect(), columns, values),
        value_type: ValueType::Float32,
        layers: Vec::new(),
        cell_names: (0..200).map(|row| format!("cell_{row}")).collect(),
        obs: Vec::new(),
        gene_ids: (0..5).map(|gene| format!("GENE{gene}")).collect(),
        var: Vec::new(),
    };
    write_h5ad(&path, &data).unwrap();
    let (data, vocabulary) = data_set(&[path], None);
    for workers in [0, 3] {
        let mut loader = loader(&data, &vocabulary, workers);
        let error = std::iter::from_fn(|| loader.next_batch().transpose())
            .find_map(Result::err)
            .expect("the bad value is found");
        assert!(matches!(error, LoaderError::Read { .. }));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        for part in ["bad.h5ad", "150", "GENE0"] {
            assert!(cause.contains(part), "`{part}` is not in: {cause}");
        }
    }
}

fn bench_data(folder: &Path, flags: &str) -> Output {
    bench(folder, &format!("data simulated_{{1,2}}.h5ad {flags}"))
}

fn bench(folder: &Path, flags: &str) -> Output {
    gene_bert(folder, &format!("bench {flags}"))
}

#[test]
fn bench_data_prints_a_row_for_each_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 60).unwrap();
    let flags = "--bin-edges 0.1 --threads 2 --passes 1 --included_phenotypes sex cell_type";
    let output = bench_data(dir.path(), flags);
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{error}");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{text}");
    assert_eq!(
        (rows[1][0], rows[1][2], rows[2][0], rows[2][2]),
        ("1", "60", "2", "60")
    );
    for (flags, part) in [
        ("", "bin"),
        ("--bin-edges 0.1 --included-phenotypes colour", "colour"),
        ("--bin-edges 0.1 --resume nowhere", "resume"),
        (
            "--bin-edges 0.1 --overwrite-output-dir",
            "overwrite_output_dir",
        ),
    ] {
        let output = bench_data(dir.path(), flags);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.starts_with("error: ") && error.contains(part),
            "{error}"
        );
    }
}

#[test]
fn bench_data_tells_rows_and_how_well_they_are_mixed() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 60).unwrap();
    let flags = "--rows --batch 8,16 --readers 1,2 --entropy cell_type --passes 1 --json";
    let output = bench_data(dir.path(), flags);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let of = |row: &serde_json::Value| (row["batch_cells"].as_u64(), row["threads"].as_u64());
    let found: Vec<_> = rows.iter().map(of).collect();
    let expected = [(8, 1), (8, 2), (16, 1), (16, 2)];
    assert_eq!(found, expected.map(|(b, t)| (Some(b), Some(t))));
    for row in rows {
        assert_eq!(
            (row["cells"].as_u64(), row["tokens"].as_u64()),
            (Some(60), Some(0))
        );
        let entropy = |key: &str| row[key].as_f64().unwrap();
        let share = entropy("batch_entropy_bits") / entropy("random_batch_entropy_bits");
        assert!((0.8..1.1).contains(&share), "{row}");
    }
    assert_eq!(rows[0]["batch_entropy_bits"], rows[1]["batch_entropy_bits"]);
    let output = bench_data(dir.path(), "--rows --entropy colour");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("colour"), "{error}");
}

#[test]
fn bench_shows_the_flags_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let shown = |part: &str, flag: &str| {
        let output = bench(dir.path(), &format!("{part} --help"));
        String::from_utf8(output.stdout).unwrap().contains(flag)
    };
    for (flag, data, train) in [
        ("--max-length", true, true),
        ("--block-cells", true, true),
        ("--dtype", false, true),
        ("--learning-rate", false, false),
        ("--resume", false, false),
    ] {
        assert_eq!(
            (shown("data", flag), shown("train", flag)),
            (data, train),
            "{flag}"
        );
    }
}

#[test]
fn bench_train_measures_made_up_cells_and_those_of_files() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 60).unwrap();
    let shape = "--shape 1,16,2,32 --steps 2 --threads 2";
    let output = bench(
        dir.path(),
        &format!("train {shape} --length 20 --ragged --json --dtype bf16 --export out"),
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["threads"], &found["dtype"]),
        (&2.into(), &"bf16".into())
    );
    assert_eq!(found["losses"].as_array().unwrap().len(), 4);
    assert!(found["tokens_per_second"].as_f64() < found["padded_tokens_per_second"].as_f64());
    for file in ["model.safetensors", "config.json", "batches.json"] {
        assert!(dir.path().join("out").join(file).is_file(), "{file}");
    }
    let flags = format!("train simulated_1.h5ad {shape} --bin-edges 0.1 --profile");
    let output = bench(dir.path(), &flags);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["tokens/s", "GFLOP/s", "peak memory", "linear forward"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    for (flags, part) in [
        ("", "model_arch"),
        ("--shape 1,16", "hint: "),
        ("--steps 0", "--steps"),
    ] {
        let output = bench(dir.path(), &format!("train {flags}"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(part), "{error}");
    }
}
