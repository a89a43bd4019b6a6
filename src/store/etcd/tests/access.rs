//! Users, certificates and passwords, and a wrong configuration of them.

use super::*;
use crate::store::etcd::EtcdTls;

#[tokio::test]
async fn certificates_are_users_and_wrong_ones_are_explained() {
    let (certificates, strangers) = (Certificates::new(), Certificates::new());
    let server = EtcdServer::with_tls(&certificates);
    for arguments in [
        "user add root --no-password",
        "role add root",
        "user grant-role root root",
        "user add etcd --no-password",
        "user grant-role etcd root",
        "role add n1",
        "role grant-permission n1 --prefix=true read /windlass/test/",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/nodes/n1/",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/election/",
        "user add n1 --no-password",
        "user grant-role n1 n1",
        "auth enable",
    ] {
        server.ctl(&arguments.split(' ').collect::<Vec<_>>());
    }
    let config = |tls| EtcdConfig {
        tls: Some(tls),
        ..server.config()
    };
    let mut host = EtcdHost::start(config(certificates.issue("n1")), "n1", "i1", true);
    host.until_alive().await;
    host.elected().await;
    host.etcd
        .write(vec![put("nodes/n1/status", "1")])
        .await
        .unwrap();
    let refused = host
        .etcd
        .write(vec![put("nodes/n2/status", "1")])
        .await
        .unwrap_err();
    let WriteError::Refused(why) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("does not allow this") && why.contains("n1.crt"),
        "{why}"
    );
    // The second session also waits for the name under etcd's rules for users.
    let mut second = EtcdHost::start(config(certificates.issue("n1")), "n1", "i1", true);
    second.until_candidates(2, "").await;
    drop(host);
    second.elected().await;

    let wrong_ca = EtcdTls {
        ca: strangers.issue("x").ca,
        ..certificates.issue("n2")
    };
    let why = EtcdHost::start(config(wrong_ca), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("is not signed by the CA in") && why.contains("ca.crt"),
        "{why}"
    );
    let stranger = EtcdTls {
        ca: certificates.issue("x").ca,
        ..strangers.issue("n2")
    };
    let why = EtcdHost::start(config(stranger), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("not accept this host's certificate") && why.contains("n2.crt"),
        "{why}"
    );
    let nobody = certificates.issue("nobody");
    let why = EtcdHost::start(config(nobody), "n2", "i2", false)
        .lost()
        .await;
    assert!(why.contains("nobody.crt"), "{why}");
}

#[tokio::test]
async fn a_password_works_and_a_wrong_one_is_explained() {
    let server = EtcdServer::one(&[]);
    for arguments in [
        "user add root:r",
        "user grant-role root root",
        "role add n1",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/",
        "user add n1:secret",
        "user grant-role n1 n1",
        "auth enable",
    ] {
        server.ctl(&arguments.split(' ').collect::<Vec<_>>());
    }
    let config = |password| EtcdConfig {
        user: Some(("n1".to_owned(), SecretText::new(password))),
        ..server.config()
    };
    let mut host = EtcdHost::start(config("secret"), "n1", "i1", true);
    host.until_alive().await;
    let fence = host.elected().await;
    host.etcd
        .write_fenced(&fence, vec![put("k", "1")])
        .await
        .unwrap();
    let why = EtcdHost::start(config("wrong"), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("the user n1 by this password") && !why.contains("wrong"),
        "{why}"
    );
    let why = EtcdHost::start(server.config(), "n2", "i2", false)
        .lost()
        .await;
    assert!(why.contains("asks for a user"), "{why}");
}

#[tokio::test]
async fn a_wrong_configuration_is_reported_at_once() {
    let session = |alive: &str| SessionConfig {
        node: NodeName::new("n1"),
        alive: alive.as_bytes().to_vec(),
        installation: Installation::new("i1"),
        candidate: false,
        node_ttl: Duration::from_secs(5),
        leader_ttl: Duration::from_secs(3),
    };
    let config = |endpoint: &str, prefix: &str| EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        prefix: prefix.to_owned(),
        tls: None,
        user: None,
    };
    let alive = r#"{"installation":"i1"}"#;
    let error = |config, alive: &str| Etcd::start(config, session(alive)).unwrap_err().to_string();
    assert!(error(config("127.0.0.1:2379", "/w"), alive).contains("must be as https://"));
    assert!(error(config("http://127.0.0.1:2379", "/"), alive).contains("must name this cluster"));
    assert!(error(config("http://127.0.0.1:2379", "/w"), "{}").contains("`installation`"));
    let tls = EtcdTls {
        ca: "/none/ca".into(),
        certificate: "/none/c".into(),
        key: "/none/k".into(),
    };
    let with_tls = |endpoint| EtcdConfig {
        tls: Some(tls.clone()),
        ..config(endpoint, "/w")
    };
    assert!(error(with_tls("http://127.0.0.1:2379"), alive).contains("write https://"));
    assert!(error(with_tls("https://127.0.0.1:2379"), alive).contains("/none/ca"));
}
