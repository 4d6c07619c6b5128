//! Errors of the system, as people read them.

use std::borrow::Cow;

/// What the standard library puts between an error's text and its number.
const NUMBER: &str = " (os error ";

/// `text` without the numbers of errors: `std::io::Error` shows them always, and whoever reads a message has no use
/// for them.
///
/// Applied where text leaves the program, so that none is forgotten.
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    if !text.contains(NUMBER) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(NUMBER);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit());
        match after.strip_prefix(')') {
            Some(after) if after.len() + 1 < part.len() => plain.push_str(after),
            _ => plain.extend([NUMBER, part]),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn text_of_an_error_is_left_and_its_number_is_not() {
        let error = io::Error::from_raw_os_error(2);
        let text = format!("cannot open a: {error}, and b: {error}\n");
        let plain = "cannot open a: No such file or directory, and b: No such file or directory\n";
        assert_eq!(without_numbers(&text), plain);
    }

    #[test]
    fn what_is_no_number_is_left() {
        for text in ["", "a (b)", "x (os error ", "x (os error )", "x (os error 2", "(os error 2x)"]
        {
            assert_eq!(without_numbers(text), text);
        }
    }
}
