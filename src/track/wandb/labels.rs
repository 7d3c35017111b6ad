//! What the environment says of a W&B run: `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY`,
//! `WANDB_RUN_GROUP`, `WANDB_NAME`, `WANDB_RUN_ID`, `WANDB_JOB_TYPE`, `WANDB_TAGS`, `WANDB_NOTES`.

use super::account::noted;
use crate::track::TrackError;
use crate::track::environment::Environment;

/// Where runs go when no project is named.
const PROJECT: &str = "gene-bert";

/// Whether and how W&B is reported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::track) enum Mode {
    Online,
    Offline,
    Disabled,
}

impl Mode {
    /// `WANDB_MODE`, online where it is not set.
    pub(in crate::track) fn of(environment: &Environment<'_>) -> Result<Self, TrackError> {
        let mode = environment.get("WANDB_MODE");
        match mode.as_deref() {
            None | Some("online" | "run") => Ok(Self::Online),
            Some("offline" | "dryrun") => Ok(Self::Offline),
            Some("disabled") => Ok(Self::Disabled),
            Some(other) => Err(TrackError {
                tracker: "wandb",
                problem: format!("WANDB_MODE is `{other}`"),
                hint: "set it to online, offline or disabled, or unset it".to_owned(),
            }),
        }
    }
}

/// How a run is called and filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::track) struct Labels {
    pub(super) project: String,
    pub(super) entity: Option<String>,
    pub(super) group: Option<String>,
    pub(super) name: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) job_type: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) notes: Option<String>,
}

impl Labels {
    /// Those of the environment.
    pub(in crate::track) fn of(environment: &Environment<'_>) -> Result<Self, TrackError> {
        let run_id = environment.get("WANDB_RUN_ID");
        let is_wrong = |sign: char| "/\\#?%:".contains(sign) || sign.is_control();
        if let Some(id) = run_id.as_ref().filter(|id| id.contains(is_wrong)) {
            return Err(TrackError {
                tracker: "wandb",
                problem: format!("WANDB_RUN_ID is `{id}`"),
                hint: "W&B allows no / \\ # ? % : in it; letters, digits and - are fine".to_owned(),
            });
        }
        let tags = environment.get("WANDB_TAGS").unwrap_or_default();
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        Ok(Self {
            project: environment
                .get("WANDB_PROJECT")
                .or_else(|| noted(environment, "project"))
                .unwrap_or_else(|| PROJECT.to_owned()),
            entity: environment
                .get("WANDB_ENTITY")
                .or_else(|| noted(environment, "entity")),
            group: environment.get("WANDB_RUN_GROUP"),
            name: environment.get("WANDB_NAME"),
            run_id,
            job_type: environment.get("WANDB_JOB_TYPE"),
            tags: tags.map(str::to_owned).collect(),
            notes: environment.get("WANDB_NOTES"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_environment_of_its_own_client_counts() {
        let get = |name: &str| match name {
            "WANDB_MODE" => Some("dryrun".to_owned()),
            "WANDB_PROJECT" => Some(" cells ".to_owned()),
            "WANDB_ENTITY" => Some(String::new()),
            "WANDB_TAGS" => Some("a, b,".to_owned()),
            _ => None,
        };
        let environment = Environment::new(&get);
        assert_eq!(Mode::of(&environment).unwrap(), Mode::Offline);
        let labels = Labels::of(&environment).unwrap();
        assert_eq!((labels.project.as_str(), labels.entity), ("cells", None));
        assert_eq!(labels.tags, ["a", "b"]);
        let wrong = |name: &str| (name == "WANDB_MODE").then(|| "onlin".to_owned());
        let error = Mode::of(&Environment::new(&wrong)).unwrap_err().to_string();
        assert!(
            error.contains("`onlin`") && error.contains("hint: "),
            "{error}"
        );
        let wrong = |name: &str| (name == "WANDB_RUN_ID").then(|| "a/b".to_owned());
        assert!(Labels::of(&Environment::new(&wrong)).is_err());
    }
}
