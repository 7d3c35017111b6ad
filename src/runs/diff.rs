//! Two runs compared: settings that differ, and the figures of their best evaluations.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::run::Run;
use super::table::duration;
use crate::train::figures::columns;

/// Two runs as text: where they stand, what was set otherwise, what came of it. `metric` says which
/// evaluations are compared; by default each run's own.
///
/// # Errors
/// Settings that cannot be written as JSON.
pub fn compare(a: &Run, b: &Run, metric: Option<&str>) -> Result<String> {
    let mut out = columns(&standing(a, b));
    let (differ, num_same) = settings(a, b)?;
    if differ.len() > 1 {
        let _ = write!(
            out,
            "\nSettings that differ ({num_same} are equal):\n{}",
            columns(&differ)
        );
    } else {
        let _ = writeln!(out, "\nAll {num_same} settings are equal.");
    }
    out += &figures(a, b, metric);
    Ok(out)
}

fn standing(a: &Run, b: &Run) -> Vec<[String; 3]> {
    let row = |name: &str, tell: &dyn Fn(&Run) -> String| [name.to_owned(), tell(a), tell(b)];
    vec![
        row("", &|run| run.path.display().to_string()),
        row("state", &|run| run.state.name().to_owned()),
        row("job", &|run| run.job().to_owned()),
        row("step", &|run| run.step.to_string()),
        row("epoch", &|run| format!("{:.2}", run.epoch)),
        row("time", &|run| duration(run.seconds)),
        row("train loss", &|run| {
            run.train_loss
                .map_or("-".to_owned(), |loss| format!("{loss:.4}"))
        }),
    ]
}

/// The settings with other values, below a head, and how many have the same. The folder of a run is
/// no setting of it.
fn settings(a: &Run, b: &Run) -> Result<(Vec<[String; 3]>, usize)> {
    let (left, right) = (
        serde_json::to_value(&a.config)?,
        serde_json::to_value(&b.config)?,
    );
    let keys = [&left, &right].map(|value| value.as_object().into_iter().flat_map(|o| o.keys()));
    let keys: BTreeSet<&String> = keys.into_iter().flatten().collect();
    let mut rows = vec![["setting", "first", "second"].map(str::to_owned)];
    let mut num_same = 0;
    for key in keys.into_iter().filter(|key| *key != "output_dir") {
        let (one, other) = (&left[key], &right[key]);
        if one == other {
            num_same += 1;
        } else {
            rows.push([key.clone(), shown(one), shown(other)]);
        }
    }
    Ok((rows, num_same))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn figures(a: &Run, b: &Run, metric: Option<&str>) -> String {
    let of = |run: &Run| {
        let metric = metric.unwrap_or_else(|| run.metric()).to_owned();
        let best = run.best(&metric).map(|(step, f)| (step, f.clone()));
        best.map(|(step, figures)| (metric, step, figures))
    };
    let told = |side: &Option<(String, u64, _)>| match side {
        Some((metric, step, _)) => format!("step {step}, by {metric}"),
        None => "no evaluation".to_owned(),
    };
    let (left, right) = (of(a), of(b));
    if left.is_none() && right.is_none() {
        return "\nNeither has an evaluation.\n".to_owned();
    }
    let mut rows = vec![["figure", "first", "second", "second - first"].map(str::to_owned)];
    let names = [&left, &right].map(|side| side.iter().flat_map(|(_, _, f)| f.keys()));
    let names: BTreeSet<&String> = names.into_iter().flatten().collect();
    for name in names {
        let value = |side: &Option<(_, _, std::collections::BTreeMap<String, f64>)>| {
            side.as_ref()
                .and_then(|(_, _, figures): &(String, u64, _)| figures.get(name).copied())
        };
        let (one, other) = (value(&left), value(&right));
        let text = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
        let gap = one
            .zip(other)
            .map(|(one, other)| format!("{:+.4}", other - one));
        rows.push([
            name.clone(),
            text(one),
            text(other),
            gap.unwrap_or("-".to_owned()),
        ]);
    }
    format!(
        "\nFigures of the best evaluations ({}; {}):\n{}",
        told(&left),
        told(&right),
        columns(&rows)
    )
}
