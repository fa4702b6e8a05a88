//! The part of a connection string that says how a connection is encrypted, and who is believed.

use super::client::Parameter;
use crate::exit::Exit;
use crate::failure::Failure;
use std::path::Path;

/// The certificates that come with the system, in libpq from 16 on.
const SYSTEM: &str = "system";

/// Files are looked for on the client's host.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Tls {
    /// How much TLS [default: the client's own]
    #[arg(long, value_enum)]
    sslmode: Option<SslMode>,
    /// The certificates of the authorities that are believed, or `system`
    #[arg(long, value_name = "FILE")]
    sslrootcert: Option<String>,
    /// The client's own certificate
    #[arg(long, value_name = "FILE")]
    sslcert: Option<String>,
    /// The key of the client's own certificate
    #[arg(long, value_name = "FILE")]
    sslkey: Option<String>,
}

/// libpq's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SslMode {
    /// No TLS
    Disable,
    /// TLS only where the server insists
    Allow,
    /// TLS where the server has it
    Prefer,
    /// TLS, whoever the server is
    Require,
    /// TLS, with a certificate of an authority that is believed
    VerifyCa,
    /// The same, and the certificate names the host
    VerifyFull,
}

impl SslMode {
    fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the connection may end up with TLS or without.
    pub(super) fn may_be_either(self) -> bool {
        match self {
            Self::Allow | Self::Prefer => true,
            Self::Disable | Self::Require | Self::VerifyCa | Self::VerifyFull => false,
        }
    }

    /// Whether the server's certificate is checked; by libpq with `require` where it is said who is believed.
    fn may_check(self) -> bool {
        match self {
            Self::Disable | Self::Allow | Self::Prefer => false,
            Self::Require | Self::VerifyCa | Self::VerifyFull => true,
        }
    }

    /// Checks are made by its connector.
    pub(super) fn is_not_of_tokio_postgres(self) -> bool {
        match self {
            Self::Disable | Self::Prefer | Self::Require => false,
            Self::Allow | Self::VerifyCa | Self::VerifyFull => true,
        }
    }
}

impl Tls {
    /// The mode, where one is asked for.
    pub(super) fn mode(&self) -> Option<SslMode> {
        self.sslmode
    }

    /// Whether any file is named.
    pub(super) fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// Whether it is said who is believed.
    pub(super) fn has_root(&self) -> bool {
        self.sslrootcert.is_some()
    }

    /// Whether a certificate is named without its key, or a key without its certificate.
    pub(super) fn has_half_of_an_own(&self) -> bool {
        self.sslcert.is_some() != self.sslkey.is_some()
    }

    /// Whether those that come with the system are believed.
    pub(super) fn has_system_root(&self) -> bool {
        self.sslrootcert.as_deref() == Some(SYSTEM)
    }

    /// What goes into the string.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        let mode = self.sslmode.map(|mode| ("sslmode", mode.name().to_owned()));
        mode.into_iter().chain(self.files().map(|(key, file)| (key, file.to_owned())))
    }

    /// Whether it can mean anything.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::new(Exit::BadArguments, "bad_value", message));
        if self.sslmode == Some(SslMode::Disable) && self.has_files() {
            return wrong("with --sslmode disable no certificate is looked at".to_owned());
        }
        if self.has_system_root() && self.sslmode != Some(SslMode::VerifyFull) {
            return wrong("--sslrootcert system needs --sslmode verify-full".to_owned());
        }
        if self.has_root() && !self.sslmode.is_some_and(SslMode::may_check) {
            return wrong(
                "--sslrootcert needs --sslmode verify-full or verify-ca: with less, no certificate is checked"
                    .to_owned(),
            );
        }
        let is_relative =
            |(key, file): &(&str, &str)| !is_system(key, file) && !Path::new(file).is_absolute();
        match self.files().find(is_relative) {
            Some((key, file)) => wrong(format!(
                "--{key} {file:?} is no absolute path: clients run in directories of their own"
            )),
            None => Ok(()),
        }
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [
            ("sslrootcert", &self.sslrootcert),
            ("sslcert", &self.sslcert),
            ("sslkey", &self.sslkey),
        ];
        named.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)))
    }
}

fn is_system(key: &str, file: &str) -> bool {
    key == "sslrootcert" && file == SYSTEM
}
