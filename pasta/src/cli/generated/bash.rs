//! The completion of bash.

use super::{Completion, NOTE, offered, spellings};
use std::collections::BTreeMap;

const HEAD: &str = "\
# Sets `kind` to how the value of option $1 is completed; fails if it takes none.
_pasta_value()
{
    case $1 in
";

const BODY: &str = r#"        *) return 1 ;;
    esac
}

# Completes the value in `cur`.
_pasta_complete_value()
{
    case $kind in
        interface) mapfile -t COMPREPLY < <(compgen -W "$(command ls /sys/class/net)" -- "$cur") ;;
        file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames ;;
        namespace)
            mapfile -t COMPREPLY < <(
                compgen -W "$(command ls /run/netns 2>/dev/null)" -- "$cur"
                compgen -f -- "$cur"
            )
            compopt -o filenames
            ;;
        user) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$cur") ;;
    esac 2>/dev/null
}

# Completes COMMAND and its arguments, which begin at word $1.
_pasta_command()
{
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (($1 == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames 2>/dev/null
    fi
}

_pasta()
{
    local kind= word letters index=1 cur=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while ((index < COMP_CWORD)); do
        word=${COMP_WORDS[index]}
        index=$((index + 1))
        case $word in
            --)
                _pasta_command "$index"
                return
                ;;
            --*)
                _pasta_value "$word" || continue
                # An equals sign is a word of its own.
                if [[ ${COMP_WORDS[index]} == = ]]; then
                    index=$((index + 1))
                    ((index > COMP_CWORD)) && cur=
                fi
                ;;
            -?*)
                letters=${word#-}
                while [[ $letters ]] && ! _pasta_value "-${letters:0:1}"; do
                    letters=${letters:1}
                done
                [[ $letters ]] || continue
                # The value is the rest of the group, or the next word.
                ((${#letters} > 1)) && index=$((index - 1))
                ;;
            *)
                _pasta_command "$((index - 1))"
                return
                ;;
        esac
        if ((index >= COMP_CWORD)); then
            _pasta_complete_value
            return
        fi
        # Colons divide a value into several words.
        index=$((index + 1))
        while ((index <= COMP_CWORD)) && [[ ${COMP_WORDS[index]} == [:=]* ]]; do
            index=$((index + 2))
        done
        ((index > COMP_CWORD)) && return
    done
    case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W "$_pasta_options" -- "$cur") ;;
        [0-9]*) mapfile -t COMPREPLY < <(cd /proc && compgen -W "$(echo [0-9]*)" -- "$cur") ;;
        *) _pasta_command "$COMP_CWORD" ;;
    esac
}

complete -F _pasta pasta
"#;

/// The whole file.
pub(super) fn render() -> String {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in offered() {
        if let Some(name) = entry.kind.value_name() {
            kinds.entry(kind(name)).or_default().extend(spellings(entry));
        }
    }
    let mut text = format!("# bash completion for pasta(1)\n# {NOTE}\n\n_pasta_options='\n");
    for entry in offered() {
        text.push_str(&format!("    {}\n", spellings(entry).join(" ")));
    }
    text.push_str("'\n\n");
    text.push_str(HEAD);
    for (kind, names) in kinds {
        text.push_str(&format!("        {}) kind='{kind}' ;;\n", names.join("|")));
    }
    text.push_str(BODY);
    text
}

fn kind(value_name: &'static str) -> String {
    match Completion::of(value_name) {
        Completion::Words(words) => words.join(" "),
        Completion::Interface => "interface".to_owned(),
        Completion::File => "file".to_owned(),
        Completion::NetworkNamespace => "namespace".to_owned(),
        Completion::User => "user".to_owned(),
    }
}
