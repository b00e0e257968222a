//! What `auth: sigv4` needs to know: region and service to sign for, and where credentials come from.
//!
//! The variables are those of every AWS SDK. They are read once, with the rest of the configuration.
//!
//! Invariants
//! - Credentials are asked for over TLS, on this machine, or at the fixed link-local addresses of the
//!   container and instance endpoints; no variable can send a token elsewhere in the clear.
//! - Secrets are in redacting types.
//!
//! Not here: fetching credentials, signing (`aws`).

use super::secret::Secret;
use http::Uri;
use http::uri::Scheme;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How requests of a route are signed.
#[derive(Clone, Debug)]
pub struct SigV4 {
    /// The region in the signature's scope.
    pub region: Box<str>,
    /// The service in the signature's scope.
    pub service: &'static str,
    /// Where credentials come from; one for all routes.
    pub environment: Arc<AwsEnvironment>,
}

/// Where credentials may come from, in the order in which they are looked for.
#[derive(Clone, Debug, Default)]
pub struct AwsEnvironment {
    /// Keys in variables.
    pub keys: Option<AwsKeys>,
    /// A role for a token in a file, as Kubernetes service accounts have it.
    pub web_identity: Option<WebIdentity>,
    /// A profile in the files that the AWS command line writes.
    pub profile: Profile,
    /// The endpoint of a container.
    pub container: Option<Container>,
    /// The metadata endpoint of the instance, unless it is switched off.
    pub instance: Option<Uri>,
    /// Another endpoint for the token service.
    pub sts: Option<Uri>,
    /// The region, where nothing else names one.
    pub region: Option<String>,
}

/// An access key, as configured or as an endpoint gave it.
#[derive(Clone, Debug)]
pub struct AwsKeys {
    /// Names the key; it stands in every signed request.
    pub id: String,
    /// The key itself.
    pub secret: Secret,
    /// The token that goes with a temporary key.
    pub session: Option<Secret>,
}

/// A role that is assumed with a token from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentity {
    /// The file, which is written anew from time to time.
    pub token_file: PathBuf,
    /// The role.
    pub role: String,
    /// The name of the session, for the account's logs.
    pub session: String,
}

/// A profile of the shared files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name, if one was chosen; it must then exist.
    pub name: Option<String>,
    /// The file with credentials.
    pub credentials: Option<PathBuf>,
    /// The file with settings.
    pub config: Option<PathBuf>,
}

/// The credentials endpoint of a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its address.
    pub uri: Uri,
    /// What to send as `authorization`.
    pub token: Option<Secret>,
    /// A file with what to send, which wins and is written anew from time to time.
    pub token_file: Option<PathBuf>,
}

/// The address of the container endpoint that a relative path is for.
const CONTAINER_HOST: &str = "169.254.170.2";
/// The addresses of EKS's agent (AWS, "Container credential provider").
const EKS_HOSTS: [&str; 2] = ["169.254.170.23", "fd00:ec2::23"];
/// The addresses of the instance's metadata (AWS, "Use the instance metadata service").
const INSTANCE_HOSTS: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];
const INSTANCE: &str = "http://169.254.169.254";

/// A variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {what}")]
pub(super) struct WrongVariable {
    pub(super) variable: &'static str,
    pub(super) what: &'static str,
}

impl AwsEnvironment {
    /// Reads the variables.
    pub(super) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, WrongVariable> {
        let get = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let home = path("HOME");
        let in_home = |file: &str| home.as_ref().map(|home| home.join(".aws").join(file));
        let is_off = get("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let instance = match get("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            _ if is_off => None,
            None => Some(Uri::from_static(INSTANCE)),
            Some(text) => Some(endpoint("AWS_EC2_METADATA_SERVICE_ENDPOINT", &text, &INSTANCE_HOSTS)?),
        };
        let sts = get("AWS_ENDPOINT_URL_STS").map(|text| endpoint("AWS_ENDPOINT_URL_STS", &text, &[]));
        Ok(Self {
            keys: keys(&get)?,
            web_identity: match (path("AWS_WEB_IDENTITY_TOKEN_FILE"), get("AWS_ROLE_ARN")) {
                (Some(token_file), Some(role)) => {
                    let session = get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "bursar".to_owned());
                    Some(WebIdentity { token_file, role, session })
                }
                (Some(_), None) => {
                    let what = "is set, but AWS_ROLE_ARN is not";
                    return Err(WrongVariable { variable: "AWS_WEB_IDENTITY_TOKEN_FILE", what });
                }
                (None, _) => None,
            },
            profile: Profile {
                name: get("AWS_PROFILE"),
                credentials: path("AWS_SHARED_CREDENTIALS_FILE").or_else(|| in_home("credentials")),
                config: path("AWS_CONFIG_FILE").or_else(|| in_home("config")),
            },
            container: container(&get)?,
            instance,
            sts: sts.transpose()?,
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
        })
    }
}

fn keys(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<AwsKeys>, WrongVariable> {
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            let session = get("AWS_SESSION_TOKEN").map(|token| Secret::new(&Zeroizing::new(token)));
            Ok(Some(AwsKeys { id, secret: Secret::new(&Zeroizing::new(secret)), session }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => {
            let what = "is set, but AWS_SECRET_ACCESS_KEY is not";
            Err(WrongVariable { variable: "AWS_ACCESS_KEY_ID", what })
        }
        (None, Some(_)) => {
            let what = "is set, but AWS_ACCESS_KEY_ID is not";
            Err(WrongVariable { variable: "AWS_SECRET_ACCESS_KEY", what })
        }
    }
}

fn container(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Container>, WrongVariable> {
    const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let [eks, eks6] = EKS_HOSTS;
    let uri = match (get(RELATIVE), get(FULL)) {
        (Some(path), _) => {
            // Before a path that does not start with a slash, the host would go on.
            let what = "is no path that starts with a slash";
            let wrong = WrongVariable { variable: RELATIVE, what };
            if !path.starts_with('/') {
                return Err(wrong);
            }
            format!("http://{CONTAINER_HOST}{path}").parse().map_err(|_| wrong)?
        }
        (None, Some(text)) => endpoint(FULL, &text, &[CONTAINER_HOST, eks, eks6])?,
        (None, None) => return Ok(None),
    };
    let token = get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|token| Secret::new(&Zeroizing::new(token)));
    let token_file = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
    Ok(Some(Container { uri, token, token_file }))
}

/// An address that credentials may be asked from: over TLS, on this machine, or one of `hosts`.
fn endpoint(variable: &'static str, text: &str, hosts: &[&str]) -> Result<Uri, WrongVariable> {
    let uri: Uri = text.parse().map_err(|_| WrongVariable { variable, what: "is no address" })?;
    let Some(host) = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']')) else {
        return Err(WrongVariable { variable, what: "has no host" });
    };
    let address: Option<IpAddr> = host.parse().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback());
    let is_known = hosts.iter().any(|known| known.parse().ok() == address && address.is_some());
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Ok(uri),
        Some(scheme) if *scheme == Scheme::HTTP && (is_here || is_known) => Ok(uri),
        _ => Err(WrongVariable { variable, what: "is neither https nor on this machine" }),
    }
}

/// The region and the service that a host of Bedrock's names, such as
/// `bedrock-runtime.eu-west-1.amazonaws.com` or `bedrock-mantle.us-east-1.api.aws`.
pub(super) fn scope_of_host(host: &str) -> Option<(&str, &'static str)> {
    const SUFFIXES: [&str; 4] = [".vpce.amazonaws.com", ".amazonaws.com.cn", ".amazonaws.com", ".api.aws"];
    let rest = SUFFIXES.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    let (rest, region) = rest.rsplit_once('.')?;
    let service = rest.rsplit('.').next().unwrap_or_default();
    service.starts_with("bedrock").then(|| (region, service_of(service)))
}

/// The name of a service in signatures (AWS service authorization reference): one for all of Bedrock's
/// hosts, but for Mantle.
pub(super) fn service_of(name: &str) -> &'static str {
    if name.starts_with("bedrock-mantle") { "bedrock-mantle" } else { "bedrock" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<AwsEnvironment, WrongVariable> {
        AwsEnvironment::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(variables: &[(&str, &str)], expected: &str) {
        assert_eq!(read(variables).unwrap_err().to_string(), expected);
    }

    #[test]
    fn the_variables_of_the_sdks_are_read() {
        let environment = read(&[
            ("AWS_ACCESS_KEY_ID", " AKID "),
            ("AWS_SECRET_ACCESS_KEY", "canary"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:role"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_PROFILE", "work"),
            ("HOME", "/home/me"),
        ])
        .unwrap();
        let keys = environment.keys.clone().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("AKID", "canary"));
        assert_eq!(environment.web_identity.clone().unwrap().session, "bursar");
        assert_eq!(environment.profile.credentials, Some(PathBuf::from("/home/me/.aws/credentials")));
        assert_eq!(environment.container.as_ref().unwrap().uri, "http://169.254.170.2/v2/credentials/1");
        assert_eq!(environment.instance.as_ref().unwrap(), "http://169.254.169.254/");
        assert_eq!(environment.region.as_deref(), Some("eu-west-1"));
        assert!(!format!("{environment:?}").contains("canary"));
    }

    #[test]
    fn half_of_a_pair_is_refused() {
        refused(&[("AWS_ACCESS_KEY_ID", "a")], "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
        refused(
            &[("AWS_SECRET_ACCESS_KEY", "a")],
            "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not",
        );
        let what = "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not";
        refused(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")], what);
        assert!(read(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", " ")]).unwrap().keys.is_none());
    }

    #[test]
    fn tokens_are_sent_over_tls_or_to_this_machine_only() {
        const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        for good in [
            "https://example.com/x",
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "http://[::1]:80/x",
            "http://169.254.170.2/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert_eq!(read(&[(FULL, good)]).unwrap().container.unwrap().uri, good);
        }
        for bad in
            ["http://example.com/x", "http://169.254.169.254/x", "http://10.0.0.1/", "ftp://localhost/"]
        {
            refused(&[(FULL, bad)], &format!("{FULL} is neither https nor on this machine"));
        }
        refused(&[(FULL, "/x")], &format!("{FULL} has no host"));
        refused(&[(FULL, "a b")], &format!("{FULL} is no address"));
        let relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        refused(&[(relative, ".evil/")], &format!("{relative} is no path that starts with a slash"));
        let metadata = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        refused(
            &[(metadata, "http://10.0.0.1")],
            &format!("{metadata} is neither https nor on this machine"),
        );
        let off = read(&[("AWS_EC2_METADATA_DISABLED", "TRUE"), (metadata, "http://10.0.0.1")]);
        assert!(off.unwrap().instance.is_none());
        let sts = "AWS_ENDPOINT_URL_STS";
        refused(&[(sts, "http://169.254.170.2")], &format!("{sts} is neither https nor on this machine"));
    }

    #[test]
    fn bedrocks_hosts_name_their_region_and_service() {
        for (host, expected) in [
            ("bedrock-runtime.eu-west-1.amazonaws.com", Some(("eu-west-1", "bedrock"))),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some(("us-gov-west-1", "bedrock"))),
            ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some(("cn-north-1", "bedrock"))),
            ("bedrock-agent-runtime.us-east-1.amazonaws.com", Some(("us-east-1", "bedrock"))),
            ("bedrock-mantle.us-east-1.api.aws", Some(("us-east-1", "bedrock-mantle"))),
            ("vpce-0a.bedrock-runtime.us-east-1.vpce.amazonaws.com", Some(("us-east-1", "bedrock"))),
            ("s3.us-east-1.amazonaws.com", None),
            ("bedrock-runtime.us-east-1.example.com", None),
            ("amazonaws.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(scope_of_host(host), expected, "{host}");
        }
    }
}
