//! Converts one YAML document to a value, by a serde seed that spends a budget and refuses what
//! kubectl would read differently.

use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::manifest::Limits;

/// Marks this module's own messages: the parsers' error types do not tell who reported an error,
/// and prepend a path to the message.
pub(super) const OURS: &str = "\u{1}";

fn ours<E: de::Error>(message: impl fmt::Display) -> E {
    E::custom(format_args!("{OURS}{message}"))
}

/// The text that is read, with the rest of its budget.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    budget: Cell<usize>,
    depth: usize,
    first_key: Cell<Option<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, limits: &Limits) -> Self {
        let nodes = limits.nodes.max(text.len() / 10);
        Self {
            text,
            budget: Cell::new(nodes),
            depth: limits.depth,
            first_key: Cell::new(None),
        }
    }

    /// Reads the next document; returns its value, and the position of its first key.
    pub(super) fn document<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<(Value, Option<usize>), D::Error> {
        self.first_key.set(None);
        let value = YamlNode {
            source: self,
            depth: 0,
        }
        .deserialize(deserializer)?;
        Ok((value, self.first_key.get()))
    }

    /// Whether the budget is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.get() == 0
    }

    /// Position of a borrowed slice in the text.
    fn offset(&self, piece: &str) -> Option<usize> {
        let offset = (piece.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if offset < self.text.len() {
            Some(offset)
        } else {
            None
        }
    }

    /// Whether a slice of the text is a plain scalar, without quotes. serde_yaml does not
    /// distinguish plain and quoted scalars, but it borrows both from its input, where the
    /// preceding byte is the quote.
    fn is_plain(&self, piece: &str) -> bool {
        match self.offset(piece) {
            Some(0) => true,
            Some(offset) => !matches!(self.text.as_bytes()[offset - 1], b'"' | b'\''),
            None => false,
        }
    }
}

/// The value of a plain scalar in YAML 1.1, as kubectl reads it, where YAML 1.2 reads a text.
fn yaml_1_1(text: &str) -> Option<Value> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(Value::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(Value::Bool(false)),
        _ => {}
    }

    // A number that begins with zero is octal in YAML 1.1, if its digits allow that.
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    if digits.len() < 2 || !digits.starts_with('0') {
        return None;
    }
    let number = i64::from_str_radix(digits, 8)
        .or_else(|_| digits.parse())
        .ok()?;
    Some(Value::from(sign * number))
}

/// Reads one node to a value.
#[derive(Clone, Copy)]
struct YamlNode<'s> {
    source: &'s Source<'s>,
    depth: usize,
}

impl YamlNode<'_> {
    fn below<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.source.depth {
            return Err(ours(format_args!(
                "nested deeper than {}: flatten it",
                self.source.depth
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for YamlNode<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let budget = self.source.budget.get();
        if budget == 0 {
            return Err(ours(
                "the file expands to too many values: split it, or use fewer aliases",
            ));
        }
        self.source.budget.set(budget - 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for YamlNode<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Value, E> {
        Err(ours(
            "this number is too large: write it in quotes if it is a text",
        ))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Value, E> {
        Err(ours(
            "this number is too large: write it in quotes if it is a text",
        ))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| {
            ours("neither infinity nor NaN is a value here: write it in quotes if it is a text")
        })
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value, E> {
        // The first letter excludes almost every text before its quotes are looked for.
        let may_differ = matches!(
            value.as_bytes(),
            [
                b'-' | b'0'..=b'9' | b'y' | b'Y' | b'n' | b'N' | b'o' | b'O',
                ..
            ]
        );
        if may_differ
            && self.source.is_plain(value)
            && let Some(value) = yaml_1_1(value)
        {
            return Ok(value);
        }
        Ok(Value::String(value.to_owned()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let element = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(element)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let child = self.below()?;
        let (mut entries, mut merged) = (Map::new(), Vec::new());
        while let Some(key) = map.next_key_seed(Key {
            node: self,
            entries: &entries,
        })? {
            let value = map.next_value_seed(child)?;
            match key {
                MapKey::Merge => merged.push(value),
                MapKey::Text(key) => {
                    entries.insert(key, value);
                }
            }
        }
        for value in merged {
            merge(&mut entries, value)?;
        }
        Ok(Value::Object(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (tag, _) = data.variant::<String>()?;
        Err(ours(format_args!(
            "the tag !{} is not known: another tool gives it a meaning; commit what that tool makes of the value",
            tag.trim_start_matches('!')
        )))
    }
}

/// Adds the entries of merge keys (`<<: *base`); the mapping's own entries take precedence.
fn merge<E: de::Error>(entries: &mut Map<String, Value>, value: Value) -> Result<(), E> {
    let bases = match value {
        Value::Array(bases) => bases,
        base => vec![base],
    };
    for base in bases {
        let Value::Object(base) = base else {
            return Err(ours(
                "a merge key (<<) takes a mapping or a list of mappings",
            ));
        };
        for (key, value) in base {
            entries.entry(key).or_insert(value);
        }
    }
    Ok(())
}

enum MapKey {
    Text(String),
    Merge,
}

/// Reads one more key of a mapping.
struct Key<'s, 'm> {
    node: YamlNode<'s>,
    entries: &'m Map<String, Value>,
}

impl Key<'_, '_> {
    fn text<E: de::Error>(&self, key: String) -> Result<MapKey, E> {
        if self.entries.contains_key(&key) {
            return Err(ours(format_args!(
                "the key {key:?} is there twice: keep one"
            )));
        }
        Ok(MapKey::Text(key))
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = MapKey;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<MapKey, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = MapKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<MapKey, E> {
        self.text(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<MapKey, E> {
        self.text(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<MapKey, E> {
        self.text(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<MapKey, E> {
        Err(ours(
            "this key would be read as a number: write it in quotes",
        ))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<MapKey, E> {
        let source = self.node.source;
        if self.node.depth == 0 && source.first_key.get().is_none() {
            source.first_key.set(source.offset(value));
        }
        if value == "<<" && source.is_plain(value) {
            return Ok(MapKey::Merge);
        }
        if yaml_1_1(value).is_some() && source.is_plain(value) {
            return Err(ours(format_args!(
                "the key {value} would be read as a boolean or a number: write it in quotes"
            )));
        }
        self.text(value.to_owned())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<MapKey, E> {
        self.text(value.to_owned())
    }

    fn visit_unit<E: de::Error>(self) -> Result<MapKey, E> {
        Err(ours(
            "a key must not be empty: give it a name, or quotes if it is one",
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<MapKey, A::Error> {
        Err(ours(
            "a key must be a text, not a list: write braces of templates in quotes",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<MapKey, A::Error> {
        Err(ours(
            "a key must be a text, not a mapping: write braces of templates in quotes",
        ))
    }
}
