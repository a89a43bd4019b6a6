//! Labels of arbitrary bytes: everyone with access to the engine can create a container with any
//! labels.

use proptest::prelude::*;

use super::{
    tests::{here, there},
    *,
};
use crate::fuzz::Fuzz;

const WORDS: [&str; 12] = [
    "io.windlass.schema=1\n",
    "io.windlass.schema=4294967296\n",
    "io.windlass.instance=here\n",
    "io.windlass.role=init\n",
    "io.windlass.owner=Deployment/shop/web\n",
    "io.windlass.owner=Pod/",
    "io.windlass.attempt=",
    "io.windlass.container=\n",
    "io.windlass.message=file\n",
    "/",
    "é",
    "\n",
];

#[test]
fn any_labels_are_refused_or_written_again_as_they_were_read() {
    // A file of the corpus has one label on each line.
    Fuzz::new("src/labels/corpus", &WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let labels = lines.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let read = match Labels::read(&labels.collect(), &here()) {
            Ok(read) => read,
            Err(error) => {
                prop_assert!(error.to_string().len() < 200);
                return Ok(false);
            }
        };
        prop_assert_eq!(
            Labels::read(&read.write(&there()), &here()),
            Err(LabelsError::Foreign)
        );
        prop_assert!(read.container_name().starts_with("windlass_"));
        prop_assert!(read.is_same_container(&read));
        prop_assert_eq!(Labels::read(&read.write(&here()), &here()), Ok(read));
        Ok(true)
    });
}
