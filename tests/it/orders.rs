//! Orders of training cells through the real command: weighted, grouped, full; their settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use gene_bert::cell::CellSource;
use gene_bert::h5ad::{H5ad, OpenOptions};
use gene_bert::loader::{
    CellColumn, DataSet, Loader, LoaderConfig, OrderBy, PlainCollator, Remainder, SamplerConfig,
    Selection, Shuffle,
};
use gene_bert::prepare::simulate::simulate;
use gene_bert::tokenize::{TokenizeConfig, Tokenizer};
use gene_bert::vocab::{GenesFrom, PhenotypeVocab, Repeats, Vocabulary, build_genes};

use crate::command::{gene_bert, text};

fn mlm(folder: &Path, output: &str, more: &str) -> Output {
    let flags = "mlm --model_arch quickstart --num_hidden_layers 1 --bin_edges 0.5 --max_length 32 \
                 --included_phenotypes cell_type --per_device_train_batch_size 8 --logging_steps 1 \
                 --train_data_paths simulated_1.h5ad simulated_2.h5ad --output_dir";
    gene_bert(folder, &format!("{flags} {output} {more}"))
}

fn weights(checkpoint: PathBuf) -> Vec<u8> {
    fs::read(checkpoint.join("model.safetensors")).unwrap()
}

#[test]
fn every_order_trains_and_resumes_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 120).unwrap();
    for order in [
        "--shuffle full",
        "--balance_by cell_type --remainder drop",
        "--group_by donor_id --remainder repeat",
    ] {
        let whole = mlm(
            dir.path(),
            "whole",
            &format!("{order} --max_steps 9 --overwrite_output_dir"),
        );
        assert!(whole.status.success(), "{}", text(&whole));
        let parts = format!("{order} --max_steps 9 --save_steps 4 --overwrite_output_dir");
        assert!(mlm(dir.path(), "parts", &parts).status.success());
        let parts = dir.path().join("parts");
        for late in ["checkpoint-8", "checkpoint-9"] {
            fs::remove_dir_all(parts.join(late)).unwrap();
        }
        let resume = format!("{order} --max_steps 9 --resume --dataloader_num_workers 1");
        let resumed = mlm(dir.path(), "parts", &resume);
        assert!(resumed.status.success(), "{}", text(&resumed));
        let whole = weights(dir.path().join("whole/checkpoint-9"));
        assert!(whole == weights(parts.join("checkpoint-9")), "{order}");
    }
}

#[test]
fn orders_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    simulate(dir.path(), 3, 60).unwrap();
    for (flags, parts) in [
        ("--shuffle weighted", ["setting shuffle", "balance_by"]),
        (
            "--shuffle full --group_by sex",
            ["setting shuffle", "group_by"],
        ),
        (
            "--balance_by sex --group_by sex",
            ["more than one", "hint: "],
        ),
        ("--group_by colour", ["colour", "donor_id"]),
        ("--weight_by sex", ["obs column `sex`", "--balance_by sex"]),
        ("--shuffle random", ["sequential", "grouped"]),
        ("--remainder keep", ["pad", "repeat"]),
    ] {
        let output = mlm(dir.path(), "run", flags);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{flags}: {text}");
        assert!(
            parts.iter().all(|part| text.contains(part)),
            "{flags}: {text}"
        );
        assert!(!dir.path().join("run").exists());
    }
}

fn data_set(folder: &Path) -> Arc<DataSet> {
    let open = |path: &PathBuf| Arc::new(H5ad::open(path, &OpenOptions::default()).unwrap());
    let files: Vec<Arc<H5ad>> = simulate(folder, 3, 400).unwrap().iter().map(open).collect();
    let sources: Vec<&dyn CellSource> = files.iter().map(|file| file.as_ref() as _).collect();
    let genes = build_genes(&sources, GenesFrom::Union).unwrap();
    let phenotypes = PhenotypeVocab::new(Default::default(), Repeats::Refused).unwrap();
    let vocabulary = Arc::new(Vocabulary::new(phenotypes, genes, 1));
    let tokenizer = Tokenizer::new(vocabulary, TokenizeConfig::default()).unwrap();
    let bind = |file: Arc<H5ad>| {
        let bound = Arc::new(tokenizer.bind(file.as_ref()).unwrap());
        (file as Arc<dyn CellSource>, bound)
    };
    Arc::new(DataSet::new(files.into_iter().map(bind).collect()))
}

/// One epoch of half of the cells.
fn epoch(data: &Arc<DataSet>, by: &OrderBy, shuffle: Shuffle) -> Vec<Vec<u64>> {
    let config = SamplerConfig {
        shuffle,
        group_cells: 16,
        remainder: Remainder::Drop,
        ..SamplerConfig::default()
    };
    let half = Selection::Rows((0..data.len()).step_by(2).collect());
    let (sampler, left_out) = by.sampler(config, half, data).unwrap();
    assert_eq!(left_out, 0);
    let config = LoaderConfig {
        batch_cells: 16,
        ..LoaderConfig::default()
    };
    let mut loader =
        Loader::new(Arc::clone(data), sampler, Arc::new(PlainCollator), config).unwrap();
    std::iter::from_fn(|| loader.next_batch().unwrap())
        .map(|batch| batch.cells)
        .collect()
}

#[test]
fn columns_of_files_decide_what_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_set(dir.path());
    let read = |column| {
        let sources = (0..data.num_sources()).filter_map(|n| data.source(n));
        CellColumn::read(sources.map(AsRef::as_ref), column).unwrap()
    };
    let types = read("cell_type");
    let balanced = epoch(
        &data,
        &OrderBy::Balance("cell_type".into()),
        Shuffle::Weighted,
    );
    let mut counts = vec![0; types.values.len()];
    for cell in balanced.iter().flatten() {
        assert_eq!(cell % 2, 0);
        counts[types.codes[*cell as usize].unwrap() as usize] += 1;
    }
    // 192 draws over six types, the last of 200 left out.
    assert!(
        counts.iter().all(|count| (24..=34).contains(count)),
        "{counts:?}"
    );
    let donors = read("donor_id");
    let grouped = epoch(&data, &OrderBy::Group("donor_id".into()), Shuffle::Grouped);
    assert!(grouped.len() > 5);
    for batch in grouped {
        let donor = |cell: &u64| donors.codes[*cell as usize];
        assert!(batch.len() == 16 && batch.iter().all(|cell| donor(cell) == donor(&batch[0])));
    }
}
