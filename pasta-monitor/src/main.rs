//! `pasta-monitor`: started by `pasta`, never by hand.
//!
//! Exit status: 0 if asked to end or the supervisor is gone, 1 if it cannot do its work, 3 if a peer
//! broke the protocol, 134 after a mistake of ours.

mod run;

use pasta_ipc::MonitorToSupervisor;
use pasta_ipc::types::Text;
use pasta_monitor::log::Log;
use pasta_monitor::peer::{ToDatapath, ToSupervisor};
use pasta_monitor::sys;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

/// Exit status after a mistake of ours: what `abort()` would give, which the filter does not allow.
const PANICKED: i32 = 134;

fn main() -> ExitCode {
    let hardened = seccomp::harden_early();
    let Some((supervisor, datapath)) = sys::inherited_channels() else {
        eprintln!("pasta-monitor is a part of pasta and started by it");
        return ExitCode::FAILURE;
    };
    let supervisor = Arc::new(ToSupervisor::from(supervisor));
    let datapath = ToDatapath::from(datapath);
    say_where_on_panic(Arc::clone(&supervisor));

    let log = Log::new(Arc::clone(&supervisor));
    let ended = hardened
        .map_err(run::RunError::Harden)
        .and_then(|()| run::run(&supervisor, datapath, &log));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let failed = MonitorToSupervisor::Failed(Text::truncated(&with_causes(&error)));
    // If this message cannot be sent, the supervisor sees the exit status.
    let _ = supervisor.send(&failed);
    ExitCode::from(error.exit_status())
}

/// The text of an error and of what caused it.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// On a panic, tells the supervisor the place and ends; the message may quote input and is not sent.
fn say_where_on_panic(supervisor: Arc<ToSupervisor>) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
        let text = Text::truncated(&format!("internal error{place}"));
        let _ = supervisor.send(&MonitorToSupervisor::Failed(text));
        std::process::exit(PANICKED);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::process::Command;

    /// Set for the process that is to panic.
    const PANICS: &str = "PASTA_TEST_PANICS";

    #[test]
    fn panic_ends_the_process_with_134_and_shows_nothing_of_its_message() {
        if env::var_os(PANICS).is_some() {
            let (channel, _supervisor) = pasta_ipc::Channel::pair().unwrap();
            say_where_on_panic(Arc::new(ToSupervisor::from(channel)));
            panic!("octets of a frame");
        }
        let mut again = Command::new(env::current_exe().unwrap());
        again.args([
            "--exact",
            "tests::panic_ends_the_process_with_134_and_shows_nothing_of_its_message",
        ]);
        let ended = again.args(["--nocapture"]).env(PANICS, "yes").output().unwrap();
        assert_eq!(ended.status.code(), Some(134), "{ended:?}");
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("running 1 test") && !said.contains("octets"), "{said}");
    }
}
