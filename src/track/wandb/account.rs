//! Which W&B server, and as whom: `WANDB_BASE_URL`, else what `wandb login --host` noted in
//! `~/.config/wandb/settings`, else the cloud; the key of `WANDB_API_KEY` or of the server's host
//! in netrc (`NETRC`, `~/.netrc`, `~/_netrc`), where `wandb login` keeps it.

use std::path::PathBuf;

use crate::track::TrackError;
use crate::track::environment::Environment;
use crate::track::http::{Http, Login, base};

const CLOUD: &str = "https://api.wandb.ai";

/// A W&B server and the way to it.
#[derive(Debug, Clone)]
pub(in crate::track) struct Account {
    /// Its address, without `/` at the end.
    pub(super) url: String,
    pub(super) http: Http,
}

impl Account {
    /// That of the environment.
    pub(in crate::track) fn of(environment: &Environment<'_>) -> Result<Self, TrackError> {
        let wrong = |problem: String, hint: &str| TrackError {
            tracker: "wandb",
            problem,
            hint: hint.to_owned(),
        };
        let given = environment.get("WANDB_BASE_URL");
        let given = given.or_else(|| noted(environment, "base_url"));
        let given = given.unwrap_or_else(|| CLOUD.to_owned());
        let url = base(&given).ok_or_else(|| {
            let hint = "give it as https://HOST, or unset it for the cloud";
            wrong(format!("WANDB_BASE_URL is `{given}`"), hint)
        })?;
        let key = environment.get("WANDB_API_KEY");
        let key = key.or_else(|| key_in_netrc(environment, &url));
        let password = key.ok_or_else(|| {
            let hint = "set WANDB_API_KEY, or run `wandb login`, which writes the key to ~/.netrc; \
                        WANDB_MODE=offline needs none";
            wrong(format!("there is no key for {url}"), hint)
        })?;
        let user = "api".to_owned();
        let http = Http::new("wandb", Login::Basic { user, password }, environment)?;
        Ok(Self { url, http })
    }

    /// Where people look at runs of this server.
    pub(super) fn pages(&self) -> &str {
        if self.url == CLOUD {
            "https://wandb.ai"
        } else {
            &self.url
        }
    }
}

/// What W&B's own client noted under `key` in its settings (lines `key = value`).
pub(super) fn noted(environment: &Environment<'_>, key: &str) -> Option<String> {
    let named = environment.get("WANDB_CONFIG_DIR").map(PathBuf::from);
    let home = || Some(PathBuf::from(environment.get("HOME")?).join(".config/wandb"));
    let text = std::fs::read_to_string(named.or_else(home)?.join("settings")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let value = lines.rfind(|(name, _)| name.trim() == key)?.1.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn key_in_netrc(environment: &Environment<'_>, url: &str) -> Option<String> {
    let home = environment.get("HOME").map(PathBuf::from);
    let in_home = |name| home.as_ref().map(|home| home.join(name));
    let named = environment.get("NETRC").map(PathBuf::from);
    let files = [named, in_home(".netrc"), in_home("_netrc")];
    let file = files.into_iter().flatten().find(|file| file.is_file())?;
    let text = std::fs::read_to_string(file).ok()?;
    let host = url.split("://").nth(1)?.split('/').next()?;
    let bare = host.split(':').next()?;
    password(&text, host).or_else(|| password(&text, bare))
}

/// The password for `machine` in the text of a netrc file.
fn password(netrc: &str, machine: &str) -> Option<String> {
    let mut words = netrc.split_whitespace();
    let mut is_of_machine = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => is_of_machine = words.next() == Some(machine),
            "default" => is_of_machine = true,
            "password" => {
                let password = words.next();
                if is_of_machine {
                    return password.map(str::to_owned);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_key_comes_from_the_environment_or_from_netrc() {
        let netrc = "machine other login user password no\n\
                     machine api.wandb.ai\n  login user\n  password yes\n";
        assert_eq!(password(netrc, "api.wandb.ai").unwrap(), "yes");
        assert_eq!(password(netrc, "elsewhere"), None);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".netrc"), netrc).unwrap();
        let home = dir.path().display().to_string();
        let get = |name: &str| (name == "HOME").then(|| home.clone());
        let account = Account::of(&Environment::new(&get)).unwrap();
        assert_eq!(
            (account.url.as_str(), account.pages()),
            (CLOUD, "https://wandb.ai")
        );
        let settings = dir.path().join(".config/wandb");
        std::fs::create_dir_all(&settings).unwrap();
        let text = "[default]\nbase_url = https://elsewhere\nentity = team\n";
        std::fs::write(settings.join("settings"), text).unwrap();
        let environment = Environment::new(&get);
        assert_eq!(noted(&environment, "entity").unwrap(), "team");
        let error = Account::of(&environment).unwrap_err().to_string();
        assert!(error.contains("no key for https://elsewhere"), "{error}");
        let error = Account::of(&Environment::new(&|_| None)).unwrap_err();
        assert!(error.to_string().contains("WANDB_API_KEY"), "{error}");
        let get = |name: &str| (name == "WANDB_BASE_URL").then(|| "localhost".to_owned());
        let error = Account::of(&Environment::new(&get)).unwrap_err();
        assert!(error.to_string().contains("`localhost`"), "{error}");
    }
}
