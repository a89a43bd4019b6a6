//! Plans as they are printed.

use super::{super::*, daemon, windlass};

#[tokio::test]
async fn a_held_commit_shows_its_differences_as_a_diff_and_its_pods_in_order() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "plan held").await;
    assert_eq!(exit, Exit::Refused);
    insta::assert_snapshot!(text, @"");
}

#[tokio::test]
async fn a_commit_that_is_refused_for_its_content_shows_all_problems_and_no_pods() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "plan refused").await;
    assert_eq!(exit, Exit::Refused);
    insta::assert_snapshot!(text, @"");
}
