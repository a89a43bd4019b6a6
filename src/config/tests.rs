use super::*;

#[test]
fn unknown_fields_and_bad_durations_are_refused_by_name() {
    let error = toml::from_str::<Config>("[source]\nurll = 'x'").expect_err("a misspelt field");
    assert!(error.to_string().contains("urll"), "{error}");
    let error = toml::from_str::<Config>("[rollout]\nsoak = 'soon'").expect_err("no duration");
    assert!(
        error.to_string().contains("\"soon\" is not a duration"),
        "{error}"
    );
    let error = toml::from_str::<Config>("[source]\npoll = 15").expect_err("no unit");
    assert!(error.to_string().contains("write \"15s\""), "{error}");
    let error = toml::from_str::<Config>("[source]\npoll = true").expect_err("no duration");
    assert!(
        error.to_string().contains("expected a duration in quotes"),
        "{error}"
    );
    let error = toml::from_str::<Config>("[rollout]\nsoak = '9000000h'").expect_err("too long");
    assert!(error.to_string().contains("is too long"), "{error}");
}

#[test]
fn a_repository_and_a_signers_file_are_enough() {
    let text = "[source]\nurl = '/srv/repo'\n[trust]\nallowed-signers = '/etc/signers'\n[rollout]\nsoak = '1m 30s'";
    let config: Config = toml::from_str(text).expect("a good configuration");
    config.check().expect("complete");
    assert_eq!(config.rollout.soak, Duration::from_secs(90));
    assert_eq!(config.pod_subnet().to_string(), "10.244.0.0/24");
    assert_eq!(config.dns_address(), Ipv4Addr::new(10, 96, 0, 10));
}

#[test]
fn bounds_of_the_repository_that_leave_no_room_are_refused() {
    for (setting, words) in [
        ("max-object-bytes = 4194303", "is below 4194304"),
        (
            "max-mirror-bytes = 67108863",
            "is below max-object-bytes 67108864",
        ),
    ] {
        let text = format!("[source]\nurl = '/srv/repo'\n{setting}\n[trust]\nmode = 'off'");
        let config: Config = toml::from_str(&text).expect("reads");
        let error = config.check().expect_err("no room").to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn taints_are_read_and_bad_ones_refused() {
    let text = "[node]\ntaints = ['gpu=yes:NoSchedule', 'example.com/old:NoExecute']";
    let config: Config = toml::from_str(text).expect("good taints");
    let read: Vec<_> = config
        .node
        .taints
        .iter()
        .map(|taint| (taint.key.as_str(), taint.value.as_str()))
        .collect();
    assert_eq!(read, [("gpu", "yes"), ("example.com/old", "")]);
    for bad in ["gpu", "gpu:Never", "=yes:NoSchedule"] {
        let text = format!("[node]\ntaints = ['{bad}']");
        let error = toml::from_str::<Config>(&text).expect_err("a bad taint");
        assert!(
            error
                .to_string()
                .contains(&format!("{bad:?} is not a taint")),
            "{error}"
        );
    }
}

#[test]
fn a_registrys_credentials_are_complete_or_refused() {
    let text = "[[docker.registries]]\nhost = 'r.example.com:5000'\nuser = 'deployer'\n";
    let config: Config = toml::from_str(&format!("{text}password-file = '/etc/registry'"))
        .expect("a good configuration");
    assert_eq!(config.docker.registries[0].host, "r.example.com:5000");
    let error = toml::from_str::<Config>(text).expect_err("no password");
    assert!(error.to_string().contains("password-file"), "{error}");
}

#[test]
fn verification_without_signers_and_anchor_is_refused() {
    let config: Config = toml::from_str("[source]\nurl = '/srv/repo'").expect("reads");
    assert!(
        config
            .check()
            .expect_err("no signers")
            .to_string()
            .contains("nobody is trusted")
    );
}

#[test]
fn what_is_exposed_is_left_out_or_of_three_words() {
    let read = |text: &str| toml::from_str::<Config>(text).map(|config| config.network.expose);
    assert_eq!(read("").expect("no setting"), None);
    assert_eq!(
        read("[network]\nexpose = []").expect("nothing"),
        Some([].into())
    );
    assert_eq!(
        read("[network]\nexpose = ['services', 'dns']").expect("two parts"),
        Some([Exposed::Dns, Exposed::Services].into())
    );
    let error = read("[network]\nexpose = ['node-ports']").expect_err("another word");
    assert!(error.to_string().contains("`services`"), "{error}");
}
