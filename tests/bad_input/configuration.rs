//! A configuration that cannot be right.

use std::process::Command;

#[test]
fn a_wrong_configuration_ends_the_daemon_with_a_code_after_which_systemd_does_not_start_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("windlass.toml");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let output = command.arg("run").args(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), message)
    };

    let path = file.to_str().unwrap();
    for (content, words) in [
        (
            "[source]\nurl = 'https://git.example.com/a.git'\n",
            "nobody is trusted",
        ),
        ("[trust]\nmode = 'off'\n", "no repository is configured"),
        ("[rollout]\nsoack = '1s'\n", "soack"),
        ("[source\n", "TOML parse error"),
    ] {
        std::fs::write(&file, content).unwrap();
        let (code, message) = run(&["--config", path]);
        assert_eq!(code, Some(6), "{message}");
        assert!(message.contains(words), "{message}");
    }
    std::fs::remove_file(&file).unwrap();
    let (code, message) = run(&["--config", path]);
    assert_eq!(code, Some(6), "{message}");
    let (code, message) = run(&["--no-such-flag"]);
    assert_eq!(code, Some(2), "{message}");

    let unit = include_str!("../../docs/windlass.service");
    assert!(unit.contains("\nRestartPreventExitStatus=2 6\n"), "{unit}");
}
