//! Loops that the compiler turns into vector instructions of the machine at hand.
//!
//! [`vectorized!`] compiles a function once per instruction set (baseline, AVX2 + FMA, AVX-512) and
//! picks one at run time; what it calls must be `#[inline(always)]`, or it is compiled for the
//! baseline. Sums run in [`LANES`] fixed lanes, so their order depends on the length alone.

const LANES: usize = 32;

/// Defines a function that is compiled for several instruction sets, of which the widest that the
/// machine has runs.
macro_rules! vectorized {
    (
        $(#[$doc:meta])*
        $visible:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?)
        $(-> $result:ty)? $body:block
    ) => {
        $(#[$doc])*
        $visible fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512cd")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the machine has these instructions (avx512f implies avx2).
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the machine has these instructions.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}
pub(super) use vectorized;

/// Asks for `values`, which are needed soon, to be brought into the cache.
#[inline(always)]
pub(super) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, of no effect but on time.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Sum of `x`.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    rest.iter().fold(fold_lanes(lanes), |sum, x| sum + x)
}

/// Sum of `x[i] * y[i]`.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    let rest = x_rest.iter().zip(y_rest);
    rest.fold(fold_lanes(lanes), |sum, (x, y)| x.mul_add(*y, sum))
}

/// The largest of `x`, minus infinity where there is none.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    let rest = rest.iter().copied().fold(f32::NEG_INFINITY, larger);
    lanes.into_iter().fold(rest, larger)
}

#[inline(always)]
fn fold_lanes(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// eˣ to about one unit in the last place: x = n ln 2 + r, a polynomial in r (Cephes'
/// coefficients), n added to the exponent. Below −87 the result is that of −87, about 1e-38.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding this pushes the fraction of a small number out: rounding to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    let fraction = p.mul_add(r * r, r + 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    fraction * power
}

/// The error function to a few units in the last place: an odd rational function of x, cut at
/// ±4 where it is ±1 in f32 (coefficients as published with the Eigen library).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut above = -2.726_142_3e-10_f32;
    above = above.mul_add(square, 2.770_681_4e-8);
    above = above.mul_add(square, -2.101_024e-6);
    above = above.mul_add(square, -5.692_506_4e-5);
    above = above.mul_add(square, -7.349_906_3e-4);
    above = above.mul_add(square, -2.954_6e-3);
    above = above.mul_add(square, -1.609_603_3e-2);
    let mut below = -1.456_607_2e-5_f32;
    below = below.mul_add(square, -2.133_740_5e-4);
    below = below.mul_add(square, -1.682_827e-3);
    below = below.mul_add(square, -7.373_329e-3);
    below = below.mul_add(square, -1.426_473_9e-2);
    x * above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_agree_with_series_in_f64() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) - expected).abs() <= 3e-7 * expected,
                "exp({x})"
            );
        }
        assert!(exp(-1e9) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
        for i in -600..600 {
            let x = f64::from(i) / 100.0;
            let found = f64::from(erf(x as f32));
            assert!((found - erf_series(x)).abs() < 4e-7, "erf({x}) = {found}");
        }
    }

    /// erf by its Taylor series (|x| ≤ 6 converges in f64 up to cancellation at 1e-5 near 6, where
    /// the value is 1).
    fn erf_series(x: f64) -> f64 {
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn sums_and_maxima_of_odd_lengths() {
        for length in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..length).map(|i| (i % 7) as f32 - 3.0).collect();
            let exact: f32 = x.iter().sum();
            assert_eq!(sum(&x), exact);
            let squares: f32 = x.iter().map(|x| x * x).sum();
            assert_eq!(dot(&x, &x), squares);
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), largest);
        }
    }
}
