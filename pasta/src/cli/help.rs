//! The text of `--help`, made from the table of options.

use super::table::{Entry, SECTIONS};

/// Columns of a line. Chosen: fits every terminal.
const WIDTH: usize = 80;

/// Column at which descriptions begin. Chosen: most options fit before it.
const DESCRIPTION: usize = 31;

const HEAD: &str = "\
User-mode networking for network namespaces, without privilege

Usage: pasta [OPTIONS] [--] [COMMAND [ARG...]]
       pasta [OPTIONS] PID
       pasta [OPTIONS] --netns PATH|NAME
       pasta --audit PID

";

const TAIL: &str = "
PORTS is none, or a list of 8080, 8080:80, 8000-8009, auto, all and the like, of
which each -t and -u may have an address in front: 127.0.0.1/8080. MS is a
number of milliseconds.

Examples:
  pasta --config-net           A shell with the host's network
  pasta --config-net -t 8080:80 -- busybox httpd -f -p 80 -h /srv
                               A server, at port 8080 of the host
  pasta --config-net 1234      Connect the network namespace of process 1234

pasta(1) is the manual.
";

/// The whole text, with its line end.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();
    describe(
        &mut text,
        "  COMMAND",
        "Program to run in a new network namespace (default: a login shell)",
    );
    describe(&mut text, "  PID", "Process whose network namespace to attach to, in the background");
    for section in SECTIONS.iter().filter(|section| !section.title.is_empty()) {
        text.push_str(&format!("\n{}:\n", section.title));
        for entry in section.entries {
            describe(&mut text, &synopsis(entry), entry.help);
        }
    }
    text.push_str(TAIL);
    text
}

fn synopsis(entry: &Entry) -> String {
    let short = entry.short.map_or_else(|| "   ".to_owned(), |letter| format!("-{letter},"));
    match entry.kind.value_name() {
        Some(value) => format!("  {short} --{} {value}", entry.long),
        None => {
            let form = entry.kind.optional_value();
            let form = form.map_or_else(String::new, |form| format!("[={form}]"));
            format!("  {short} --{}{form}", entry.long)
        }
    }
}

/// Appends an item and its description, wrapped, which begins in the same line if the item is short
/// enough.
fn describe(text: &mut String, item: &str, description: &str) {
    let mut column = item.chars().count();
    text.push_str(item);
    for (index, word) in description.split(' ').enumerate() {
        let end = column.max(DESCRIPTION) + 1 + word.chars().count();
        if (index == 0 && column + 2 > DESCRIPTION) || (index > 0 && end > WIDTH) {
            text.push('\n');
            column = 0;
        }
        let blanks = if column < DESCRIPTION { DESCRIPTION - column } else { 1 };
        text.extend(std::iter::repeat_n(' ', blanks));
        text.push_str(word);
        column += blanks + word.chars().count();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_fits_two_screens() {
        const SCREEN: usize = 24;
        let text = render();
        let sections = text.split("\n\n");
        assert!(sections.clone().count() > SECTIONS.len());
        for section in sections {
            assert!(section.lines().count() <= 2 * SCREEN, "{section}");
        }
    }

    #[test]
    fn lines_fit_the_width_and_descriptions_are_aligned() {
        let text = render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
        let wanted = "  -f, --foreground             Stay in the foreground";
        assert!(text.contains(wanted), "{text}");
        let wanted = "  -a, --address ADDRESS[/LENGTH]\n                               Address of";
        assert!(text.contains(wanted), "{text}");
    }
}
