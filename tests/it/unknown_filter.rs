//! A filter that is not decoded is refused by its name. No writer of ours makes such a file, so
//! the test renames the gzip filter of a sound one to szip and mends the header's checksum
//! (Jenkins' lookup3, as HDF5 uses it).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gene_bert::cell::CsrBlock;
use gene_bert::h5ad::write::{AnnData, ValueType, write_h5ad};
use gene_bert::h5ad::{H5ad, H5adError, OpenOptions, inspect};

fn lookup3(key: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(key.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let blocks: Vec<&[u8]> = key.chunks(12).collect();
    for (at, block) in blocks.iter().enumerate() {
        let mut padded = [0u8; 12];
        padded[..block.len()].copy_from_slice(block);
        let word = |n: usize| u32::from_le_bytes(padded[4 * n..4 * n + 4].try_into().unwrap());
        a = a.wrapping_add(word(0));
        b = b.wrapping_add(word(1));
        c = c.wrapping_add(word(2));
        if at + 1 < blocks.len() {
            for (left, right) in [(4, 6), (8, 16), (19, 4)] {
                (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(left), c.wrapping_add(b));
                (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(right), a.wrapping_add(c));
                (a, b, c) = (c, a, b);
            }
        }
    }
    for (left, middle, right) in [(14, 11, 25), (16, 4, 14)] {
        c = (c ^ b).wrapping_sub(b.rotate_left(left));
        a = (a ^ c).wrapping_sub(c.rotate_left(middle));
        b = (b ^ a).wrapping_sub(a.rotate_left(right));
    }
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// The object headers of a file: begin of each, and where its checksum stands.
fn headers(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"OHDR\x02")) {
        let flags = bytes[at + 5];
        let skipped =
            if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 };
        let width = 1usize << (flags & 3);
        let size_at = at + 6 + skipped;
        let mut size = [0u8; 8];
        size[..width].copy_from_slice(&bytes[size_at..size_at + width]);
        found.push((at, size_at + width + u64::from_le_bytes(size) as usize));
    }
    found
}

#[test]
fn a_filter_that_is_not_decoded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("szip.h5ad");
    let data = AnnData {
        x: CsrBlock::new((2, 2), vec![0, 1, 2], vec![0, 1], vec![1.0, 2.0]),
        value_type: ValueType::Float32,
        layers: vec![],
        cell_names: vec!["a".into(), "b".into()],
        obs: vec![],
        gene_ids: vec!["g".into(), "h".into()],
        var: vec![],
    };
    write_h5ad(&path, &data).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Filters of version 2, two of them: shuffle with one value, gzip with one value.
    for (start, checksum) in headers(&bytes) {
        assert_eq!(
            lookup3(&bytes[start..checksum]).to_le_bytes(),
            bytes[checksum..checksum + 4]
        );
        let gzip = (start..checksum - 4).find(|at| {
            bytes[*at..].starts_with(&[1, 0]) && bytes[*at + 4..].starts_with(&[1, 0, 4, 0, 0, 0])
        });
        if let Some(at) = gzip {
            bytes[at] = 4;
            let mended = lookup3(&bytes[start..checksum]).to_le_bytes();
            bytes[checksum..checksum + 4].copy_from_slice(&mended);
        }
    }
    std::fs::write(&path, bytes).unwrap();
    let error = H5ad::open(&path, &OpenOptions::default()).unwrap_err();
    assert!(
        matches!(&error, H5adError::Filter { filter, .. } if filter == "szip"),
        "{error}"
    );
    assert!(error.to_string().contains("gzip"), "{error}");
    let problems = inspect(&path).unwrap().problems.join("; ");
    assert!(
        problems.contains("compressed with szip, which is not supported"),
        "{problems}"
    );
}
