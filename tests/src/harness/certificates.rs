//! Certificates as an operator makes them, with openssl: authorities, and what they have signed.

use super::process::command;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Who vouches for others.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    own: Certificate,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What others see.
    pub file: PathBuf,
    /// What they do not.
    pub key: PathBuf,
}

impl Authority {
    /// One that vouches for itself, with all its files in a directory.
    pub fn new(dir: PathBuf, name: &str) -> Result<Self> {
        let own = Certificate::at(&dir, name);
        own.make(name, &[])?;
        Ok(Self { dir, own })
    }

    /// Its own certificate, for those who believe it.
    pub fn root(&self) -> &Path {
        &self.own.file
    }

    /// Signs a certificate for a name; with an extension like `subjectAltName=IP:127.0.0.1`.
    pub fn sign(&self, name: &str, extension: &str) -> Result<Certificate> {
        let signed = Certificate::at(&self.dir, name);
        let (root, key) = (text(&self.own.file)?, text(&self.own.key)?);
        let leaf = "basicConstraints=critical,CA:FALSE";
        signed.make(name, &["-CA", root, "-CAkey", key, "-addext", leaf, "-addext", extension])?;
        Ok(signed)
    }
}

impl Certificate {
    fn at(dir: &Path, name: &str) -> Self {
        Self { file: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    fn make(&self, name: &str, further: &[&str]) -> Result<()> {
        let mut openssl = command("openssl".as_ref());
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={name}")]);
        openssl.args(further).arg("-keyout").arg(&self.key).arg("-out").arg(&self.file);
        let output = openssl.output().context("cannot run openssl")?;
        ensure!(output.status.success(), "{output:?}");
        // libpq and PostgreSQL refuse a key that others can read.
        Ok(fs::set_permissions(&self.key, fs::Permissions::from_mode(0o600))?)
    }
}

/// A path that can stand in an argument.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
