//! The original's long command line for pretraining runs as people have it in their scripts: flags
//! on both sides of the subcommand, brace patterns, `--use_flash_attn`, a shard size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;

use gene_bert::prepare::simulate::simulate;

use crate::folder::said;

const LINE: &str = "gene-bert --bin_edges 0.1 --pretrained_model_path \
    model_configs/distilbert_base.json --shard_size 10000 --eval_data_paths SHARD_47.h5ad \
    --max_length 1024 --num_top_genes 58604 --vocab_path VOCAB.json --included_phenotypes \
    cell_type sex tissue --use_flash_attn --per_device_eval_batch_size 256 \
    --dataloader_num_workers 4 --output_dir output_v10_base_gene000 mlm --gene_mask_prob 0.00 \
    --phenotype_mask_prob 0.5 --train_data_paths 'SHARD_{0..43}.h5ad' --num_hidden_layers 12 \
    --num_attention_heads 12 --per_device_train_batch_size 128 --learning_rate 1e-4 \
    --weight_decay 5e-2 --warmup_ratio 0.1 --num_train_epochs 10 --eval_steps 1000 \
    --save_steps 8000";

/// Sizes that a test has time for; all else stays word for word.
const SMALLER: [(&str, &str); 4] = [
    ("--max_length 1024", "--max_length 32"),
    ("'SHARD_{0..43}.h5ad'", "SHARD_{0..2}.h5ad"),
    ("--num_hidden_layers 12", "--num_hidden_layers 2"),
    ("--num_train_epochs 10", "--num_train_epochs 2"),
];

/// A narrow stand-in for `distilbert_base`, which has 768.
const MODEL: &str = r#"{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 12, "max_position_embeddings": 512, "model_type": "distilbert"}"#;

#[test]
fn the_line_runs_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (seed, shards) in [(1, ["SHARD_0", "SHARD_1"]), (2, ["SHARD_2", "SHARD_47"])] {
        let made = simulate(dir.path(), seed, 120).unwrap();
        for (from, shard) in made.iter().zip(shards) {
            fs::rename(from, path(&format!("{shard}.h5ad"))).unwrap();
        }
    }
    fs::create_dir(path("model_configs")).unwrap();
    fs::write(path("model_configs/distilbert_base.json"), MODEL).unwrap();
    let run = |line: &str| {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("gene-bert"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_gene-bert"));
        let output = command.args(words).current_dir(dir.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{line}\n{}", said(&output));
        (
            String::from_utf8(output.stdout.clone()).unwrap(),
            said(&output),
        )
    };
    run(
        "gene-bert vocab build SHARD_{0..2}.h5ad --phenotypes cell_type sex tissue \
         --output VOCAB.json",
    );

    let mut line = LINE.to_owned();
    for (words, fewer) in SMALLER {
        assert!(line.contains(words), "{words}");
        line = line.replace(words, fewer);
    }
    let (stdout, stderr) = run(&line);
    let notes = [
        "note: 4 of 4 files have another number of cells than --shard_size 10000 says",
        "SHARD_0.h5ad has 90, SHARD_1.h5ad has 30",
        "note: use_flash_attn: ",
    ];
    for note in notes {
        assert!(stderr.contains(note), "{stderr}");
    }
    for category in ["cell_type", "sex", "tissue"] {
        assert!(stdout.contains(&format!("\n  {category} ")), "{stdout}");
    }
    let checkpoint = path("output_v10_base_gene000/checkpoint-4");
    let config = fs::read_to_string(checkpoint.join("config.json")).unwrap();
    assert!(config.contains("\"num_hidden_layers\": 2"), "{config}");
    assert!(checkpoint.join("model.safetensors").is_file());
}
