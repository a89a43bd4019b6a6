use serde_json::{Value, json};

use super::{super::Limits, *};

fn values(text: &str) -> Vec<Value> {
    let (documents, unreadable) = read("a.yaml", text, &Limits::default());
    assert_eq!(unreadable, Vec::new(), "{text}");
    documents
        .into_iter()
        .map(|document| document.value)
        .collect()
}

fn refused(path: &str, text: &str) -> String {
    let (_, unreadable) = read(path, text, &Limits::default());
    let lines = unreadable
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn plain_scalars_are_read_as_kubectl_reads_them() {
    let text =
        "a: yes\nb: Off\nc: 0644\nd: -010\ne: 08\nf: ~\ng: 0x1F\nh: 1.5\ni: 2001-01-01\nj: n\n";
    let expected = json!([{
        "a": true, "b": false, "c": 420, "d": -8, "e": 8, "f": null, "g": 31, "h": 1.5, "i": "2001-01-01", "j": false
    }]);
    assert_eq!(Value::Array(values(text)), expected);
}

#[test]
fn quoted_scalars_are_texts() {
    let text = "a: \"yes\"\nb: 'no'\nc: \"0644\"\nd: |-\n  on\ne: >-\n  0644\nf: {g: 'off',h: \"0644\"}\n\"i\": \"y\\x65s\"\n";
    let expected = json!({
        "a": "yes", "b": "no", "c": "0644", "d": "on", "e": "0644", "f": {"g": "off", "h": "0644"}, "i": "yes"
    });
    assert_eq!(values(text), [expected]);
}

#[test]
fn aliases_keep_the_quotes_of_their_anchors() {
    assert_eq!(
        values("a: &a \"yes\"\nb: *a\nc: &c yes\nd: *c\n"),
        [json!({
            "a": "yes", "b": "yes", "c": true, "d": true
        })]
    );
}

#[test]
fn documents_have_the_line_of_their_first_key() {
    let text = "\u{feff}# one\r\n---\r\nkind: A\r\n---\r\n---\r\n\r\n'kind': B\r\n...\r\n---\r\n{kind: C}\r\n";
    let (documents, _) = read("a.yaml", text, &Limits::default());
    let lines: Vec<_> = documents
        .iter()
        .map(|document| (document.value["kind"].clone(), document.line))
        .collect();
    assert_eq!(
        lines,
        [
            (json!("A"), Some(3)),
            (Value::Null, None),
            (json!("B"), Some(7)),
            (json!("C"), Some(10))
        ]
    );
}

#[test]
fn empty_texts_and_comments_give_no_or_empty_documents() {
    for text in [
        "",
        "\n",
        "# a comment\n",
        "---\n",
        "---\n---\n",
        "\u{feff}",
        "--- # nothing\n",
    ] {
        assert!(values(text).iter().all(Value::is_null), "{text:?}");
    }
}

#[test]
fn keys_of_a_mapping_override_merged_ones() {
    let text =
        "base: &b {x: 1, z: 2}\none: {<<: *b, z: 3}\ntwo:\n  <<: [{x: 7}, *b]\n\"<<\": text\n";
    let value = values(text).remove(0);
    assert_eq!(value["one"], json!({"x": 1, "z": 3}));
    assert_eq!(value["two"], json!({"x": 7, "z": 2}));
    assert_eq!(value["<<"], json!("text"));
}

#[test]
fn json_is_read_as_json() {
    let (documents, unreadable) = read(
        "a.json",
        "{\"a\": \"yes\",\n\t\"b\": \"\\ud83d\\ude00\"}\n{\"c\": 1}\n",
        &Limits::default(),
    );
    assert_eq!(unreadable, Vec::new());
    let read: Vec<_> = documents
        .into_iter()
        .map(|document| (document.value, document.line))
        .collect();
    assert_eq!(
        read,
        [
            (json!({"a": "yes", "b": "😀"}), Some(1)),
            (json!({"c": 1}), Some(3))
        ]
    );
}

#[test]
fn invalid_json_is_refused() {
    assert_eq!(
        refused("a.json", "{\"a\": 1,\n \"a\": 2}"),
        "2:4: the key \"a\" is there twice: keep one"
    );
    assert_eq!(
        refused("a.json", "{\"a\": }"),
        "1:7: not valid JSON: expected value"
    );
}

#[test]
fn invalid_yaml_is_refused_with_its_position() {
    let hint = "(indent with spaces, not tabs, and quote texts that begin with @, ` or %)";
    for (text, expected) in [
        (
            "a: [1\nb: 2\n",
            "2:2: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4",
        ),
        (
            "a: 1\n\tb: 2\n",
            &format!(
                "2:1: not valid YAML: found a tab character that violates indentation, while scanning a plain scalar at line 1 column 4 {hint}"
            ),
        ),
        ("a: *b\n", "1:4: not valid YAML: unknown anchor"),
        (
            "a: b: c\n",
            "1:5: not valid YAML: mapping values are not allowed in this context",
        ),
        (
            "a: 'b\n",
            "2:1: not valid YAML: found unexpected end of stream, while scanning a quoted scalar at line 1 column 4",
        ),
        (
            "@a: 1\n",
            &format!(
                "1:1: not valid YAML: found character that cannot start any token, while scanning for the next token {hint}"
            ),
        ),
        (
            "%YAML 3.0\n---\na: 1\n",
            "1:1: not valid YAML: found incompatible YAML document",
        ),
    ] {
        assert_eq!(refused("a.yaml", text), expected, "{text:?}");
    }
}

#[test]
fn valid_yaml_that_kubectl_would_misread_is_refused() {
    for (text, expected) in [
        (
            "a: 1\na: 2\n",
            "2:1: the key \"a\" is there twice: keep one",
        ),
        (
            "a: !vault bar\n",
            "1:4: the tag !vault is not known: another tool gives it a meaning; commit what that tool makes of the value",
        ),
        (
            "a: !!binary aGk=\n",
            "1:13: the tag !!binary is not known: write the value as a text, a list or a mapping; base64 belongs under \
             binaryData of a ConfigMap or data of a Secret",
        ),
        (
            "a: .inf\n",
            "1:4: neither infinity nor NaN is a value here: write it in quotes if it is a text",
        ),
        (
            "yes: 1\n",
            "1:1: the key yes would be read as a boolean or a number: write it in quotes",
        ),
        (
            "1.10: x\n",
            "1:1: this key would be read as a number: write it in quotes",
        ),
        (
            "? [a]\n: b\n",
            "1:3: a key must be a text, not a list: write braces of templates in quotes",
        ),
        (
            "a: {{ b }}\n",
            "1:5: a key must be a text, not a mapping: write braces of templates in quotes",
        ),
        (
            "<<: 1\n",
            "1:1: a merge key (<<) takes a mapping or a list of mappings",
        ),
        (
            "a: 99999999999999999999\n",
            "1:4: this number is too large: write it in quotes if it is a text",
        ),
    ] {
        assert_eq!(refused("a.yaml", text), expected, "{text:?}");
    }
}

#[test]
fn a_file_ends_at_the_value_that_exceeds_its_budget() {
    let limits = Limits {
        nodes: 3,
        ..Limits::default()
    };
    let text = "--- 1\n--- 2\n--- 3\n--- 4\n--- 5\n";
    let (documents, unreadable) = read("a.yaml", text, &limits);
    assert_eq!((documents.len(), unreadable.len()), (3, 1));
}

#[test]
fn values_and_brackets_are_nested_up_to_their_limit() {
    let list = |depth: usize| format!("{}1", "- ".repeat(depth));
    assert_eq!(refused("a.yaml", &list(64)), "");
    assert!(refused("a.yaml", &list(65)).ends_with("nested deeper than 64: flatten it"));

    let brackets = |count: usize| format!("a: 1\nb: '{{}}[]{}'\n", "{[".repeat(count / 2));
    assert_eq!(refused("a.yaml", &brackets(1_000)), "");
    assert_eq!(
        refused("a.yaml", &brackets(1_002)),
        "2:1: more than 1000 brackets are open here: close them"
    );
    assert_eq!(
        refused("a.yaml", &format!("c: '['\n{}", brackets(1_000))),
        "3:1: more than 1000 brackets are open here: close them"
    );
}

#[test]
fn a_refused_document_does_not_hide_the_next() {
    let (documents, unreadable) = read("a.yaml", "a: 1\na: 2\n---\nb: 1\n", &Limits::default());
    assert_eq!((documents.len(), unreadable.len()), (1, 1));
}

/// Each of these files is smaller than a megabyte, and would need gigabytes or minutes if it were
/// expanded.
#[test]
fn files_that_expand_to_too_much_are_refused() {
    let exponential = (1..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}a{level}: &a{level} [{aliases}]\n")
    });
    let quadratic = format!(
        "a: &a [{}]\nb: [{}]\n",
        vec!["x"; 5000].join(","),
        vec!["*a"; 5000].join(",")
    );
    let many = "the file expands to too many values: split it, or use fewer aliases";
    let deep = "nested deeper than 64: flatten it";
    for (name, text, expected) in [
        ("exponential aliases", exponential, many),
        ("quadratic aliases", quadratic, many),
        ("many values", format!("[{}]", "a,".repeat(400_000)), many),
        ("many documents", "---\n".repeat(200_000), many),
        ("deep list", "- ".repeat(400_000), deep),
        (
            "deep braces",
            format!("{}b{}", "{a: ".repeat(500), "}".repeat(500)),
            deep,
        ),
        (
            "open brackets",
            "[".repeat(800_000),
            "more than 1000 brackets are open here: close them",
        ),
    ] {
        let message = refused("a.yaml", &text);
        assert!(message.ends_with(expected), "{name}: {message}");
    }
}

#[test]
fn a_document_with_two_faults_hides_the_rest_of_its_file() {
    // After an unknown anchor, serde_yaml would continue inside of the document, and panic.
    for document in ["!x {p: *b}", "!\np: *b", "!\u{85}p<<: *met1", "[!x a, [*b"] {
        let text = format!("a: 1\n---\n{document}\n---\nb: 1\n");
        let (documents, unreadable) = super::read("a.yaml", &text, &Limits::default());
        assert_eq!((documents.len(), unreadable.len()), (1, 1), "{document}");
        assert!(
            unreadable[0].message.contains("is not known"),
            "{unreadable:?}"
        );
    }
    let text = "a: !x 1\n---\nb: !y 2\n---\nc: 3\n";
    let (documents, unreadable) = super::read("a.yaml", text, &Limits::default());
    assert_eq!((documents.len(), unreadable.len()), (1, 2));
}
