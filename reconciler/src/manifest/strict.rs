//! Deserializes values to Kubernetes' structs strictly: unknown fields and wrong types are
//! problems, and all of them are reported at once.
//!
//! A value of a wrong type is reported and read as zero or empty, so that reading continues; only
//! an error of a struct's own code (for a timestamp) ends the document.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
    value::BorrowedStrDeserializer,
};
use serde_json::{Map, Value};

use super::{at::At, similar};

/// Reads a value and reports its problems; `None` if an error ended the reading.
pub(super) fn read<'de, T: Deserialize<'de>>(value: &'de Value, at: &At<'_>) -> Option<T> {
    match T::deserialize(Strict {
        value,
        at,
        number_is_text: false,
    }) {
        Ok(read) => Some(read),
        Err(Stop(None)) => None,
        Err(Stop(Some(message))) => {
            at.error(message);
            None
        }
    }
}

/// Why reading ended; `None` inside once the problem has been reported.
#[derive(Debug)]
struct Stop(Option<String>);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("already reported"))
    }
}

impl std::error::Error for Stop {}

/// Messages never contain the value, since it may be a secret.
impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Some(message.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(Some(format!("must be {expected}")))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(Some(format!("must be {expected}")))
    }
}

/// A value with its position.
#[derive(Clone, Copy)]
struct Strict<'de, 'a> {
    value: &'de Value,
    at: &'a At<'a>,
    /// Whether a number is accepted where a text is expected, as for quantities.
    number_is_text: bool,
}

impl<'de> Strict<'de, '_> {
    fn wrong(&self, expected: &str) {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        let hint = match (expected, self.value) {
            ("a text", Value::Bool(_) | Value::Number(_)) => ": write it in quotes",
            ("a whole number", Value::String(text)) if text.parse::<i64>().is_ok() => {
                ": remove the quotes"
            }
            ("true or false", Value::String(text)) if text == "true" || text == "false" => {
                ": remove the quotes"
            }
            _ => "",
        };
        self.at
            .error(format_args!("must be {expected}, not {found}{hint}"));
    }

    fn integer(&self, least: i64, most: i64) -> i64 {
        match self.value {
            Value::Null => 0,
            Value::Number(number) => match number.as_i64() {
                Some(number) if (least..=most).contains(&number) => number,
                _ if number.is_f64() => {
                    self.at.error("must be a whole number");
                    0
                }
                _ => {
                    self.at.error("this number is out of range");
                    0
                }
            },
            _ => {
                self.wrong("a whole number");
                0
            }
        }
    }

    /// The entries of a mapping; `None` after a problem.
    fn entries(&self) -> Option<&'de Map<String, Value>> {
        match self.value {
            Value::Object(entries) => Some(entries),
            Value::Null => None,
            _ => {
                self.wrong("a mapping");
                None
            }
        }
    }
}

/// Marks an error as reported at a position.
fn reported(at: &At<'_>, stop: Stop) -> Stop {
    if let Some(message) = stop.0 {
        at.error(message);
    }
    Stop(None)
}

impl<'de> Deserializer<'de> for Strict<'de, '_> {
    type Error = Stop;

    /// Deserializes numbers or texts (`IntOrString`), and free-form values.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            Value::Number(number) if self.number_is_text => {
                visitor.visit_string(number.to_string())
            }
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                visitor.visit_i64(self.integer(i32::MIN.into(), i32::MAX.into()))
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            Value::Null => visitor.visit_i64(0),
            Value::Number(_) | Value::Bool(_) => {
                self.wrong("a whole number or a text");
                visitor.visit_i64(0)
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Null => visitor.visit_bool(false),
            _ => {
                self.wrong("true or false");
                visitor.visit_bool(false)
            }
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_i64(self.integer(i32::MIN.into(), i32::MAX.into()))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_i64(self.integer(i64::MIN, i64::MAX))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) if self.number_is_text => {
                visitor.visit_string(number.to_string())
            }
            Value::Null => visitor.visit_str(""),
            _ => {
                self.wrong("a text");
                visitor.visit_str("").map_err(|_: Stop| Stop(None))
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(Self {
            number_is_text: name == "Quantity",
            ..self
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let items: &[Value] = match self.value {
            Value::Array(items) => items,
            Value::Null => &[],
            _ => {
                self.wrong("a list");
                &[]
            }
        };
        visitor.visit_seq(Items {
            items: items.iter().enumerate(),
            at: self.at,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let entries = self.entries();
        visitor.visit_map(Entries {
            entries: entries.map(Map::iter),
            value: None,
            at: self.at,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let entries = self.entries();
        for key in entries.into_iter().flat_map(Map::keys) {
            if !fields.contains(&key.as_str()) {
                unknown_field(&self.at.field(key), key, fields);
            }
        }
        visitor.visit_map(Entries {
            entries: entries.map(Map::iter),
            value: None,
            at: self.at,
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

fn unknown_field(at: &At<'_>, key: &str, fields: &[&'static str]) {
    let hint = similar::did_you_mean(key, fields.iter().copied());
    if hint.is_empty() && fields.len() <= 8 && !fields.is_empty() {
        at.error(format_args!(
            "unknown field: remove it; known here are {}",
            fields.join(", ")
        ));
    } else {
        at.error(format_args!("unknown field{hint}: correct or remove it"));
    }
}

struct Items<'de, 'a> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    at: &'a At<'a>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        let Some((index, value)) = self.items.next() else {
            return Ok(None);
        };
        let at = self.at.index(index);
        let read = seed.deserialize(Strict {
            value,
            at: &at,
            number_is_text: false,
        });
        read.map(Some).map_err(|stop| reported(&at, stop))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de, 'a> {
    entries: Option<serde_json::map::Iter<'de>>,
    value: Option<(&'de str, &'de Value)>,
    at: &'a At<'a>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        let Some((key, value)) = self.entries.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        self.value = Some((key, value));
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some((key, value)) = self.value.take() else {
            return Err(Stop(None));
        };
        let at = self.at.field(key);
        let read = seed.deserialize(Strict {
            value,
            at: &at,
            number_is_text: false,
        });
        read.map_err(|stop| reported(&at, stop))
    }
}
