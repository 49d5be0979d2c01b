//! mTLS, as the configuration switches it on: both sides show a certificate, and a stranger is turned away.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as outside of tests")]

use std::{fs, path::PathBuf};

use holdfast_platform::{
    Health, Shutdown,
    grpc::{Peer, Server, client::Settings, tls::TlsFiles},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn files(directory: &tempfile::TempDir, name: &str, issuer: &CertifiedIssuer<'static, KeyPair>) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    let write = |suffix: &str, text: String| -> PathBuf {
        let path = directory.path().join(format!("{name}.{suffix}"));
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        cert: write("crt", cert.pem()),
        key: write("key", key.serialize_pem()),
        ca: Some(write("ca", issuer.pem())),
    }
}

#[tokio::test]
async fn only_those_whom_the_authority_knows_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let ours = issuer();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::new(Health::new()).tls(Some(files(&directory, "server", &ours)));
    tokio::spawn(async move { server.serve(listener, &Shutdown::new(Health::new())).await });

    let check = async |tls: Option<&TlsFiles>, scheme: &str| {
        let address = format!("{scheme}://localhost:{port}");
        let peer = Peer::new("self", &address, Settings::default(), tls).unwrap();
        HealthClient::new(peer.stack()).check(HealthCheckRequest::default()).await.map_err(|status| status.code())
    };
    assert!(check(Some(&files(&directory, "client", &ours)), "https").await.is_ok());

    let stranger = TlsFiles { ca: files(&directory, "x", &ours).ca, ..files(&directory, "stranger", &issuer()) };
    assert_eq!(check(Some(&stranger), "https").await.unwrap_err(), Code::Unavailable);
    assert_eq!(check(None, "http").await.unwrap_err(), Code::Unavailable);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let nowhere = TlsFiles { cert: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into(), ca: None };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::new(Health::new()).tls(Some(nowhere));
    let error = server.serve(listener, &Shutdown::new(Health::new())).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("/nowhere/tls.crt"), "{why}");
}
