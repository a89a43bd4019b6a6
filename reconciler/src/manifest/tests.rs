#![expect(clippy::unwrap_used, reason = "a test")]

mod accepted;
mod documents;
mod fields;
mod objects;
mod placement;
mod values;
mod values_refused;

use super::*;

/// The problems of one file, one on each line.
fn problems_of(text: &str) -> String {
    problems_of_files(&[("a.yaml", text)])
}

fn problems_of_files(files: &[(&str, &str)]) -> String {
    let (_, problems) = read(files);
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn read(files: &[(&str, &str)]) -> (Objects, Vec<Problem>) {
    let files: Vec<SourceFile<'_>> = files
        .iter()
        .map(|(path, text)| SourceFile {
            path,
            content: text.as_bytes(),
        })
        .collect();
    parse(&files, &Limits::default(), ReadAs::NewHead)
}
