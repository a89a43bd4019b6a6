//! The whole loop over a fake engine and network: what the loop does when a part of the host fails,
//! and how it continues when that part works again.

#![expect(clippy::unwrap_used, reason = "a test")]

mod bed;
mod cluster;
mod etcd;
mod record;
mod versions;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use netfilter::Drift;
use reconciler::{
    fault::{Fault, FaultKind},
    state::Phase,
};
use tokio::time::{Instant, sleep};

use self::bed::LoopBed;
use crate::{command::Command, watchdog::Keepalive};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A Deployment of two pods behind a Service.
fn web(image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{containers: [{{name: app, image: \"{image}\"}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  \
         ports: [{{port: 80}}]\n"
    )
}

/// A bare Pod: a replacement waits until the old pod is gone, since both have the same name.
fn db(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: db}}\n\
         spec: {{containers: [{{name: app, image: \"{image}\"}}]}}\n"
    )
}

fn both(web_image: &str, db_image: &str) -> String {
    format!("{}---\n{}", web(web_image), db(db_image))
}

/// Prevents a state file from being written, as a full disk does: the temporary file beside it,
/// which is written first, is a directory.
fn obstruct(file: &Path) -> impl Fn() + use<> {
    let neighbour = file.with_extension("json.new");
    fs::create_dir(&neighbour).unwrap();
    move || fs::remove_dir(&neighbour).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_commit_starts_its_pods_and_leads_traffic_to_them() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&commit).await;

    assert_eq!(bed.alive("web-").len(), 2);
    let network = bed.network.state();
    assert_eq!(network.links.len(), 2);
    let table = format!("{:?}", network.table);
    for link in network.links.values() {
        let address = link.address.to_string();
        assert!(
            table.contains(&address),
            "{address} gets no traffic: {table}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cycle_in_the_target_state_does_nothing() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &both("web:1", "db:1")).await;
    daemon.until_healthy(&commit).await;
    sleep(MINUTE).await;

    let (calls, mutations) = (bed.engine.calls(), bed.network.state().mutations);
    let state = daemon.view().state.clone();
    sleep(HOUR).await;
    assert_eq!(bed.engine.calls(), calls);
    assert_eq!(bed.network.state().mutations, mutations);
    assert_eq!(daemon.view().state, state);
    assert!(daemon.view().converged);
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_reports_to_the_watchdog_without_a_cycle() {
    static REPORTS: AtomicU64 = AtomicU64::new(0);
    let reports = || REPORTS.load(Ordering::Relaxed);
    let mut bed = LoopBed::new();
    bed.keepalive = Some(Keepalive::new(Duration::from_secs(10), || {
        REPORTS.fetch_add(1, Ordering::Relaxed);
    }));
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&commit).await;
    sleep(MINUTE).await;

    let (before, cycles) = (reports(), daemon.count_cycles());
    sleep(HOUR).await;
    let in_an_hour = reports() - before;
    assert!((355..=361).contains(&in_an_hour), "{in_an_hour} reports");
    // Two for each resync, which comes every five minutes; the reports cause none.
    let cycles = cycles.load(Ordering::Relaxed);
    assert!(cycles <= 26, "{cycles} cycles");

    // Cycles that follow each other report no more often.
    let before = reports();
    for _ in 0..100 {
        daemon.links_change();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(reports() - before <= 1, "{}", reports() - before);

    daemon.end().await;
    let before = reports();
    sleep(HOUR).await;
    assert_eq!(reports(), before, "a loop that has ended reports nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fails_stops_no_other_and_is_tried_again_ever_more_seldom() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let web_starts = "start_container default/web-";
    let fault = Fault::new(FaultKind::Other, "the engine has a bad day");
    bed.engine.break_calls(web_starts, fault);
    let commit = daemon.push(&bed, &both("web:1", "db:1")).await;
    daemon
        .until("db does not run", |_| bed.alive("db").len() == 1)
        .await;
    assert!(bed.alive("web-").is_empty());

    sleep(MINUTE).await;
    let in_first_minute = bed.count_calls(web_starts);
    sleep(4 * MINUTE).await;
    let in_four_more = bed.count_calls(web_starts) - in_first_minute;
    assert!(in_first_minute > 2, "it is tried again: {in_first_minute}");
    assert!(
        in_four_more < 2 * in_first_minute,
        "{in_first_minute} tries in a minute, then {in_four_more} in four"
    );

    bed.engine.mend(web_starts);
    daemon.until_healthy(&commit).await;
    assert_eq!(bed.alive("web-").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn from_an_engine_that_does_not_answer_nothing_is_concluded() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &both("web:1", "db:1")).await;
    daemon.until_healthy(&commit).await;

    let (alive, links) = (bed.alive(""), bed.network.state().links.clone());
    let (state, table) = (
        daemon.view().state.clone(),
        bed.network.state().table.clone(),
    );
    bed.engine.freeze(true);
    daemon.until_troubled("does not answer").await;
    sleep(HOUR).await;
    assert_eq!(bed.alive(""), alive);
    assert_eq!(bed.network.state().links, links);
    assert_eq!(bed.network.state().table, table);
    assert_eq!(daemon.view().state, state);

    bed.engine.freeze(false);
    daemon
        .until("the trouble stays", |view| view.troubles.is_empty())
        .await;
    assert_eq!(daemon.view().state.pods, state.pods, "no pod is made anew");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_while_the_engine_does_not_answer_runs_when_it_does() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&first).await;

    bed.engine.freeze(true);
    daemon.until_troubled("does not answer").await;
    let second = daemon.push(&bed, &web("web:2")).await;
    sleep(HOUR).await;
    assert_eq!(bed.alive("web-").len(), 2);
    assert!(
        !daemon.view().state.rollout.bad.contains_key(&second),
        "the engine's failure is not the commit's"
    );

    bed.engine.freeze(false);
    daemon.until_healthy(&second).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_change_in_the_network_is_repaired_within_the_interval_of_checks() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&commit).await;
    sleep(MINUTE).await;

    // The first change comes long after the last check, the second change right after that check.
    for at_most in [Duration::from_millis(100), Duration::from_millis(5_100)] {
        let began = Instant::now();
        bed.network.state().drift.push(Drift::Table);
        daemon.links_change();
        daemon
            .until("it is not repaired", |_| {
                bed.network.state().drift.is_empty()
            })
            .await;
        let took = began.elapsed();
        assert!(took <= at_most, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_decided_what_runs_goes_on_running() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&first).await;

    let mend = obstruct(&bed.data_file("cluster.json"));
    let second = daemon.push(&bed, &web("web:2")).await;
    daemon.until_troubled("cluster.json").await;
    let alive = bed.alive("web-");
    bed.engine.exit(&alive[0], 1);
    daemon
        .until("nothing restarts it", |_| bed.alive("web-").len() == 2)
        .await;
    sleep(HOUR).await;
    assert_eq!(daemon.view().state.rollout.target, Some(first));
    assert_eq!(bed.count_calls("pull web:2"), 0);

    mend();
    daemon.until_healthy(&second).await;
    assert!(daemon.view().troubles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_pod_starts_whose_address_is_not_on_the_disk() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let mend = obstruct(&bed.data_file("node.json"));
    let commit = daemon.push(&bed, &web("web:1")).await;
    daemon.until_troubled("node.json").await;
    sleep(MINUTE).await;
    assert_eq!(bed.count_calls("start_sandbox"), 0);

    mend();
    daemon.until_healthy(&commit).await;
    assert!(daemon.view().troubles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_starts_in_the_middle_of_a_rollout_finishes_it() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &both("web:1", "db:1")).await;
    daemon.until_healthy(&first).await;
    let db = bed.alive("db");

    let web_starts = "start_container default/web-";
    let fault = Fault::new(FaultKind::Other, "the engine has a bad day");
    bed.engine.break_calls(web_starts, fault);
    let second = daemon.push(&bed, &both("web:2", "db:1")).await;
    daemon
        .until("it does not progress", |view| {
            matches!(view.state.rollout.phase, Phase::Progressing { .. })
        })
        .await;
    sleep(MINUTE).await;
    daemon.end().await;

    bed.engine.mend(web_starts);
    let mut daemon = bed.start().await;
    daemon.until_healthy(&second).await;
    assert_eq!(bed.alive("web-").len(), 2);
    assert_eq!(bed.alive("db"), db, "what did not change was left alone");
}

#[tokio::test(start_paused = true)]
async fn nothing_new_starts_over_a_stop_that_is_not_finished() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &db("db:1")).await;
    daemon.until_healthy(&first).await;
    let before = bed.engine.calls().len();

    bed.engine.set_stop_takes(Duration::from_secs(25));
    let second = daemon.push(&bed, &db("db:2")).await;
    daemon
        .until("the old pod does not stop", |view| {
            view.state.pods.values().any(|pod| pod.stop.is_some())
        })
        .await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bed.alive("db").len(), 1, "the old pod is still stopping");
    let third = daemon.push(&bed, &db("db:1")).await;
    daemon.until_healthy(&third).await;

    let calls = bed.engine.calls().split_off(before);
    let position = |begin: &str| calls.iter().position(|call| call.starts_with(begin));
    let (stop, start) = (
        position("stop ").unwrap(),
        position("start_sandbox").unwrap(),
    );
    assert!(stop < start, "{calls:#?}");
    let gone = position("remove_files").unwrap();
    assert!(gone < start, "{calls:#?}");
    assert!(!daemon.view().state.rollout.bad.contains_key(&second));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_is_rolled_back_to_the_healthy_one() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&first).await;
    let alive = bed.alive("web-");

    let fault = Fault::new(FaultKind::Rejected, "there is no such command");
    bed.engine
        .break_calls("start_container default/web-", fault);
    let second = daemon.push(&bed, &web("web:2")).await;
    daemon
        .until("it is not rolled back", |view| {
            let rollback = view.state.rollout.rollback.as_ref();
            rollback.is_some_and(|rollback| rollback.from == second)
        })
        .await;
    daemon.until_healthy(&first).await;

    assert!(daemon.view().state.rollout.bad.contains_key(&second));
    assert_eq!(
        bed.alive("web-"),
        alive,
        "the healthy pods ran all the time"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_daemon_leaves_everything_running() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &both("web:1", "db:1")).await;
    daemon.until_healthy(&commit).await;
    let (alive, links) = (bed.alive(""), bed.network.state().links.clone());
    let table = bed.network.state().table.clone();
    daemon.end().await;

    assert_eq!(bed.alive(""), alive);
    assert_eq!(bed.network.state().links, links);
    assert_eq!(bed.network.state().table, table);
    assert_eq!(bed.count_calls("stop "), 0);

    let calls = bed.engine.calls();
    let mut daemon = bed.start().await;
    daemon.until("it has no cycle", |view| view.converged).await;
    sleep(HOUR).await;
    assert_eq!(
        bed.engine.calls(),
        calls,
        "the next daemon finds all in place"
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_is_started_again_in_its_pod() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let commit = daemon.push(&bed, &db("db:1")).await;
    daemon.until_healthy(&commit).await;
    let sandboxes = bed.count_calls("start_sandbox");

    let ended = bed.alive("db");
    bed.engine.exit(&ended[0], 1);
    daemon
        .until("nothing restarts it", |_| {
            let alive = bed.alive("db");
            alive.len() == 1 && alive != ended
        })
        .await;
    assert_eq!(bed.count_calls("start_sandbox"), sandboxes);
    assert_eq!(daemon.view().state.pods.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_host_takes_no_commit_until_somebody_resumes_it() {
    let bed = LoopBed::new();
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &db("db:1")).await;
    daemon.until_healthy(&first).await;

    daemon.ask(Command::Suspend).await.unwrap();
    let second = daemon.push(&bed, &db("db:2")).await;
    sleep(HOUR).await;
    assert_eq!(daemon.view().state.rollout.target, Some(first));

    daemon.ask(Command::Resume).await.unwrap();
    daemon.until_healthy(&second).await;
}
