//! Who is trusted at the other end of a connection.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why no server could be trusted.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file holds no certificates, or cannot be read.
    #[error("{0}: no certificates in PEM: {1}")]
    File(String, rustls_pki_types::pem::Error),
    /// The file is empty.
    #[error("{0}: no certificate in it")]
    Empty(String),
    /// The system has no certificates.
    #[error("the system names no certificate authorities; give one with --ca-file")]
    System,
    /// The address is no name that a certificate could hold.
    #[error("`{0}` is no host name")]
    Name(String),
    /// A certificate is not usable.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// How to speak TLS with one server.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

impl Tls {
    /// Trusts the authorities of a PEM file, or else the system's, to name the server at `host`.
    ///
    /// # Errors
    /// When there are none, or `host` is no name.
    pub fn new(host: &str, ca_file: Option<&Path>) -> Result<Tls, TlsError> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let name = path.display().to_string();
                let file = |e| TlsError::File(name.clone(), e);
                for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
                    roots.add(certificate.map_err(file)?)?;
                }
                if roots.is_empty() {
                    return Err(TlsError::Empty(name));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError::System);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| TlsError::Name(host))?;
        Ok(Tls {
            connector: Arc::new(config).into(),
            name,
        })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the server is not the one that is trusted, or speaks no TLS.
    pub async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let connected = self.connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| {
            use rustls::Error::InvalidMessage;
            let why = error.get_ref().and_then(|e| e.downcast_ref());
            match why {
                // Its first bytes are no record of TLS's: plain text, most likely.
                Some(InvalidMessage(_)) => std::io::Error::new(
                    error.kind(),
                    format!("no TLS is spoken there (http:// instead of https://?): {error}"),
                ),
                _ => error,
            }
        })
    }
}
