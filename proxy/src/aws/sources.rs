//! Where keys come from: the first of the usual sources that is set up.
//!
//! In this order: keys in variables, a web identity, a profile of the shared files, a container's
//! endpoint, the instance's metadata (version 2 only). A source that is set up and fails is an error;
//! only the profile `default` and the instance may be missing in silence.
//!
//! Invariants
//! - Every request has a timeout, every file and answer a largest size.
//! - No message shows a key, a token or an answer.
//!
//! Not here: how long keys are kept (`credentials`), variables (`config`).

use super::answers::{self, NoCredentials};
use super::credentials::Credentials;
use super::profile::{Assignments, Sections};
use crate::config::{
    AwsEnvironment, AwsKeys, Container, Profile, Secret, SigV4, WebIdentity, read_secret_text,
};
use crate::upstream::{Connector, ErrandError, errand};
use bursar_domain::Timestamp;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// How long an endpoint may take; those of container and instance are on this machine or one hop away.
const NEAR: Duration = Duration::from_secs(2);
const FAR: Duration = Duration::from_secs(5);
/// How long keys from files are kept: other programs write them anew.
const FILE_MICROS: u64 = 15 * 60 * 1_000_000;
/// How long a token for the instance's metadata is asked for; it is used at once.
const METADATA_TOKEN_SECONDS: &str = "60";

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// Nothing is set up.
    #[error(
        "nothing is set up: neither AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, a profile nor a container \
         endpoint, and no instance metadata ({0})"
    )]
    Nothing(String),
    /// A file cannot be used.
    #[error("{file} {what}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A profile cannot be used.
    #[error("the profile {name:?} {what}")]
    Profile {
        /// The profile.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An endpoint did not answer.
    #[error("{endpoint}: {source}")]
    Errand {
        /// Which one.
        endpoint: &'static str,
        /// Why.
        #[source]
        source: ErrandError,
    },
    /// An endpoint refused.
    #[error("{endpoint} answered {status}{why}")]
    Refused {
        /// Which one.
        endpoint: &'static str,
        /// How.
        status: StatusCode,
        /// The code of the error, if it named one.
        why: String,
    },
    /// An endpoint's answer is no use.
    #[error("{endpoint}: {source}")]
    Answer {
        /// Which one.
        endpoint: &'static str,
        /// Why.
        #[source]
        source: NoCredentials,
    },
    /// A token cannot stand in a header, or an address is none.
    #[error("{0} cannot be asked: its address or token is malformed")]
    Malformed(&'static str),
}

const CONTAINER: &str = "the container's endpoint";
const INSTANCE: &str = "the instance's metadata";
const STS: &str = "the token service";

/// Gets credentials from the first source that is set up.
pub(super) async fn fetch(
    scope: &SigV4,
    connector: &Connector,
    now: Timestamp,
) -> Result<Credentials, SourceError> {
    let environment = &*scope.environment;
    if let Some(keys) = &environment.keys {
        return Ok(Credentials { keys: Rc::new(keys.clone()), expires_at: None });
    }
    if let Some(identity) = &environment.web_identity {
        return web_identity(identity, scope, connector).await;
    }
    match read_profile(&environment.profile)? {
        Some(Found::Keys(keys)) => {
            return Ok(Credentials { keys: Rc::new(keys), expires_at: Some(now.plus_micros(FILE_MICROS)) });
        }
        Some(Found::WebIdentity(identity)) => return web_identity(&identity, scope, connector).await,
        None => {}
    }
    if let Some(container) = &environment.container {
        return from_container(container, connector).await;
    }
    match instance(environment, connector).await {
        Err(SourceError::Errand { source, .. }) => Err(SourceError::Nothing(source.to_string())),
        answer => answer,
    }
}

// === endpoints ===

async fn ask(
    endpoint: &'static str,
    connector: &Connector,
    request: http::request::Builder,
    body: Bytes,
    time: Duration,
) -> Result<Bytes, SourceError> {
    let request = request.body(body).map_err(|_| SourceError::Malformed(endpoint))?;
    let (status, answer) =
        errand(connector, request, time).await.map_err(|source| SourceError::Errand { endpoint, source })?;
    if status == StatusCode::OK { Ok(answer) } else { Err(refused(endpoint, status, &answer)) }
}

/// What an error's answer may tell: the short code in the token service's XML and nothing else.
fn refused(endpoint: &'static str, status: StatusCode, answer: &[u8]) -> SourceError {
    let text = String::from_utf8_lossy(answer);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let is_code = |code: &&str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    let why = code.map(|(code, _)| code).filter(is_code);
    SourceError::Refused { endpoint, status, why: why.map(|why| format!(" ({why})")).unwrap_or_default() }
}

async fn web_identity(
    identity: &WebIdentity,
    scope: &SigV4,
    connector: &Connector,
) -> Result<Credentials, SourceError> {
    let token = read_file(&identity.token_file)?;
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
        escaped(&identity.role),
        escaped(&identity.session),
        escaped(token.expose().trim())
    );
    let region = scope.environment.region.as_deref().unwrap_or(&scope.region);
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let usual = format!("https://sts.{region}.{domain}/").parse();
    let url = scope.environment.sts.clone().map_or(usual, Ok).map_err(|_| SourceError::Malformed(STS))?;
    let request = Request::post(url).header("content-type", "application/x-www-form-urlencoded");
    let answer = ask(STS, connector, request, Bytes::from(body), FAR).await?;
    answers::from_xml(&answer).map_err(|source| SourceError::Answer { endpoint: STS, source })
}

async fn from_container(container: &Container, connector: &Connector) -> Result<Credentials, SourceError> {
    let from_file = container.token_file.as_deref().map(read_file).transpose()?;
    let mut request = Request::get(container.uri.clone());
    if let Some(token) = from_file.as_ref().or(container.token.as_ref()) {
        let value = token.in_header("").map_err(|_| SourceError::Malformed(CONTAINER))?;
        request = request.header("authorization", value);
    }
    let answer = ask(CONTAINER, connector, request, Bytes::new(), NEAR).await?;
    answers::from_json(&answer).map_err(|source| SourceError::Answer { endpoint: CONTAINER, source })
}

/// Version 2 of the instance's metadata: a token, the name of the role, its keys.
async fn instance(environment: &AwsEnvironment, connector: &Connector) -> Result<Credentials, SourceError> {
    const ROLES: &str = "latest/meta-data/iam/security-credentials/";
    let Some(base) = &environment.instance else {
        return Err(SourceError::Nothing("AWS_EC2_METADATA_DISABLED is set".to_owned()));
    };
    let request = Request::put(below(base, "latest/api/token")?)
        .header("x-aws-ec2-metadata-token-ttl-seconds", METADATA_TOKEN_SECONDS);
    let token = ask(INSTANCE, connector, request, Bytes::new(), NEAR).await?;
    let get = async |path: &str| {
        let request = Request::get(below(base, path)?).header("x-aws-ec2-metadata-token", token.as_ref());
        ask(INSTANCE, connector, request, Bytes::new(), NEAR).await
    };
    let roles = get(ROLES).await?;
    let role = std::str::from_utf8(&roles).ok().and_then(|text| text.lines().next()).unwrap_or_default();
    let answer = get(&format!("{ROLES}{}", role.trim())).await?;
    answers::from_json(&answer).map_err(|source| SourceError::Answer { endpoint: INSTANCE, source })
}

fn below(base: &Uri, path: &str) -> Result<Uri, SourceError> {
    let base = base.to_string();
    format!("{}/{path}", base.trim_end_matches('/')).parse().map_err(|_| SourceError::Malformed(INSTANCE))
}

// === files ===

/// What a profile gives.
#[derive(Debug)]
enum Found {
    Keys(AwsKeys),
    WebIdentity(WebIdentity),
}

fn read_file(path: &Path) -> Result<Secret, SourceError> {
    let file = || path.display().to_string();
    read_secret_text(path).map_err(|what| SourceError::File { file: file(), what })
}

/// The profile, if there is one. Files that do not exist are no error, unless a profile was named.
fn read_profile(profile: &Profile) -> Result<Option<Found>, SourceError> {
    let name = profile.name.as_deref().unwrap_or("default");
    let mut said = Assignments::default();
    for (file, sections) in [(&profile.credentials, Sections::Bare), (&profile.config, Sections::Prefixed)] {
        if let Some(file) = file.as_deref().filter(|file| file.exists()) {
            said.add(read_file(file)?.expose(), name, sections);
        }
    }
    let wrong = |what| Err(SourceError::Profile { name: name.to_owned(), what });
    match (said.get("aws_access_key_id"), said.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            let session = said.get("aws_session_token").map(Secret::new);
            return Ok(Some(Found::Keys(AwsKeys {
                id: id.to_owned(),
                secret: Secret::new(secret),
                session,
            })));
        }
        (None, None) => {}
        _ => return wrong("has one half of a key"),
    }
    if let (Some(file), Some(role)) = (said.get("web_identity_token_file"), said.get("role_arn")) {
        return Ok(Some(Found::WebIdentity(WebIdentity {
            token_file: file.into(),
            role: role.to_owned(),
            session: said.get("role_session_name").unwrap_or("bursar").to_owned(),
        })));
    }
    for (key, what) in [
        (
            "credential_process",
            "runs a program for its credentials (credential_process), which is not supported",
        ),
        ("sso_session", "uses single sign-on, which is not supported"),
        ("sso_start_url", "uses single sign-on, which is not supported"),
        ("role_arn", "assumes a role from another profile, which is not supported"),
    ] {
        if said.get(key).is_some() {
            return wrong(what);
        }
    }
    match profile.name {
        Some(_) if said.is_empty() => wrong("is in none of the shared files"),
        Some(_) => wrong("has no credentials"),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn profile(dir: &Path, name: Option<&str>) -> Profile {
        Profile {
            name: name.map(str::to_owned),
            credentials: Some(dir.join("credentials")),
            config: Some(dir.join("config")),
        }
    }

    #[test]
    fn a_profile_gives_keys_or_a_role_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("credentials"),
            "[default]\naws_access_key_id=AKID\naws_secret_access_key=secret-canary\naws_session_token=t\n\
             [half]\naws_access_key_id=AKID\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("config"),
            "[profile pod]\nrole_arn=arn:r\nweb_identity_token_file=/t\n[profile login]\nsso_session=x\n\
             [profile runs]\ncredential_process=/bin/x\n[profile chain]\nrole_arn=a\nsource_profile=default\n\
             [profile region]\nregion=eu\n",
        )
        .unwrap();
        let read = |name| read_profile(&profile(dir.path(), name));
        let Some(Found::Keys(keys)) = read(None).unwrap() else { panic!("no keys") };
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("AKID", "secret-canary"));
        assert!(!format!("{:?}", read(None)).contains("canary"));
        let Some(Found::WebIdentity(identity)) = read(Some("pod")).unwrap() else { panic!("no role") };
        assert_eq!((identity.role.as_str(), identity.session.as_str()), ("arn:r", "bursar"));
        for (name, what) in [
            ("half", "has one half of a key"),
            ("login", "uses single sign-on, which is not supported"),
            ("runs", "runs a program for its credentials (credential_process), which is not supported"),
            ("chain", "assumes a role from another profile, which is not supported"),
            ("region", "has no credentials"),
            ("nobody", "is in none of the shared files"),
        ] {
            let error = read(Some(name)).unwrap_err().to_string();
            assert_eq!(error, format!("the profile {name:?} {what}"));
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(read_profile(&profile(empty.path(), None)).unwrap().is_none());
        assert!(read_profile(&Profile::default()).unwrap().is_none());
    }

    #[test]
    fn of_a_refusal_only_a_short_code_is_shown() {
        let shown = |answer: &str| refused(STS, StatusCode::FORBIDDEN, answer.as_bytes()).to_string();
        let plain = "the token service answered 403 Forbidden";
        assert_eq!(shown("<Error><Code>AccessDenied</Code></Error>"), format!("{plain} (AccessDenied)"));
        assert_eq!(shown("token-canary"), plain);
        assert_eq!(shown("<Code>a token canary</Code>"), plain);
    }
}
