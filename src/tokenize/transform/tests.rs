#![allow(clippy::unwrap_used)]
use super::*;

const DRAW: Draw = Draw {
    seed: 3,
    epoch: 0,
    cell: 7,
    augments: true,
};

fn row(values: &[(u32, f32)]) -> Row {
    let (columns, values) = values.iter().copied().unzip();
    Row { columns, values }
}

fn apply(steps: &str, genes: &[&str], mut row: Row, draw: Draw) -> Row {
    let genes: Vec<String> = genes.iter().map(|gene| (*gene).to_owned()).collect();
    let bound = steps.parse::<Transform>().unwrap().bind(&genes).unwrap();
    bound.apply(&mut row, draw);
    row
}

#[test]
fn steps_are_done_in_order() {
    let found = apply(
        "normalize_total:10+log1p",
        &[],
        row(&[(0, 1.0), (4, 3.0)]),
        DRAW,
    );
    assert_eq!(found.columns, [0, 4]);
    assert!((found.values[0] - 2.5f32.ln_1p()).abs() < 1e-6);
    assert!((found.values[1] - 7.5f32.ln_1p()).abs() < 1e-6);
    let found = apply(
        "clip:2+scale:10",
        &[],
        row(&[(0, -5.0), (1, 1.0), (2, 3.0)]),
        DRAW,
    );
    assert_eq!(found.values, [-20.0, 10.0, 20.0]);
    for text in [
        "normalize_total:10+log1p",
        "thin:0.5+gene_dropout:0.1+z_score:a/b.csv",
        "none",
    ] {
        let transform: Transform = text.parse().unwrap();
        assert_eq!(transform.to_string(), text);
    }
    let (one, other): (Transform, Transform) =
        ("scale:1e4".parse().unwrap(), "scale:10000".parse().unwrap());
    assert_eq!(one, other);
}

#[test]
fn unknown_steps_are_refused() {
    for bad in [
        "",
        "log2",
        "log1p:3",
        "normalize_total",
        "normalize_total:-1",
        "log1p+",
        "thin:1",
        "thin:0",
        "gene_dropout:2",
        "scale:nan",
        "clip:",
        "z_score",
        "filter_genes:",
    ] {
        let error = bad.parse::<Transform>().unwrap_err().to_string();
        assert!(
            error.contains("z_score:FILE") && error.contains("hint: "),
            "{bad}: {error}"
        );
    }
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert!(names.is_sorted());
}

#[test]
fn what_a_step_needs_decides_where_it_may_stand() {
    let require = |steps: &str, most| {
        let transform: Transform = steps.parse().unwrap();
        transform
            .require(most, "transform")
            .map_err(|e| e.to_string())
    };
    assert_eq!(require("log1p+clip:3", Needs::Values), Ok(()));
    assert_eq!(require("log1p+thin:0.5", Needs::Draws), Ok(()));
    assert!(
        require("thin:0.5", Needs::Values)
            .unwrap_err()
            .contains("draws at random")
    );
    assert!(
        require("z_score:x.csv", Needs::Draws)
            .unwrap_err()
            .contains("step z_score:x.csv")
    );
}

#[test]
fn draws_follow_from_cell_and_epoch() {
    let counts: Vec<(u32, f32)> = (0..4000)
        .map(|gene| (gene, (gene % 9 + 1) as f32))
        .collect();
    let total: f32 = counts.iter().map(|(_, count)| count).sum();
    for steps in ["thin:0.3", "gene_dropout:0.7"] {
        let found = apply(steps, &[], row(&counts), DRAW);
        assert_eq!(found, apply(steps, &[], row(&counts), DRAW));
        for other in [
            Draw { epoch: 1, ..DRAW },
            Draw { cell: 8, ..DRAW },
            Draw { seed: 4, ..DRAW },
        ] {
            assert_ne!(found, apply(steps, &[], row(&counts), other));
        }
        assert!(found.columns.is_sorted() && found.columns.len() == found.values.len());
        assert!(found.values.iter().all(|value| *value >= 1.0));
        let kept = found.values.iter().sum::<f32>() / total;
        assert!((kept - 0.3).abs() < 0.02, "{steps}: {kept}");
        let whole = found.columns.iter().zip(&found.values);
        let whole = whole
            .filter(|(gene, value)| **value == counts[**gene as usize].1)
            .count();
        assert_eq!(whole == found.values.len(), steps == "gene_dropout:0.7");
    }
}

#[test]
fn genes_are_treated_by_their_line_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("genes.csv");
    let text = "gene,mean_counts,variance,nonzero_median\nENSG00000000001,1,4,2\nB,0,0,\nC,2,1,4\n";
    std::fs::write(&path, text).unwrap();
    let genes = ["C", "ENSG00000000001.3", "B"];
    let cell = || row(&[(0, 4.0), (2, 3.0)]);
    let steps = |name: &str| format!("{name}:{}", path.display());
    let found = apply(&steps("z_score"), &genes, cell(), DRAW);
    assert_eq!(found, row(&[(0, 2.0), (1, -0.5), (2, 0.0)]));
    let found = apply(&steps("scale_genes"), &genes, cell(), DRAW);
    assert_eq!(found, row(&[(0, 1.0), (2, 3.0)]));
    let list = dir.path().join("list.txt");
    std::fs::write(&list, "C\nother\n").unwrap();
    let found = apply(
        &format!("filter_genes:{}", list.display()),
        &genes,
        cell(),
        DRAW,
    );
    assert_eq!(found, row(&[(0, 4.0)]));
    for (steps, genes, part) in [
        (steps("z_score"), &["D"][..], "lacks gene D"),
        (format!("z_score:{}", list.display()), &["C"], "mean_counts"),
        ("filter_genes:absent.csv".to_owned(), &["C"], "absent.csv"),
    ] {
        let genes: Vec<String> = genes.iter().map(|gene| (*gene).to_owned()).collect();
        let error = steps
            .parse::<Transform>()
            .unwrap()
            .bind(&genes)
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}
