//! Confinement tried on the running kernel.
//!
//! Every case runs in child processes, because what it does cannot be undone. This program has one
//! thread, as fork and user namespaces want it; that is why it has no test harness. A case that the
//! machine cannot run prints SKIPPED and the reason.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program without a harness")]

mod allowed;
mod child;
mod forbidden;
mod isolation;
mod reach;
mod sys;
mod terminal;

/// Calls each function and prints its name as a harness would.
macro_rules! cases {
    ($filters:expr; $($module:ident::$case:ident)*) => {{
        let mut run = 0;
        $(
            let name = stringify!($case);
            if $filters.is_empty() || $filters.iter().any(|f| name.contains(f.as_str())) {
                println!("test {name} ...");
                $module::$case();
                println!("test {name} ... ok");
                run += 1;
            }
        )*
        run
    }};
}

fn main() {
    // Whatever cargo left open must not reach the children.
    sys::close_from(3);
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let run = cases! { filters;
        forbidden::forbidden_calls_end_the_process
        reach::kernel_allows_the_pinned_calls_and_no_others
        allowed::datapath_serves_flows
        allowed::helpers_bind_no_port_of_their_own_choice
        allowed::monitor_runs_tokio_and_netlink
        allowed::supervisor_supervises_and_reads_where_it_may
        isolation::datapath_is_isolated_confined_and_audited_from_outside
        isolation::monitor_keeps_what_it_needs_and_is_audited_from_outside
        isolation::helper_dies_with_its_supervisor
        isolation::helper_whose_supervisor_is_gone_refuses_to_start
        isolation::helper_with_a_directory_or_a_file_open_refuses_to_start
        isolation::user_that_root_becomes_cannot_go_back
        isolation::helper_that_somebody_traces_refuses_to_start
        isolation::helpers_have_session_keyrings_of_their_own
        terminal::nobody_types_into_a_terminal_after_the_filter
    };
    println!("test result: ok. {run} passed");
}
