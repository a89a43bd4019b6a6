//! Two commits as manifests, and their differences as text.

use std::fmt::Write;

use super::*;
use crate::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, SourceFile},
};

/// The objects of one file, and what could not be read of it.
fn read(text: &str) -> (Objects, Unread) {
    read_file("all.yaml", text)
}

fn read_file(path: &str, text: &str) -> (Objects, Unread) {
    let file = SourceFile {
        path,
        content: text.as_bytes(),
    };
    let (objects, problems) = desired::read(
        &[file],
        &Limits::default(),
        &CheckSettings::default(),
        ReadAs::NewHead,
    );
    (objects, Unread::of(&problems))
}

fn printed(before: &str, after: &str) -> String {
    let ((before, _), (after, unread)) = (read(before), read(after));
    let mut text = String::new();
    for one in differences(&before, &after, &unread) {
        let kind = one.difference;
        writeln!(text, "{kind:?} {} {}/{}", one.kind, one.namespace, one.name).expect("a String");
        for field in one.fields {
            let line = field.line.map(|line| format!(":{line}"));
            let field_name = format!("{}{}", field.field, line.unwrap_or_default());
            for old in field.old {
                writeln!(text, "- {field_name}: {old}").expect("a String");
            }
            for new in field.new {
                writeln!(text, "+ {field_name}: {new}").expect("a String");
            }
        }
        if one.more_fields > 0 {
            writeln!(text, "{} more", one.more_fields).expect("a String");
        }
    }
    text
}

fn deployment(replicas: u32, containers: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{containers: [{containers}]}}\n"
    )
}

fn config(kind: &str, data: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: settings}}\n{data}: {value}\n")
}

#[test]
fn replicas_and_image_of_one_deployment_are_two_fields() {
    let before = deployment(3, "{name: web, image: 'app:1', args: [a, b]}");
    let after = deployment(
        2,
        "{name: log, image: 'log:1'}, {name: web, image: 'app:2', args: [a, x, b]}",
    );
    insta::assert_snapshot!(printed(&before, &after), @r#"
    Changed Deployment default/web
    - spec.replicas: 3
    + spec.replicas: 2
    - spec.template.spec.containers[web].args: ["a","b"]
    + spec.template.spec.containers[web].args: ["a","x","b"]
    - spec.template.spec.containers[web].image: app:1
    + spec.template.spec.containers[web].image: app:2
    + spec.template.spec.containers[log].image: log:1
    + spec.template.spec.containers[log].name: log
    "#);
    assert_eq!(printed(&before, &before), "");
}

#[test]
fn a_list_in_another_order_is_a_difference_of_its_order() {
    let [one, two] = ["{name: a, image: 'a:1'}", "{name: b, image: 'b:1'}"];
    let before = deployment(1, &format!("{one}, {two}"));
    let after = deployment(1, &format!("{two}, {one}"));
    insta::assert_snapshot!(printed(&before, &after), @r#"
    Changed Deployment default/web
    - spec.template.spec.containers (order): ["a","b"]
    + spec.template.spec.containers (order): ["b","a"]
    "#);
}

#[test]
fn elements_without_distinct_names_are_named_by_their_index() {
    let ports = |first: &str| {
        format!(
            "{{name: web, image: 'app:1', ports: [{{containerPort: 80, protocol: {first}}}, \
             {{containerPort: 80, protocol: SCTP}}]}}"
        )
    };
    let before = deployment(1, &ports("TCP"));
    let after = deployment(1, &ports("UDP"));
    insta::assert_snapshot!(printed(&before, &after), @r"
    Changed Deployment default/web
    - spec.template.spec.containers[web].ports[0].protocol: TCP
    + spec.template.spec.containers[web].ports[0].protocol: UDP
    ");
}

#[test]
fn deleted_objects_come_first_and_new_ones_last_with_their_fields() {
    let map = config("ConfigMap", "data", "{mode: 'true'}");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  \
                   ports: [{port: 80}]\n";
    let web = |replicas| deployment(replicas, "{name: web, image: 'app:1'}");
    let before = format!("{map}---\n{}", web(1));
    let after = format!("{service}---\n{}", web(2));
    insta::assert_snapshot!(printed(&before, &after), @r"
    Deleted ConfigMap default/settings
    Changed Deployment default/web
    - spec.replicas: 1
    + spec.replicas: 2
    Added Service default/web
    + spec.ports[80].port: 80
    + spec.selector.app: web
    ");
}

#[test]
fn only_the_lines_of_a_text_that_differ_are_shown() {
    let long: String = (0..50).map(|n| format!("  line {n}\n")).collect();
    let map = |text: &str| config("ConfigMap", "data", &format!("\n  app.conf: |\n{text}"));
    let before = map("    listen 80;\n    root /a;\n    gzip on;\n");
    let after = map("    listen 80;\n    root /b;\n    index x;\n    gzip on;\n");
    insta::assert_snapshot!(printed(&before, &after), @r"
    Changed ConfigMap default/settings
    - data[app.conf]:2: root /a;
    + data[app.conf]:2: root /b;
    + data[app.conf]:2: index x;
    ");

    let added = map(&long.replace("  line", "    line"));
    let shown = printed("", &added);
    assert!(
        shown.ends_with("+ data[app.conf]:1: ... and 30 more lines\n"),
        "{shown}"
    );
}

#[test]
fn values_of_secrets_are_compared_and_never_shown() {
    let secret = |values: &str| config("Secret", "stringData", values);
    let before = secret("{same: one-value, other: old-value, gone: gone-value}");
    let after = secret("{same: one-value, other: new-value, added: added-value}");
    let changed = printed(&before, &after);
    let added = printed("", &after);
    insta::assert_snapshot!(changed, @r"
    Changed Secret default/settings
    + data.added: (hidden)
    - data.gone: (hidden)
    - data.other: (hidden)
    + data.other: (hidden, differs)
    ");
    insta::assert_snapshot!(added, @r"
    Added Secret default/settings
    + data.added: (hidden)
    + data.other: (hidden)
    + data.same: (hidden)
    ");
    assert!(!format!("{changed}{added}").contains("-value"));
}

#[test]
fn an_object_that_errors_may_hide_is_not_called_deleted() {
    let before = deployment(1, "{name: web, image: 'app:1'}");
    let misspelt = before.replace("kind: Deployment", "kind: Deploymnt");
    assert_eq!(
        printed(&before, &misspelt),
        "Unreadable Deployment default/web\n"
    );
    let wrong = before.replace("replicas: 1", "replicas: many");
    insta::assert_snapshot!(printed(&before, &wrong), @r"
    Changed Deployment default/web
    - spec.replicas: 1
    + spec.replicas: (not valid)
    ");
    // An error of another object's field hides nothing.
    let other = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: 'a:1', \
                 workingDir: relative}]}\n";
    let (objects, _) = read(&before);
    let (after, unread) = read_file("other.yaml", other);
    let found = differences(&objects, &after, &unread);
    assert_eq!(found[0].difference, DifferenceKind::Deleted, "{found:#?}");
}

#[test]
fn long_values_and_many_fields_are_bounded() {
    let (letters, keys) = ("x".repeat(5000), 0..200);
    let data: String = keys.map(|n| format!("\n  key-{n}: {letters}")).collect();
    let shown = printed("", &config("ConfigMap", "data", &data));
    assert!(shown.len() < 60 * 250, "{} bytes", shown.len());
    assert!(shown.ends_with("\n140 more\n"), "{shown}");
}
