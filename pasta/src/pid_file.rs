//! The file that our process id is written to (`-P`).
//!
//! It is opened early, with the caller's rights, and not truncated: a start that fails leaves the file
//! of an instance that runs as it was. It is written once everything is ready, and not removed then. One
//! that was made by a start that fails is removed, as far as the user that root became may do that; in the
//! background the caller's process, which did not change its user, does it ([`NewFile`]).

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, ftruncate, unlinkat, write};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: OwnedFd,
    /// Where it is removed again unless it is written.
    new: Option<NewFile>,
}

/// A file that did not exist before the start.
#[derive(Debug)]
pub(crate) struct NewFile {
    directory: OwnedFd,
    name: OsString,
}

impl NewFile {
    /// A file at `path`, if there is none yet.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(parent.unwrap_or(Path::new(".")), flags, Mode::empty()).ok()?;
        let name = path.file_name()?.to_owned();
        let found = fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        (found == Err(Errno::ENOENT)).then_some(Self { directory, name })
    }

    /// Removes it if it is empty still: another instance may have written it since.
    pub(crate) fn remove(&self) {
        let found = fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if found.is_ok_and(|it| it.st_size == 0 && is_regular(it.st_mode)) {
            // If this fails, an empty file is left.
            let _ = unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            new.remove();
        }
    }
}

fn is_regular(mode: libc::mode_t) -> bool {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// The file cannot be used.
#[derive(Debug)]
pub(crate) struct PidFileError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write PID file {} (-P)", self.path.display())
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Opens a regular file for writing, and creates it for its owner only. No link is followed, and a file
/// with further names is refused, so that nobody can make us write to another file.
///
/// # Errors
///
/// What open(2) reports; `InvalidInput` for a file that is not regular or has further names.
pub(crate) fn open_regular(path: &Path, flags: OFlag) -> Result<OwnedFd, io::Error> {
    let base = OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = open(path, base | flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let stat = fstat(&file)?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !is_regular(stat.st_mode) {
        return refused("not a regular file");
    }
    if stat.st_nlink > 1 {
        return refused("it has another name (hard link)");
    }
    Ok(file)
}

impl PidFile {
    /// Opens the file without changing it.
    ///
    /// # Errors
    ///
    /// [`PidFileError`].
    pub(crate) fn open(path: &Path) -> Result<Self, PidFileError> {
        let failed = |cause| PidFileError { path: path.to_owned(), cause };
        let new = NewFile::at(path);
        let file = open_regular(path, OFlag::O_WRONLY).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, new })
    }

    /// Replaces the content by `pid` and a line end.
    ///
    /// # Errors
    ///
    /// [`PidFileError`]; a full disk, mostly.
    pub(crate) fn write(mut self, pid: Pid) -> Result<(), PidFileError> {
        let text = format!("{pid}\n");
        let written = match write(&self.file, text.as_bytes()) {
            Ok(count) if count == text.len() => {
                let length = i64::try_from(count).map_err(io::Error::other);
                length.and_then(|length| Ok(ftruncate(&self.file, length)?))
            }
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(errno) => Err(errno.into()),
        };
        written.map_err(|cause| PidFileError { path: self.path.clone(), cause })?;
        self.new = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("pasta-pid-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_new_file_goes_again_unless_it_is_written() {
        let path = path("new");
        drop(PidFile::open(&path).unwrap());
        assert!(!path.exists());
        let file = PidFile::open(&path).unwrap();
        // Another instance was faster.
        fs::write(&path, "7\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
        fs::remove_file(&path).unwrap();
        PidFile::open(&path).unwrap().write(Pid::from_raw(42)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42\n");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(PidFile::open(&path).unwrap());
        assert!(path.exists(), "it was there before");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_older_file_is_kept_until_the_id_is_written() {
        let path = path("older");
        fs::write(&path, "1234567 and more\n").unwrap();
        let file = PidFile::open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1234567 and more\n");
        file.write(Pid::from_raw(42)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42\n");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_new_file_is_for_its_owner_only() {
        let path = path("owner");
        PidFile::open(&path).unwrap().write(Pid::from_raw(7)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn links_and_other_kinds_of_files_are_refused_by_name() {
        let (link, target) = (path("link"), path("target"));
        symlink(&target, &link).unwrap();
        let error = PidFile::open(&link).unwrap_err();
        assert!(error.to_string().contains(link.to_str().unwrap()), "{error}");
        assert!(!target.exists());
        fs::remove_file(&link).unwrap();
        for other in ["/dev/null", "/"] {
            assert!(PidFile::open(Path::new(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn file_with_another_name_is_refused() {
        let (planted, other) = (path("planted"), path("other"));
        fs::write(&other, "of somebody else\n").unwrap();
        fs::hard_link(&other, &planted).unwrap();
        for flags in [OFlag::O_WRONLY, OFlag::O_RDWR, OFlag::O_WRONLY | OFlag::O_APPEND] {
            let error = open_regular(&planted, flags).unwrap_err();
            assert!(error.to_string().contains("hard link"), "{error}");
        }
        fs::remove_file(&planted).unwrap();
        assert!(open_regular(&other, OFlag::O_WRONLY).is_ok());
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else\n");
        fs::remove_file(&other).unwrap();
    }
}
