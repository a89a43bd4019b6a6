//! Tokens, and which hosts can join with them.

use super::*;
use crate::peer::{NODE_SUFFIX, Other, certificate::facts_of_pem, join, token::JoinTokenError};

/// The message of a refused attempt to join.
async fn refused(node: &str, token: &JoinToken) -> String {
    let fresh = disk();
    let error = join(&fresh.directory, &name(node), token, false)
        .await
        .unwrap_err();
    assert!(
        !fresh.directory.path().exists(),
        "a host that was refused has nothing on its disk"
    );
    format!("{error:#}")
}

#[tokio::test]
async fn a_token_is_good_once() {
    let pair = pair().await;
    let token = token(&pair.authority, &pair.n1, &offer());
    join(&disk().directory, &name("n3"), &token, false)
        .await
        .unwrap();
    let refusal = refused("n4", &token).await;
    assert!(
        refusal.starts_with("the join token was used at ")
            && refusal.contains(" by n3: make a new one"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_token_that_has_expired_or_was_never_made_lets_nobody_in() {
    let one = disk();
    let authority = first(&one, Timestamp::now());
    let n1 = serve(&one, "n1").await;
    let before = Timestamp::now() - 2 * HOUR;
    let old = authority.token(&offer(), n1.address, before).unwrap();
    let refusal = refused("n2", &old).await;
    assert!(
        refusal.starts_with(&format!(
            "the join token has expired at {:.0}",
            before + HOUR
        )),
        "{refusal}"
    );
    let invented = JoinToken {
        secret: [7; 32],
        ..old
    };
    assert_eq!(
        refused("n2", &invented).await,
        "the join token is not known here: make a new one with `windlass cluster token`"
    );
}

#[tokio::test]
async fn a_token_for_one_node_is_no_other_ones_and_outlives_the_attempt() {
    let one = disk();
    let authority = first(&one, Timestamp::now());
    let n1 = serve(&one, "n1").await;
    let bound = token(
        &authority,
        &n1,
        &TokenOffer {
            node: Some(name("n2")),
            ..offer()
        },
    );
    assert_eq!(
        refused("n3", &bound).await,
        "the join token is for the node n2 only"
    );
    join(&disk().directory, &name("n2"), &bound, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_name_has_one_certificate_unless_its_token_replaces_it() {
    let pair = pair().await;
    let again = token(&pair.authority, &pair.n1, &offer());
    let refusal = refused("n2", &again).await;
    assert!(
        refusal.starts_with("a valid certificate for n2 was made at "),
        "{refusal}"
    );
    assert!(
        refusal.contains("windlass cluster token --node n2 --replace"),
        "{refusal}"
    );
    let refusal = refused("n1", &again).await;
    assert!(
        refusal.starts_with("a valid certificate for n1 was made at "),
        "{refusal}"
    );

    let replace = TokenOffer {
        node: Some(name("n2")),
        replace: true,
        ..offer()
    };
    let replacing = token(&pair.authority, &pair.n1, &replace);
    join(&disk().directory, &name("n2"), &replacing, false)
        .await
        .unwrap();
    // The replaced certificate is not renewed any more.
    let identity = Identity::open(&pair.two.directory).unwrap().unwrap();
    let error = crate::peer::renew(&identity, &(Arc::new(|_: &NodeName| None) as _))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has been replaced by another one for n2"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_host_keeps_the_certificate_it_has() {
    let pair = pair().await;
    let token = token(&pair.authority, &pair.n1, &offer());
    let error = join(&pair.two.directory, &name("n2"), &token, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("this host has a certificate for n2 that is valid until "),
        "{error}"
    );
    let error = join(&pair.one.directory, &name("n1"), &token, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("this host has the authority of a cluster"),
        "{error}"
    );
    let error = Authority::init(&pair.two.directory, &name("n2"), Timestamp::now())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exists already: this host belongs to a cluster"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_of_another_cluster_never_sees_the_secret() {
    let (one, other) = (disk(), disk());
    let authority = first(&one, Timestamp::now());
    first(&other, Timestamp::now());
    let impostor = serve(&other, "n1").await;
    let token = authority
        .token(&offer(), impostor.address, Timestamp::now())
        .unwrap();
    let refusal = refused("n2", &token).await;
    assert!(
        refusal.contains("the server does not belong to the token's cluster"),
        "{refusal}"
    );
}

#[tokio::test]
async fn another_node_of_the_cluster_is_not_the_authoritys_host() {
    let pair = pair().await;
    let misled = pair
        .authority
        .token(&offer(), pair.n2.address, Timestamp::now())
        .unwrap();
    let refusal = refused("n3", &misled).await;
    assert!(
        refusal.contains("no trusted connection to n1") && refusal.contains("n2.node.windlass"),
        "{refusal}"
    );
    let changed = JoinToken {
        host: name("n2"),
        ..misled
    };
    assert_eq!(
        refused("n3", &changed).await,
        "n2 does not have the cluster's authority: n1 has"
    );
}

#[tokio::test]
async fn a_name_that_cannot_be_is_refused_by_the_authority_too() {
    let one = disk();
    let authority = first(&one, Timestamp::now());
    let (_, request) = crate::peer::certificate::request("n2").unwrap();
    for bad in ["root", "N2", "n2.node.windlass\0"] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let secret = authority
            .token(&offer(), address, Timestamp::now())
            .unwrap()
            .secret;
        let refusal = authority
            .join(&secret, bad, &request, Timestamp::now())
            .unwrap_err();
        assert!(
            matches!(refusal, crate::peer::authority::CertificateRefusal::Name(_)),
            "{refusal}"
        );
        // The refused attempt has not used up the token.
        let node = format!("good-{}", bad.len());
        let chain = authority
            .join(&secret, &node, &request, Timestamp::now())
            .unwrap();
        let facts = facts_of_pem(&chain).unwrap();
        assert_eq!(
            (facts.name.as_str(), facts.dns),
            (node.as_str(), vec![format!("{node}{NODE_SUFFIX}")])
        );
        let again = authority
            .join(&secret, "late", "", Timestamp::now())
            .unwrap_err()
            .to_string();
        assert!(again.starts_with("the join token was used at "), "{again}");
    }
    let secret = authority
        .token(&offer(), ([127, 0, 0, 1], 1).into(), Timestamp::now())
        .unwrap()
        .secret;
    let refusal = authority
        .join(&secret, "n3", "no request", Timestamp::now())
        .unwrap_err();
    assert!(
        refusal
            .to_string()
            .starts_with("the certificate request cannot be used"),
        "{refusal}"
    );
}

#[test]
fn a_token_reads_as_it_was_written_and_damage_is_named() {
    let token = JoinToken {
        host: name("n1"),
        address: "192.0.2.1:9465".parse().unwrap(),
        authority: [1; 32],
        secret: [2; 32],
    };
    let text = token.to_string();
    assert!(text.starts_with("wlj1."), "{text}");
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains('2'.to_string().repeat(4).as_str()));
    let short = &text[..text.len() - 9];
    let long = format!("wlj1.{}", "A".repeat(3000));
    for damaged in [short, "wlj1.", "wlj1.e30", "wlj1.%%%", long.as_str()] {
        assert_eq!(
            damaged.parse::<JoinToken>(),
            Err(JoinTokenError::Damaged),
            "{damaged}"
        );
    }
    for other in ["", "wlj2.abc", "K10abc::server:def"] {
        assert_eq!(
            other.parse::<JoinToken>(),
            Err(JoinTokenError::Other),
            "{other}"
        );
    }
}

#[test]
fn a_certificate_for_something_else_has_its_names_and_is_no_nodes() {
    let one = disk();
    let authority = first(&one, Timestamp::now());
    let into = tempfile::tempdir().unwrap();
    let etcd = Other {
        name: "etcd-1".into(),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        life: 365 * DAY,
        replace: false,
    };
    let facts = authority
        .certify(&etcd, into.path(), Timestamp::now())
        .unwrap();
    assert_eq!(
        (facts.dns.as_slice(), facts.node()),
        (["etcd-1".to_owned()].as_slice(), None)
    );
    for file in ["etcd-1.pem", "etcd-1-key.pem", "ca.pem"] {
        assert_eq!(mode(into.path().join(file)), 0o600);
    }
    let error = authority
        .certify(&etcd, into.path(), Timestamp::now())
        .unwrap_err()
        .to_string();
    assert!(error.contains("say --replace"), "{error}");
    authority
        .certify(
            &Other {
                replace: true,
                ..etcd.clone()
            },
            into.path(),
            Timestamp::now(),
        )
        .unwrap();
    for bad in ["n1.node.windlass", "../x", "", "a b"] {
        let other = Other {
            name: bad.into(),
            ..etcd.clone()
        };
        let error = authority
            .certify(&other, into.path(), Timestamp::now())
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("cannot be the name of a certificate"),
            "{error}"
        );
    }
}
