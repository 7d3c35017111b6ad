//! HTTP to trackers: JSON there and back, files up, and which failures may pass.
//!
//! Blocking, on the courier's own thread; TLS by rustls. Proxies are those of `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Certificates are checked against Mozilla's list, or
//! against the PEM file that `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE` names.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, RequestBuilder};

use super::environment::Environment;
use super::error::TrackError;
use super::sink::Trouble;

const CONNECT_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_secs(30);
const UPLOAD_WAIT: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const MOST_BYTES: u64 = 16 << 20;
/// Characters of a refusal that are shown.
const SHOWN: usize = 300;
/// Status codes that no waiting will change.
const FINAL: [u16; 9] = [400, 401, 403, 404, 405, 410, 413, 422, 501];

/// What stands in the header `Authorization`.
#[derive(Clone)]
pub(super) enum Login {
    Nobody,
    Basic { user: String, password: String },
    Token(String),
}

/// A server's client: where, how, and as whom.
#[derive(Clone)]
pub(super) struct Http {
    agent: Agent,
    authorization: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl fmt::Debug for Http {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl Http {
    /// A client that logs in as `login`.
    pub(super) fn new(
        tracker: &'static str,
        login: Login,
        environment: &Environment<'_>,
    ) -> Result<Self, TrackError> {
        let mut tls = TlsConfig::builder();
        let named = environment.get("SSL_CERT_FILE");
        if let Some(file) = named.or_else(|| environment.get("REQUESTS_CA_BUNDLE")) {
            tls = tls.root_certs(certificates(&file).map_err(|problem| {
                TrackError {
                    tracker,
                    problem: format!("{file}: {problem}"),
                    hint:
                        "SSL_CERT_FILE (or REQUESTS_CA_BUNDLE) names a PEM file of certificates; \
                       unset it to use Mozilla's"
                            .to_owned(),
                }
            })?);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_WAIT))
            .tls_config(tls.build())
            .user_agent(concat!("gene-bert/", env!("CARGO_PKG_VERSION")));
        let authorization = match login {
            Login::Nobody => None,
            Login::Basic { user, password } => {
                let both = STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {both}"))
            }
            Login::Token(token) => Some(format!("Bearer {token}")),
        };
        Ok(Self {
            agent: config.build().into(),
            authorization,
        })
    }

    /// Posts JSON and returns the JSON that is answered.
    pub(super) fn post(&self, url: &str, body: &Value) -> Result<Value, Trouble> {
        self.post_for(url, body)?.json(url)
    }

    /// Posts JSON and returns the answer, whatever its status.
    pub(super) fn post_for(&self, url: &str, body: &Value) -> Result<Answer, Trouble> {
        let request = self.agent.post(url).content_type("application/json");
        self.send(url, request, ANSWER_WAIT, body.to_string())
    }

    /// Gets JSON.
    pub(super) fn get_for(&self, url: &str) -> Result<Answer, Trouble> {
        let request = self.agent.get(url);
        let request = request.config().timeout_global(Some(ANSWER_WAIT)).build();
        let request = match &self.authorization {
            Some(login) => request.header("Authorization", login),
            None => request,
        };
        Answer::of(url, request.call())
    }

    /// Puts a file at `url`, with these headers besides; `logs_in`: with the login, which a storage
    /// that gives addresses away must not see.
    pub(super) fn put_file(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        logs_in: bool,
    ) -> Result<(), Trouble> {
        let file = File::open(path);
        let file = file.map_err(|error| Trouble::Never(format!("{}: {error}", path.display())))?;
        let mut request = self.agent.put(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let client = if logs_in {
            self.clone()
        } else {
            Self {
                agent: self.agent.clone(),
                authorization: None,
            }
        };
        let answer = client.send(url, request, UPLOAD_WAIT, &file)?;
        answer.check(url)
    }

    fn send(
        &self,
        url: &str,
        request: RequestBuilder<ureq::typestate::WithBody>,
        wait: Duration,
        body: impl AsSendBody,
    ) -> Result<Answer, Trouble> {
        let request = request.config().timeout_global(Some(wait)).build();
        let request = match &self.authorization {
            Some(login) => request.header("Authorization", login),
            None => request,
        };
        Answer::of(url, request.send(body))
    }
}

impl Answer {
    fn of(
        url: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Self, Trouble> {
        let later = |error: ureq::Error| Trouble::Later(format!("{}: {error}", place(url)));
        let mut answer = answer.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl | ureq::Error::Http(_) => {
                Trouble::Never(format!("{}: {error}", place(url)))
            }
            other => later(other),
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MOST_BYTES);
        let bytes = body.read_to_vec().map_err(later)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { status, text })
    }

    /// Fine, or the trouble that its status means.
    pub(super) fn check(&self, url: &str) -> Result<(), Trouble> {
        if (200..300).contains(&self.status) {
            return Ok(());
        }
        let said: String = self.text.trim().chars().take(SHOWN).collect();
        let text = format!("{} answers {}: {said}", place(url), self.status);
        if !FINAL.contains(&self.status) {
            return Err(Trouble::Later(text));
        }
        let hint = match self.status {
            401 | 403 => "\nhint: check key, token or password, and who may write there",
            _ => "",
        };
        Err(Trouble::Never(format!("{text}{hint}")))
    }

    /// Its JSON, where its status is fine.
    pub(super) fn json(&self, url: &str) -> Result<Value, Trouble> {
        self.check(url)?;
        serde_json::from_str(&self.text).map_err(|error| {
            // A proxy's page, or an answer that was cut short.
            Trouble::Later(format!("{} answers no JSON: {error}", place(url)))
        })
    }
}

/// An address as it is shown: without what follows `?`, where secrets may stand.
fn place(url: &str) -> &str {
    url.split_once('?').map_or(url, |(place, _)| place)
}

/// `text` as a part of a path in an address.
pub(super) fn part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                part.push(char::from(byte));
            }
            other => part += &format!("%{other:02X}"),
        }
    }
    part
}

/// An address that a user gave, without `/` at its end; `None`: it is none.
pub(super) fn base(url: &str) -> Option<String> {
    let is_http = ["http://", "https://"].iter().any(|scheme| {
        url.strip_prefix(scheme)
            .is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
    });
    is_http.then(|| url.trim_end_matches('/').to_owned())
}

fn certificates(file: &str) -> Result<RootCerts, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_put_together() {
        assert_eq!(part("a b/ü"), "a%20b%2F%C3%BC");
        assert_eq!(base("http://h:1/x/").unwrap(), "http://h:1/x");
        for none in ["", "h:1", "file:///a", "https://", "http:///x"] {
            assert_eq!(base(none), None, "{none}");
        }
        assert_eq!(place("http://h/x?key=1"), "http://h/x");
    }

    #[test]
    fn some_refusals_pass_and_some_do_not() {
        let check = |status| {
            let text = "no".to_owned();
            Answer { status, text }.check("http://h")
        };
        assert!(check(204).is_ok());
        for status in [408, 409, 429, 500, 503] {
            assert!(matches!(check(status), Err(Trouble::Later(_))), "{status}");
        }
        assert!(matches!(check(401), Err(Trouble::Never(why)) if why.contains("hint: ")));
    }

    #[test]
    fn certificates_of_ones_own_are_read_and_wrong_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let name = path.display().to_string();
        let get = |variable: &str| (variable == "SSL_CERT_FILE").then(|| name.clone());
        let error = Http::new("wandb", Login::Nobody, &Environment::new(&get)).unwrap_err();
        assert!(
            error.to_string().contains("holds no certificate"),
            "{error}"
        );
    }
}
