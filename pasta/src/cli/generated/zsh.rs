//! The completion of zsh.

use super::{Completion, NOTE, offered};
use crate::cli::table::Entry;

const FUNCTIONS: &str = "
_pasta_interfaces() {
  local -a names
  names=(/sys/class/net/*(N:t))
  _describe -t interfaces 'interface of the host' names
}

_pasta_namespaces() {
  local -a names
  names=(/run/netns/*(N:t))
  _alternative 'namespaces:namespace:compadd -a names' 'files:path:_files'
}

_pasta_targets() {
  _alternative 'commands:command:_command_names -e' 'processes:process:_pids'
}

";

/// The whole file.
pub(super) fn render() -> String {
    let mut text = format!("#compdef pasta\n# {NOTE}\n{FUNCTIONS}_arguments -s -S -A '-*' \\\n");
    for entry in offered() {
        let value = entry.kind.value_name().map(value);
        if let Some(letter) = entry.short {
            let takes = if value.is_some() { "+" } else { "" };
            text.push_str(&line(&format!("-{letter}{takes}"), entry, value.as_deref()));
        }
        let takes = if value.is_some() { "=" } else { "" };
        text.push_str(&line(&format!("--{}{takes}", entry.long), entry, value.as_deref()));
    }
    text + "  '1: :_pasta_targets' \\\n  '*::argument:_normal'\n"
}

/// One spelling of an option, which may be repeated.
fn line(name: &str, entry: &Entry, value: Option<&str>) -> String {
    let help = entry.help.replace('[', "\\[").replace(']', "\\]");
    quoted(&format!("*{name}[{help}]{}", value.unwrap_or_default()))
}

fn value(name: &'static str) -> String {
    let action = match Completion::of(name) {
        Completion::Words(words) if words.is_empty() => " ".to_owned(),
        Completion::Words(words) => format!("({})", words.join(" ")),
        Completion::Interface => "_pasta_interfaces".to_owned(),
        Completion::File => "_files".to_owned(),
        Completion::NetworkNamespace => "_pasta_namespaces".to_owned(),
        Completion::User => "_users".to_owned(),
    };
    format!(":{}:{action}", name.replace(':', "\\:"))
}

fn quoted(text: &str) -> String {
    format!("  '{}' \\\n", text.replace('\'', "'\\''"))
}
