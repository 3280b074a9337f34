//! TLS by rustls: certificates that can be read again, resumption (davfs2 opens a connection per LOCK), client
//! certificates as an alternative to passwords.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::GeneralName;

use crate::auth::Stamp;
use crate::config::TlsFiles;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind.
    #[error("{key} {path}: {why}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not make a server.
    #[error("tls_cert and tls_key: {0}")]
    Config(String),
}

/// The certificates of one server.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// Seconds since 1970.
    not_after: AtomicI64,
    /// What the files were when they were read last.
    seen: Mutex<Vec<Option<Stamp>>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn open(files: TlsFiles, passwords_too: bool) -> Result<Tls, TlsError> {
        let seen = stamps(&files);
        let (config, not_after) = load(&files, passwords_too)?;
        Ok(Tls {
            seen: Mutex::new(seen),
            files,
            config: ArcSwap::new(config),
            not_after: AtomicI64::new(not_after),
        })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// [`TlsError`]: the old certificate stays. It is logged.
    pub fn reload(&self, passwords_too: bool) -> Result<(), TlsError> {
        // Before they are read: what changes meanwhile is seen the next time.
        *self.seen.lock() = stamps(&self.files);
        match load(&self.files, passwords_too) {
            Ok((config, not_after)) => {
                self.config.store(config);
                self.not_after.store(not_after, Ordering::Relaxed);
                tracing::info!(file = %self.files.cert.display(), "certificate read again");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the old certificate stays");
                Err(error)
            }
        }
    }

    /// Reads the files again if one of them is another than when they were read last, whether that went well or not: of a new
    /// certificate and its key one may come before the other. Blocks.
    pub fn reload_if_changed(&self, passwords_too: bool) {
        if *self.seen.lock() != stamps(&self.files) {
            // Logged.
            let _ = self.reload(passwords_too);
        }
    }

    /// When the certificate in use expires: seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after.load(Ordering::Relaxed)
    }

    /// Shakes hands; the name is the client certificate's common name, or without one its
    /// first alternative name (email address, DNS name or URI).
    ///
    /// # Errors
    /// What went wrong in the handshake.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Option<String>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.config.load_full())
            .accept(stream)
            .await?;
        let name = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|c| c.first())
            .and_then(name_in);
        Ok((stream, name))
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let paths = [
        Some(&files.cert),
        Some(&files.key),
        files.client_ca.as_ref(),
    ];
    paths.into_iter().flatten().map(|p| Stamp::of(p)).collect()
}

fn name_in(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).ok()?;
    let common = parsed.subject().iter_common_name().next();
    if let Some(name) = common.and_then(|n| n.as_str().ok()) {
        return Some(name.to_owned());
    }
    let alternative = parsed.subject_alternative_name().ok()??;
    let mut names = alternative.value.general_names.iter();
    names.find_map(|name| match name {
        GeneralName::RFC822Name(name) | GeneralName::DNSName(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    })
}

fn chain(
    key: &'static str,
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |why: String| TlsError::File {
        key,
        path: path.display().to_string(),
        why,
    };
    let certs = CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?;
    let certs: Result<Vec<_>, _> = certs.collect();
    let certs = certs.map_err(|e| fail(e.to_string()))?;
    if certs.is_empty() {
        Err(fail("holds no certificate".into()))
    } else {
        Ok(certs)
    }
}

/// When the first certificate of the chain expires, seconds since 1970; 0 when it cannot be read.
fn not_after(certs: &[CertificateDer<'_>]) -> i64 {
    let parsed = certs
        .first()
        .map(|c| x509_parser::parse_x509_certificate(c));
    match parsed {
        Some(Ok((_, cert))) => cert.validity().not_after.timestamp(),
        _ => 0,
    }
}

fn load(files: &TlsFiles, passwords_too: bool) -> Result<(Arc<ServerConfig>, i64), TlsError> {
    let fail = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let certs = chain("tls_cert", &files.cert)?;
    let not_after = not_after(&certs);
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| TlsError::File {
        key: "tls_key",
        path: files.key.display().to_string(),
        why: e.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(&e))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            for cert in chain("tls_client_ca", ca)? {
                roots.add(cert).map_err(|e| fail(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if passwords_too {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| fail(&e))?)
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|e| fail(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| fail(&e))?;
    Ok((Arc::new(config), not_after))
}
