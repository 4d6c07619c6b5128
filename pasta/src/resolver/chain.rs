//! Resolves a path link by link, and lists the names whose change could change the result.
//!
//! Files and symbolic links are replaced more often than they are written. So names in directories are
//! watched: of each link in the chain, of the file at its end, and of the first missing component.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Most links that are followed, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What a path names whose directory contains no links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// A symbolic link and its target.
    Link(PathBuf),
    /// Something else.
    Other,
    /// Nothing.
    Missing,
}

/// The chain of links from a path to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Names to watch, by the directory that they are in. No directory is a link.
    pub(super) watched: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// The file at the end, if it exists. No component is a link.
    pub(super) file: Option<PathBuf>,
}

/// Resolves `path`, which is absolute. `path_kind` is called for one path after the other.
pub(super) fn follow(path: &Path, mut path_kind: impl FnMut(&Path) -> PathKind) -> Chain {
    let mut chain = Chain::default();
    let mut links = 0;
    let mut here = PathBuf::from("/");
    // Components to come, the next one last.
    let mut rest = components(path);
    while let Some(name) = rest.pop() {
        let next = here.join(&name);
        match path_kind(&next) {
            PathKind::Link(to) if links < MAX_LINKS => {
                links += 1;
                chain.watch(&here, name);
                if to.is_absolute() {
                    here = PathBuf::from("/");
                }
                let (up, names) = relative(&to);
                for _ in 0..up {
                    here.pop();
                }
                rest.extend(names);
            }
            PathKind::Link(_) | PathKind::Missing => {
                chain.watch(&here, name);
                return chain;
            }
            PathKind::Other if rest.is_empty() => {
                chain.watch(&here, name);
                chain.file = Some(next);
                return chain;
            }
            PathKind::Other => here = next,
        }
        // A link target may contain `..` after a directory that has been entered.
        while rest.last().is_some_and(|name| name == "..") {
            rest.pop();
            here.pop();
        }
    }
    chain
}

impl Chain {
    fn watch(&mut self, directory: &Path, name: OsString) {
        self.watched.entry(directory.to_owned()).or_default().insert(name);
    }

    /// Directories below which files have to be readable to follow changes of this chain. A directory
    /// may be recreated, so its parent is used, unless that is the root or directly below it: these
    /// contain too much.
    pub(super) fn readable(&self) -> BTreeSet<PathBuf> {
        let file = self.file.as_deref().and_then(Path::parent).map(Path::to_owned);
        self.watched.keys().cloned().chain(file).map(|it| stable_ancestor(&it)).collect()
    }
}

/// The directory to allow reading below, so that `directory` may be recreated.
pub(super) fn stable_ancestor(directory: &Path) -> PathBuf {
    match directory.parent() {
        Some(parent) if parent.components().count() > 2 => parent.to_owned(),
        _ => directory.to_owned(),
    }
}

/// Names of `path`, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let (_, names) = relative(path);
    names
}

/// How many directories up `path` begins, and then its names, the first one last.
fn relative(path: &Path) -> (usize, Vec<OsString>) {
    let mut up = 0;
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::ParentDir if names.is_empty() => up += 1,
            Component::ParentDir | Component::Normal(_) => {
                names.push(component.as_os_str().to_owned());
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names.reverse();
    (up, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system of `links` and `others`, and of the directories that they are in.
    fn followed(path: &str, links: &[(&str, &str)], others: &[&str]) -> Chain {
        follow(Path::new(path), |at| {
            let link = links.iter().find(|(from, _)| Path::new(from) == at);
            match link {
                Some((_, to)) => PathKind::Link(to.into()),
                None => {
                    let mut there =
                        links.iter().map(|(from, _)| *from).chain(others.iter().copied());
                    let is_there = there.any(|it| Path::new(it).starts_with(at));
                    if is_there { PathKind::Other } else { PathKind::Missing }
                }
            }
        })
    }

    fn watched(chain: &Chain) -> Vec<String> {
        let pair = |(directory, names): (&PathBuf, &BTreeSet<OsString>)| {
            let names: Vec<_> = names.iter().map(|it| it.to_string_lossy().into_owned()).collect();
            format!("{} {}", directory.display(), names.join(","))
        };
        chain.watched.iter().map(pair).collect()
    }

    #[test]
    fn a_plain_file_is_watched_in_its_directory() {
        let chain = followed("/etc/resolv.conf", &[], &["/etc/resolv.conf"]);
        assert_eq!(watched(&chain), ["/etc resolv.conf"]);
        assert_eq!(chain.file, Some("/etc/resolv.conf".into()));
        assert_eq!(chain.readable(), [PathBuf::from("/etc")].into());
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        let links = [
            ("/etc/resolv.conf", "../run/current/resolv.conf"),
            ("/run/current", "systemd/resolve"),
            ("/run/systemd/resolve/resolv.conf", "stub-resolv.conf"),
        ];
        let chain =
            followed("/etc/resolv.conf", &links, &["/run/systemd/resolve/stub-resolv.conf"]);
        let wanted = [
            "/etc resolv.conf",
            "/run current",
            "/run/systemd/resolve resolv.conf,stub-resolv.conf",
        ];
        assert_eq!(watched(&chain), wanted);
        assert_eq!(chain.file, Some("/run/systemd/resolve/stub-resolv.conf".into()));
    }

    #[test]
    fn what_is_missing_is_watched_where_it_would_come() {
        let link = [("/etc/resolv.conf", "/run/b/resolv.conf")];
        let gone = followed("/etc/resolv.conf", &link, &["/run/x"]);
        assert_eq!(watched(&gone), ["/etc resolv.conf", "/run b"]);
        assert_eq!(gone.file, None);
        let empty = followed("/etc/resolv.conf", &link, &["/run/b"]);
        assert_eq!(watched(&empty), ["/etc resolv.conf", "/run/b resolv.conf"]);
    }

    #[test]
    fn ways_up_are_taken_from_where_links_have_led() {
        let links = [("/etc/resolv.conf", "/var/run/../lib/file"), ("/var/run", "/run")];
        let chain = followed("/etc/resolv.conf", &links, &["/run", "/lib/file", "/var/x"]);
        assert_eq!(chain.file, Some("/lib/file".into()));
        let beyond = [("/etc/resolv.conf", "../../../run/file")];
        let chain = followed("/etc/resolv.conf", &beyond, &["/run/file"]);
        assert_eq!(chain.file, Some("/run/file".into()));
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let links = [("/etc/a", "b"), ("/etc/b", "a")];
        let chain = followed("/etc/a", &links, &[]);
        assert_eq!(watched(&chain), ["/etc a,b"]);
        assert_eq!(chain.file, None);
    }

    #[test]
    fn reading_is_allowed_where_a_directory_may_be_made_anew_but_for_the_top() {
        for (directory, readable) in [
            ("/etc", "/etc"),
            ("/run/a", "/run/a"),
            ("/run/systemd/resolve", "/run/systemd"),
            ("/var/lib/x/y", "/var/lib/x"),
            ("/", "/"),
        ] {
            assert_eq!(stable_ancestor(Path::new(directory)), Path::new(readable), "{directory}");
        }
    }
}
