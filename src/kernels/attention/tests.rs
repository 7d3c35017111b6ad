//! Attention against the textbook's, finite differences, other thread counts and other precision.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::kernels::dropout::{DropoutKey, multiplier, square};
use crate::kernels::testing::{Random, assert_close, inner, same_for_any_threads, slopes, wide};

fn starts(lengths: &[usize]) -> Numbers {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end as u32)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Textbook attention, one (cell, head, query) at a time.
fn reference(settings: Settings<'_>, width: usize, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let head_width = width / settings.num_heads;
    let mut context = vec![0.0; q.len()];
    for cell in settings
        .cells
        .starts
        .windows(2)
        .map(|w| w[0] as usize..w[1] as usize)
    {
        for head in 0..settings.num_heads {
            let of = |token: usize| {
                token * width + head * head_width..token * width + (head + 1) * head_width
            };
            for query in cell.clone() {
                let score =
                    |key: usize| inner(&q[of(query)], &k[of(key)]) / (head_width as f64).sqrt();
                let total: f64 = cell.clone().map(|key| score(key).exp()).sum();
                for (place, key) in cell.clone().enumerate() {
                    let kept = settings.dropout.map_or(1.0, |d| {
                        let (query, heads) = (query - cell.start, (settings.num_heads, head));
                        let hash = square(d.query_key((cell.start, query), heads), place);
                        let keeps = d.keeps(hash, multiplier(query, place));
                        if keeps { f64::from(d.scale()) } else { 0.0 }
                    });
                    let p = score(key).exp() / total * kept;
                    for (to, from) in of(query).zip(of(key)) {
                        context[to] += p * v[from];
                    }
                }
            }
        }
    }
    context
}

fn gradients(settings: Settings<'_>, [q, k, v, dy]: [&Tensor; 4]) -> (Tensor, [Tensor; 3]) {
    let (context, log_sums) = forward(settings, q, k, v).unwrap();
    let saved = Saved {
        q,
        k,
        v,
        context: &context,
        log_sums: &log_sums,
    };
    let gradients = backward(settings, saved, dy).unwrap();
    (
        context,
        gradients.map(|gradient| gradient.to_tensor().unwrap()),
    )
}

#[test]
fn agrees_with_the_reference_and_with_finite_differences() {
    let dropout = Dropout::new(0.4, Some(DropoutKey { seed: 1, step: 2 }), 3).unwrap();
    let cases: [(&[usize], usize, usize); 6] = [
        (&[1], 1, 1),
        (&[5], 2, 3),
        (&[1, 7, 1], 3, 2),
        (&[0, 2, 0, 11, 0], 1, 4),
        (&[13, 1], 2, 5),
        (&[], 2, 2),
    ];
    for (i, (lengths, num_heads, head_width)) in cases.into_iter().enumerate() {
        let (starts, mut random) = (starts(lengths), Random::new(i as u64));
        let (count, width) = (lengths.iter().sum(), num_heads * head_width);
        let tensors = [(); 4].map(|()| random.tensor(&[count, width]));
        let [q, k, v, dy] = &tensors;
        let [q64, k64, v64, dy64] = [q, k, v, dy].map(wide);
        for dropout in [None, Some(&dropout)] {
            let settings = Settings {
                num_heads,
                cells: (&starts).into(),
                dropout,
                precision: Precision::F32,
            };
            let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
            let expected = reference(settings, width, &q64, &k64, &v64);
            assert_close("context", &wide(&context), &expected);
            let loss = |q: &[f64], k: &[f64], v: &[f64]| {
                inner(&reference(settings, width, q, k, v), &dy64)
            };
            assert_close("dq", &wide(&dq), &slopes(&q64, |q| loss(q, &k64, &v64)));
            assert_close("dk", &wide(&dk), &slopes(&k64, |k| loss(&q64, k, &v64)));
            assert_close("dv", &wide(&dv), &slopes(&v64, |v| loss(&q64, &k64, v)));
        }
    }
}

/// Cells of these lengths: the context, and one direction of each gradient by finite differences.
fn agrees_along_a_direction(
    lengths: &[usize],
    (num_heads, head_width): (usize, usize),
    dropout: Option<&Dropout>,
    random: &mut Random,
) {
    let (starts, width) = (starts(lengths), num_heads * head_width);
    let shape = [lengths.iter().sum(), width];
    let tensors = [(); 5].map(|()| random.tensor(&shape));
    let [q, k, v, dy, along] = &tensors;
    let settings = Settings {
        num_heads,
        cells: (&starts).into(),
        dropout,
        precision: Precision::F32,
    };
    let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
    let [q64, k64, v64, dy64, along] = [q, k, v, dy, along].map(wide);
    let expected = reference(settings, width, &q64, &k64, &v64);
    assert_close("context", &wide(&context), &expected);
    let moved = |x: &[f64], step: f64| -> Vec<f64> {
        x.iter().zip(&along).map(|(x, a)| x + step * a).collect()
    };
    for (i, (found, at)) in [(dq, &q64), (dk, &k64), (dv, &v64)].into_iter().enumerate() {
        let slope = slopes(&[0.0], |step| {
            let mut inputs = [&q64, &k64, &v64].map(Vec::as_slice);
            let moved = moved(at, step[0]);
            inputs[i] = &moved;
            inner(
                &reference(settings, width, inputs[0], inputs[1], inputs[2]),
                &dy64,
            )
        });
        assert_close("slope", &[inner(&wide(&found), &along)], &slope);
    }
    same_for_any_threads(|| {
        let (context, [dq, dk, dv]) = gradients(settings, [q, k, v, dy]);
        vec![context, dq, dk, dv]
    });
}

#[test]
fn long_cells_of_several_blocks_agree_too_on_any_number_of_threads() {
    let dropout = Dropout::new(0.1, Some(DropoutKey { seed: 1, step: 2 }), 3);
    let lengths = [300, 1, 128, 129];
    agrees_along_a_direction(&lengths, (2, 6), dropout.as_ref(), &mut Random::new(9));
}

#[test]
fn cells_of_any_lengths_agree() {
    let dropout = Dropout::new(0.3, Some(DropoutKey { seed: 4, step: 5 }), 6);
    for seed in 0..12 {
        let mut random = Random::new(100 + seed);
        let lengths: Vec<usize> = (0..random.below(5))
            .map(|_| [0, 1, random.below(9), random.below(40), random.below(220)][random.below(5)])
            .collect();
        let heads = (1 + random.below(3), 1 + random.below(19));
        let dropout = dropout.as_ref().filter(|_| seed % 2 == 0);
        agrees_along_a_direction(&lengths, heads, dropout, &mut random);
    }
}

/// bf16 has 8 bits: each factor is off by one part in 256 at most. Heads of 32 leave their gradients
/// rounded, with their sums.
#[test]
fn bf16_is_near_f32() {
    let dropout = Dropout::new(0.1, Some(DropoutKey { seed: 1, step: 2 }), 3);
    for (lengths, head_width) in [([150, 1, 33], 20), ([150, 0, 34], 32), ([1, 17, 300], 64)] {
        let (starts, mut random) = (starts(&lengths), Random::new(10));
        let (count, width) = (lengths.iter().sum(), 2 * head_width);
        let tensors = [(); 4].map(|()| random.tensor(&[count, width]));
        let run = |precision| {
            let settings = Settings {
                num_heads: 2,
                cells: (&starts).into(),
                dropout: dropout.as_ref(),
                precision,
            };
            let (context, [dq, dk, dv]) = gradients(settings, tensors.each_ref());
            [context, dq, dk, dv].map(|t| wide(&t))
        };
        let exact = run(Precision::F32);
        for (exact, rounded) in exact.iter().zip(run(Precision::Bf16)) {
            let errors: Vec<f64> = exact.iter().zip(rounded).map(|(a, b)| a - b).collect();
            assert!(inner(&errors, &errors) < 1e-4 * inner(exact, exact));
        }
        same_for_any_threads(|| {
            let settings = Settings {
                num_heads: 2,
                cells: (&starts).into(),
                dropout: dropout.as_ref(),
                precision: Precision::Bf16,
            };
            let [q, k, v, dy] = tensors.each_ref();
            let (context, log_sums) = forward(settings, q, k, v).unwrap();
            let saved = Saved {
                q,
                k,
                v,
                context: &context,
                log_sums: &log_sums,
            };
            let gradients = backward(settings, saved, dy).unwrap();
            let sums = gradients
                .iter()
                .zip(&exact[1..])
                .filter_map(|(gradient, exact)| {
                    let sums = gradient.known_sums()?;
                    for (column, sum) in sums.iter().enumerate() {
                        let exact: f64 = exact.iter().skip(column).step_by(width).sum();
                        assert!((f64::from(*sum) - exact).abs() < 0.5, "{sum} for {exact}");
                    }
                    Some(from_vec(sums.to_vec(), width).unwrap())
                });
            let sums: Vec<Tensor> = sums.collect();
            assert_eq!(sums.len(), if head_width == 20 { 0 } else { 3 });
            sums.into_iter().chain([context, log_sums]).collect()
        });
    }
}

#[test]
fn cells_that_do_not_cover_the_tokens_are_refused() {
    let x = Random::new(1).tensor(&[4, 6]);
    for starts in [&[0, 3][..], &[1, 4], &[0, 3, 2, 4], &[]] {
        let starts = Numbers::from(starts);
        let settings = Settings {
            num_heads: 2,
            cells: (&starts).into(),
            dropout: None,
            precision: Precision::F32,
        };
        assert!(forward(settings, &x, &x, &x).is_err());
    }
    let starts = Numbers::from(&[0, 4]);
    let settings = Settings {
        num_heads: 4,
        cells: (&starts).into(),
        dropout: None,
        precision: Precision::F32,
    };
    assert!(forward(settings, &x, &x, &x).is_err());
}
