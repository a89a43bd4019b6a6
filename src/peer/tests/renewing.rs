//! Certificates are renewed in time, and without a restart.

use rustls::pki_types::ServerName;

use super::*;
use crate::peer::{AddressOf, certificate::Facts, renew, server_name};

fn known(address: SocketAddr) -> AddressOf {
    Arc::new(move |_| Some(address))
}

/// The certificate that a listener presents now.
async fn shown(asker: &Disk, node: &str, address: SocketAddr) -> Facts {
    let identity = Identity::open(&asker.directory).unwrap().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(identity.client_config().unwrap()));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let node = ServerName::try_from(server_name(&name(node))).unwrap();
    let stream = connector.connect(node, stream).await.unwrap();
    Facts::read(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_the_next_connection() {
    let pair = pair().await;
    let identity = Identity::open(&pair.two.directory).unwrap().unwrap();
    let key = std::fs::read(pair.two.directory.node_key()).unwrap();
    let before = shown(&pair.one, "n2", pair.n2.address).await;
    assert_eq!(before, identity.facts());
    // The address is the one in the join token.
    let renewed = renew(&identity, &(Arc::new(|_: &NodeName| None) as AddressOf))
        .await
        .unwrap();
    assert_eq!(renewed.name, "n2");
    let after = shown(&pair.one, "n2", pair.n2.address).await;
    assert_ne!(after.serial, before.serial);
    assert_eq!(
        after,
        identity.facts(),
        "the daemon's own view follows the files"
    );
    assert_ne!(
        std::fs::read(pair.two.directory.node_key()).unwrap(),
        key,
        "the key is new too"
    );
    client(&pair.two)
        .ping(&name("n1"), pair.n1.address)
        .await
        .unwrap();

    // The authority's host renews its certificate without a request to another host.
    let before = shown(&pair.two, "n1", pair.n1.address).await;
    let identity = Identity::open(&pair.one.directory).unwrap().unwrap();
    renew(&identity, &(Arc::new(|_: &NodeName| None) as AddressOf))
        .await
        .unwrap();
    assert_ne!(
        shown(&pair.two, "n1", pair.n1.address).await.serial,
        before.serial
    );
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_done_again() {
    let pair = pair().await;
    let presented = Identity::open(&pair.two.directory)
        .unwrap()
        .unwrap()
        .facts();
    let (_, request) = crate::peer::certificate::request("n1").unwrap();
    let lost = pair
        .authority
        .renew(&presented, &request, Timestamp::now())
        .unwrap();
    let lost = crate::peer::certificate::facts_of_pem(&lost).unwrap();
    assert_eq!(
        lost.name, "n2",
        "the name is that of the certificate, whatever the request says"
    );
    let identity = Identity::open(&pair.two.directory).unwrap().unwrap();
    renew(&identity, &known(pair.n1.address)).await.unwrap();
    // The lost certificate is not known any more.
    let refusal = pair
        .authority
        .renew(&lost, &request, Timestamp::now())
        .unwrap_err();
    assert!(
        refusal.to_string().contains("has been replaced"),
        "{refusal}"
    );
}

#[tokio::test]
async fn an_expired_certificate_opens_nothing_and_is_mended_where_the_authority_is() {
    let one = disk();
    let long_ago = Timestamp::now() - 100 * DAY;
    let authority = first(&one, long_ago);
    let n1 = serve(&one, "n1").await;
    let error = client(&one)
        .ping(&name("n1"), n1.address)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PeerError::Untrusted { reason, .. } if reason.contains("expired")),
        "{error}"
    );
    authority.renew_own(Timestamp::now()).unwrap();
    client(&one).ping(&name("n1"), n1.address).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_distinguished_from_a_dead_host() {
    let pair = pair().await;
    let presented = Identity::open(&pair.two.directory)
        .unwrap()
        .unwrap()
        .facts();
    let (key, request) = crate::peer::certificate::request("n2").unwrap();
    let old = pair
        .authority
        .renew(&presented, &request, Timestamp::now() - 100 * DAY)
        .unwrap();
    pair.two
        .directory
        .replace_node(&old, &key.serialize_pem())
        .unwrap();
    let error = client(&pair.two)
        .ping(&name("n1"), pair.n1.address)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PeerError::Untrusted { reason, .. } if reason.contains("xpired")),
        "{error}"
    );
}

#[test]
fn a_third_of_the_life_is_left_for_renewing() {
    let one = disk();
    let now = Timestamp::now();
    first(&one, now);
    let facts = Identity::open(&one.directory).unwrap().unwrap().facts();
    assert!(!facts.renewal_is_due(now + 59 * DAY));
    assert!(facts.renewal_is_due(now + 61 * DAY));
    assert!(!facts.renewal_is_overdue(now + 61 * DAY));
    assert!(facts.renewal_is_overdue(now + 70 * DAY));
    assert_eq!(facts.days_left(now + 91 * DAY), -1);
}

#[test]
fn a_crash_between_key_and_certificate_is_mended() {
    let one = disk();
    let authority = first(&one, Timestamp::now());
    let directory = &one.directory;
    let identity = Identity::open(directory).unwrap().unwrap();
    let (old, old_facts) = (std::fs::read(directory.node()).unwrap(), identity.facts());
    authority.renew_own(Timestamp::now()).unwrap();
    // The state after a power failure between the key and the certificate.
    std::fs::rename(directory.node(), directory.path().join("node.pem.next")).unwrap();
    std::fs::write(directory.node(), &old).unwrap();
    let mended = Identity::open(directory).unwrap().unwrap();
    assert_ne!(mended.facts().serial, old_facts.serial);
    assert!(!directory.path().join("node.pem.next").exists());
    // The same for the very first certificate.
    std::fs::rename(directory.node(), directory.path().join("node.pem.next")).unwrap();
    assert_eq!(
        Identity::open(directory).unwrap().unwrap().facts(),
        mended.facts()
    );
    // A key and a certificate that do not belong together, and cannot be repaired, are an error
    // that names both.
    std::fs::write(directory.node(), &old).unwrap();
    let error = format!("{:#}", Identity::open(directory).unwrap_err());
    assert!(
        error.contains("node.pem and ") && error.contains("do not belong together"),
        "{error}"
    );
}
