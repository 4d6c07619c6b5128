//! What others put at the paths of the files that we write (`-P`, `-l`, `-p`, `-c`), and starts at one time.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::mkfifo;
use tests::harness::{self, Case};
use tests::lab::pasta::{NO_PORTS, Pasta, Running, contained_session};
use tests::lab::{Lab, process, wait};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, what_was_planted_is_refused_and_stays_as_it_was),
        case!(lab, what_was_planted_is_refused_for_root_too),
        case!(lab, new_files_are_their_owners_whatever_the_umask),
        case!(lab, of_starts_at_one_time_one_has_the_control_socket),
        case!(lab, pid_file_of_starts_at_one_time_is_whole),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Where we are to write.
const PATH: &str = "/tmp/planted/path";
/// What somebody else would have us write to.
const VICTIM: &str = "/tmp/planted/victim";
/// What stands in it.
const CONTENT: &str = "somebody's words\n";

/// What something is, and how it is put at [`PATH`].
type Kind = (&'static str, fn() -> Outcome);

/// Things that are no regular file with one name.
const KINDS: [Kind; 7] = [
    ("a link to a file", || Ok(symlink(VICTIM, PATH)?)),
    ("a link to nothing", || Ok(symlink("/tmp/planted/new", PATH)?)),
    ("another name of a file", || Ok(fs::hard_link(VICTIM, PATH)?)),
    ("a pipe", || Ok(mkfifo(PATH, Mode::from_bits_truncate(0o666))?)),
    ("a pipe that is read", || {
        mkfifo(PATH, Mode::from_bits_truncate(0o666))?;
        // Open to the end of the case, as the socket below.
        std::mem::forget(File::options().read(true).custom_flags(libc::O_NONBLOCK).open(PATH)?);
        Ok(())
    }),
    ("a directory", || Ok(fs::create_dir(PATH)?)),
    ("a socket in use", || {
        std::mem::forget(UnixListener::bind(PATH)?);
        Ok(())
    }),
];

/// Type, mode, owner, names and size of what stands there; no link is followed.
fn state(path: &str) -> Outcome<[u64; 5]> {
    let it = fs::symlink_metadata(path)?;
    // Of a directory the size is the file system's affair.
    let size = if it.is_dir() { 0 } else { it.size() };
    Ok([it.ino(), u64::from(it.mode()), u64::from(it.uid()), it.nlink(), size])
}

fn plant_and_start(lab: &Lab, pasta: &Pasta<'_>) -> Outcome {
    for option in ["-P", "-l", "-p", "-c"] {
        for (kind, plant) in KINDS {
            let what = format!("{option}, {kind}");
            fs::create_dir("/tmp/planted")?;
            fs::set_permissions("/tmp/planted", Permissions::from_mode(0o777))?;
            fs::write(VICTIM, CONTENT)?;
            fs::set_permissions(VICTIM, Permissions::from_mode(0o666))?;
            chown(VICTIM, Some(lab.user()), None)?;
            plant()?;
            let before = (state(PATH)?, state(VICTIM)?);

            let finished = pasta.clone().with([option, PATH]).run(["lab-client", "identity"])?;

            // A capture that cannot be written is no reason not to start.
            let runs = option == "-p";
            assert_eq!(finished.code(), i32::from(!runs), "{what}: {finished:?}");
            assert_eq!(finished.output.is_empty(), !runs, "{what}: {finished:?}");
            assert!(finished.errors.contains(PATH), "{what}: {finished:?}");
            assert_eq!((state(PATH)?, state(VICTIM)?), before, "{what}");
            assert_eq!(fs::read_to_string(VICTIM)?, CONTENT, "{what}");
            assert!(!Path::new("/tmp/planted/new").exists(), "{what}");
            process::wait_until_none_left()?;
            fs::remove_dir_all("/tmp/planted")?;
        }
    }
    Ok(())
}

fn what_was_planted_is_refused_and_stays_as_it_was(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    plant_and_start(lab, &lab.pasta().with(NO_PORTS))
}

fn what_was_planted_is_refused_for_root_too(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    plant_and_start(lab, &lab.pasta().as_root().with(NO_PORTS))
}

fn new_files_are_their_owners_whatever_the_umask(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let files =
        [("-P", "/tmp/n.pid"), ("-l", "/tmp/n.log"), ("-p", "/tmp/n.pcap"), ("-c", "/tmp/n.sock")];
    let words = files.iter().flat_map(|(option, path)| [*option, *path]);
    let before = umask(Mode::empty());
    let inside = lab.pasta().with(words).session();
    umask(before);
    let inside = inside?;
    for (option, path) in files {
        let found = wait::until(path, || fs::symlink_metadata(path).ok())?;
        assert_eq!(found.mode() & 0o7777, 0o600, "{option}");
        assert_eq!(found.uid(), lab.user(), "{option}");
    }
    inside.end(0)?.expect_code(0)?;
    assert!(!Path::new("/tmp/n.sock").exists());
    Ok(())
}

/// How many are started at once.
const STARTS: usize = 8;

fn of_starts_at_one_time_one_has_the_control_socket(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for _ in 0..16 {
        // One of an instance that has died.
        drop(UnixListener::bind("/tmp/one.sock")?);
        chown("/tmp/one.sock", Some(lab.user()), None)?;
        let pasta = lab.pasta().with(NO_PORTS).with(["-c", "/tmp/one.sock"]);
        let start = |_| pasta.start(["lab-client", "hold"]);
        let mut all = (0..STARTS).map(start).collect::<Outcome<Vec<Running>>>()?;
        let mut serving = 0;
        for one in &mut all {
            match one.next_line() {
                Ok(line) => {
                    assert_eq!(line, "holding");
                    serving += 1;
                }
                Err(_) => {
                    assert_eq!(one.wait()?.code(), Some(1), "{}", one.errors());
                    let says = || one.errors().contains("/tmp/one.sock").then_some(());
                    wait::until("the reason", says)?;
                }
            }
        }
        assert_eq!(serving, 1);
        drop(all);
        process::wait_until_none_left()?;
        // What was killed has left it behind.
        fs::remove_file("/tmp/one.sock")?;
    }
    Ok(())
}

fn pid_file_of_starts_at_one_time_is_whole(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = contained_session(lab)?;
    let target = inside.running().pid().to_string();
    let pasta = lab.pasta().with(NO_PORTS);
    let start = |n: usize| {
        let words = ["-P", "/tmp/all.pid", "-I", &format!("tap{n}"), &target].map(str::to_owned);
        Running::start(pasta.clone().with(words).command([""; 0]))
    };
    let all = (0..STARTS).map(start).collect::<Outcome<Vec<Running>>>()?;
    for one in all {
        one.finish()?.expect_code(0)?;
    }
    let pid = fs::read_to_string("/tmp/all.pid")?;
    let number: i32 = pid.strip_suffix('\n').ok_or("no line end")?.parse()?;
    assert_eq!(process::Process::read(number).map(|it| it.name).as_deref(), Some("pasta"));
    assert_eq!(process::all()?.iter().filter(|it| it.name == "pasta").count(), STARTS);
    inside.end(0)?;
    Ok(())
}
