//! The output of a fetch process, of any bytes: a process that a malicious pack controls cannot
//! fill the daemon's messages.

use proptest::prelude::*;

use super::*;
use crate::fuzz::Fuzz;

#[test]
fn any_output_is_an_answer_or_a_bounded_failure() {
    let request = ChildRequest {
        task: ChildTask::Compact {
            tips: BTreeSet::new(),
        },
        mirror: "/var/lib/windlass/mirror.git".into(),
        limits: FetchLimits::default(),
        user: None,
    };
    let words = [
        "{\"Ok\":",
        "{\"Err\":",
        "\"fetched\"",
        "\"compacted\"",
        "\"detail\"",
        "null",
        "\n",
    ];
    Fuzz::new("src/source/child/corpus", &words).run(|output| {
        let answer = read_answer(output, ExitStatus::from_raw(0), &request);
        let error = match answer {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        let message = error.to_string();
        prop_assert!(message.len() < 24 * 1024, "{} bytes", message.len());
        prop_assert!(!error.label().is_empty());
        // Output before the last line makes no difference.
        let more = [&b"libgit2 says something\n"[..], output].concat();
        let again = read_answer(&more, ExitStatus::from_raw(0), &request);
        prop_assert_eq!(again.map(drop), Err(error));
        Ok(false)
    });
}
