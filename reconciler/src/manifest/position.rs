//! Lines and columns of fields. Computed only for files with a problem.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, Span};

/// A line and column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The positions of all fields in one file.
#[derive(Default)]
pub(super) struct Marks {
    nodes: Vec<PositionNode>,
    documents: Vec<usize>,
}

struct PositionNode {
    position: Position,
    content: Content,
}

enum Content {
    Scalar(String),
    Sequence(Vec<usize>),
    /// For each entry: key, position of the key, number of the value.
    Mapping(Vec<(String, Position, usize)>),
}

impl Marks {
    /// Reads the positions of a file, up to the first place that cannot be read.
    pub(super) fn read(text: &str) -> Self {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            let Ok((event, span)) = event else { break };
            builder.event(event, span);
        }
        builder.marks
    }

    /// Line of a document's first key.
    pub(super) fn document_line(&self, index: usize) -> Option<u32> {
        self.documents
            .get(index)
            .map(|root| self.first_key(*root).line)
    }

    /// Lines of the first keys of each of a document's `items`.
    pub(super) fn item_lines(&self, index: usize) -> Vec<u32> {
        let items = self
            .documents
            .get(index)
            .and_then(|root| self.child(*root, "items"));
        match items.map(|(_, items)| &self.nodes[items].content) {
            Some(Content::Sequence(items)) => items
                .iter()
                .map(|item| self.first_key(*item).line)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Position of a field in the document or list item that begins at a line; if the field is
    /// missing, the position of its nearest existing parent.
    pub(super) fn locate(&self, line: u32, field: &str) -> Option<Position> {
        let mut roots = self.documents.iter().copied().chain(self.items());
        let root = roots.find(|root| self.first_key(*root).line == line)?;
        Some(self.walk(root, field))
    }

    /// All `items` of documents that are lists.
    fn items(&self) -> impl Iterator<Item = usize> {
        self.documents.iter().flat_map(|root| {
            match self
                .child(*root, "items")
                .map(|(_, items)| &self.nodes[items].content)
            {
                Some(Content::Sequence(items)) => items.as_slice(),
                _ => &[],
            }
            .iter()
            .copied()
        })
    }

    fn walk(&self, root: usize, field: &str) -> Position {
        let (mut node, mut position) = (root, self.first_key(root));
        let mut rest = field;
        while !rest.is_empty() {
            let (step, after) = first_step(rest);
            let Some((at, child)) = self.child(node, step) else {
                break;
            };
            (position, node, rest) = (at, child, after);
        }
        position
    }

    /// Position and number of the value under a key or index; merge keys are followed.
    fn child(&self, node: usize, step: &str) -> Option<(Position, usize)> {
        match &self.nodes.get(node)?.content {
            Content::Scalar(_) => None,
            Content::Sequence(items) => {
                let item = *items.get(step.parse::<usize>().ok()?)?;
                Some((self.first_key(item), item))
            }
            Content::Mapping(entries) => {
                if let Some((_, position, value)) = entries.iter().find(|(key, ..)| key == step) {
                    return Some((*position, *value));
                }
                let merged = entries.iter().filter(|(key, ..)| key == "<<");
                merged.map(|(.., value)| *value).find_map(|value| {
                    match &self.nodes[value].content {
                        // An alias only refers backwards, so the recursion ends.
                        Content::Mapping(_) if value < node => self.child(value, step),
                        Content::Sequence(bases) => bases
                            .iter()
                            .filter(|base| **base < node)
                            .find_map(|base| self.child(*base, step)),
                        _ => None,
                    }
                })
            }
        }
    }

    fn first_key(&self, node: usize) -> Position {
        match &self.nodes[node].content {
            Content::Mapping(entries) => entries
                .first()
                .map_or(self.nodes[node].position, |(_, at, _)| *at),
            _ => self.nodes[node].position,
        }
    }
}

/// Splits off the first step: `spec.containers[0].image` becomes `spec` and `containers[0].image`.
fn first_step(field: &str) -> (&str, &str) {
    if let Some(bracketed) = field.strip_prefix('[')
        && let Some((step, rest)) = bracketed.split_once(']')
    {
        return (step, rest.strip_prefix('.').unwrap_or(rest));
    }
    match field.find(['.', '[']) {
        Some(end) if field[end..].starts_with('.') => (&field[..end], &field[end + 1..]),
        Some(end) if end > 0 => field.split_at(end),
        _ => (field, ""),
    }
}

/// Builds the positions from parser events, without recursion, since the depth of the file is not
/// limited yet.
#[derive(Default)]
struct Builder {
    marks: Marks,
    open: Vec<Open>,
    anchors: BTreeMap<usize, usize>,
}

/// A sequence or mapping whose end was not parsed yet.
struct Open {
    node: usize,
    /// The key whose value comes next.
    key: Option<(String, Position)>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) {
        let position = Position {
            line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col())
                .unwrap_or(u32::MAX)
                .saturating_add(1),
        };
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.add(
                    PositionNode {
                        position,
                        content: Content::Scalar(text.into_owned()),
                    },
                    anchor,
                );
            }
            Event::SequenceStart(anchor, _) => {
                let node = self.add(
                    PositionNode {
                        position,
                        content: Content::Sequence(Vec::new()),
                    },
                    anchor,
                );
                self.open.push(Open { node, key: None });
            }
            Event::MappingStart(anchor, _) => {
                let node = self.add(
                    PositionNode {
                        position,
                        content: Content::Mapping(Vec::new()),
                    },
                    anchor,
                );
                self.open.push(Open { node, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.place(*node, position),
                None => {
                    self.add(
                        PositionNode {
                            position,
                            content: Content::Scalar(String::new()),
                        },
                        0,
                    );
                }
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }

    fn add(&mut self, node: PositionNode, anchor: usize) -> usize {
        let (id, position) = (self.marks.nodes.len(), node.position);
        self.marks.nodes.push(node);
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        self.place(id, position);
        id
    }

    /// Adds a node to the innermost open sequence or mapping.
    fn place(&mut self, id: usize, position: Position) {
        let Some(open) = self.open.last_mut() else {
            self.marks.documents.push(id);
            return;
        };
        let key = match &self.marks.nodes[id].content {
            Content::Scalar(text) => text.clone(),
            _ => String::new(),
        };
        match &mut self.marks.nodes[open.node].content {
            Content::Scalar(_) => {}
            Content::Sequence(items) => items.push(id),
            Content::Mapping(entries) => match open.key.take() {
                Some((key, at)) => entries.push((key, at, id)),
                None => open.key = Some((key, position)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: u32, field: &str) -> (u32, u32) {
        let position = Marks::read(text).locate(line, field);
        position.map_or((0, 0), |position| (position.line, position.column))
    }

    #[test]
    fn keys_items_and_missing_fields_are_located() {
        let text = "# one\nkind: Pod\nspec:\n  containers:\n  - name: a\n    image: b\n---\nkind: Service\nspec: {ports: [{port: 1}]}\n";
        assert_eq!(at(text, 2, "spec.containers[0].image"), (6, 5));
        assert_eq!(at(text, 2, "spec.containers[0]"), (5, 5));
        assert_eq!(at(text, 2, "spec.containers[0].ports[3].name"), (5, 5));
        assert_eq!(at(text, 8, "spec.ports[0].port"), (9, 17));
        assert_eq!(at(text, 8, ""), (8, 1));
        assert_eq!(at(text, 5, ""), (0, 0));
    }

    #[test]
    fn keys_with_dots_aliases_and_merge_keys_are_located() {
        let text = "metadata: &m\n  labels:\n    app.example.com/name: x\ncopy: *m\nmerged:\n  <<: *m\n  y: 1\n";
        assert_eq!(at(text, 1, "metadata.labels[app.example.com/name]"), (3, 5));
        assert_eq!(at(text, 1, "copy.labels[app.example.com/name]"), (3, 5));
        assert_eq!(at(text, 1, "merged.labels"), (2, 3));
        assert_eq!(at(text, 1, "merged.y"), (7, 3));

        let text = "a: &a\n  x: 1\nb: &b\n  y: 1\nmerged:\n  <<: [*a, *b]\n  z: 1\n";
        assert_eq!(at(text, 1, "merged.x"), (2, 3));
        assert_eq!(at(text, 1, "merged.y"), (4, 3));
        assert_eq!(at(text, 1, "merged.z"), (7, 3));
    }

    #[test]
    fn a_merge_key_with_the_mapping_that_contains_it_leads_nowhere() {
        assert_eq!(at("a: &a\n  <<: *a\n", 1, "a.x"), (1, 1));
        assert_eq!(at("a: &a\n  <<: [*a]\n", 1, "a.x"), (1, 1));
    }

    #[test]
    fn items_of_a_list_are_located_by_their_own_line() {
        let text = "kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n- kind: Pod\n  metadata: {name: b}\n";
        assert_eq!(Marks::read(text).item_lines(0), vec![3, 5]);
        assert_eq!(at(text, 5, "metadata.name"), (6, 14));
    }
}
