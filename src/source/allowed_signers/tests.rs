#![expect(clippy::unwrap_used, reason = "a test")]

use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};

use super::*;
use crate::source::testing::KeyPairs;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILuaG7XPQRS3S7VaPVsPdOMjgYvYj6Kp9hoj4mBJ7oN";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn allows(file: &str, committed: &str, now: &str) -> Result<String, NotAllowed> {
    let signers = AllowedSigners::parse(file).unwrap();
    let key = signers.keys.values().next().unwrap();
    key.allows("git", at(committed), at(now))
        .map(|signer| signer.principal)
}

fn problems(file: &str) -> Vec<String> {
    match AllowedSigners::parse(file).unwrap_err() {
        AllowedSignersError::BadLines(problems) => {
            problems.iter().map(LineProblem::to_string).collect()
        }
        error => panic!("{error}"),
    }
}

const NOON: &str = "2026-06-01T12:00:00Z";

#[test]
fn a_line_names_the_first_principal_that_its_list_lets_through() {
    for (principals, expected) in [
        ("deployer@example.com", "deployer@example.com"),
        ("ops@example.com,deployer@example.com", "ops@example.com"),
        (
            "!ops@example.com,ops@example.com,*@example.com",
            "*@example.com",
        ),
        ("\"deployer@example.com,other\"", "deployer@example.com"),
        (",deployer@example.com", "deployer@example.com"),
        // The type of a key may be the name of a principal, too.
        ("ssh-ed25519", "ssh-ed25519"),
    ] {
        assert_eq!(
            allows(&format!("{principals} {KEY} a comment"), NOON, NOON),
            Ok(expected.to_owned())
        );
    }
    assert_eq!(
        allows(&format!("!*,a@example.com {KEY}"), NOON, NOON),
        Err(NotAllowed::NoPrincipal)
    );
}

#[test]
fn comments_blank_lines_and_carriage_returns_are_skipped() {
    let signers = AllowedSigners::parse(&format!("# keys\r\n\r\n  # more\n a {KEY}\r\n")).unwrap();
    assert_eq!(signers.keys.len(), 1);
    assert!(AllowedSigners::parse("# nobody\n").unwrap().len() == 0);
}

#[test]
fn only_spaces_and_tabs_separate_words() {
    let separated = format!(
        "\t a \tnamespaces=\"git\"\t {} \tcomment\u{a0}x",
        KEY.replace(' ', "\t ")
    );
    assert_eq!(allows(&separated, NOON, NOON), Ok("a".to_owned()));
    // ssh-keygen reads each of these as a part of the word before it.
    for space in ['\u{a0}', '\u{2003}', '\u{3000}', '\u{feff}'] {
        let file = format!("a{space}{KEY}");
        assert!(
            AllowedSigners::parse(&file).is_err(),
            "{space:?} after the principal"
        );
        let quoted = format!("a namespaces=\"git\"{space}{KEY}");
        assert!(
            AllowedSigners::parse(&quoted).is_err(),
            "{space:?} after an option"
        );
    }
}

#[test]
fn control_characters_are_refused_anywhere() {
    for control in ['\0', '\u{b}', '\u{c}', '\r', '\u{1b}', '\u{7f}', '\u{85}'] {
        for file in [
            format!("a{control}{KEY}"),
            format!("a {KEY} comment{control}x"),
            format!("# comment{control}a {KEY}"),
        ] {
            let expected = format!(
                "line 1: U+{:04X} is a control character: separate words by spaces or tabs, and remove all others",
                u32::from(control)
            );
            assert_eq!(problems(&file), [expected]);
        }
    }
}

#[test]
fn a_key_must_be_valid_at_both_moments() {
    let file = format!("a valid-after=\"20260101\",valid-before=\"20270101000000Z\" {KEY}");
    assert_eq!(allows(&file, NOON, NOON), Ok("a".to_owned()));
    let (since, until) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
    let principal = "a".to_owned();
    assert_eq!(
        allows(&file, "2025-12-31T23:59:59Z", NOON),
        Err(NotAllowed::NotYetValid {
            principal: principal.clone(),
            since,
            at: Moment::CommitTime
        })
    );
    // The signer of an expired key can still write an old date into a new commit: the host's clock
    // decides too.
    assert_eq!(
        allows(&file, NOON, "2027-01-01T00:00:01Z"),
        Err(NotAllowed::Expired {
            principal,
            until,
            at: Moment::FirstSight
        })
    );
}

#[test]
fn all_lines_of_a_key_are_tried() {
    let file = format!(
        "old valid-before=\"20200101\" {KEY}\nfiles namespaces=\"file\" {KEY}\nca cert-authority {KEY}\n\
         new namespaces=\"file,g*\" {KEY}\n"
    );
    assert_eq!(allows(&file, NOON, NOON), Ok("new".to_owned()));
    let file = format!("files namespaces=\"file\" {KEY}");
    assert_eq!(
        allows(&file, NOON, NOON),
        Err(NotAllowed::Namespace {
            allowed: "file".to_owned()
        })
    );
    assert_eq!(
        allows(&format!("ca cert-authority {KEY}"), NOON, NOON),
        Err(NotAllowed::OnlyAuthority)
    );
}

#[test]
fn every_bad_line_is_named_with_what_to_do() {
    let file = format!(
        "{KEY}\na {KEY}\na namespaces=git {KEY}\na valid-after=\"someday\" {KEY}\na valid_after=\"20200101\" {KEY}\n\
         a ssh-ed25519 AAAA\na\na valid-after=\"20300101\",valid-before=\"20200101\" {KEY}\n\
         a namespaces=\"git\",namespaces=\"x\" {KEY}\n\"a b {KEY}\n"
    );
    insta::assert_snapshot!(problems(&file).join("\n"), @r#"
    line 1: no principal before the key; begin the line with who it belongs to, as in dev@example.com
    line 3: the value of namespaces must be in double quotes
    line 4: "someday" is not a time of the form YYYYMMDD[HHMM[SS]][Z]
    line 5: "valid_after" is no option and no key type; options are cert-authority, namespaces, valid-after, valid-before
    line 6: the ssh-ed25519 key does not parse (Base64 encoding error: invalid Base64 length); copy it whole from the .pub file
    line 7: expected: principals [options] key-type key
    line 8: valid-before is not later than valid-after, so the key is never valid
    line 9: the option namespaces comes twice
    line 10: the quoted principals do not end
    "#);
}

#[test]
fn a_signer_is_doubted_once_its_key_would_not_vouch_any_more() {
    let key = |options: &str| AllowedSigners::parse(&format!("a {options} {KEY}")).unwrap();
    let signer = Signer {
        principal: "a".to_owned(),
        fingerprint: key("").keys.values().next().unwrap().fingerprint.clone(),
    };
    assert_eq!(signer.to_string(), format!("a ({})", signer.fingerprint));
    let doubt = |file: &AllowedSigners| file.doubt(&signer, at(NOON));

    assert_eq!(doubt(&key("")), None);
    let withdrawn = AllowedSigners::parse("").unwrap();
    assert_eq!(
        doubt(&withdrawn).unwrap(),
        "its key was withdrawn since: it is not in the signers file"
    );
    assert_eq!(
        doubt(&key("valid-before=\"20260101Z\"")).unwrap(),
        "its key has expired since, at 2026-01-01T00:00:00Z"
    );
    assert_eq!(
        doubt(&key("namespaces=\"file\"")).unwrap(),
        "its key vouches for no commit any more: its lines have changed since"
    );
}

#[test]
fn a_key_is_valid_at_both_ends_of_its_time() {
    let file = format!("a valid-after=\"20260101\",valid-before=\"20270101\" {KEY}");
    for (moment, expected) in [
        ("2025-12-31T23:59:59Z", false),
        ("2026-01-01T00:00:00Z", true),
        ("2027-01-01T00:00:00Z", true),
        ("2027-01-01T00:00:01Z", false),
    ] {
        assert_eq!(allows(&file, moment, NOON).is_ok(), expected, "{moment}");
        assert_eq!(allows(&file, NOON, moment).is_ok(), expected, "{moment}");
    }
}

#[test]
fn keys_of_every_type_need_no_options() {
    let security_key = PublicKey::from(KeyData::SkEd25519(SkEd25519::new(
        Ed25519PublicKey([7; 32]),
        "ssh:",
    )));
    let keys = KeyPairs::new();
    keys.generate("p256", "ecdsa", "256");
    let file = format!(
        "a {KEY}\n{}a {}\n",
        keys.line("p256", ""),
        security_key.to_openssh().unwrap()
    );
    assert_eq!(AllowedSigners::parse(&file).unwrap().len(), 3);
}

#[test]
fn quotes_of_a_value_hold_spaces_and_escaped_quotes() {
    for (value, read) in [
        (r#""x y""#, "x y"),
        (r#""x\" y""#, r#"x" y"#),
        (r#""x\y""#, r"x\y"),
        (r#""x\\y""#, r"x\\y"),
    ] {
        let line = format!("a namespaces={value} {KEY}");
        let allowed = read.to_owned();
        assert_eq!(
            allows(&line, NOON, NOON),
            Err(NotAllowed::Namespace { allowed }),
            "{value}"
        );
    }
}

#[test]
fn every_mistake_in_options_has_its_own_message() {
    let file = format!(
        "a namespaces=\"git\"cert-authority {KEY}\na namespaces=\"git\", {KEY}\na cert-authority=\"x\" {KEY}\n\
         a namespaces {KEY}\na valid-before {KEY}\na namespaces=\"git {KEY}\n!, {KEY}\na AAAA {KEY}\n"
    );
    insta::assert_snapshot!(problems(&file).join("\n"), @r#"
    line 1: expected a comma after the option namespaces
    line 2: the options end in a comma
    line 3: cert-authority takes no value
    line 4: the option namespaces needs a value in double quotes
    line 5: the option valid-before needs a value in double quotes
    line 6: the quotes of namespaces do not end
    line 7: no principal before the key
    line 8: "AAAA" is no option and no key type; options are cert-authority, namespaces, valid-after, valid-before
    "#);
}

#[test]
fn a_file_has_at_most_a_mebibyte_and_a_message_at_most_ten_lines() {
    let comment = |bytes: usize| "#".repeat(bytes);
    assert!(AllowedSigners::parse(&comment(1_048_576)).is_ok());
    assert_eq!(
        AllowedSigners::parse(&comment(1_048_577)).unwrap_err(),
        AllowedSignersError::TooLarge { bytes: 1_048_577 }
    );

    let message = |lines: usize| AllowedSigners::parse(&"a\n".repeat(lines)).unwrap_err();
    let bad = |line: usize| format!("line {line}: expected: principals [options] key-type key");
    let listed = (1..=10).map(bad).collect::<Vec<_>>().join("; ");
    let expected = format!("allowed signers: {listed}");
    assert_eq!(message(10).to_string(), expected);
    assert_eq!(
        message(12).to_string(),
        format!("{expected}; and 2 more lines")
    );
}
