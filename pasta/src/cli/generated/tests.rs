use super::*;
use crate::cli::table::SECTIONS;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Runs a program, or says that it is not there.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(error) => {
            // Not by a macro: the output of tests that pass is not shown.
            let _ = writeln!(std::io::stderr(), "SKIPPED {program}: {error}");
            None
        }
    }
}

fn assert_silent(program: &str, args: &[&str]) {
    if let Some(output) = run(program, args) {
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.is_empty(), "{program} {args:?}: {text}");
    }
}

/// Runs `script` in a shell and returns the lines that it prints.
fn lines(shell: &str, script: &str) -> Option<Vec<String>> {
    let output = run(shell, &["-c", script])?;
    assert!(output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn files_are_what_the_table_gives() {
    for (name, render) in FILES {
        let (path, wanted) = (path(name), render());
        if std::env::var_os(WRITE).is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Other tests read it meanwhile.
            let new = path.with_extension("new");
            std::fs::write(&new, wanted).unwrap();
            std::fs::rename(new, &path).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == wanted,
                "{name} is out of date: run {WRITE}=1 cargo test -p pasta generated"
            );
        }
    }
}

#[test]
fn manual_has_every_option() {
    let page = manual::render();
    for entry in entries() {
        let name = format!("\\fB\\-\\-{}\\fR", entry.long.replace('-', "\\-"));
        let mut named =
            page.lines().filter(|line| line.starts_with("\\fB") && line.contains(&name));
        assert!(named.next().is_some(), "{}", entry.long);
    }
    for section in SECTIONS.iter().filter(|section| !section.title.is_empty()) {
        assert!(page.contains(&format!("\n.SS {}\n", section.title)), "{}", section.title);
    }
    assert!(!page.contains('@'), "a mark is left");
    assert!(page.is_ascii(), "roff has escapes for other characters");
}

#[test]
fn details_are_of_options_that_exist() {
    let details = manual::details();
    assert!(!details.is_empty());
    for name in details.keys() {
        assert!(offered().any(|entry| entry.long == name), "{name}");
    }
}

#[test]
fn completions_have_every_option_that_the_help_shows() {
    let (bash, zsh, fish) = (bash::render(), zsh::render(), fish::render());
    for entry in offered() {
        let takes = if entry.kind.value_name().is_some() { "=" } else { "" };
        let long = entry.long;
        let words: Vec<_> = bash.split_ascii_whitespace().collect();
        assert!(words.contains(&format!("--{long}").as_str()), "{long}");
        assert!(zsh.contains(&format!("'*--{long}{takes}[")), "{long}");
        assert!(fish.contains(&format!(" -l {long} -d ")), "{long}");
        if let Some(letter) = entry.short {
            let takes = if takes.is_empty() { "" } else { "+" };
            assert!(words.contains(&format!("-{letter}").as_str()), "{letter}");
            assert!(zsh.contains(&format!("'*-{letter}{takes}[")), "{letter}");
            assert!(fish.contains(&format!(" -s {letter} -l {long} ")), "{letter}");
        }
    }
}

#[test]
fn manual_is_free_of_errors() {
    let page = path("packaging/man/pasta.1");
    let page = page.to_str().unwrap();
    assert_silent("mandoc", &["-Tlint", "-Wwarning", page]);
    assert_silent("groff", &["-man", "-Tutf8", "-ww", "-z", page]);
}

#[test]
fn shells_can_read_their_completions() {
    for (shell, name) in [("bash", "pasta.bash"), ("zsh", "_pasta"), ("fish", "pasta.fish")] {
        let name = path("packaging/completions").join(name);
        assert_silent(shell, &["-n", name.to_str().unwrap()]);
    }
}

#[test]
fn values_are_completed_by_their_names() {
    let words = |words: &[&'static str]| Completion::Words(words.to_vec());
    assert_eq!(Completion::of("roam|off"), words(&["roam", "off"]));
    assert_eq!(Completion::of("MS|inf"), words(&["inf"]));
    assert_eq!(Completion::of("ADDRESS[/LENGTH]"), words(&[]));
    assert_eq!(Completion::of("PATH"), Completion::File);
}

/// What bash offers for a line that it has split into `words`, the last of which is completed.
fn bash_offers(words: &[&str]) -> Option<Vec<String>> {
    let script = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _pasta; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        path("packaging/completions/pasta.bash").display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    lines("bash", &script)
}

#[test]
fn bash_completes_options_values_and_the_command() {
    for (words, wanted) in [
        (&["pasta", "--fol"][..], &["--follow"][..]),
        (&["pasta", "--follow", "=", "st"], &["sticky"]),
        (&["pasta", "--follow", "="], &["roam", "sticky", "once", "off"]),
        (&["pasta", "--follow", "o"], &["once", "off"]),
        (&["pasta", "-4t", "no"], &["none"]),
        (&["pasta", "-t8080", ":", "80", "--config-n"], &["--config-net"]),
        (&["pasta", "-t", "8080", ":", "80", "--config-n"], &["--config-net"]),
        (
            &["pasta", "-a", "fe80", "::", "1", "--ma"],
            &["--map-host-loopback", "--map-guest-addr", "--mac-addr"],
        ),
        (&["pasta", "-i", "l"], &["lo"]),
        (&["pasta", "-m", ""], &["auto"]),
        (&["pasta", "--config-net", "basenam"], &["basename"]),
        (&["pasta", "--", "basenam"], &["basename"]),
        (&["pasta", "ls", "--fol"], &[""]),
        (&["pasta", "--pid", "/etc/hostnam"], &["/etc/hostname"]),
    ] {
        let Some(mut offers) = bash_offers(words) else { return };
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        offers.sort_unstable();
        offers.dedup();
        assert_eq!(offers, wanted, "{words:?}");
    }
}

#[test]
fn fish_completes_options_values_and_the_command() {
    let file = path("packaging/completions/pasta.fish");
    for (line, wanted) in [
        ("pasta --fol", &["--follow"][..]),
        ("pasta --follow=st", &["--follow=sticky"]),
        ("pasta --tunnels ", &["allow", "avoid", "never"]),
        ("pasta -f4 --config-n", &["--config-net"]),
        ("pasta -i l", &["lo"]),
        ("pasta -m 1500 basenam", &["basename"]),
        ("pasta basename --fol", &[]),
    ] {
        let script = format!("source '{}'; complete -C '{line}'", file.display());
        let Some(offers) = lines("fish", &script) else { return };
        let offers: Vec<_> = offers.iter().filter_map(|it| it.split('\t').next()).collect();
        assert_eq!(offers, wanted, "{line}");
    }
}
