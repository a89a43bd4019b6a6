//! Certificates and requests for them, of any bytes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use rcgen::PublicKeyData as _;
use ssh_encoding::base64::{Base64, Encoding};

use super::*;
use crate::fuzz::Fuzz;

#[test]
fn any_request_is_refused_or_signed_by_its_key_and_any_certificate_is_read() {
    let fuzz = Fuzz::new(
        "src/peer/certificate/corpus",
        &["\x0c\x02n2", "\x06\x03U\x04\x03", "\x02\x01\0", "\0"],
    );
    let key = |der: &[u8]| {
        let text = Base64::encode_string(der);
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
        );
        check_request(&pem).map(|request| request.public_key.der_bytes().to_vec())
    };
    let seeds = fuzz.seeds.iter();
    let keys: BTreeSet<Vec<u8>> = seeds.filter_map(|(_, der)| key(der).ok()).collect();
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    fuzz.run(|der| {
        if let Ok(facts) = Facts::read(&CertificateDer::from(der)) {
            if let Some(node) = facts.node() {
                prop_assert_eq!(facts.dns.as_slice(), &[server_name(&node)]);
            }
            let (due, overdue) = (facts.renewal_is_due(now), facts.renewal_is_overdue(now));
            prop_assert!(due || !overdue || facts.days_left(now) < 0);
        }
        match key(der) {
            // The signature covers the whole request: only the owner of this key can make one.
            Ok(key) => {
                prop_assert!(keys.contains(&key));
                Ok(true)
            }
            Err(error) => {
                let message = format!("{error:#}");
                prop_assert!(message.len() < 300, "{} bytes", message.len());
                Ok(false)
            }
        }
    });
}
