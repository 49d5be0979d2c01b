//! Certificates for the one server stack and the one client stack.
//!
//! Invariant: with a CA configured, both sides show a certificate and check the other's (mTLS); without files
//! there is plain text, and nothing in between.
//!
//! Deliberately absent: SPIFFE identities and reloading; a later issue puts them here.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// PEM files of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Whom to trust; on the server, it makes a client certificate compulsory.
    pub ca: Option<PathBuf>,
}

/// A certificate file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    why: io::Error,
}

/// Time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

impl TlsFiles {
    /// The server's side.
    pub fn server(&self) -> Result<ServerTlsConfig, Error> {
        let config = ServerTlsConfig::new().identity(self.identity()?).timeout(HANDSHAKE_MAX);
        Ok(match self.authority()? {
            Some(ca) => config.client_ca_root(ca),
            None => config,
        })
    }

    /// The client's side; without a CA the system's roots are trusted.
    pub fn client(&self) -> Result<ClientTlsConfig, Error> {
        let config = ClientTlsConfig::new().timeout(HANDSHAKE_MAX);
        Ok(match self.authority()? {
            Some(ca) => config.ca_certificate(ca).identity(self.identity()?),
            None => config.with_enabled_roots().identity(self.identity()?),
        })
    }

    fn identity(&self) -> Result<Identity, Error> {
        Ok(Identity::from_pem(read(&self.cert)?, read(&self.key)?))
    }

    fn authority(&self) -> Result<Option<Certificate>, Error> {
        self.ca.as_deref().map(|path| read(path).map(Certificate::from_pem)).transpose()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|why| Error { path: path.to_owned(), why })
}
