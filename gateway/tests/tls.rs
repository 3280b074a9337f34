//! TLS over the wire: ALPN and HTTP/2, client certificates as identities, certificates read again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{Gateway, eventually};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, PEM.
fn issue(ca: &Issuer, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, ca).unwrap(), key)
}

fn issue_without_common_name(ca: &Issuer, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    (params.signed_by(&key, ca).unwrap(), key)
}

fn install(dir: &Path, ca: &Issuer, name: &str) {
    let (cert, key) = issue(ca, name);
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

/// A gateway with a certificate of `ca`, and the flags `more`; `{}` in them is the directory.
fn serve(ca: &Issuer, more: &[&str]) -> (tempfile::TempDir, Gateway) {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), ca, "server");
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let at = dir.path().display().to_string();
    let (cert, key) = (format!("{at}/cert.pem"), format!("{at}/key.pem"));
    let more: Vec<String> = more.iter().map(|f| f.replace("{}", &at)).collect();
    let mut flags = vec!["--tls-cert", &cert, "--tls-key", &key];
    flags.extend(more.iter().map(String::as_str));
    let gateway = Gateway::start(&flags);
    (dir, gateway)
}

fn client(
    ca: &Issuer,
    alpn: &[&str],
    identity: Option<&(rcgen::Certificate, KeyPair)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![cert.der().clone()], key)
                .unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    Arc::new(config)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(address).unwrap())
}

/// One HTTP/1.1 request; status line and all that follows.
fn ask(stream: &mut Stream, request: &str) -> std::io::Result<String> {
    let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"Content-Length: 0\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn subject(stream: &Stream) -> Vec<u8> {
    let certs: &[CertificateDer<'_>] = stream.conn.peer_certificates().unwrap();
    certs[0].to_vec()
}

#[test]
fn both_protocols_are_served_and_a_session_is_resumed() {
    let ca = authority("test CA");
    let (_dir, gateway) = serve(&ca, &[]);
    let one = client(&ca, &["http/1.1"], None);
    let mut stream = connect(gateway.address, &one);
    let reply = ask(&mut stream, "MKCOL /over-tls").unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
    // davfs2 opens a connection for every LOCK.
    let mut stream = connect(gateway.address, &one);
    ask(&mut stream, "GET /over-tls/").unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(http2(
        gateway.address,
        client(&ca, &["h2", "http/1.1"], None),
    ));
}

/// Several requests at once on one connection.
async fn http2(address: SocketAddr, config: Arc<ClientConfig>) {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = tokio_rustls::TlsConnector::from(config);
    let tls = tls.connect(name, tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let http = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
    let (sender, connection) = http.await.unwrap();
    let connection = tokio::spawn(connection);
    let url = |n: usize| format!("https://localhost/over-tls/{n}");
    let send = |method: &'static str, n: usize, body: Vec<u8>| {
        let mut sender = sender.clone();
        let request = http::Request::builder().method(method).uri(url(n));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap();
            (status, body.to_bytes())
        }
    };
    let content = |n: usize| common::content(n as u64, 300_000 + n);
    let puts = (0..8).map(|n| send("PUT", n, content(n)));
    for (status, _) in futures_util::future::join_all(puts).await {
        assert_eq!(status, 201);
    }
    let gets = (0..8).map(|n| send("GET", n, Vec::new()));
    let gets = futures_util::future::join_all(gets).await;
    for (n, (status, body)) in gets.into_iter().enumerate() {
        assert_eq!((status, body == content(n)), (200, true), "{n}");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[test]
fn a_client_certificate_is_an_identity_and_a_strangers_is_refused() {
    let (ca, other) = (authority("devices CA"), authority("somebody's CA"));
    let (_dir, gateway) = serve(&ca, &["--tls-client-ca", "{}/ca.pem"]);
    let known = issue(&ca, "pi-7");
    let mut stream = connect(gateway.address, &client(&ca, &[], Some(&known)));
    let reply = ask(&mut stream, "MKCOL /by-certificate").unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    // Without passwords, none or a stranger's certificate ends the handshake (TLS 1.3 says so at the first read).
    let stranger = issue(&other, "pi-7");
    for identity in [None, Some(&stranger)] {
        let mut stream = connect(gateway.address, &client(&ca, &[], identity));
        let reply = ask(&mut stream, "MKCOL /stranger");
        assert!(reply.is_err(), "{reply:?}");
    }
    assert!(!gateway.root().join("stranger").exists());
}

#[test]
fn a_certificate_names_a_user_with_its_rights_and_others_need_passwords() {
    let ca = authority("devices CA");
    let dir = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, format!("pi-7:{hash}:root=/pi:ro\nmo:{hash}\n")).unwrap();
    let users = users.display().to_string();
    let flags = ["--tls-client-ca", "{}/ca.pem", "--users-file", &users];
    let (_dir, gateway) = serve(&ca, &flags);
    std::fs::create_dir(gateway.root().join("pi")).unwrap();
    std::fs::write(gateway.root().join("pi/f"), "its own").unwrap();
    let known = client(&ca, &[], Some(&issue(&ca, "pi-7")));
    let reply = ask(&mut connect(gateway.address, &known), "GET /f").unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.ends_with("its own"),
        "{reply}"
    );
    let reply = ask(&mut connect(gateway.address, &known), "DELETE /f").unwrap();
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    // Named by an alternative name alone.
    let named = client(&ca, &[], Some(&issue_without_common_name(&ca, "mo")));
    let reply = ask(&mut connect(gateway.address, &named), "GET /pi/f").unwrap();
    assert!(reply.ends_with("its own"), "{reply}");
    // No certificate, or one of the same CA that names nobody.
    for who in [None, Some(issue(&ca, "pi-8"))] {
        let unknown = client(&ca, &[], who.as_ref());
        let reply = ask(&mut connect(gateway.address, &unknown), "GET /pi/f").unwrap();
        assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    }
}

/// The status of one request on a connection that goes on.
fn status(stream: &mut Stream, request: &str) -> u16 {
    let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|l| l.split_once("\r\n")?.0.parse().ok());
    stream
        .read_exact(&mut vec![0; length.unwrap_or(0)])
        .unwrap();
    head[9..12].parse().unwrap()
}

#[test]
fn what_the_users_file_says_of_a_certificate_counts_on_connections_that_are_open() {
    let ca = authority("devices CA");
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let line = format!("pi-7:{}", bcrypt::hash("secret", 4).unwrap());
    let path = users.display().to_string();
    std::fs::write(&users, format!("{line}\n")).unwrap();
    let flags = ["--tls-client-ca", "{}/ca.pem", "--users-file", &path];
    let (_dir, gateway) = serve(&ca, &flags);
    let config = client(&ca, &[], Some(&issue(&ca, "pi-7")));
    let mut stream = connect(gateway.address, &config);
    for (path, expected) in [("/f", 201), ("/f", 204)] {
        assert_eq!(status(&mut stream, &format!("PUT {path}")), expected);
    }
    // Answered from memory, before hyper, from the second on.
    for _ in 0..3 {
        assert_eq!(status(&mut stream, "GET /f"), 200);
    }
    let cases = [
        (format!("{line}:ro\n"), "PUT /f", 403),
        ("# nobody\n".to_owned(), "GET /f", 401),
        (format!("{line}\n"), "PUT /f", 204),
    ];
    for (text, request, expected) in cases {
        std::fs::write(&users, text).unwrap();
        eventually(request, || status(&mut stream, request) == expected);
    }
}

/// The certificate that a new connection gets. A new configuration: a resumed session would show that of its first handshake.
fn shown(gateway: &Gateway, ca: &Issuer) -> Vec<u8> {
    let mut stream = connect(gateway.address, &client(ca, &[], None));
    ask(&mut stream, "OPTIONS /").unwrap();
    subject(&stream)
}

#[test]
fn a_renewed_certificate_is_read_without_being_told() {
    let ca = authority("test CA");
    let (dir, gateway) = serve(&ca, &[]);
    let now = || shown(&gateway, &ca);
    let first = now();
    // Halfway through, the certificate is there and its key is not.
    let (cert, key) = issue(&ca, "renewed");
    std::fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
    eventually("the complaint", || {
        gateway.log().contains("the old certificate stays")
    });
    assert_eq!(now(), first);
    std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    eventually("the new certificate", || now() != first);
}

#[test]
fn sighup_reads_the_certificate_again_and_a_broken_one_changes_nothing() {
    let ca = authority("test CA");
    let (dir, gateway) = serve(&ca, &[]);
    let now = || shown(&gateway, &ca);
    let first = now();
    // A connection from before goes on.
    let mut open = connect(gateway.address, &client(&ca, &[], None));
    open.flush().unwrap();
    install(dir.path(), &ca, "renewed");
    gateway.signal_hup();
    eventually("the new certificate", || now() != first);
    let second = now();
    let reply = ask(&mut open, "OPTIONS /").unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    std::fs::write(dir.path().join("cert.pem"), "no certificate").unwrap();
    gateway.signal_hup();
    eventually("the complaint", || {
        gateway.log().contains("the old certificate stays")
    });
    assert_eq!(now(), second);
}
