#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::ids::commit_id;

fn pin(id: &str) -> ImagePin {
    ImagePin {
        id: reconciler::name::ImageId::new(id),
        digest: None,
        warning: None,
    }
}

#[test]
fn pins_and_pointers_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("trust");
    let commit = commit_id("a");
    let mut trust = TrustStore::open(&at).unwrap();
    trust
        .pin_images([(
            commit.clone(),
            ImageReference::new("httpd:latest"),
            pin("sha256:1"),
        )])
        .unwrap();
    trust
        .pin_images([(
            commit.clone(),
            ImageReference::new("httpd:latest"),
            pin("sha256:2"),
        )])
        .unwrap();
    let record = r#"{"schema":1,"verified":{"id":"HASH","grounds":"mode-off"}}"#;
    fs::write(
        at.join("pointers.json"),
        record.replace("HASH", commit.as_str()),
    )
    .unwrap();

    let mut trust = TrustStore::open(&at).unwrap();
    assert_eq!(
        trust.pins()[&commit][&ImageReference::new("httpd:latest")],
        pin("sha256:2")
    );
    assert_eq!(trust.pointers().commits(), BTreeSet::from([commit.clone()]));

    trust.retain_images(&BTreeSet::new()).unwrap();
    assert!(TrustStore::open(&at).unwrap().pins().is_empty());
}

/// The ids are shortened: each letter stands for the id that repeats it.
const LEGACY: &str = r#"{"schema":1,
  "verified":{"id":"aaaa","grounds":{"signature":{"principal":"dev@example.com","fingerprint":"SHA256:x"}}},
  "target":{"id":"bbbb","grounds":{"ancestor-of":"aaaa"}},
  "healthy":{"id":"bbbb","grounds":{"ancestor-of":"aaaa"}},
  "in_use":[
    {"id":"cccc","grounds":{"signature":{"principal":"dev@example.com","fingerprint":"SHA256:x"}}},
    {"id":"dddd","grounds":{"ancestor-of":"aaaa"}},
    {"id":"eeee","grounds":"mode-off"},
    {"id":"ffff","grounds":"anchor"}
  ]}"#;

fn id(letter: char) -> CommitId {
    commit_id(&letter.to_string())
}

fn by_signature(letter: char) -> VerifiedCommit {
    let signer = crate::source::allowed_signers::Signer {
        principal: "dev@example.com".to_owned(),
        fingerprint: "SHA256:x".to_owned(),
    };
    VerifiedCommit::new(id(letter), Grounds::Signature(signer))
}

fn ids(trust: &TrustStore) -> Vec<CommitId> {
    trust
        .trusted()
        .iter()
        .map(|one| one.commit.id().clone())
        .collect()
}

#[test]
fn of_what_an_older_version_wrote_only_what_it_had_judged_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let legacy = ('a'..='f').fold(LEGACY.to_owned(), |text, letter| {
        text.replace(&letter.to_string().repeat(4), id(letter).as_str())
    });
    fs::write(directory.path().join("pointers.json"), legacy).unwrap();
    let mut trust = TrustStore::open(directory.path()).unwrap();
    assert_eq!(trust.pointers().verified, Some(by_signature('a')));
    // The commits are judged again when there is a mirror; until then their running pods are kept
    // up.
    assert_eq!(
        (&trust.pointers().target, &trust.pointers().healthy),
        (&None, &None)
    );
    assert_eq!(trust.pointers().kept, BTreeSet::from([id('b'), id('d')]));
    assert_eq!(ids(&trust), [id('c'), id('e'), id('a')]);

    trust
        .remember(
            &[by_signature('b')],
            "2026-06-02T00:00:00Z".parse().unwrap(),
        )
        .unwrap();
    let pointers = Pointers {
        healthy: Some(by_signature('b')),
        ..trust.pointers().clone()
    };
    trust.set_pointers(pointers.clone()).unwrap();
    let again = TrustStore::open(directory.path()).unwrap();
    assert_eq!(again.pointers(), &pointers);
    assert_eq!(
        again.trusted().get(&id('b')).unwrap().judged,
        Some("2026-06-02T00:00:00Z".parse().unwrap())
    );
    assert_eq!(ids(&again), [id('c'), id('e'), id('a'), id('b')]);
}

#[test]
fn the_trusted_set_keeps_the_newest_commits_and_those_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let mut trust = TrustStore::open(directory.path()).unwrap();
    for letter in ['a', 'b', 'c', 'd'] {
        trust
            .remember(&[by_signature(letter)], Timestamp::now())
            .unwrap();
    }
    trust.retain_trusted(2, &BTreeSet::from([id('a')])).unwrap();
    assert_eq!(ids(&trust), [id('a'), id('c'), id('d')]);
    // A later time without signature checks is no reason to forget the signature.
    trust
        .remember(
            &[VerifiedCommit::new(id('a'), Grounds::ModeOff)],
            Timestamp::now(),
        )
        .unwrap();
    assert_eq!(
        trust.trusted().get(&id('a')).unwrap().commit,
        by_signature('a')
    );
    trust.retain_trusted(2, &BTreeSet::new()).unwrap();
    assert_eq!(
        ids(&TrustStore::open(directory.path()).unwrap()),
        [id('c'), id('d')]
    );
}

#[test]
fn what_an_older_version_had_verified_is_accepted_and_what_came_after_only_once_it_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let id = commit_id;
    let pointers = |verified: &str, target: &str| {
        let record =
            |letter: &str| format!(r#"{{"id":"{}","grounds":"mode-off"}}"#, letter.repeat(40));
        let text = format!(
            r#"{{"schema":1,"verified":{},"target":{}}}"#,
            record(verified),
            record(target)
        );
        fs::write(at.join("pointers.json"), text).unwrap();
    };
    pointers("b", "a");
    let mut trust = TrustStore::open(at).unwrap();
    let read_as =
        |trust: &TrustStore, letters: [&str; 3]| letters.map(|one| trust.read_as(&id(one)));
    use ReadAs::{Accepted, NewHead};
    assert_eq!(
        read_as(&trust, ["a", "b", "c"]),
        [Accepted, Accepted, NewHead]
    );

    // The signatures of c are good, and the daemon ends before it reads the manifests of c.
    let verified =
        |pointers: &Pointers| pointers.verified.as_ref().map(|commit| commit.id().clone());
    let before = trust.pointers().clone();
    trust
        .set_pointers(Pointers {
            target: None,
            ..before
        })
        .unwrap();
    assert_eq!(verified(trust.pointers()), Some(id("b")));
    pointers("c", "b");
    let mut trust = TrustStore::open(at).unwrap();
    assert_eq!(
        read_as(&trust, ["a", "b", "c"]),
        [Accepted, Accepted, NewHead]
    );
    trust.accept(&id("c")).unwrap();
    assert_eq!(TrustStore::open(at).unwrap().read_as(&id("c")), Accepted);

    // The leader, of an older version, accepted d.
    pointers("d", "d");
    assert_eq!(TrustStore::open(at).unwrap().read_as(&id("d")), Accepted);
}

#[test]
fn the_record_of_accepted_heads_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut trust = TrustStore::open(directory.path()).unwrap();
    let id = |number: u32| commit_id(&format!("{number:040x}"));
    for number in 0..150 {
        trust.accept(&id(number)).unwrap();
    }
    assert_eq!(trust.read_as(&id(49)), ReadAs::NewHead);
    assert_eq!(trust.read_as(&id(50)), ReadAs::Accepted);
}

/// Pins of a commit with this number of images.
fn many(commit: &CommitId, count: usize) -> Vec<(CommitId, ImageReference, ImagePin)> {
    (0..count)
        .map(|n| {
            (
                commit.clone(),
                ImageReference::new(format!("registry.example/app-{n}:1")),
                pin(&format!("sha256:{n}")),
            )
        })
        .collect()
}

#[test]
fn a_thousand_pins_are_one_write_and_none_where_nothing_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let mut trust = TrustStore::open(&directory.path().join("trust")).unwrap();
    let (old, new) = (commit_id("a"), commit_id("b"));
    let writes = |act: &mut dyn FnMut()| {
        let before = state_file::writes_of_this_thread();
        act();
        state_file::writes_of_this_thread() - before
    };
    assert_eq!(
        writes(&mut || trust.pin_images(many(&old, 1_000)).unwrap()),
        1
    );
    assert_eq!(
        writes(&mut || trust.pin_images(many(&new, 1_000)).unwrap()),
        1
    );
    let both = [many(&old, 1_000), many(&new, 1_000)].concat();
    assert_eq!(writes(&mut || trust.pin_images(both.clone()).unwrap()), 0);
    assert_eq!(
        writes(&mut || trust.retain_images(&BTreeSet::from([new.clone()])).unwrap()),
        1
    );
    let pins = TrustStore::open(&directory.path().join("trust")).unwrap();
    assert_eq!(pins.pins()[&new].len(), 1_000);
}

#[test]
fn a_pin_that_a_full_disk_kept_away_is_written_by_the_next_try() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("trust");
    let commit = commit_id("a");
    let mut trust = TrustStore::open(&at).unwrap();
    // A directory in the place of the temporary file makes the write fail as a full disk would.
    fs::create_dir(at.join("images.json.new")).unwrap();
    assert!(trust.pin_images(many(&commit, 1)).is_err());
    fs::remove_dir(at.join("images.json.new")).unwrap();
    trust.pin_images([]).unwrap();
    assert_eq!(TrustStore::open(&at).unwrap().pins()[&commit].len(), 1);
}
