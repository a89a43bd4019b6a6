//! Text of another origin: bounded and escaped where it enters, and escaped again where it is
//! printed.

use std::{borrow::Cow, fmt, fmt::Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Maximum size of one foreign text in bytes, unless its kind has its own limit.
pub const DEFAULT_BYTES: usize = 1024;
/// Maximum size in bytes of a sentence that another host or an earlier version wrote. It is larger
/// than any sentence of Windlass, so that a sentence is read as it was written.
pub const SENTENCE_BYTES: usize = 64 * 1024;
/// The end of a text that was cut.
const CUT: &str = "...";

/// Text of an engine, a kernel, a registry, a remote repository, a container, another host, or a
/// commit that was not judged yet. It is one line of bounded length, and each character that would
/// act on a terminal or be invisible is escaped as Rust escapes it: `\n`, `\u{1b}`, `\u{202e}`.
///
/// A backslash is not escaped. Escaping an escaped text therefore changes nothing, and a text may
/// be escaped at each edge that it crosses. The disadvantage is that a foreign text with the two
/// characters `\n` looks like one with a line break: the text is meant for people, and no code
/// restores the original from it.
///
/// No decision depends on the content: the type has no order, no hash and no search. Equality only
/// serves to detect that a view has changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ForeignText(String);

impl ForeignText {
    /// Escapes a text, up to [`DEFAULT_BYTES`] bytes; a longer text is cut.
    pub fn new(text: &str) -> Self {
        Self::bounded(text, DEFAULT_BYTES)
    }

    /// Escapes a text, up to `most_bytes` bytes when escaped; a longer text is cut between two
    /// characters and ends with `...`, which is counted too.
    pub fn bounded(text: &str, most_bytes: usize) -> Self {
        let mut escaped = String::with_capacity(text.len().min(most_bytes));
        // Number of bytes that stay if the whole text does not fit.
        let mut kept = 0;
        for c in text.chars() {
            push_escaped(c, &mut escaped);
            if escaped.len() > most_bytes {
                escaped.truncate(kept);
                escaped.push_str(&CUT[..CUT.len().min(most_bytes)]);
                break;
            }
            if escaped.len() + CUT.len() <= most_bytes {
                kept = escaped.len();
            }
        }
        Self(escaped)
    }

    /// Escapes a text that its writer has bounded already, up to [`SENTENCE_BYTES`] bytes.
    pub fn sentence(text: &str) -> Self {
        Self::bounded(text, SENTENCE_BYTES)
    }

    /// As [`Self::bounded`], for bytes; invalid UTF-8 becomes U+FFFD.
    pub fn from_bytes(bytes: &[u8], most_bytes: usize) -> Self {
        // A character has at most four bytes, and one character that does not fit is enough to
        // detect that the text must be cut.
        let read = bytes.get(..most_bytes.saturating_add(4)).unwrap_or(bytes);
        Self::bounded(&String::from_utf8_lossy(read), most_bytes)
    }

    /// Escapes the output of a program that breaks and indents its lines: each run of white space
    /// becomes one space.
    pub fn words(text: &str, most_bytes: usize) -> Self {
        // A space is at most one byte longer than the white space that it replaces.
        let words = text
            .split(|c: char| c.is_whitespace())
            .filter(|word| !word.is_empty());
        Self::bounded(&words.collect::<Vec<_>>().join(" "), most_bytes)
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl From<ForeignText> for String {
    fn from(text: ForeignText) -> Self {
        text.0
    }
}

impl Serialize for ForeignText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text is escaped again, since its writer may not have escaped it.
impl<'de> Deserialize<'de> for ForeignText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// A sentence in the form in which it is printed: it may contain foreign text, perhaps stored by a
/// version that did not escape. Nothing is cut.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, &[])
}

/// As [`escape`], but some characters are not escaped: line breaks and tabs where whole lines are
/// printed.
pub fn escape_but<'t>(text: &'t str, left: &[char]) -> Cow<'t, str> {
    let strange = |c: char| is_unprintable(c) && !left.contains(&c);
    if !text.contains(strange) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if strange(c) {
            push_escaped(c, &mut escaped)
        } else {
            escaped.push(c)
        }
    }
    Cow::Owned(escaped)
}

/// Escapes all texts of a JSON document, its keys included, for printing.
pub fn escape_value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(escaped) = escape(text) {
                *text = escaped;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(escape_value),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains(is_unprintable)) {
                let escaped = std::mem::take(fields).into_iter();
                *fields = escaped
                    .map(|(key, value)| (escape(&key).into_owned(), value))
                    .collect();
            }
            fields.values_mut().for_each(escape_value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A JSON text with the same meaning and without unprintable characters except its own line breaks:
/// all other unprintable characters are inside strings, where JSON can escape them.
pub fn escape_json(text: &str) -> Cow<'_, str> {
    let strange = |c: char| is_unprintable(c) && c != '\n';
    if !text.contains(strange) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if strange(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                write!(escaped, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// For `#[serde(deserialize_with)]`: a sentence in a document of another host or of an earlier
/// version.
pub fn sentence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| match escape(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    })
}

/// As [`sentence`], for an optional text.
pub fn optional_sentence<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| escape(&text).into_owned()))
}

/// For `#[serde(deserialize_with)]`: a text that its writer has bounded already, up to
/// [`SENTENCE_BYTES`] bytes.
pub fn report<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ForeignText, D::Error> {
    String::deserialize(deserializer).map(|text| ForeignText::sentence(&text))
}

/// As [`report`], for several texts.
pub fn reports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ForeignText>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Ok(texts
        .iter()
        .map(|text| ForeignText::sentence(text))
        .collect())
}

/// As [`report`], for an optional text.
pub fn optional_report<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ForeignText>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| ForeignText::sentence(&text)))
}

/// Whether a character acts on a terminal, ends a line, changes the direction of writing, or is
/// invisible.
pub fn is_unprintable(c: char) -> bool {
    // C0, DEL and C1 controls, which include line breaks, tabs, ESC and CSI.
    c.is_control()
        || matches!(
            c,
            // The soft hyphen, the combining grapheme joiner and the Arabic letter mark.
            '\u{ad}' | '\u{34f}' | '\u{61c}'
            // Fillers of Hangul, inherent vowels of Khmer and the Mongolian vowel separator: all
            // are invisible.
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}'
            // Zero-width characters and direction marks; line and paragraph separators; embeddings
            // and overrides; invisible operators, isolates and deprecated digit shape controls.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // The byte order mark and interlinear annotations.
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            // Shorthand and musical format controls.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            // Tags and variation selectors, which can carry whole texts invisibly.
            | '\u{e0000}'..='\u{e0fff}'
        )
}

fn push_escaped(c: char, text: &mut String) {
    match c {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        // Writing to a `String` cannot fail.
        c if is_unprintable(c) => write!(text, "{}", c.escape_unicode()).unwrap_or_default(),
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Arbitrary texts, with terminal control characters more frequent than by chance.
    fn texts() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![
            '\0',
            '\u{7}',
            '\u{8}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fffd}',
            '\u{e0041}',
            '\\',
            '.',
            'ä',
            '語',
            '🙂',
        ]);
        prop::collection::vec(prop_oneof![odd, any::<char>()], 0..200)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn nothing_unprintable_is_left_and_it_is_bounded(text in texts(), most in 0_usize..300) {
            let foreign = ForeignText::bounded(&text, most);
            prop_assert!(!foreign.as_str().contains(is_unprintable));
            prop_assert_eq!(foreign.as_str().lines().count(), usize::from(!foreign.is_empty()));
            prop_assert!(foreign.as_str().len() <= most);
            prop_assert!(!escape(&text).contains(is_unprintable));
        }

        #[test]
        fn escaping_again_changes_nothing(text in texts(), most in 0_usize..300) {
            let once = ForeignText::bounded(&text, most);
            prop_assert_eq!(&ForeignText::bounded(once.as_str(), most), &once);
            prop_assert_eq!(escape(once.as_str()), once.as_str());
            let whole = escape(&text);
            prop_assert_eq!(escape(&whole), whole.as_ref());
            let unbounded = ForeignText::bounded(&text, usize::MAX);
            prop_assert_eq!(unbounded.as_str(), whole.as_ref());
        }

        #[test]
        fn what_fits_is_whole_and_what_does_not_is_a_beginning(text in texts(), most in 3_usize..300) {
            let whole = escape(&text);
            let foreign = ForeignText::bounded(&text, most);
            match foreign.as_str().strip_suffix(CUT).filter(|_| whole.len() > most) {
                Some(start) => prop_assert!(whole.starts_with(start)),
                None => prop_assert_eq!(foreign.as_str(), whole.as_ref()),
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300), most in 0_usize..300) {
            let foreign = ForeignText::from_bytes(&bytes, most);
            prop_assert!(!foreign.as_str().contains(is_unprintable) && foreign.as_str().len() <= most);
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(foreign, ForeignText::bounded(&text, most));
        }

        #[test]
        fn json_keeps_its_meaning(text in texts()) {
            let plain = serde_json::to_string(&[&text]).expect("a text");
            let escaped = escape_json(&plain);
            prop_assert!(!escaped.contains(is_unprintable));
            prop_assert_eq!(&serde_json::from_str::<[String; 1]>(&escaped).expect("a text")[0], &text);
            let mut value = serde_json::json!({ text.as_str(): [&text] });
            escape_value(&mut value);
            prop_assert!(!serde_json::to_string(&value).expect("a text").contains(is_unprintable));
        }

        #[test]
        fn it_is_read_back_as_it_was_written_down(text in texts()) {
            let foreign = ForeignText::new(&text);
            let json = serde_json::to_string(&foreign).expect("a text");
            prop_assert_eq!(&serde_json::from_str::<ForeignText>(&json).expect("a text"), &foreign);
            let raw = serde_json::to_string(&text).expect("a text");
            prop_assert_eq!(serde_json::from_str::<ForeignText>(&raw).expect("a text"), foreign);
        }
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        let shown = |text: &str| ForeignText::new(text).to_string();
        assert_eq!(
            shown("a\r\nb\t\u{1b}[2J\u{9b}2J"),
            r"a\r\nb\t\u{1b}[2J\u{9b}2J"
        );
        assert_eq!(
            shown("\u{202e}gpj.exe\u{2069}\u{200b}"),
            r"\u{202e}gpj.exe\u{2069}\u{200b}"
        );
        assert_eq!(shown("größer, 語, 🙂, C:\\new"), "größer, 語, 🙂, C:\\new");
        assert_eq!(
            ForeignText::from_bytes(b"\xff\x1b]0;x\x07", 40).as_str(),
            "\u{fffd}\\u{1b}]0;x\\u{7}"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(ForeignText::bounded("abcdef", 6).as_str(), "abcdef");
        assert_eq!(ForeignText::bounded("abcdefg", 6).as_str(), "abc...");
        assert_eq!(ForeignText::bounded("äääää", 8).as_str(), "ää...");
        assert_eq!(ForeignText::bounded("ab\u{1b}cdef", 8).as_str(), "ab...");
        assert_eq!(
            ForeignText::new(&"x".repeat(1 << 20)).as_str().len(),
            DEFAULT_BYTES
        );
    }

    #[test]
    fn a_programs_lines_become_one() {
        let text = "Error: syntax error\n\tadd rule \u{1b}[1m\r\n            ^^^^\n";
        assert_eq!(
            ForeignText::words(text, 600).as_str(),
            r"Error: syntax error add rule \u{1b}[1m ^^^^"
        );
    }

    #[test]
    fn texts_of_documents_are_escaped_as_they_are_read() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Texts {
            #[serde(deserialize_with = "sentence")]
            sentence: String,
            #[serde(deserialize_with = "optional_sentence")]
            optional_sentence: Option<String>,
            #[serde(deserialize_with = "report")]
            report: ForeignText,
            #[serde(deserialize_with = "optional_report")]
            optional_report: Option<ForeignText>,
        }
        let long = format!("a\u{1b}{}", "b".repeat(2 * SENTENCE_BYTES));
        let read = |optional: Option<&str>| {
            let document = serde_json::json!({
                "sentence": &long,
                "optional_sentence": optional,
                "report": &long,
                "optional_report": optional,
            });
            serde_json::from_value::<Texts>(document).expect("a document")
        };
        let (escaped, bounded) = (escape(&long).into_owned(), ForeignText::sentence(&long));
        assert!(escaped.starts_with("a\\u{1b}b") && bounded.as_str().len() == SENTENCE_BYTES);
        let expected = Texts {
            sentence: escaped.clone(),
            optional_sentence: Some(escaped),
            report: bounded.clone(),
            optional_report: Some(bounded),
        };
        assert_eq!(read(Some(&long)), expected);
        let without = Texts {
            optional_sentence: None,
            optional_report: None,
            ..expected
        };
        assert_eq!(read(None), without);
    }

    #[test]
    fn some_characters_may_be_left() {
        assert_eq!(escape_but("a\tb\n\u{1b}c", &['\n', '\t']), "a\tb\n\\u{1b}c");
        assert!(matches!(
            escape_but("a\tb\n", &['\n', '\t']),
            Cow::Borrowed(_)
        ));
    }
}
