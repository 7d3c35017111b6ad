//! Early termination as W&B's `early_terminate: {type: hyperband}`: a trial that reaches a bracket
//! goes on only if its value there is among the best 1/eta of those that got as far (Li et al.
//! 2017, one step of successive halving per bracket, asynchronously).
//!
//! An iteration is one logged value of the metric, that is, one evaluation. Brackets: with
//! `min_iter`, that times 1, eta, eta², …; with `max_iter` and `s`, that divided by eta, eta², … s
//! times. `strict` keeps at most the share 1/eta (the best one always); otherwise one more may stay,
//! as in W&B's own scheduler, so that of three trials the second best goes on.
//!
//! W&B compares with whatever other runs have logged by the time it looks. Here a trial is compared
//! with those that had ended before it could start (and itself), so that a study gives the same
//! trials each time; with one trial at a time that is the same.

use super::error::Fault;
use super::yaml::At;

/// Brackets of a schedule without an end.
const MAX_BRACKETS: usize = 64;

/// When trials are ended early.
#[derive(Debug, Clone, PartialEq)]
pub struct Hyperband {
    /// Numbers of logged values after which a trial is compared, ascending.
    pub brackets: Vec<u64>,
    /// One in so many goes on.
    pub eta: f64,
    /// Whether never more than that.
    pub strict: bool,
}

impl Hyperband {
    pub(super) fn read(at: &At<'_>) -> Result<Self, Fault> {
        let fields = at.table_of(&["type", "min_iter", "max_iter", "s", "eta", "strict"])?;
        match fields.get("type") {
            Some(kind) => kind.one_of(&[("hyperband", ())])?,
            None => return Err(at.fault("`type` is not there", "write `type: hyperband`")),
        }
        let eta = fields.maybe("eta", above_one)?.unwrap_or(3.0);
        let strict = fields.maybe("strict", At::boolean)?.unwrap_or(false);
        let least = fields.maybe("min_iter", |at| at.integer(1))?;
        let most = fields.maybe("max_iter", |at| at.integer(1))?;
        let number = fields.maybe("s", |at| at.integer(1))?;
        let brackets = match (least, most, number) {
            (Some(least), most, None) => rising(least, eta, most.unwrap_or(i64::MAX)),
            (least, Some(most), Some(number)) => falling(most, eta, number, least.unwrap_or(1)),
            (_, Some(_), None) => {
                return Err(at.fault("`max_iter` needs `s`, the number of brackets", "set s: 2"));
            }
            (None, None, Some(_)) | (Some(_), None, Some(_)) => {
                return Err(at.fault("`s` has a meaning with `max_iter` only", "leave `s` out"));
            }
            (None, None, None) => {
                let hint = "set min_iter: 3, the evaluation of the first comparison";
                return Err(at.fault("neither `min_iter` nor `max_iter` is set", hint));
            }
        };
        if brackets.is_empty() {
            let hint = "raise max_iter, or lower eta or min_iter";
            return Err(at.fault("no bracket is left", hint));
        }
        Ok(Self {
            brackets,
            eta,
            strict,
        })
    }

    /// The first bracket at which a trial with the values `own` (lower is better) is to end,
    /// compared with the trials `others`; `None`: it goes on.
    pub fn ends_at(&self, own: &[f64], others: &[&[f64]]) -> Option<u64> {
        let at = |values: &[f64], bracket: u64| {
            let place = usize::try_from(bracket).ok()?.checked_sub(1)?;
            values.get(place).copied()
        };
        self.brackets.iter().copied().find(|&bracket| {
            let Some(value) = at(own, bracket) else {
                return false;
            };
            let there: Vec<f64> = others.iter().filter_map(|o| at(o, bracket)).collect();
            let better = there
                .iter()
                .filter(|&&other| other < value || value.is_nan());
            let share = ((there.len() + 1) as f64 / self.eta) as usize;
            let stay = if self.strict { share.max(1) } else { share + 1 };
            better.count() >= stay
        })
    }
}

fn above_one(at: &At<'_>) -> Result<f64, Fault> {
    let eta = at.number()?;
    if eta > 1.0 {
        return Ok(eta);
    }
    Err(at.fault(
        format!("expected a number above 1, found {eta}"),
        "3 is usual",
    ))
}

fn rising(least: i64, eta: f64, most: i64) -> Vec<u64> {
    let mut brackets: Vec<u64> = Vec::new();
    let mut bracket = least as f64;
    while bracket < most as f64 && bracket < 1e12 && brackets.len() < MAX_BRACKETS {
        brackets.push(bracket as u64);
        bracket *= eta;
    }
    brackets.dedup();
    brackets
}

fn falling(most: i64, eta: f64, number: i64, least: i64) -> Vec<u64> {
    let mut brackets: Vec<u64> = Vec::new();
    let mut bracket = most as f64;
    for _ in 0..number.min(MAX_BRACKETS as i64) {
        bracket /= eta;
        if bracket < least as f64 {
            break;
        }
        brackets.push(bracket as u64);
    }
    brackets.reverse();
    brackets.dedup();
    brackets
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sweep::yaml::parse;

    fn read(text: &str) -> Result<Hyperband, Fault> {
        Hyperband::read(&At::root(&parse(&format!("{{{text}}}"))?))
    }

    fn brackets(text: &str) -> Vec<u64> {
        read(&format!("type: hyperband, {text}")).unwrap().brackets
    }

    #[test]
    fn brackets_are_those_of_the_documentation() {
        assert_eq!(brackets("min_iter: 3")[..4], [3, 9, 27, 81]);
        assert_eq!(brackets("max_iter: 27, s: 2"), [3, 9]);
        assert_eq!(brackets("max_iter: 5, eta: 2, s: 2"), [1, 2]);
        assert_eq!(brackets("min_iter: 2, eta: 1.5, max_iter: 7"), [2, 3, 4, 6]);
        assert_eq!(brackets("min_iter: 3, max_iter: 27, s: 9"), [3, 9]);
    }

    #[test]
    fn the_best_share_goes_on() {
        let lax = read("type: hyperband, min_iter: 2, eta: 3").unwrap();
        let strict = Hyperband {
            strict: true,
            ..lax.clone()
        };
        let others: Vec<Vec<f64>> = [1.0, 2.0].iter().map(|v| vec![9.0, *v]).collect();
        let others: Vec<&[f64]> = others.iter().map(Vec::as_slice).collect();
        for (own, lax_ends, strict_ends) in [
            (vec![9.0], None, None),
            (vec![9.0, 0.5], None, None),
            (vec![9.0, 1.0], None, None),
            (vec![9.0, 1.5], None, Some(2)),
            (vec![9.0, 2.5], Some(2), Some(2)),
            (vec![9.0, f64::NAN, 0.0], Some(2), Some(2)),
        ] {
            assert_eq!(lax.ends_at(&own, &others), lax_ends, "{own:?}");
            assert_eq!(strict.ends_at(&own, &others), strict_ends, "{own:?}");
        }
        assert_eq!(
            strict.ends_at(&[9.0, 9.0], &[]),
            None,
            "nothing to compare with"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, part) in [
            ("min_iter: 3", "`type`"),
            ("type: median", "hyperband"),
            ("type: hyperband", "neither"),
            ("type: hyperband, max_iter: 27", "needs `s`"),
            ("type: hyperband, min_iter: 3, s: 2", "with `max_iter` only"),
            ("type: hyperband, min_iter: 3, eta: 1", "above 1"),
            ("type: hyperband, min_iter: 0", "from 1 up"),
            (
                "type: hyperband, min_iter: 3, miniter: 2",
                "did you mean `min_iter`?",
            ),
            ("type: hyperband, max_iter: 2, s: 2", "no bracket"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(part), "{text}\n{said}");
        }
    }
}
