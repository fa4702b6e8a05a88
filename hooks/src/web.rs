//! Posting to a web server, by HTTP and by HTTPS on one way.
//!
//! What must hold: nothing is told to a server that cannot prove to be the one that is meant, neither its URL nor a
//! part of it is ever shown, and whatever it answers is read within bounds. Deliberately not here: redirects (who
//! follows one sends secrets to where nobody meant them to go, and most turn a POST into a GET), proxies, and limits
//! of time, which are the caller's.

use crate::hook::{Hook, Target};
use crate::run::{LONGEST_REASON, MOST_BYTES, Outcome, printable};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use program::causes::in_full;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// Why nothing can be posted.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file of authorities that cannot be used.
    #[error("{} cannot be used as the file of authorities for https:// hooks, which has certificates as PEM: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The protocol.
    #[error("TLS cannot be set up for https:// hooks: {0}")]
    Tls(#[from] rustls::Error),
}

/// What posts. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Web {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// No authority is known, so that no server can prove who it is.
    trusts_nobody: bool,
}

impl Web {
    /// For these hooks. Servers are proved by the authorities of the file, or else by those of this host, which are
    /// only looked for where there is an `https://` hook.
    pub fn new(hooks: &[Hook], authorities: Option<&Path>) -> Result<Self, WebError> {
        Self::trusting(match authorities {
            Some(path) => authorities_in(path)?,
            None if hooks.iter().any(is_https) => authorities_of_this_host(),
            None => RootCertStore::empty(),
        })
    }

    fn trusting(roots: RootCertStore) -> Result<Self, WebError> {
        let trusts_nobody = roots.is_empty();
        let protocol = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(protocol)
            .https_or_http()
            .enable_http1()
            .build();
        // Events are far between: no connection is kept open until the next.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, trusts_nobody })
    }

    /// Posts once. Given up by being dropped.
    pub(crate) async fn post(&self, url: &Url, id: &str, body: String) -> Outcome {
        if self.trusts_nobody && url.scheme() == "https" {
            let why = "no certificates of authorities are known on this host, so that no server can be trusted: install the package ca-certificates, or name a file with --hook-ca-file";
            return Outcome::Failed(why.to_owned());
        }
        let request = match request(url, id, body) {
            Ok(request) => request,
            Err(error) => return Outcome::Failed(format!("its URL cannot be used: {error}")),
        };
        match self.client.request(request).await {
            Ok(answer) => outcome(answer).await,
            Err(error) => Outcome::Failed(with_hint(in_full(&error))),
        }
    }
}

fn is_https(hook: &Hook) -> bool {
    match &hook.target {
        Target::Webhook(url) => url.scheme() == "https",
        Target::Command { .. } => false,
    }
}

fn authorities_in(path: &Path) -> Result<RootCertStore, WebError> {
    let failed = |why: String| WebError::Authorities { path: path.to_owned(), why };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(in_full(&error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in found {
        let certificate = certificate.map_err(|error| failed(in_full(&error)))?;
        roots.add(certificate).map_err(|error| failed(in_full(&error)))?;
    }
    if roots.is_empty() { Err(failed("it has no certificate".to_owned())) } else { Ok(roots) }
}

/// Where the host keeps them, or `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
fn authorities_of_this_host() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("some certificates of authorities cannot be read: {}", in_full(error));
    }
    let mut roots = RootCertStore::empty();
    // Every host has some that are too old to be understood.
    roots.add_parsable_certificates(found.certs);
    roots
}

fn request(url: &Url, id: &str, body: String) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut bare = url.clone();
    // Only a URL without a host has no place for them.
    let _ = (bare.set_username(""), bare.set_password(None));
    bare.set_fragment(None);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(bare.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header("Idempotency-Key", id);
    if !url.username().is_empty() || url.password().is_some() {
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let password = decoded(url.password().unwrap_or_default());
        let pair = [decoded(url.username()), password].join(&b':');
        request = request.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(pair)));
    }
    request.body(Full::new(body.into()))
}

async fn outcome(answer: Response<Incoming>) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        Outcome::Done
    } else if status == StatusCode::CONFLICT {
        // Only a refusal says more than its status.
        let said = beginning(answer.into_body()).await;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().map(printable).rfind(|line| !line.is_empty());
        let last = last.unwrap_or_else(|| "409 Conflict".to_owned());
        Outcome::Refused(last.chars().take(LONGEST_REASON).collect())
    } else if answer.headers().contains_key(LOCATION) {
        Outcome::Failed(format!(
            "it was answered {status}, and a redirect is not followed: write the URL to which it leads"
        ))
    } else {
        Outcome::Failed(format!("it was answered {status}"))
    }
}

/// As much of it as is read of any hook; what was said before a connection broke has been said.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        said.extend(frame.into_data().unwrap_or_default());
        if said.len() >= MOST_BYTES {
            said.truncate(MOST_BYTES);
            break;
        }
    }
    said
}

/// The commonest reason, with what mends it.
fn with_hint(why: String) -> String {
    if why.contains("UnknownIssuer") {
        format!(
            "{why}: no authority that is known here vouches for it; --hook-ca-file names others"
        )
    } else {
        why
    }
}

#[cfg(test)]
mod tests;
