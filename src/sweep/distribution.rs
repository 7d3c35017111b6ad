//! What values a parameter may take, and how likely each is.
//!
//! Every distribution is its quantile function: a place u in 0..1 becomes a value, and u spread
//! evenly gives the distribution. So a trial is a point in the unit cube, random search draws u,
//! grid search walks the middles of the steps, and the Bayesian search models u, whatever the
//! distribution. Names and meaning are those of W&B's documentation of sweeps.

use super::value::Value;

/// Significant digits of drawn numbers.
const DIGITS: i32 = 6;

/// The distribution of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    /// One value.
    Constant(Value),
    /// Some values, each with its share; the shares sum to 1.
    Categorical {
        /// The values.
        values: Vec<Value>,
        /// Their shares.
        shares: Vec<f64>,
    },
    /// Whole numbers from `min` to `max`, both included.
    IntUniform {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// Numbers.
    Continuous(Continuous),
}

/// A distribution over numbers: a coordinate that is uniform or normal, what is done to it, and
/// the step it is rounded to.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuous {
    /// W&B's name.
    pub name: &'static str,
    /// The coordinate.
    pub coordinate: Coordinate,
    /// What is done to it.
    pub scale: Scale,
    /// The value is the nearest multiple of it; `None`: any number.
    pub q: Option<f64>,
}

/// A coordinate that values are made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinate {
    /// Evenly between two numbers.
    Uniform {
        /// The lower.
        low: f64,
        /// The higher.
        high: f64,
    },
    /// A Gaussian.
    Normal {
        /// Mean.
        mu: f64,
        /// Standard deviation.
        sigma: f64,
    },
}

/// How a coordinate t becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// t
    Plain,
    /// exp(t)
    Log,
    /// exp(−t)
    InverseLog,
}

impl Distribution {
    /// The value at `u` in 0..1.
    pub fn at(&self, u: f64) -> Value {
        match self {
            Self::Constant(value) => value.clone(),
            Self::Categorical { values, shares } => values[place(shares, u)].clone(),
            Self::IntUniform { min, max } => {
                let number = (*max - *min + 1) as f64;
                let step = ((u * number) as i64).clamp(0, *max - *min);
                Value::computed((min + step) as f64)
            }
            Self::Continuous(continuous) => Value::computed(continuous.at(u)),
        }
    }

    /// The number of values, if it is finite and all of them can be walked through.
    pub fn num_values(&self) -> Option<usize> {
        match self {
            Self::Constant(_) => Some(1),
            Self::Categorical { values, .. } => Some(values.len()),
            Self::IntUniform { min, max } => usize::try_from(max - min + 1).ok(),
            Self::Continuous(continuous) => continuous.steps().map(|(first, last)| {
                usize::try_from((last - first) as i64 + 1).unwrap_or(usize::MAX)
            }),
        }
    }

    /// The place of the value `number` (from 0) among all of them, at which [`Self::at`] gives it.
    pub fn place_of(&self, number: usize) -> f64 {
        match self {
            Self::Constant(_) => 0.5,
            Self::Categorical { shares, .. } => {
                shares[..number].iter().sum::<f64>() + shares[number] / 2.0
            }
            Self::IntUniform { min, max } => (number as f64 + 0.5) / (max - min + 1) as f64,
            Self::Continuous(continuous) => match (continuous.steps(), continuous.coordinate) {
                (Some((first, _)), Coordinate::Uniform { low, high }) => {
                    let q = continuous.q.unwrap_or(1.0);
                    // The first and last step reach over the ends.
                    (((first + number as f64) * q).clamp(low, high) - low) / (high - low)
                }
                _ => 0.5,
            },
        }
    }

    /// The share of each value of a categorical distribution.
    pub fn shares(&self) -> Option<&[f64]> {
        match self {
            Self::Categorical { shares, .. } => Some(shares),
            _ => None,
        }
    }

    /// Whether it has a least and a greatest value.
    pub fn is_bounded(&self) -> bool {
        !matches!(self, Self::Continuous(continuous) if continuous.bounds().is_none())
    }

    /// Whether there is nothing to search.
    pub fn is_constant(&self) -> bool {
        self.num_values() == Some(1)
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Categorical { values, shares } => {
                let even = shares.iter().all(|share| (share - shares[0]).abs() < 1e-12);
                let one = |(value, share): (&Value, &f64)| match (even, value) {
                    (true, Value::List(_)) => format!("[{value}]"),
                    (true, value) => value.to_string(),
                    (false, value) => format!("{value} ({:.3})", share),
                };
                let all: Vec<String> = values.iter().zip(shares).map(one).collect();
                format!("one of {}", all.join(", "))
            }
            Self::IntUniform { min, max } => format!("whole numbers {min} to {max}"),
            Self::Continuous(continuous) => continuous.describe(),
        }
    }
}

/// The value that `u` falls to, of values with these shares; never one with the share 0.
pub(super) fn place(shares: &[f64], u: f64) -> usize {
    let mut above = 0.0;
    let found = shares.iter().position(|share| {
        above += share;
        u < above
    });
    let last = shares.iter().rposition(|share| *share > 0.0);
    found.or(last).unwrap_or(0)
}

impl Continuous {
    /// The number at `u`.
    pub fn at(&self, u: f64) -> f64 {
        let coordinate = match self.coordinate {
            Coordinate::Uniform { low, high } => low + u.clamp(0.0, 1.0) * (high - low),
            Coordinate::Normal { mu, sigma } => mu + sigma * normal_quantile(u),
        };
        match self.q {
            Some(q) => tidy((self.scaled(coordinate) / q).round() * q),
            None => self.rounded(self.scaled(coordinate)),
        }
    }

    fn scaled(&self, coordinate: f64) -> f64 {
        match self.scale {
            Scale::Plain => coordinate,
            Scale::Log => coordinate.exp(),
            Scale::InverseLog => (-coordinate).exp(),
        }
    }

    /// To few digits, so that a table shows what a run gets; never beyond the bounds.
    fn rounded(&self, value: f64) -> f64 {
        let rounded = to_digits(value, DIGITS);
        match self.bounds() {
            Some((low, high)) if !(low..=high).contains(&rounded) => value.clamp(low, high),
            _ => rounded,
        }
    }

    /// The least and greatest value, before rounding to steps.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        let Coordinate::Uniform { low, high } = self.coordinate else {
            return None;
        };
        let (a, b) = (self.scaled(low), self.scaled(high));
        // Ends that were given as values come back through exp and ln: without their last digits.
        Some((tidy(a.min(b)), tidy(a.max(b))))
    }

    /// Numbers of the first and last step, where all are equally far apart.
    fn steps(&self) -> Option<(f64, f64)> {
        match (self.coordinate, self.scale, self.q) {
            (Coordinate::Uniform { low, high }, Scale::Plain, Some(q)) => {
                Some(((low / q).round(), (high / q).round()))
            }
            _ => None,
        }
    }

    fn describe(&self) -> String {
        let mut text = match (self.bounds(), self.coordinate) {
            (Some((low, high)), _) => {
                format!(
                    "{} {} to {}",
                    self.name,
                    Value::computed(low),
                    Value::computed(high)
                )
            }
            (None, Coordinate::Normal { mu, sigma }) => {
                format!("{}, mu {mu}, sigma {sigma}", self.name)
            }
            (None, _) => self.name.to_owned(),
        };
        if let Some(q) = self.q {
            text += &format!(", in steps of {q}");
        }
        let is_of_exponents = self.scale != Scale::Plain && !self.name.ends_with("_values");
        if is_of_exponents && self.bounds().is_some() {
            text += &format!(
                " (min and max are exponents of e; {}_values takes values)",
                self.name
            );
        }
        text
    }
}

/// Without the last digits, which arithmetic spoils (0.30000000000000004).
fn tidy(value: f64) -> f64 {
    to_digits(value, 12)
}

fn to_digits(value: f64, digits: i32) -> f64 {
    let places = usize::try_from(digits - 1).unwrap_or(0);
    // The shortest way to round in decimal is through decimal.
    format!("{value:.places$e}").parse().unwrap_or(value)
}

/// The quantile function of the standard normal distribution, by P. J. Acklam's rational
/// approximation (relative error below 1.2e-9); `u` is kept away from 0 and 1.
pub(super) fn normal_quantile(u: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [
        7.784695709041462e-3,
        3.224671290700398e-1,
        2.445134137142996,
        3.754408661907416,
        1.0,
    ];
    let polynomial = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    let u = u.clamp(1e-9, 1.0 - 1e-9);
    let tail = |p: f64| {
        let x = (-2.0 * p.ln()).sqrt();
        polynomial(&C, x) / polynomial(&D, x)
    };
    if u < 0.02425 {
        tail(u)
    } else if u > 1.0 - 0.02425 {
        -tail(1.0 - u)
    } else {
        let x = u - 0.5;
        x * polynomial(&A, x * x) / polynomial(&B, x * x)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn continuous(low: f64, high: f64, scale: Scale, q: Option<f64>) -> Distribution {
        Distribution::Continuous(Continuous {
            name: "x",
            coordinate: Coordinate::Uniform { low, high },
            scale,
            q,
        })
    }

    fn number(distribution: &Distribution, u: f64) -> f64 {
        distribution.at(u).number().unwrap()
    }

    #[test]
    fn the_normal_quantile() {
        let known = [
            (0.5, 0.0),
            (0.975, 1.959963985),
            (0.01, -2.326347874),
            (0.999, 3.090232306),
        ];
        for (u, z) in known {
            assert!((normal_quantile(u) - z).abs() < 1e-8, "{u}");
        }
        assert!(normal_quantile(0.0).is_finite() && normal_quantile(1.0).is_finite());
    }

    #[test]
    fn bounds_and_quantiles() {
        let plain = continuous(2.0, 4.0, Scale::Plain, None);
        assert_eq!([0.0, 0.25, 1.0].map(|u| number(&plain, u)), [2.0, 2.5, 4.0]);
        let log = continuous(1e-5f64.ln(), 1e-1f64.ln(), Scale::Log, None);
        let at = [0.0, 0.25, 0.5, 1.0].map(|u| number(&log, u));
        assert_eq!(at, [1e-5, 1e-4, 1e-3, 1e-1]);
        let inverse = continuous(
            (1.0 / 8.0f64).ln(),
            (1.0 / 2.0f64).ln(),
            Scale::InverseLog,
            None,
        );
        assert_eq!(
            [0.0, 0.5, 1.0].map(|u| number(&inverse, u)),
            [8.0, 4.0, 2.0]
        );
        let steps = continuous(0.0, 1.0, Scale::Plain, Some(0.1));
        assert_eq!(number(&steps, 0.31), 0.3);
        assert_eq!((number(&steps, 0.0), number(&steps, 1.0)), (0.0, 1.0));
        let awkward = continuous(0.123456789, 0.123456799, Scale::Plain, None);
        for u in 0..=10 {
            let value = number(&awkward, f64::from(u) / 10.0);
            assert!((0.123456789..=0.123456799).contains(&value), "{value}");
        }
    }

    #[test]
    fn whole_numbers_are_equally_likely() {
        let whole = Distribution::IntUniform { min: -1, max: 2 };
        let at: Vec<f64> = (0..100)
            .map(|n| number(&whole, f64::from(n) / 100.0))
            .collect();
        for value in -1..=2 {
            let count = at.iter().filter(|&&x| x == f64::from(value)).count();
            assert_eq!(count, 25, "{value}");
        }
        assert_eq!(number(&whole, 1.0), 2.0);
    }

    #[test]
    fn shares_are_kept_and_none_is_never_drawn() {
        let values: Vec<Value> = ["a", "b", "c"].map(|t| Value::Text(t.into())).to_vec();
        let shares = vec![0.25, 0.75, 0.0];
        let some = Distribution::Categorical { values, shares };
        let text = |u| some.at(u).to_string();
        assert_eq!(
            [0.0, 0.2499, 0.25, 0.9999, 1.0].map(text),
            ["a", "a", "b", "b", "b"]
        );
    }

    #[test]
    fn every_value_is_found_at_its_place() {
        let values = [1, 2, 3].map(|n| Value::computed(f64::from(n))).to_vec();
        let shares = vec![0.2, 0.5, 0.3];
        for distribution in [
            Distribution::Categorical { values, shares },
            Distribution::IntUniform { min: 3, max: 9 },
            continuous(0.05, 0.99, Scale::Plain, Some(0.1)),
            continuous(3.0, 17.0, Scale::Plain, Some(5.0)),
        ] {
            let number = distribution.num_values().unwrap();
            let mut found: Vec<String> = (0..number)
                .map(|n| distribution.at(distribution.place_of(n)).to_string())
                .collect();
            found.dedup();
            assert_eq!(found.len(), number, "{found:?}");
        }
        let steps = continuous(3.0, 17.0, Scale::Plain, Some(5.0));
        assert_eq!(steps.num_values(), Some(3));
        assert_eq!(continuous(0.0, 1.0, Scale::Plain, None).num_values(), None);
        assert_eq!(
            continuous(0.0, 1.0, Scale::Log, Some(1.0)).num_values(),
            None
        );
    }
}
