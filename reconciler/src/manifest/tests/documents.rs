//! Files and documents: lists, positions, duplicates and limits.

use super::*;

#[test]
fn problems_of_list_items_have_their_own_lines() {
    let text = r"apiVersion: v1
kind: List
wrong: 1
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- apiVersion: v1
  kind: ConfigMap
  metadata:
    name: b
  dat: {}
-
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- {apiVersion: v1, kind: List}
- 5
";
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:3:1: wrong: unknown field: a list has only items; remove it
    a.yaml:12:3: dat: unknown field (did you mean "data"?): correct or remove it
    a.yaml:16:14: metadata.name: ConfigMap default/a is written at a.yaml:5 already: keep one of them
    a.yaml:17:4: a list within a list: write its items one level up
    a.yaml:18:3: must be a mapping with apiVersion and kind: correct it, or move it out of the configured paths
    "#);
}

#[test]
fn texts_of_a_manifest_cannot_forge_a_line_of_the_log() {
    let text = r#"apiVersion: v1
kind: "Pod\nok.yaml: fine"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "a\e[2J"}
"dat\na": {}
"#;
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:2:1: kind: the kind "Pod\nok.yaml: fine" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:4:1: [dat\na]: unknown field (did you mean "data"?): correct or remove it
    a.yaml:6:12: metadata.name: "a\u{1b}[2J" is not valid: it must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit
    "#);
}

#[test]
fn a_document_that_cannot_be_read_does_not_hide_the_others() {
    let text = r"apiVersion: v1
kind: ConfigMap
metadata: {name: a}
dat: {}
---
kind: Pod
kind: Pod
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
dta: {}
";
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:4:1: dat: unknown field (did you mean "data"?): correct or remove it
    a.yaml:7:1: the key "kind" is there twice: keep one
    a.yaml:12:1: dta: unknown field (did you mean "data"?): correct or remove it
    "#);
}

#[test]
fn one_object_in_two_files_is_refused_with_both_positions() {
    let one = "apiVersion: extensions/v1beta1\nkind: DaemonSet\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n";
    let two = "\n\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a, namespace: default}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n";
    insta::assert_snapshot!(problems_of_files(&[("b/two.yaml", two), ("a/one.yaml", one)]), @"b/two.yaml:5:12: metadata.name: DaemonSet default/a is written at a/one.yaml:1 already: keep one of them");
    let other_namespace = two.replace("namespace: default", "namespace: other");
    assert_eq!(
        problems_of_files(&[("b/two.yaml", &other_namespace), ("a/one.yaml", one)]),
        ""
    );
}

#[test]
fn files_that_are_too_large_or_not_utf8_are_refused() {
    let large = vec![b'#'; 100 << 20];
    let files = [
        SourceFile {
            path: "large.yaml",
            content: &large,
        },
        SourceFile {
            path: "latin.yaml",
            content: b"a: \xe4",
        },
        SourceFile {
            path: "empty.yaml",
            content: b"",
        },
    ];
    let (_, problems) = parse(&files, &Limits::default(), ReadAs::NewHead);
    let text: String = problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    insta::assert_snapshot!(text, @"
    large.yaml: the file has 104857600 bytes and may have 4194304: split it, or move what is no manifest elsewhere
    latin.yaml: not UTF-8 at byte 3: save the file as UTF-8
    ");
}

#[test]
fn documents_and_problems_beyond_the_limits_are_dropped() {
    let documents = "---\napiVersion: v1\nkind: Pd\n".repeat(12);
    let limits = Limits {
        documents: 10,
        problems: 3,
        ..Limits::default()
    };
    let file = SourceFile {
        path: "a.yaml",
        content: documents.as_bytes(),
    };
    let (_, problems) = parse(
        &[
            file,
            SourceFile {
                path: "b.yaml",
                content: b"kind: Pod",
            },
        ],
        &limits,
        ReadAs::NewHead,
    );
    let text: String = problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    insta::assert_snapshot!(text, @r#"
    a.yaml:3:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:6:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:9:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml: and 7 more problems: correct these first
    a.yaml: the commit has more than 10 documents: split it over several paths
    "#);
}

#[test]
fn errors_are_listed_before_warnings_where_not_all_are() {
    let warned =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAME}\nstatus: {phase: Active}\n---\n";
    let mut text: String = ["a", "b", "c", "d", "e", "f"]
        .map(|name| warned.replace("NAME", name))
        .concat();
    text.push_str("apiVersion: v1\nkind: Pd\n");
    let limits = Limits {
        problems: 4,
        ..Limits::default()
    };
    let file = SourceFile {
        path: "a.yaml",
        content: text.as_bytes(),
    };

    let (_, problems) = parse(&[file], &limits, ReadAs::NewHead);

    let lines: Vec<_> = problems
        .iter()
        .map(|problem| (problem.line, problem.severity))
        .collect();
    let (error, warning) = (Severity::Error, Severity::Warning);
    let expected = [
        (4, warning),
        (9, warning),
        (14, warning),
        (32, error),
        (0, error),
    ];
    assert_eq!(lines, expected, "{problems:#?}");
    let last = &problems.last().unwrap().message;
    assert_eq!(last, "and 3 more problems: correct these first");
}
