//! Which program is under test, and having it built.
//!
//! By default these are this workspace's own executables, which the run builds with the profile of
//! the tests: `cargo test` itself builds executables only for packages that have integration tests.
//! `PASTA_UNDER_TEST` names another `pasta` instead, for example that of a distribution.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// Names the program under test, when it is not the workspace's.
pub const UNDER_TEST: &str = "PASTA_UNDER_TEST";

/// What cargo remembers of the compiler, at the top of a build directory.
const RUSTC_INFO: &str = ".rustc_info.json";

/// What `pasta` may have beside itself: its helpers, the client of its control socket, or the C program's variant for
/// newer processors.
const COMPANIONS: [&str; 4] = ["pasta-monitor", "pasta-datapath", "pesto", "pasta.avx2"];

/// The executables a lab needs, as paths on the machine.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `pasta`, the program under test.
    pub pasta: PathBuf,
    /// `lab-client`, which it runs.
    pub client: PathBuf,
}

impl Programs {
    /// Finds the program under test; `client` is where the build put `lab-client`.
    ///
    /// # Errors
    ///
    /// When `client` is not in a directory.
    pub fn find(client: &Path) -> Outcome<Self> {
        let built = client.parent().ok_or("lab-client has no directory")?;
        let pasta = env::var_os(UNDER_TEST).map_or_else(|| built.join("pasta"), PathBuf::from);
        Ok(Self { pasta, client: client.to_owned() })
    }

    /// Whether the program under test is this workspace's own, and not one named by the caller.
    pub fn is_ours() -> bool {
        env::var_os(UNDER_TEST).is_none()
    }

    /// Files to put beside each other, so that `pasta` finds its companions.
    pub fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut files = vec![("", self.client.clone())];
        files.extend(with_companions(&self.pasta).into_iter().map(|path| ("", path)));
        files
    }
}

/// `pasta` and what belongs beside it, as far as it is there.
pub fn with_companions(pasta: &Path) -> Vec<PathBuf> {
    let mut files = vec![pasta.to_owned()];
    let beside = COMPANIONS.iter().map(|name| pasta.with_file_name(name));
    files.extend(beside.filter(|path| path.exists()));
    files
}

/// Builds the executables of the workspace where `client` was built and with the same profile,
/// unless another program is under test. Costs a fraction of a second when nothing is to be done;
/// cargo's own lock keeps several test binaries from doing it at once.
///
/// # Errors
///
/// When cargo cannot be run or the build fails; its own output went to the standard error.
pub fn build(client: &Path) -> Outcome {
    build_with(client, &["--quiet"])
}

/// As [`build`], and cargo shows how far it is.
///
/// # Errors
///
/// As [`build`].
pub fn build_with_progress(client: &Path) -> Outcome {
    build_with(client, &[])
}

fn build_with(client: &Path, options: &[&str]) -> Outcome {
    if !Programs::is_ours() {
        return Ok(());
    }
    let output = CargoOutput::of(client)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut build = Command::new(cargo);
    build.args(["build", "--workspace", "--bins", "--profile", &output.profile]).args(options);
    build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    build.arg("--target-dir").arg(&output.directory);
    if let Some(triple) = &output.triple {
        build.args(["--target", triple]);
    }
    let status = build.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("the programs under test do not build".into()) }
}

/// Where a build put its results, read back from the path of one of them:
/// `DIRECTORY/[TRIPLE/]PROFILE/EXECUTABLE`.
#[derive(Debug, PartialEq, Eq)]
struct CargoOutput {
    directory: PathBuf,
    triple: Option<String>,
    profile: String,
}

impl CargoOutput {
    fn of(executable: &Path) -> io::Result<Self> {
        let strange = || {
            let text = format!("not in a build directory: {}", executable.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
        let profile_path = executable.parent().ok_or_else(strange)?;
        let profile = match name(profile_path).ok_or_else(strange)?.as_str() {
            "debug" => "dev".to_owned(),
            other => other.to_owned(),
        };
        let above = profile_path.parent().ok_or_else(strange)?;
        // At the top of each build directory, whoever has made that; CACHEDIR.TAG is only in directories that
        // cargo has made, and in that of a triple too.
        if above.join(RUSTC_INFO).exists() {
            return Ok(Self { directory: above.to_owned(), triple: None, profile });
        }
        let directory = above.parent().ok_or_else(strange)?.to_owned();
        Ok(Self { directory, triple: name(above), profile })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_and_profile_of_this_very_build_are_found() {
        // target/PROFILE/deps/tests-HASH
        let test = env::current_exe().unwrap();
        let sibling = test.parent().unwrap().with_file_name("lab-client");
        let output = CargoOutput::of(&sibling).unwrap();
        assert!(output.directory.join(RUSTC_INFO).exists());
        assert!(!output.profile.is_empty());
    }

    #[test]
    fn directory_that_cargo_did_not_make_is_no_triple() {
        let directory = env::temp_dir().join(format!("programs-{}", std::process::id()));
        let (triple, profile) = ("aarch64-unknown-linux-gnu".to_owned(), "release".to_owned());
        std::fs::create_dir_all(directory.join(&triple)).unwrap();
        std::fs::write(directory.join(RUSTC_INFO), "{}").unwrap();
        // As cargo does when it is the first to build for a triple.
        std::fs::write(directory.join(&triple).join("CACHEDIR.TAG"), "").unwrap();
        let own = CargoOutput::of(&directory.join("release/lab-client")).unwrap();
        let cross = CargoOutput::of(&directory.join(&triple).join("release/lab-client")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let want =
            |triple| CargoOutput { directory: directory.clone(), triple, profile: profile.clone() };
        assert_eq!(own, want(None));
        assert_eq!(cross, want(Some(triple)));
    }
}
