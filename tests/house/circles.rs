//! The top modules of a package form no circle: no module uses another that uses it, directly or
//! through further modules.

use std::collections::{BTreeMap, BTreeSet};

use super::{SOURCES, is_test_module, read, rust_files};

/// Which top modules of a package each of its top modules uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_top_modules_of_a_package_form_a_circle() {
    for (package, directory) in SOURCES {
        let uses = uses(directory);
        assert!(uses.len() > 5, "{package} has {} top modules", uses.len());
        let arrows: usize = uses.values().map(BTreeSet::len).sum();
        assert!(
            arrows > 5,
            "{package}: only {arrows} uses between modules were recognized"
        );

        let circle = circle(&uses);
        assert!(
            circle.is_empty(),
            "{package}: these modules use each other in a circle: {}; put what they share into a \
             module below them",
            circle.join(", ")
        );
    }
}

#[test]
fn the_architecture_draws_each_module_above_what_it_uses() {
    let document = read("docs/architecture.md");
    for (package, directory) in SOURCES {
        let heading = format!(
            "### {}",
            if package == "windlass" {
                "src"
            } else {
                package
            }
        );
        let rows = drawn_rows(&document, &heading);
        let row_of = |module: &str| rows.iter().position(|row| row.contains(module));

        for (module, used) in uses(directory) {
            let row = row_of(&module).unwrap_or_else(|| {
                panic!("docs/architecture.md does not draw {module} of {package}")
            });
            for below in used {
                assert!(
                    row_of(&below) > Some(row),
                    "docs/architecture.md, {package}: {module} uses {below}, which is drawn in \
                     row {:?} and not below row {row}",
                    row_of(&below)
                );
            }
        }
        let modules: BTreeSet<String> = uses(directory).into_keys().collect();
        for drawn in rows.iter().flatten() {
            assert!(
                modules.contains(drawn),
                "docs/architecture.md draws {drawn}, which {package} does not have"
            );
        }
    }
}

/// The modules in each row of the table below a heading: the words in backquotes in the first
/// column.
fn drawn_rows(document: &str, heading: &str) -> Vec<BTreeSet<String>> {
    let section = document
        .lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(1)
        .take_while(|line| !line.starts_with('#'));
    section
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next())
        .map(|column| {
            let names = column.split(", ").map(|name| name.trim_matches('`'));
            names.map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn a_circle_is_recognized_and_modules_outside_of_it_are_not_listed() {
    let uses = |arrows: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (from, to) in arrows {
            uses.entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
            uses.entry((*to).to_owned()).or_default();
        }
        uses
    };
    assert!(circle(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    assert_eq!(
        circle(&uses(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")])),
        ["b", "c"]
    );
}

#[test]
fn every_form_of_a_path_counts_as_a_use() {
    let code = "use crate::{\n    name::{CommitId, NodeName},\n    state,\n};\n\
                // crate::comment::Word\n\
                fn f() { crate::plan::step(\"crate::text::Word\"); super::time::now(); }\n\
                #[cfg(test)]\nmod tests { use crate::check::all; }\n";
    assert_eq!(
        used_modules(code, 1),
        BTreeSet::from(["name", "plan", "state", "time"].map(str::to_owned))
    );
    assert_eq!(
        used_modules("use super::{super::dns, inner};", 2),
        BTreeSet::from(["dns".to_owned()])
    );
}

/// The uses between the top modules of the package whose sources are in `directory`.
fn uses(directory: &str) -> Uses {
    let files: Vec<String> = rust_files(directory)
        .filter(|file| !is_test_module(file))
        .collect();
    let inner = |file: &str| {
        file[directory.len() + 1..]
            .trim_end_matches(".rs")
            .to_owned()
    };
    let top = |inner: &str| inner.split('/').next().unwrap_or_default().to_owned();
    let modules: BTreeSet<String> = files
        .iter()
        .map(|file| top(&inner(file)))
        .filter(|module| module != "lib" && module != "main")
        .collect();

    let mut uses: Uses = modules
        .iter()
        .map(|module| (module.clone(), BTreeSet::new()))
        .collect();
    for file in &files {
        let path = inner(file);
        let module = top(&path);
        let depth = path.split('/').count();
        let Some(targets) = uses.get_mut(&module) else {
            continue;
        };
        let used = used_modules(&read(file), depth);
        targets.extend(
            used.into_iter()
                .filter(|used| *used != module && modules.contains(used)),
        );
    }
    uses
}

/// The modules of all circles, sorted; empty where there is none. Modules that use no remaining
/// module, and modules that no remaining module uses, are removed until only circles remain.
fn circle(uses: &Uses) -> Vec<String> {
    let mut remaining: BTreeSet<&String> = uses.keys().collect();
    loop {
        let is_used = |module: &String| {
            let mut others = remaining.iter();
            others.any(|other| uses[*other].contains(module))
        };
        let uses_some = |module: &String| uses[module].iter().any(|used| remaining.contains(used));
        let inside: BTreeSet<&String> = remaining
            .iter()
            .copied()
            .filter(|module| is_used(module) && uses_some(module))
            .collect();
        if inside.len() == remaining.len() {
            return inside.into_iter().cloned().collect();
        }
        remaining = inside;
    }
}

/// The top modules that a file names with `crate::` or, in a file that is `depth` modules below the
/// root, with `depth` times `super::`. Tests at a file's end are not counted.
fn used_modules(text: &str, depth: usize) -> BTreeSet<String> {
    let code = without_comments_and_texts(text);
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = without_needless_blanks(code);
    let mut used = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        if !code[..at].ends_with(is_word) {
            names_after(&code[at + root.len()..], 0, &mut used);
        }
    }
    for (at, _) in code.match_indices("super::") {
        let before = &code[..at];
        if !before.ends_with(is_word) && !before.ends_with("super::") {
            names_after(&code[at..], depth, &mut used);
        }
    }
    used
}

/// The code without white space, but with one blank between two words.
fn without_needless_blanks(code: &str) -> String {
    let mut kept = String::new();
    for part in code.split_whitespace() {
        if kept.ends_with(is_word) && part.starts_with(is_word) {
            kept.push(' ');
        }
        kept.push_str(part);
    }
    kept
}

fn is_word(last: char) -> bool {
    last.is_alphanumeric() || last == '_'
}

/// Adds to `used` the first name of a path, or of each path of a group, after `supers` times
/// `super::`.
fn names_after(path: &str, supers: usize, used: &mut BTreeSet<String>) {
    if let Some(group) = path.strip_prefix('{') {
        for part in parts_of_group(group) {
            names_after(part, supers, used);
        }
        return;
    }
    match (path.strip_prefix("super::"), supers) {
        (Some(rest), 1..) => names_after(rest, supers - 1, used),
        (None, 0) => {
            let name: String = path.chars().take_while(|c| is_word(*c)).collect();
            used.insert(name);
        }
        // With fewer `super::` the path stays in this top module; with more it would leave the
        // package.
        (Some(_), 0) | (None, 1..) => {}
    }
}

/// The parts of a group, whose text begins after the opening brace.
fn parts_of_group(group: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                parts.push(&group[begin..at]);
                break;
            }
            ',' if depth == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The code of a file: comments are dropped, and texts in quotes are emptied.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let (mut quoted, mut escaped, mut before) = (false, false, ' ');
        for c in line.chars() {
            match (quoted, escaped, c) {
                (true, true, _) => escaped = false,
                (true, false, '\\') => escaped = true,
                (true, false, '"') => quoted = false,
                (true, false, _) => {}
                // The quote in the character literal '"' begins no text.
                (false, _, '"') if before != '\'' => quoted = true,
                (false, _, '/') if before == '/' => {
                    code.pop();
                    break;
                }
                (false, _, c) => code.push(c),
            }
            before = c;
        }
        code.push('\n');
    }
    code
}
