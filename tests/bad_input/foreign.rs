//! Foreign text with control sequences: they would have an effect on a terminal, forge a line of
//! the log, or change the direction of writing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::case::Bench;
use crate::manifest::{APP, pod, service, shell};
use crate::support::{GitRepo, SOON, Site, eventually, run, unwrapped};

/// Clears the screen, sets the window's title, returns to the start of the line and changes the
/// direction of writing.
const ODD: &str = "A\u{1b}[2J\u{1b}]0;owned\u{7}\rB\u{9b}31m\u{202e}C\u{200b}\u{2066}\u{7f}\u{85}";

/// [`ODD`] as Windlass prints it.
const SHOWN: &str =
    r"A\u{1b}[2J\u{1b}]0;owned\u{7}\rB\u{9b}31m\u{202e}C\u{200b}\u{2066}\u{7f}\u{85}";

/// Whether a character controls a terminal, is invisible or changes the direction of writing.
fn has_effect(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(has_effect));
    assert!(line.is_none(), "{what}: {line:?}");
}

/// Checks standard output and standard error of the commands, and the log, in which each line
/// begins with a time.
#[track_caller]
fn assert_all_output_is_clean(what: &str, site: &mut Site) {
    for arguments in [
        "status",
        "status -o json",
        "history",
        "plan",
        "get pods",
        "get events",
        "get events -o yaml",
    ] {
        let outcome = site.windlass(&arguments.split(' ').collect::<Vec<_>>());
        assert_clean(
            &format!("{what}: {arguments}"),
            &format!("{}\n{}", outcome.stdout, outcome.stderr),
        );
    }
    let history = site.windlass(&["history"]).ok();
    let entries = site.windlass(&["history", "-o", "json"]).json()["entries"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(
        history
            .lines()
            .filter(|line| !line.starts_with(' '))
            .count(),
        entries + 1,
        "{what}: a line is forged in\n{history}"
    );
    let log = site.daemon().log();
    assert_clean(&format!("{what}: log"), &log);
    let forged = log.lines().find(|line| !line.starts_with("20"));
    assert!(
        forged.is_none(),
        "{what}: a line is forged in the log: {forged:?}"
    );
}

#[test]
fn text_of_an_unsigned_push_has_no_effect_on_a_terminal() {
    let mut bench = Bench::start();
    let subject = format!("Innocent {ODD}");
    let header = format!("gpgsig-{ODD} x\n");
    let key_type = format!("{ODD}\n2026-01-01T00:00:00Z  INFO forged -cert- ");
    let signatures = [
        ("a subject", String::new()),
        ("the name of a header", header),
        (
            "the type of a key",
            signature_header(&bench.site.repo, &key_type, "git"),
        ),
        (
            "a namespace",
            signature_header(&bench.site.repo, "ssh-ed25519", &key_type),
        ),
    ];
    for (what, header) in signatures {
        let commit = odd_commit(&bench.site.repo, &header, &subject);
        bench.wait_refused(what, &commit, &[&format!("Innocent {SHOWN}")]);
        if !header.is_empty() {
            // The message also quotes the foreign text itself, which is bounded, beside the
            // subject.
            let status = unwrapped(&bench.site.windlass(&["status"]).ok());
            assert!(status.matches(&SHOWN[..20]).count() > 1, "{what}: {status}");
        }
        assert_all_output_is_clean(what, &mut bench.site);
        let synced = bench.site.windlass(&["sync", "--wait", "--timeout", "20s"]);
        assert_eq!(synced.code, 3, "{what}: {synced:?}");
        assert_clean(
            &format!("{what}: sync"),
            &format!("{}\n{}", synced.stdout, synced.stderr),
        );
        assert!(synced.stdout.contains("Innocent"), "{what}: {synced:?}");
        bench.reset_to_good(what);
    }
}

/// Pushes an unsigned commit with an additional header and this subject.
fn odd_commit(repo: &GitRepo, header: &str, subject: &str) -> String {
    let plain = repo.commit(None, "plain");
    let text = repo.git(&["cat-file", "commit", &plain]).ok();
    let (headers, _) = text.split_once("\n\n").unwrap();
    let file = repo.work().with_extension("odd");
    fs::write(&file, format!("{headers}\n{header}\n{subject}\n")).unwrap();
    let odd = repo
        .git(&[
            "hash-object",
            "-t",
            "commit",
            "-w",
            "--literally",
            file.to_str().unwrap(),
        ])
        .ok();
    repo.git(&["reset", "-q", "--hard", &odd]).ok();
    repo.push()
}

/// The header of an SSH signature (PROTOCOL.sshsig) that names this type of key and this namespace.
fn signature_header(repo: &GitRepo, key_type: &str, namespace: &str) -> String {
    fn text(bytes: &[u8]) -> Vec<u8> {
        [
            &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
            bytes,
        ]
        .concat()
    }
    let key = [text(key_type.as_bytes()), text(&[7; 32])].concat();
    let signature = [text(b"ssh-ed25519"), text(&[7; 64])].concat();
    let fields: [&[u8]; 5] = [&key, namespace.as_bytes(), b"", b"sha512", &signature];
    let blob = [
        b"SSHSIG\0\0\0\x01".as_slice(),
        fields.map(text).concat().as_slice(),
    ]
    .concat();
    let file = repo.work().with_extension("signature");
    let armour = base64(&file, &blob);
    let lines: String = armour.lines().map(|line| format!(" {line}\n")).collect();
    format!("gpgsig -----BEGIN SSH SIGNATURE-----\n{lines} -----END SSH SIGNATURE-----\n")
}

fn base64(file: &Path, bytes: &[u8]) -> String {
    fs::write(file, bytes).unwrap();
    run(Command::new("base64").args(["-w", "70"]).arg(file)).ok()
}

#[test]
fn text_of_a_container_has_no_effect_on_a_terminal() {
    let mut site = Site::started("");
    // The escapes are printf's, because a manifest must not contain control characters.
    let odd = r"A\033[2J\033]0;owned\007\rB\302\23331m\342\200\256C\342\200\213";
    let shown = r"A\u{1b}[2J\u{1b}]0;owned\u{7}\rB\u{9b}31m\u{202e}C\u{200b}";
    // The container's termination message becomes the reason of the rollback.
    let good = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let words = format!("printf \"{odd}\\n\" >/dev/termination-log; exit 3");
    let once = pod("once", &shell(&words)).replace("spec:\n", "spec:\n  restartPolicy: Never\n");
    let bad = site.push(&[("once.yaml", &once)], "exits at once");
    let reason = site.wait_rolled_back(&bad, &good);
    assert!(reason.contains(shown), "{reason:?}");
    assert_all_output_is_clean("a failed commit", &mut site);

    let words = format!("printf \"{odd}\\n\" | tee /dev/termination-log; sleep 5; exit 3");
    let talker = pod("talker", &shell(&words));
    site.repo.git(&["rm", "-q", "once.yaml"]).ok();
    site.deploy(&[("talker.yaml", &talker)]);
    eventually(SOON, "the container has a termination message", || {
        let last = &site.get("pod", "talker")["status"]["containerStatuses"][0]["lastState"];
        last["terminated"]["message"] == shown
    });
    assert_all_output_is_clean("a running pod", &mut site);
    for arguments in [
        &["get", "pod", "talker", "-o", "json"][..],
        &["get", "pod", "talker", "-o", "yaml"],
    ] {
        assert_clean("the object", &site.windlass(arguments).ok());
    }

    // `windlass logs` writes every byte to a pipe or with `--raw`, and escaped text to a terminal.
    eventually(SOON, "the log in a pipe has every byte", || {
        let log = site.windlass(&["logs", "talker", "--tail", "1"]).ok();
        log.contains("\u{1b}[2J") && log.contains('\u{202e}')
    });
    let at_a_terminal = |more: &str| {
        let line = format!(
            "{} logs talker --tail 1 {more}",
            env!("CARGO_BIN_EXE_windlass")
        );
        run(site
            .host
            .command("script")
            .args(["-qec", &line, "/dev/null"]))
        .ok()
    };
    eventually(SOON, "a terminal shows the log escaped", || {
        let read = at_a_terminal("").replace("\r\n", "\n");
        assert_clean("a log at a terminal", &read);
        read.contains(shown)
    });
    eventually(SOON, "a terminal gets every byte with --raw", || {
        at_a_terminal("--raw").contains("\u{1b}[2J")
    });
}
