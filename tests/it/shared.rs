//! Where the goldens and the real cells lie: `$GENE_BERT_SHARED`, by default `../shared` beside the
//! checkout. Nothing of it is ever copied into the repository, so a test that needs it asks
//! [`shared_dir`] and returns early on `None`.
#![allow(clippy::panic)]

use std::path::{Path, PathBuf};

/// The folder (or file) `name` of the shared data, for example `golden/tokenize`.
///
/// Where it is absent this prints `skipped: shared data absent` and returns `None`; with
/// `GENE_BERT_REQUIRE_SHARED` set (as `.ci/run` does where the data is there) it fails instead.
pub fn shared_dir(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GENE_BERT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var_os("GENE_BERT_REQUIRE_SHARED").is_some_and(|v| v != "0");
    assert!(
        !required,
        "{}: required by GENE_BERT_REQUIRE_SHARED, and absent",
        path.display()
    );
    println!("skipped: shared data absent ({})", path.display());
    None
}

#[test]
fn a_name_that_is_not_there_is_skipped_unless_required() {
    let required = std::env::var_os("GENE_BERT_REQUIRE_SHARED").is_some_and(|v| v != "0");
    if let Some(golden) = shared_dir("golden") {
        assert!(golden.is_dir());
    } else {
        assert!(!required);
    }
}
