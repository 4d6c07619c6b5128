//! A document of names and values, as text for people and as JSON (RFC 8259) for programs.

use std::fmt::Write as _;

/// Columns of a line. Chosen: fits every terminal.
const WIDTH: usize = 80;

/// Column at which values begin in the text.
const VALUES: usize = 22;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is none.
    None,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
    /// Several values.
    List(Vec<Self>),
    /// Names and values.
    Fields(Vec<(&'static str, Self)>),
}

impl Value {
    /// A text.
    pub fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// A text, or nothing.
    pub fn optional(text: Option<impl ToString>) -> Self {
        text.map_or(Self::None, Self::text)
    }

    /// A list of texts.
    pub fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// The document as JSON, in one line with its end.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out.push('\n');
        out
    }

    /// The document as text: a name and its value in each line, what belongs together indented.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text("", 0, &mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match self {
            Self::None => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => out.push_str(&value.to_string()),
            Self::Text(text) => quote(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.write_json(out);
                }
                out.push(']');
            }
            Self::Fields(fields) => {
                out.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    quote(name, out);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }

    fn write_text(&self, name: &str, depth: usize, out: &mut String) {
        let name = format!("{:indent$}{}", "", name.replace('_', " "), indent = 2 * depth);
        match self {
            Self::Fields(fields) => {
                let depth = if name.is_empty() {
                    0
                } else {
                    out.push_str(&format!("{name}\n"));
                    depth + 1
                };
                fields.iter().for_each(|(name, value)| value.write_text(name, depth, out));
            }
            Self::List(items) if !self.fits_a_line() => {
                let names = std::iter::once(name.as_str()).chain(std::iter::repeat(""));
                for (name, item) in names.zip(items) {
                    line(name, &item.inline(), out);
                }
            }
            value => line(&name, &value.inline(), out),
        }
    }

    /// Whether it is shown in one line.
    fn fits_a_line(&self) -> bool {
        match self {
            Self::List(items) => {
                let simple = !items.iter().any(|item| matches!(item, Self::Fields(_)));
                simple && self.inline().chars().count() < WIDTH - VALUES
            }
            Self::Fields(_) => false,
            _ => true,
        }
    }

    /// The value within a line.
    fn inline(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
            Self::Number(value) => value.to_string(),
            // No text of the host or the command line may forge a line or control a terminal.
            Self::Text(text) => {
                text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
            }
            Self::List(items) if items.is_empty() => "none".to_owned(),
            Self::List(items) => items.iter().map(Self::inline).collect::<Vec<_>>().join(" "),
            Self::Fields(fields) => {
                let fields = fields.iter().filter(|(_, value)| *value != Self::None);
                let fields = fields
                    .map(|(name, value)| format!("{} {}", name.replace('_', " "), value.inline()));
                fields.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

fn line(name: &str, value: &str, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name:<VALUES$} {value}");
}

/// Appends a string of JSON.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_line_for_each_name_and_value() {
        let routes = vec![
            Value::Fields(vec![("to", Value::text("a")), ("via", Value::None)]),
            Value::Fields(vec![("to", Value::text("b")), ("metric", Value::Number(1))]),
        ];
        let document = Value::Fields(vec![
            ("more_routes", Value::Number(0)),
            (
                "ipv4",
                Value::Fields(vec![("routes", Value::List(routes)), ("on", Value::Bool(true))]),
            ),
            ("remarks", Value::List(Vec::new())),
        ]);
        let wanted = "\
more routes            0
ipv4
  routes               to a
                       to b, metric 1
  on                   yes
remarks                none
";
        assert_eq!(document.to_text(), wanted);
    }

    #[test]
    fn list_of_words_is_one_line_as_long_as_it_fits() {
        let words = |count| Value::Fields(vec![("words", Value::texts(vec!["0123456789"; count]))]);
        assert_eq!(words(5).to_text().lines().count(), 1);
        assert_eq!(words(6).to_text().lines().count(), 6);
        assert!(words(5).to_text().lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn control_characters_stay_out_of_the_text() {
        let text = Value::Fields(vec![("word", Value::text("a\n\u{1b}[0m \"b\" 'c'"))]).to_text();
        assert_eq!(text, "word                   a\\n\\u{1b}[0m \"b\" 'c'\n");
    }

    #[test]
    fn json_is_what_a_parser_expects() {
        let document = Value::Fields(vec![
            ("none", Value::None),
            ("list", Value::List(vec![Value::Bool(false), Value::Number(u64::MAX)])),
            ("empty", Value::Fields(Vec::new())),
        ]);
        let wanted = serde_json::json!({ "none": null, "list": [false, u64::MAX], "empty": {} });
        let parsed: serde_json::Value = serde_json::from_str(&document.to_json()).unwrap();
        assert_eq!(parsed, wanted);
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_json(text: String) {
            let json = Value::List(vec![Value::text(&text)]).to_json();
            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(parsed[0].as_str(), Some(text.as_str()));
            assert_eq!(json.lines().count(), 1);
        }
    }
}
