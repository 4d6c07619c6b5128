//! A host that changes at random. At rest the namespace has what a fresh start would give it, and what the rules say.
//!
//! For a long run: `PASTA_LAB_RANDOM=SEED,RESTS cargo test -p tests --test host_change -- at_rest`, with
//! as many rests as fit the time that a case may take.

use std::collections::BTreeSet;

use super::*;

/// How often the host comes to rest, and how many changes there are between.
const RESTS: usize = 12;
const CHANGES: usize = 10;

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What both families' addresses and routes are, without what is not compared: the number of the link,
/// what users added, and addresses of a template that was left, which stay as long as the host has them.
fn shown(inside: &Inside, without: &str) -> Outcome<BTreeSet<String>> {
    let is_compared = |line: &String| !line.contains(without) && !line.contains(" deprecated");
    let lines = inside.show()?.into_iter().filter(is_compared);
    Ok(lines
        .map(|line| line.rsplit_once(" on ").map_or(line.clone(), |it| it.0.to_owned()))
        .collect())
}

/// Changes something; what cannot be done at the time is not done.
fn change(lab: &Lab, numbers: &mut Numbers) -> Outcome {
    let family = if numbers.below(2) == 0 { Family::V4 } else { Family::V6 };
    let (name, third) = if numbers.below(2) == 0 { (UPLINK, 11) } else { (SECOND.0, 12) };
    let (what, last, metric) = (numbers.below(9), numbers.below(3), numbers.below(2));
    let address: IpAddr = match family {
        Family::V4 => [198, 18, third, 10 + last as u8].into(),
        Family::V6 => format!("2001:db8:{third}::1{last}").parse()?,
    };
    // No two are equal, so that there is one best.
    let metric = 100 * u32::from(third) + 1000 * metric as u32;
    let router: IpAddr = match family {
        Family::V4 => [198, 18, third, 1].into(),
        Family::V6 => "fe80::1".parse()?,
    };
    on_host(lab, |admin| {
        let link = index_of(name)?;
        let len = prefix_length(family);
        let _ = match what {
            0..=2 => admin.add_address(link, address, len),
            3..=4 => admin.delete_address(link, address, len),
            5..=6 => admin.add_route(Way::default(link, router, metric)),
            _ => admin.delete_route(Way::default(link, router, metric)),
        };
        Ok(())
    })?;
    if numbers.below(8) == 0 {
        set_link(lab, name, false)?;
    }
    if numbers.below(3) == 0 {
        set_link(lab, UPLINK, true)?;
        set_link(lab, SECOND.0, true)?;
    }
    Ok(())
}

/// Sees to it that there is a way out in each family. Without any, a template is kept among equals.
fn lead_out(lab: &Lab) -> Outcome {
    set_link(lab, UPLINK, true)?;
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        for (address, router) in [("198.18.11.10", "198.18.11.1"), ("2001:db8:11::10", "fe80::1")] {
            let address: IpAddr = address.parse()?;
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            // Both may be there.
            let _ = admin.add_address(link, address, prefix_length(family));
            let _ = admin.add_route(Way::default(link, router.parse()?, 5000));
        }
        Ok(())
    })
}

pub(super) fn at_rest_the_namespace_is_as_after_a_fresh_start(lab: &Lab) -> Outcome {
    let (seed, rests) = match std::env::var("PASTA_LAB_RANDOM") {
        Ok(text) => {
            let (seed, rests) = text.split_once(',').ok_or("not SEED,RESTS")?;
            (seed.parse()?, rests.parse()?)
        }
        Err(_) => (20_240_501, RESTS),
    };
    eprintln!("seed {seed}, {rests} rests");
    let mut numbers = Numbers(seed);
    add_second_uplink(lab)?;
    let quick = ["--settle", "20", "--hold", "20", "--linger", "0"];
    let watched = Watched::start(lab, &quick)?;
    let users: IpAddr = "203.0.113.5".parse()?;
    watched.inside.run(|| Admin::open()?.add_address(index_of(UPLINK)?, users, 32))?;
    let theirs = format!("address {users}/32");

    let mut different = BTreeSet::new();
    for rest in 0..rests {
        for _ in 0..CHANGES {
            change(lab, &mut numbers)?;
        }
        lead_out(lab)?;
        let fresh = Watched::start(lab, &quick)?;
        let mut last = (BTreeSet::new(), BTreeSet::new());
        let equal = wait::until("both namespaces to be alike", || {
            last = (shown(&watched.inside, &theirs).ok()?, shown(&fresh.inside, &theirs).ok()?);
            (last.0 == last.1).then_some(())
        });
        equal.map_err(|error| format!("rest {rest}, seed {seed}: {error}: {last:#?}"))?;
        assert!(watched.has(&theirs)?, "what users added is gone");
        different.insert(last.0);
    }
    // Had it been the same each time, nothing would have been tried.
    assert!(different.len() > 3, "{different:#?}");
    Ok(())
}

/// Histories of the host and of the namespace's users; `PASTA_LAB_HISTORIES=SEED,SECONDS` has other ones. For a long
/// run: `cargo run -p tests --bin histories -- --seconds 3600`.
pub(super) fn histories_end_as_the_rules_say(lab: &Lab) -> Outcome {
    let (seed, seconds) = match std::env::var("PASTA_LAB_HISTORIES") {
        Ok(text) => {
            let (seed, seconds) = text.split_once(',').ok_or("not SEED,SECONDS")?;
            (seed.parse()?, seconds.parse()?)
        }
        Err(_) => (1, 12),
    };
    eprintln!("seed {seed}, {seconds} s");
    let time = std::time::Duration::from_secs(seconds);
    tests::histories::run(lab, seed, time, |count| eprintln!("{count} histories")).map(drop)
}
