//! Members of a cluster: a real etcd on loopback, and loops over fake engines.

use reconciler::{
    fault::{Fault, FaultKind},
    name::NodeName,
    state::Phase,
};

use super::{bed::LoopBed, etcd::EtcdProcess, web};

#[tokio::test]
async fn without_the_store_what_runs_is_kept_up_and_with_it_decisions_go_on() {
    let mut etcd = EtcdProcess::new();
    let bed = LoopBed::member(1, etcd.config());
    let mut daemon = bed.start().await;
    let first = daemon.push(&bed, &web("web:1")).await;
    daemon.until_healthy(&first).await;

    etcd.stop();
    daemon.until_troubled("the store does not answer").await;
    let alive = bed.alive("web-");
    bed.engine.exit(&alive[0], 1);
    daemon
        .until("nothing restarts it", |_| {
            let now = bed.alive("web-");
            now.len() == 2 && now != alive
        })
        .await;
    let second = daemon.push(&bed, &web("web:2")).await;
    daemon
        .until("the head is not seen", |view| {
            view.source.head.as_ref() == Some(&second)
        })
        .await;
    assert_eq!(daemon.view().state.rollout.target, Some(first));

    etcd.start();
    daemon.until_healthy(&second).await;
    daemon
        .until("the trouble stays", |view| view.troubles.is_empty())
        .await;
}

#[tokio::test]
async fn a_leader_that_goes_in_the_middle_of_a_rollout_is_followed_by_one_that_finishes_it() {
    let etcd = EtcdProcess::new();
    let beds = [1, 2].map(|number| LoopBed::member(number, etcd.config()));
    let [one, two] = &beds;
    let mut first_leader = one.start().await;
    let mut other = two.start().await;
    let first = first_leader.push(one, &web("web:1")).await;
    other.fetch(two, one).await;
    first_leader.until_healthy(&first).await;
    other.until_healthy(&first).await;

    let web_starts = "start_container default/web-";
    for bed in &beds {
        let fault = Fault::new(FaultKind::Other, "the engine has a bad day");
        bed.engine.break_calls(web_starts, fault);
    }
    let second = first_leader.push(one, &web("web:2")).await;
    other.fetch(two, one).await;
    first_leader
        .until("it does not progress", |view| {
            let rollout = &view.state.rollout;
            let progresses = matches!(rollout.phase, Phase::Progressing { .. });
            progresses && rollout.target.as_ref() == Some(&second)
        })
        .await;
    first_leader.end().await;

    let leads = Some(NodeName::new("n2"));
    other
        .until("the other host does not lead", |view| {
            view.cluster
                .as_ref()
                .is_some_and(|cluster| cluster.leader == leads)
        })
        .await;
    for bed in &beds {
        bed.engine.mend(web_starts);
    }
    let mut follower = one.start().await;
    follower.fetch(one, one).await;
    other.until_healthy(&second).await;
    follower.until_healthy(&second).await;
    let leader = follower.view().cluster.as_ref().unwrap().leader.clone();
    assert_eq!(leader, leads, "who came back follows");
    assert_eq!(one.alive("web-").len() + two.alive("web-").len(), 2);
}
