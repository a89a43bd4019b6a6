//! Tables in kubectl's layout: three spaces between columns, no space at the end of a line.

use std::io::{self, Write};

use serde::Deserialize;

use crate::http::api::{Cell, ColumnDefinition, KubernetesTable, TableRow};

/// The value of `Accept` that requests a table.
pub(super) const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The widths of columns. They only grow, so that the lines of a watch stay aligned.
#[derive(Default)]
pub(super) struct Widths(Vec<usize>);

impl Widths {
    /// Widens the columns to fit these cells.
    pub(super) fn fit(&mut self, cells: &[String]) {
        self.0.resize(self.0.len().max(cells.len()), 0);
        for (width, cell) in self.0.iter_mut().zip(cells) {
            // kubectl's tabwriter has a padding of three and a minimum width of six.
            *width = (*width).max(cell.chars().count() + 3).max(6);
        }
    }

    /// The width of all columns but the last.
    pub(super) fn before_last(&self) -> usize {
        self.0.iter().rev().skip(1).sum()
    }

    /// Prints cells as one line, each padded to the width of its column.
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

/// Prints a whole table, whose columns fit all of its cells.
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

/// A table as the API sends it; a row has the `metadata` of its object.
pub(super) type GetTable = KubernetesTable<RowMetadata>;

/// The object of a row.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RowMetadata {
    metadata: RowNamespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RowNamespace {
    namespace: String,
}

/// The titles of a table; the first column may be one of namespaces.
pub(super) fn heading(table: &GetTable, style: &Style) -> Vec<String> {
    let columns = table.column_definitions.iter();
    let titles = columns
        .filter(|column| style.shows(column))
        .map(|column| column.name.to_uppercase());
    let first = style.namespaces.then(|| "NAMESPACE".to_owned());
    first.into_iter().chain(titles).collect()
}

/// The cells of each row, under [`heading`].
pub(super) fn lines(table: &GetTable, style: &Style) -> Vec<Vec<String>> {
    let rows = table.rows.iter();
    rows.map(|row| line(table, row, style)).collect()
}

fn line(table: &GetTable, row: &TableRow<RowMetadata>, style: &Style) -> Vec<String> {
    let mut line = Vec::new();
    if style.namespaces {
        let object = row.object.as_ref();
        line.push(object.map_or_else(String::new, |object| object.metadata.namespace.clone()));
    }
    for (cell, column) in row.cells.iter().zip(&table.column_definitions) {
        if !style.shows(column) {
            continue;
        }
        let text = match cell {
            Cell::Integer(number) => number.to_string(),
            Cell::Text(text) => text.clone(),
        };
        match &style.prefix {
            Some(prefix) if column.format == "name" => line.push(format!("{prefix}/{text}")),
            _ => line.push(text),
        }
    }
    line
}

/// How a table is shown.
#[derive(Default)]
pub(super) struct Style {
    /// Whether the columns of `-o wide` are shown.
    pub(super) wide: bool,
    /// Whether the first column is the namespace.
    pub(super) namespaces: bool,
    /// The kind that is printed before names if several kinds are shown.
    pub(super) prefix: Option<String>,
}

impl Style {
    fn shows(&self, column: &ColumnDefinition) -> bool {
        self.wide || column.priority == 0
    }
}
