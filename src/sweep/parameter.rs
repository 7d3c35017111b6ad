//! The `parameters` of a study, read from YAML.
//!
//! Which distribution is meant where none is named: one value: `constant`; values: `categorical`;
//! bounds that are both whole numbers: `int_uniform`; other bounds: `uniform`. Nested parameters
//! are called by the names above and below with a point between, as on W&B's command lines.

use super::distribution::{Continuous, Coordinate, Distribution, Scale};
use super::error::Fault;
use super::value::Value;
use super::yaml::{At, Fields};

const KEYS: [&str; 10] = [
    "value",
    "values",
    "distribution",
    "probabilities",
    "min",
    "max",
    "mu",
    "sigma",
    "q",
    "parameters",
];

/// The distributions by W&B's names, with the keys that each reads.
const DISTRIBUTIONS: [(&str, Kind); 16] = [
    ("constant", Kind::Constant),
    ("categorical", Kind::Categorical),
    ("categorical_w_probabilities", Kind::Categorical),
    ("int_uniform", Kind::IntUniform),
    ("uniform", bounded("uniform", Scale::Plain, false, false)),
    ("q_uniform", bounded("q_uniform", Scale::Plain, false, true)),
    (
        "log_uniform",
        bounded("log_uniform", Scale::Log, false, false),
    ),
    (
        "log_uniform_values",
        bounded("log_uniform_values", Scale::Log, true, false),
    ),
    (
        "q_log_uniform",
        bounded("q_log_uniform", Scale::Log, false, true),
    ),
    (
        "q_log_uniform_values",
        bounded("q_log_uniform_values", Scale::Log, true, true),
    ),
    (
        "inv_log_uniform",
        bounded("inv_log_uniform", Scale::InverseLog, false, false),
    ),
    (
        "inv_log_uniform_values",
        bounded("inv_log_uniform_values", Scale::InverseLog, true, false),
    ),
    ("normal", gaussian("normal", Scale::Plain, false)),
    ("q_normal", gaussian("q_normal", Scale::Plain, true)),
    ("log_normal", gaussian("log_normal", Scale::Log, false)),
    ("q_log_normal", gaussian("q_log_normal", Scale::Log, true)),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Constant,
    Categorical,
    IntUniform,
    Bounded {
        name: &'static str,
        scale: Scale,
        /// Whether `min` and `max` bound the values, not their logarithms.
        of_values: bool,
        in_steps: bool,
    },
    Gaussian {
        name: &'static str,
        scale: Scale,
        in_steps: bool,
    },
}

const fn bounded(name: &'static str, scale: Scale, of_values: bool, in_steps: bool) -> Kind {
    Kind::Bounded {
        name,
        scale,
        of_values,
        in_steps,
    }
}

const fn gaussian(name: &'static str, scale: Scale, in_steps: bool) -> Kind {
    Kind::Gaussian {
        name,
        scale,
        in_steps,
    }
}

/// A setting of the runs that a study varies or fixes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name, as the run's flag.
    pub name: String,
    /// Its line in the study file.
    pub line: usize,
    /// What it may be.
    pub distribution: Distribution,
}

/// All parameters below `at`, in the order of the file.
pub(super) fn read_all(at: &At<'_>) -> Result<Vec<Parameter>, Fault> {
    let mut parameters = Vec::new();
    collect(at, "", &mut parameters)?;
    if parameters.is_empty() {
        return Err(at.fault(
            "no parameter",
            "name at least one, with value, values or bounds",
        ));
    }
    Ok(parameters)
}

fn collect(at: &At<'_>, above: &str, parameters: &mut Vec<Parameter>) -> Result<(), Fault> {
    for entry in at.table()? {
        let own = entry.name();
        let sound = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if own.is_empty() || !own.chars().all(sound) || own.starts_with(['-', '.']) {
            let hint = "names have letters, digits, _ and -, as flags do";
            return Err(entry.fault("this is no name of a setting", hint));
        }
        let name = format!("{above}{own}");
        if !entry.is_table() {
            let key = if entry.is_list() { "values" } else { "value" };
            let hint = format!("write `{own}: {{{key}: …}}`");
            return Err(entry.expected("what the setting may be", &hint));
        }
        let fields = entry.table_of(&KEYS)?;
        if let Some(nested) = fields.get("parameters") {
            if let Some(other) = fields.names().find(|name| *name != "parameters") {
                let what = format!("has both `parameters` and `{other}`");
                return Err(entry.fault(what, "a group holds parameters and nothing else"));
            }
            collect(nested, &format!("{name}."), parameters)?;
            continue;
        }
        let distribution = distribution(&entry, &fields)?;
        let line = entry.line;
        parameters.push(Parameter {
            name,
            line,
            distribution,
        });
    }
    Ok(())
}

fn distribution(at: &At<'_>, fields: &Fields<'_>) -> Result<Distribution, Fault> {
    let (name, kind) = kind(at, fields)?;
    let read: &[&str] = match kind {
        Kind::Constant => &["value"],
        Kind::Categorical => &["values", "probabilities"],
        Kind::IntUniform => &["min", "max"],
        Kind::Bounded { in_steps: true, .. } => &["min", "max", "q"],
        Kind::Bounded { .. } => &["min", "max"],
        Kind::Gaussian { in_steps: true, .. } => &["mu", "sigma", "q"],
        Kind::Gaussian { .. } => &["mu", "sigma"],
    };
    if let Some(other) = fields
        .names()
        .find(|key| *key != "distribution" && !read.contains(key))
    {
        let what = format!("`{other}` has no meaning for the distribution {name}");
        let hint = format!("{name} reads {}", read.join(", "));
        return Err(at.fault(what, hint));
    }
    let needed = |key: &str| {
        let what = format!("the distribution {name} needs `{key}`, which is not there");
        fields
            .get(key)
            .ok_or_else(|| at.fault(what, format!("{name} reads {}", read.join(", "))))
    };
    match kind {
        Kind::Constant => Ok(Distribution::Constant(needed("value")?.value()?)),
        Kind::Categorical => categorical(needed("values")?, fields),
        Kind::IntUniform => {
            let (min, max) = (needed("min")?, needed("max")?);
            let (low, high) = (min.integer(i64::MIN)?, max.integer(i64::MIN)?);
            ascending(max, low as f64, high as f64)?;
            Ok(Distribution::IntUniform {
                min: low,
                max: high,
            })
        }
        Kind::Bounded {
            name,
            scale,
            of_values,
            in_steps,
        } => {
            let coordinate = bounds(needed("min")?, needed("max")?, scale, of_values)?;
            continuous(name, coordinate, scale, in_steps, fields)
        }
        Kind::Gaussian {
            name,
            scale,
            in_steps,
        } => {
            let mu = fields.maybe("mu", At::number)?.unwrap_or(0.0);
            let sigma = fields.maybe("sigma", positive)?.unwrap_or(1.0);
            let coordinate = Coordinate::Normal { mu, sigma };
            continuous(name, coordinate, scale, in_steps, fields)
        }
    }
}

fn continuous(
    name: &'static str,
    coordinate: Coordinate,
    scale: Scale,
    in_steps: bool,
    fields: &Fields<'_>,
) -> Result<Distribution, Fault> {
    let q = fields.maybe("q", positive)?;
    let q = in_steps.then(|| q.unwrap_or(1.0));
    Ok(Distribution::Continuous(Continuous {
        name,
        coordinate,
        scale,
        q,
    }))
}

/// The distribution that is named, or else meant.
fn kind(at: &At<'_>, fields: &Fields<'_>) -> Result<(String, Kind), Fault> {
    let has = |key| fields.get(key).is_some();
    let meant = if let Some(named) = fields.get("distribution") {
        let kind = named.one_of(&DISTRIBUTIONS)?;
        return Ok((named.text()?, kind));
    } else if has("value") {
        "constant"
    } else if has("values") {
        "categorical"
    } else if has("min") && has("max") {
        let whole = |key| fields.get(key).is_some_and(At::is_integer);
        if whole("min") && whole("max") {
            "int_uniform"
        } else {
            "uniform"
        }
    } else {
        let what = "expected value, values, min and max, or a distribution; found none of them";
        let hint = "write `value: 3`, `values: [1, 2]`, or `min: 0.0` and `max: 1.0`";
        return Err(at.fault(what, hint));
    };
    let found = DISTRIBUTIONS.iter().find(|(name, _)| *name == meant);
    let kind = found.map_or(Kind::Constant, |(_, kind)| *kind);
    Ok((meant.to_owned(), kind))
}

fn categorical(at: &At<'_>, fields: &Fields<'_>) -> Result<Distribution, Fault> {
    let items = at.list()?;
    let values: Vec<Value> = items.iter().map(At::value).collect::<Result<_, _>>()?;
    if values.is_empty() {
        return Err(at.fault("the list is empty", "name at least one value"));
    }
    for (n, value) in values.iter().enumerate() {
        if values[..n].contains(value) {
            let what = format!("`{value}` stands twice");
            return Err(items[n].fault(
                what,
                "leave one of them out; probabilities make it likelier",
            ));
        }
    }
    let even = vec![1.0 / values.len() as f64; values.len()];
    let shares = fields.maybe("probabilities", |at| shares(at, values.len()))?;
    Ok(Distribution::Categorical {
        values,
        shares: shares.unwrap_or(even),
    })
}

fn shares(at: &At<'_>, num_values: usize) -> Result<Vec<f64>, Fault> {
    let items = at.list()?;
    if items.len() != num_values {
        let what = format!(
            "expected {num_values} numbers, one for each of values, found {}",
            items.len()
        );
        return Err(at.fault(what, "give each value its probability"));
    }
    let mut shares = Vec::new();
    for item in &items {
        let share = item.number()?;
        if share < 0.0 {
            let what = format!("expected a probability, found {share}");
            return Err(item.fault(what, "probabilities are from 0 to 1"));
        }
        shares.push(share);
    }
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() > 1e-3 {
        let what = format!("expected probabilities that sum to 1, found the sum {sum}");
        return Err(at.fault(what, "change them so that they do"));
    }
    Ok(shares.iter().map(|share| share / sum).collect())
}

fn bounds(min: &At<'_>, max: &At<'_>, scale: Scale, of_values: bool) -> Result<Coordinate, Fault> {
    let (low, high) = (min.number()?, max.number()?);
    ascending(max, low, high)?;
    if !of_values {
        if scale != Scale::Plain && high > 700.0 {
            let what = format!("expected the logarithm of a value, found {high}");
            let hint = "log_uniform takes natural logarithms; log_uniform_values takes values";
            return Err(max.fault(what, hint));
        }
        return Ok(Coordinate::Uniform { low, high });
    }
    if low <= 0.0 {
        let what = format!("expected a number above 0, found {low}");
        return Err(min.fault(
            what,
            "a logarithmic scale has no 0; begin it at the least value of interest",
        ));
    }
    let (low, high) = match scale {
        Scale::InverseLog => ((1.0 / high).ln(), (1.0 / low).ln()),
        _ => (low.ln(), high.ln()),
    };
    Ok(Coordinate::Uniform { low, high })
}

fn ascending(max: &At<'_>, low: f64, high: f64) -> Result<(), Fault> {
    if low < high {
        return Ok(());
    }
    let what = format!("expected more than min, which is {low}, found {high}");
    Err(max.fault(
        what,
        "let min be the smaller one; for one value write `value:`",
    ))
}

fn positive(at: &At<'_>) -> Result<f64, Fault> {
    let number = at.number()?;
    if number > 0.0 {
        return Ok(number);
    }
    let what = format!("expected a number above 0, found {number}");
    Err(at.fault(what, "write a positive number"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sweep::yaml::parse;

    fn read(text: &str) -> Result<Vec<Parameter>, Fault> {
        read_all(&At::root(&parse(text)?))
    }

    fn one(text: &str) -> Distribution {
        read(&format!("x: {{{text}}}"))
            .unwrap()
            .remove(0)
            .distribution
    }

    fn refused(text: &str) -> String {
        read(&format!("x: {{{text}}}")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_named_is_meant_as_the_documentation_says() {
        assert!(matches!(one("value: 3"), Distribution::Constant(_)));
        assert!(matches!(
            one("values: [1, b]"),
            Distribution::Categorical { .. }
        ));
        assert_eq!(
            one("min: 1, max: 4"),
            Distribution::IntUniform { min: 1, max: 4 }
        );
        let Distribution::Continuous(uniform) = one("min: 1.0, max: 4") else {
            unreachable!()
        };
        assert_eq!(uniform.name, "uniform");
    }

    #[test]
    fn every_distribution_has_its_bounds() {
        let bounds = |text: &str| match one(text) {
            Distribution::Continuous(c) => (c.at(0.0), c.at(0.5), c.at(1.0)),
            _ => unreachable!(),
        };
        let named = |name: &str| bounds(&format!("distribution: {name}, min: 1, max: 100"));
        assert_eq!(named("uniform"), (1.0, 50.5, 100.0));
        assert_eq!(named("log_uniform_values"), (1.0, 10.0, 100.0));
        assert_eq!(named("inv_log_uniform_values"), (100.0, 10.0, 1.0));
        assert_eq!(named("q_log_uniform_values"), (1.0, 10.0, 100.0));
        let q = |name: &str| bounds(&format!("distribution: {name}, min: 1, max: 3, q: 2"));
        assert_eq!(q("q_uniform"), (2.0, 2.0, 4.0));
        let (low, _, high) = bounds("distribution: log_uniform, min: -2.0, max: 2.0");
        assert!((low - (-2f64).exp()).abs() < 1e-6 && (high - 2f64.exp()).abs() < 1e-5);
        let (low, _, high) = bounds("distribution: inv_log_uniform, min: 0.0, max: 2.0");
        assert!((low - 1.0).abs() < 1e-6 && (high - (-2f64).exp()).abs() < 1e-6);
        assert_eq!(bounds("distribution: normal, mu: 3, sigma: 2").1, 3.0);
        assert_eq!(bounds("distribution: log_normal").1, 1.0);
        assert_eq!(bounds("distribution: q_normal, mu: 3.4").1, 3.0);
        assert_eq!(bounds("distribution: q_log_normal, mu: 2, q: 0.5").1, 7.5);
    }

    #[test]
    fn nested_parameters_have_points_in_their_names() {
        let text = "a:\n  parameters:\n    b: {value: 1}\n    c:\n      parameters:\n        d: {value: 2}\n";
        let names: Vec<String> = read(text).unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["a.b", "a.c.d"]);
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, part) in [
            (
                "value: 3, min: 1",
                "`min` has no meaning for the distribution constant",
            ),
            ("min: 1", "found none of them"),
            ("vales: [1]", "did you mean `values`?"),
            ("distribution: lognormal", "did you mean `log_normal`?"),
            ("min: 2, max: 1", "more than min, which is 2"),
            (
                "distribution: log_uniform_values, min: 0, max: 1",
                "above 0",
            ),
            (
                "distribution: log_uniform, min: 1, max: 1000",
                "log_uniform_values takes values",
            ),
            ("distribution: normal, sigma: 0", "above 0"),
            ("values: []", "empty"),
            ("values: [1, 1]", "stands twice"),
            ("values: [1, 2], probabilities: [0.5]", "expected 2 numbers"),
            ("values: [1, 2], probabilities: [0.5, 0.6]", "sum to 1"),
            ("distribution: categorical", "needs `values`"),
            (
                "distribution: int_uniform, min: 0.5, max: 3",
                "whole number",
            ),
            ("value: {a: 1}", "found a table"),
            ("values: 3", "expected a list"),
        ] {
            let said = refused(text);
            assert!(
                said.contains(part) && said.contains("hint: "),
                "{text}\n{said}"
            );
        }
        assert!(read("x: 3").unwrap_err().what.contains("expected what"));
        assert!(
            read("'--x': {value: 3}")
                .unwrap_err()
                .what
                .contains("no name")
        );
    }
}
