//! Tables in kubectl's layout: three spaces between columns, none at the end of a line.

use std::io::{self, Write};

use serde_json::Value;

/// What asks the API for a table.
pub(super) const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The widths of columns. They only ever grow, so that the lines of a watch stay under each other.
#[derive(Default)]
pub(super) struct Widths(Vec<usize>);

impl Widths {
    /// Makes room for these cells.
    pub(super) fn fit(&mut self, cells: &[String]) {
        self.0.resize(self.0.len().max(cells.len()), 0);
        for (width, cell) in self.0.iter_mut().zip(cells) {
            // kubectl's tabwriter has a padding of three and a least width of six.
            *width = (*width).max(cell.chars().count() + 3).max(6);
        }
    }

    /// Prints a line.
    pub(super) fn line(&self, cells: &[String], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            let width = self.0.get(index).copied().unwrap_or_default();
            if index + 1 < cells.len() {
                line.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()),
                ));
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Prints a heading and lines.
pub(super) fn print(
    heading: &[&str],
    lines: &[Vec<String>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let heading: Vec<String> = heading.iter().map(ToString::to_string).collect();
    let mut widths = Widths::default();
    widths.fit(&heading);
    lines.iter().for_each(|line| widths.fit(line));
    widths.line(&heading, out)?;
    lines.iter().try_for_each(|line| widths.line(line, out))
}

/// A `meta.k8s.io` Table, read.
pub(super) struct ApiTable {
    columns: Vec<(String, bool)>,
    name: Option<usize>,
    rows: Vec<Value>,
}

impl ApiTable {
    /// Reads an answer; columns come once, with the first event of a watch.
    pub(super) fn new(table: Value) -> Self {
        let mut columns = Vec::new();
        let mut name = None;
        for (index, column) in table["columnDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            if column["format"] == "name" {
                name = Some(index);
            }
            let title = column["name"].as_str().unwrap_or_default().to_uppercase();
            columns.push((title, column["priority"].as_i64().unwrap_or_default() > 0));
        }
        let rows = table["rows"].as_array().cloned().unwrap_or_default();
        Self {
            columns,
            name,
            rows,
        }
    }

    /// Nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The titles.
    pub(super) fn heading(&self, style: &Style) -> Vec<String> {
        let titles = self
            .columns
            .iter()
            .filter(|(_, wide)| style.wide || !wide)
            .map(|(title, _)| title.clone());
        let first = style.namespaces.then(|| "NAMESPACE".to_owned());
        first.into_iter().chain(titles).collect()
    }

    /// The cells of each row.
    pub(super) fn lines(&self, style: &Style) -> Vec<Vec<String>> {
        self.rows.iter().map(|row| self.line(row, style)).collect()
    }

    fn line(&self, row: &Value, style: &Style) -> Vec<String> {
        let namespace = row
            .pointer("/object/metadata/namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut line = Vec::new();
        if style.namespaces {
            line.push(namespace.to_owned());
        }
        let cells = row["cells"].as_array().into_iter().flatten();
        for (index, cell) in cells.enumerate() {
            if self
                .columns
                .get(index)
                .is_some_and(|(_, wide)| *wide && !style.wide)
            {
                continue;
            }
            let text = cell
                .as_str()
                .map_or_else(|| cell.to_string(), str::to_owned);
            match (&style.prefix, self.name == Some(index)) {
                (Some(prefix), true) => line.push(format!("{prefix}/{text}")),
                _ => line.push(text),
            }
        }
        line
    }
}

/// How a table is shown.
#[derive(Default)]
pub(super) struct Style {
    /// All columns.
    pub(super) wide: bool,
    /// A column of namespaces before the others.
    pub(super) namespaces: bool,
    /// What is put before names where several kinds are shown.
    pub(super) prefix: Option<String>,
}
