//! Metrics and health endpoints, checked with promtool and Prometheus.

use std::fs;
use std::process::Stdio;

use crate::manifest::{APP, deployment, service};
use crate::support::{SOON, Site, eventually};

#[test]
fn promtool_accepts_the_metrics_and_the_health_endpoints_answer() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &deployment("web", 2, APP)),
        ("service.yaml", &service("web")),
    ]);
    let text = site.metrics();
    let file = site.host.dir().join("metrics.txt");
    fs::write(&file, format!("{text}\n")).unwrap();
    let checked = site.host.exec(&[
        "sh",
        "-c",
        &format!("promtool check metrics <{}", file.display()),
    ]);
    assert_eq!(
        (checked.code, checked.stderr.as_str()),
        (0, ""),
        "{checked:?}"
    );

    let head = site.repo.head();
    for (metric, value) in [
        ("windlass_pods{phase=\"Running\"}", 2.0),
        ("windlass_rollouts_total{result=\"healthy\"}", 1.0),
        ("windlass_signature_checks_total{outcome=\"trusted\"}", 1.0),
        (
            "windlass_push_to_healthy_seconds_count{phase=\"total\"}",
            1.0,
        ),
        (
            &format!("windlass_commit_info{{commit=\"{head}\",pointer=\"healthy\"}}"),
            1.0,
        ),
    ] {
        assert_eq!(site.metric(metric), value, "{metric}");
    }
    for path in ["healthz", "readyz"] {
        let answer = site
            .host
            .http_get(&format!("http://127.0.0.1:9464/{path}"))
            .unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{path}");
    }
}

#[test]
fn prometheus_scrapes_the_daemon() {
    let mut site = Site::started("");
    site.deploy(&[("web.yaml", &deployment("web", 1, APP))]);
    let dir = site.host.dir().join("prometheus");
    fs::create_dir_all(&dir).unwrap();
    let config = dir.join("prometheus.yml");
    fs::write(
        &config,
        "global: {scrape_interval: 1s}\n\
         scrape_configs: [{job_name: windlass, static_configs: [{targets: ['127.0.0.1:9464']}]}]\n",
    )
    .unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut server = site
        .host
        .command("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.join("data").display()
        ))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let value = |query: &str| -> Option<String> {
        let answer = site
            .host
            .http_get(&format!("http://127.0.0.1:9090/api/v1/query?query={query}"))?;
        let json: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        json["data"]["result"][0]["value"][1]
            .as_str()
            .map(str::to_owned)
    };
    eventually(SOON, "the target is up", || {
        value("up").as_deref() == Some("1")
    });
    eventually(SOON, "Prometheus has the metrics of Windlass", || {
        value("windlass_build_info").as_deref() == Some("1")
            && value("windlass_pods%7Bphase=%22Running%22%7D").as_deref() == Some("1")
    });
    server.kill().unwrap();
    server.wait().unwrap();
}
