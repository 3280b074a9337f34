//! A replay over TLS, against a gateway with a certificate of its own authority.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Gateway;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn gateway_process() {
    common::serve();
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Lines of a configuration with a certificate for localhost.
fn certified(dir: &Path, ca: &Issuer) -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    let dir = dir.display();
    format!("tls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\n")
}

fn replay(url: &str, more: &[&str]) -> Output {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/es/smoke.csv.xz");
    let args = ["replay", trace, "--target", url, "--quiet"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    command.args(args).args(more).output().unwrap()
}

#[test]
fn a_replay_over_tls_checks_every_byte_and_who_answers() {
    let ca = authority();
    let gateway = Gateway::with(|dir| certified(dir, &ca));
    assert!(gateway.url.starts_with("https://"), "{}", gateway.url);
    let url = gateway.url.replace("127.0.0.1", "localhost");
    let file = |name: &str| gateway.dir.path().join(name).display().to_string();
    let good = replay(
        &url,
        &["--prefix", "/good", "--ca-file", &file("ca.pem"), "--json"],
    );
    assert!(good.status.success(), "{good:?}");
    let report: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert!(
        report["target"]
            .as_str()
            .unwrap()
            .starts_with("https://localhost:")
    );
    assert!(report["read_back"]["requests"].as_u64().unwrap() > 0);

    std::fs::write(file("other.pem"), authority().pem()).unwrap();
    std::fs::write(file("none.pem"), "nothing\n").unwrap();
    for (url, ca, said) in [
        (&url, "other.pem", "invalid peer certificate"),
        (&url, "none.pem", "none.pem: no certificate"),
        (&url, "missing.pem", "missing.pem"),
        // It is issued for a name, not for this address.
        (&gateway.url, "ca.pem", "not valid for name"),
    ] {
        let refused = replay(url, &["--ca-file", &file(ca)]);
        let said_all = [refused.stdout, refused.stderr].concat();
        let text = String::from_utf8_lossy(&said_all).into_owned();
        assert!(
            !refused.status.success() && text.contains(said),
            "{ca}: {text}"
        );
    }
    let open = Gateway::start();
    let url = open.url.replace("http://127.0.0.1", "https://localhost");
    let refused = replay(&url, &["--ca-file", &file("ca.pem")]);
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        !refused.status.success() && said.contains("http:// instead of https://?"),
        "{said}"
    );
    let plain = replay("ftp://localhost/", &[]);
    assert!(String::from_utf8_lossy(&plain.stderr).contains("begins with http:// or https://"));
}
