//! Loads the manifests of a controller and checks their digest.

use std::path::Path;
use std::time::Duration;

use cluster::errors::in_one_line;
use cluster::proxy;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use protocol::{Env, StageError, files};
use ring::digest;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::codes;

/// The controller that is installed by default.
pub(crate) const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// Contour's gateway provisioner, of the release that serves CRD bundles 1.3 to 1.6.
const CONTOUR_URL: &str = "https://raw.githubusercontent.com/projectcontour/contour/v1.33.6/examples/render/contour-gateway-provisioner.yaml";
const CONTOUR_DIGEST: &str = "544d0e66aab7bc763677c9610636d564dd30b8956ecf3a4f97edc9240fbfc57e";

/// Contour's manifests have 1.5 MiB, the largest known ones 5.
const LARGEST: usize = 16 << 20;
const ANSWER: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 5;

/// URLs and files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "OneOrMany")]
#[schemars(with = "OneOrMany")]
pub struct Manifests(Vec<String>);

/// A single one needs no list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a URL or file, or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Manifests {
    fn from(written: OneOrMany) -> Self {
        Self(match written {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

impl Manifests {
    /// Those that only a digest protects.
    pub(crate) fn unprotected(&self) -> impl Iterator<Item = &str> {
        let all = self.0.iter().map(String::as_str);
        all.filter(|it| it.starts_with("http://"))
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    bare(text).len() == 64 && bare(text).chars().all(|c| c.is_ascii_hexdigit())
}

fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Manifests as read.
pub(crate) struct Loaded {
    /// Each with its URL or path.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) digest: String,
    /// Whether the digest was known before.
    pub(crate) pinned: bool,
}

impl Loaded {
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }
}

/// Reads all files, and refuses those that do not match the digest.
pub(crate) async fn load(
    manifests: &Manifests,
    expected: Option<&str>,
    env: &Env,
) -> Result<Loaded, StageError> {
    let (names, expected) = match manifests.0.as_slice() {
        [] => (
            vec![CONTOUR_URL.to_owned()],
            Some(expected.unwrap_or(CONTOUR_DIGEST)),
        ),
        names => (names.to_vec(), expected),
    };
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut files = Vec::new();
    for name in names {
        let bytes = if name.contains("://") {
            let late = |_| Err(format!("no answer within {} s", ANSWER.as_secs()));
            let fetched = tokio::time::timeout(ANSWER, fetch(&name, env)).await;
            let fetched = fetched.unwrap_or_else(late);
            fetched.map_err(|why| not_fetched(&name, why))?
        } else {
            read(&name).map_err(|why| {
                unavailable(&name, why)
                    .hint("`provision_manifests` accepts files and https:// URLs")
            })?
        };
        sum.update(&bytes);
        let text = String::from_utf8(bytes)
            .map_err(|_| unavailable(&name, "it is not text".to_owned()))?;
        files.push((name, text));
    }
    let sum = sum.finish();
    let digest = sum.as_ref().iter().map(|byte| format!("{byte:02x}"));
    let digest: String = digest.collect();
    let loaded = Loaded {
        files,
        pinned: expected.is_some() || digest == CONTOUR_DIGEST,
        digest,
    };
    match expected.map(bare) {
        Some(expected) if !expected.eq_ignore_ascii_case(&loaded.digest) => {
            Err(digest_mismatch(&loaded, expected))
        }
        _ => Ok(loaded),
    }
}

fn unavailable(name: &str, why: String) -> StageError {
    let message = format!("cannot read the manifests at {name}");
    StageError::new(codes::MANIFEST_UNAVAILABLE, message).cause(why)
}

fn not_fetched(url: &str, why: String) -> StageError {
    unavailable(url, why).hint(format!(
        "download {url} on a machine that reaches it (`curl -LO {url}`), and set `provision_manifests` to the file; \
        behind a proxy, set HTTPS_PROXY"
    ))
}

fn digest_mismatch(loaded: &Loaded, expected: &str) -> StageError {
    let message = format!(
        "{} does not match `provision_digest`: its SHA-256 is {}, not {expected}",
        loaded.names(),
        loaded.digest
    );
    StageError::new(codes::MANIFEST_DIGEST, message)
}

fn read(name: &str) -> Result<Vec<u8>, String> {
    files::read_named(Path::new(name), LARGEST as u64).map_err(|error| error.to_string())
}

async fn fetch(url: &str, env: &Env) -> Result<Vec<u8>, String> {
    let mut uri: Uri = url
        .parse()
        .map_err(|error| format!("it is not a URL: {error}"))?;
    for _ in 0..=REDIRECTS {
        let response = request(&uri, env).await?;
        let status = response.status();
        if status.is_redirection() {
            uri = redirected(&uri, response.headers().get(header::LOCATION))?;
        } else if status == StatusCode::OK {
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            return Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec());
        } else {
            return Err(format!("{uri} answered {status}"));
        }
    }
    Err(format!("it redirects more than {REDIRECTS} times"))
}

/// kube's client works with any server: it uses the system's certificates, and no credentials here.
async fn request(uri: &Uri, env: &Env) -> Result<http::Response<Body>, String> {
    let authority = uri.authority().ok_or("it does not name a host")?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(format!("{uri} is neither http nor https")),
    };
    let base = format!("{scheme}://{authority}").parse::<Uri>();
    let mut config = kube::Config::new(base.map_err(|error| error.to_string())?);
    config.proxy_url = proxy::from_environment(uri, env);
    config.connect_timeout = Some(CONNECT);
    let describe = |error: kube::Error| in_one_line(&error);
    let client = kube::Client::try_from(config).map_err(describe)?;
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::get(path)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    client.send(request).await.map_err(describe)
}

fn redirected(from: &Uri, location: Option<&http::HeaderValue>) -> Result<Uri, String> {
    let location = location.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let absolute = match (location.strip_prefix('/'), from.authority()) {
        (Some(path), Some(authority)) => {
            let scheme = from.scheme_str().unwrap_or("https");
            format!("{scheme}://{authority}/{path}")
        }
        _ => location.to_owned(),
    };
    let to: Uri = absolute
        .parse()
        .map_err(|_| format!("{from} redirects to {location:?}"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("http")) => {
            Err(format!("{from} redirects to {to}, which is not protected"))
        }
        _ => Ok(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifests(names: &[&str]) -> Manifests {
        Manifests(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[tokio::test]
    async fn the_digest_covers_all_files_and_a_mismatch_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a"), "a: 1\n").unwrap();
        std::fs::write(path("b"), "b: 2\n").unwrap();
        let (a, b) = (path("a"), path("b"));
        let both = manifests(&[&a, &b]);
        let env = Env::from_pairs([("A", "b")]);
        let loaded = load(&both, None, &env).await.ok().unwrap();
        // printf 'a: 1\nb: 2\n' | sha256sum
        let sum = "d02b8bb58aa82e872f709035f39b734b9f28dde0c3d305698a95d04aec594cfa";
        assert_eq!((loaded.digest.as_str(), loaded.pinned), (sum, false));
        let sum = format!("sha256:{}", sum.to_uppercase());
        assert!(load(&both, Some(&sum), &env).await.is_ok());
        let swapped = load(&manifests(&[&b, &a]), Some(&sum), &env).await;
        assert_eq!(swapped.err().unwrap().code, "gateway.manifest_digest");
    }

    #[test]
    fn a_redirect_from_https_to_http_is_refused() {
        let from: Uri = "https://example.com/a/b".parse().unwrap();
        let to = |location: &'static str| {
            redirected(&from, Some(&http::HeaderValue::from_static(location)))
        };
        assert_eq!(to("/c").unwrap(), "https://example.com/c");
        assert_eq!(
            to("https://other.example.com/d").unwrap(),
            "https://other.example.com/d"
        );
        assert!(to("http://example.com/a/b").is_err());
    }
}
