//! The completion of fish.

use super::{Completion, NOTE, offered};

const FUNCTIONS: &str = "
# Prints COMMAND and its arguments as they are so far; fails while there are only options.
function __pasta_command
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    argparse -s $__pasta_options -- $words 2>/dev/null
    or return 1
    test -n \"$argv[1]\"
    and not string match -q -- '-*' $argv[1]
    and string join0 -- $argv
end

function __pasta_has_no_command
    not __pasta_command >/dev/null
end

function __pasta_complete_command
    __fish_complete_subcommand --commandline (__pasta_command | string split0)
end

complete -c pasta -f
complete -c pasta -n 'not __pasta_has_no_command' -a '(__pasta_complete_command)'
complete -c pasta -n __pasta_has_no_command -a '(__fish_complete_command)'
complete -c pasta -n 'string match -qr \"^[0-9]\" -- (commandline -ct)' -a '(__fish_complete_pids)'

";

/// The whole file.
pub(super) fn render() -> String {
    let mut text = format!("# fish completion for pasta(1)\n# {NOTE}\n\nset -g __pasta_options");
    for entry in offered() {
        let short = entry.short.map_or_else(String::new, |letter| format!("{letter}/"));
        let takes = if entry.kind.value_name().is_some() { "=" } else { "" };
        text.push_str(&format!(" \\\n    {short}{}{takes}", entry.long));
    }
    text.push('\n');
    text.push_str(FUNCTIONS);
    for entry in offered() {
        let short = entry.short.map_or_else(String::new, |letter| format!(" -s {letter}"));
        let value = entry.kind.value_name().map(value).unwrap_or_default();
        text.push_str(&format!(
            "complete -c pasta -n __pasta_has_no_command{short} -l {} -d '{}'{value}\n",
            entry.long,
            entry.help.replace('\'', "\\'")
        ));
    }
    text
}

fn value(name: &'static str) -> String {
    match Completion::of(name) {
        Completion::Words(words) if words.is_empty() => " -x".to_owned(),
        Completion::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        Completion::Interface => " -x -a '(command ls /sys/class/net)'".to_owned(),
        Completion::File => " -r -F".to_owned(),
        Completion::NetworkNamespace => {
            " -r -F -a '(command ls /run/netns 2>/dev/null)'".to_owned()
        }
        Completion::User => " -x -a '(__fish_complete_users)'".to_owned(),
    }
}
