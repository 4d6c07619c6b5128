//! What the log says of following, by itself and when asked.

use nix::sys::signal::Signal;

use super::*;

/// Waits until standard error has a line with `text`.
fn said(watched: &mut Watched, text: &str) -> Outcome {
    let waited =
        wait::until(text, || watched.session.running().errors().contains(text).then_some(()));
    waited.map_err(|error| format!("{error}: {}", watched.session.running().errors()).into())
}

/// The lines of the log at info that are about the host and hold `text`.
fn lines_about(watched: &mut Watched, text: &str) -> Vec<String> {
    let errors = watched.session.running().errors();
    let about = errors.lines().filter(|line| line.contains("info: ") && line.contains(text));
    about.map(str::to_owned).collect()
}

pub(super) fn usr1_writes_how_things_stand(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &[family.only_option()])?;
    watched.session.running().signal(Signal::SIGUSR1)?;

    let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
    said(&mut watched, "pasta: status: dns ")?;
    let errors = watched.session.running().errors();
    let squeezed: Vec<_> =
        errors.lines().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let has = |start: String| squeezed.iter().any(|line| line.starts_with(&start));
    assert!(has(format!("pasta: status: {name} bound {UPLINK}(")), "{squeezed:#?}");
    assert!(has(format!("pasta: status: tap {UPLINK}(")), "{squeezed:#?}");
    assert!(has("pasta: status: monitor live, gen ".into()), "{squeezed:#?}");
    assert!(has("pasta: status: policy follow roam, settle 1000 ms".into()), "{squeezed:#?}");
    assert!(has(format!("pasta: status: candidates {name}: {UPLINK}(")), "{squeezed:#?}");
    // The command has got nothing of it.
    watched.reach(lab, family)
}

pub(super) fn usr2_puts_right_what_users_removed(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let len = prefix_length(family);
    watched.inside.run(|| Admin::open()?.delete_address(index_of(UPLINK)?, family.host(), len))?;
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), true)?;
    assert!(!watched.has(&format!("address {}/", family.host()))?, "it was declined");

    watched.session.running().signal(Signal::SIGUSR2)?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    said(&mut watched, "host: read again as asked")
}

pub(super) fn a_transition_is_one_line_and_what_leads_to_nothing_is_none(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let before = lines_about(&mut watched, "host: ").len();
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));

    // A foreign table, and an address that comes a second time.
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_route(Way { table: 77, ..Way::default(link, family.gateway(), 5) })?;
        admin.add_address(link, new, len)
    })?;
    watched.wait_for_address(new, true)?;
    // The line comes over the supervisor, a moment after the address.
    let added = wait::until("a line about it", || {
        let lines = lines_about(&mut watched, "host: ");
        (lines.len() > before).then_some(lines)
    })?;
    assert_eq!(added.len(), before + 1, "{added:#?}");
    on_host(lab, |admin| {
        admin.delete_address(index_of(UPLINK)?, old, len)?;
        // IPv4 loses its default route with the address.
        let _ = admin.add_route(first_default(family, 0)?);
        Ok(())
    })?;
    watched.wait_for_address(old, false)?;
    let text = format!("primary {old} -> {new}");
    said(&mut watched, &text)?;
    let lines = lines_about(&mut watched, &text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let [line] = &lines[..] else { return Err("no line".into()) };
    assert!(line.contains("[address changed] gen ") && line.ends_with(" ms"), "{line}");
    Ok(())
}
