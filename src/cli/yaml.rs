//! Objects as YAML. Texts that a terminal would act on are quoted and escaped, so that the YAML can
//! be read back.

use std::fmt::Write;

use reconciler::foreign::is_unprintable;
use serde_json::Value;

use super::exit::CliError;

/// The YAML of an object.
///
/// serde_yaml prints invisible characters, such as those that change the direction of writing,
/// unescaped. A text with such a character is therefore replaced by a placeholder, and in the
/// printed YAML the placeholder is replaced by the text in double quotes.
pub(super) fn text(mut object: Value) -> Result<String, CliError> {
    let json = object.to_string();
    let unused = (0_usize..)
        .map(|number| format!("quoted-{number}-"))
        .find(|word| !json.contains(word));
    let mut quoted = Vec::new();
    take_out(&mut object, &unused.unwrap_or_default(), &mut quoted);
    let mut text =
        serde_yaml::to_string(&object).map_err(|error| CliError::Broken(error.to_string()))?;
    for (word, original) in quoted {
        text = text.replacen(&word, &in_double_quotes(&original), 1);
    }
    Ok(text)
}

fn take_out(value: &mut Value, prefix: &str, quoted: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) if text.chars().any(is_strange) => {
            let word = format!("{prefix}{}-", quoted.len());
            let original = std::mem::replace(text, word.clone());
            quoted.push((word, original));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| take_out(item, prefix, quoted)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|item| take_out(item, prefix, quoted)),
        _ => {}
    }
}

fn is_strange(c: char) -> bool {
    is_unprintable(c) && c != '\n' && c != '\t'
}

/// YAML 1.2, 5.7: `\u` and four digits, `\U` and eight.
fn in_double_quotes(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let code = u32::from(c);
        // Writing to a `String` cannot fail.
        match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\n' => write!(quoted, "\\n"),
            c if is_unprintable(c) && code <= 0xffff => write!(quoted, "\\u{code:04x}"),
            c if is_unprintable(c) => write!(quoted, "\\U{code:08x}"),
            c => write!(quoted, "{c}"),
        }
        .unwrap_or_default();
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_quoted_and_can_be_read_back() {
        let object = json!({
            "message": "over\r\u{1b}[2J \u{202e}\u{e0041}\u{7f}\u{9b} \"quoted\" C:\\n\nnext\tline",
            "plain": "a\nb\tc", "word": "quoted-0-0-", "list": ["\u{200b}", "größer"],
        });
        let text = text(object.clone()).unwrap();
        assert!(!text.chars().any(is_strange), "{text}");
        assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), object);
        assert_eq!(super::text(json!({ "a": "b" })).unwrap(), "a: b\n");
    }
}
