//! The namespace follows the host while it runs. Cases are named after the scenarios of the page on
//! host changes; times are only deadlines, far beyond what the page specifies.

mod addresses;
mod cable;
mod changes;
mod flows;
mod hostile;
mod lacking;
mod links;
mod lost_addresses;
mod random;
mod routes;
mod status;
mod storms;
mod tunnels;
mod users;
mod watched;

use std::net::IpAddr;
use std::process::ExitCode;

use addresses::{
    s15_what_was_left_may_go, s21_a_default_route_that_goes_with_an_address_is_held,
    s29_a_deprecated_address_is_deprecated_and_goes_when_the_hosts_does,
    s30_refreshed_lifetimes_lead_to_nothing, s31_privacy_addresses_that_rotate_lead_to_nothing,
    s32_a_tentative_address_is_waited_for,
    s33_an_address_that_expires_is_held_and_does_not_expire_by_itself,
};
use cable::{s19_a_download_outlives_a_pulled_cable, s19_an_upload_outlives_a_pulled_cable};
use changes::{
    SECOND, add_bridge, add_second_uplink, bring_second_online, come_online, elsewhere,
    first_default, go_offline, on_host, renewed, second, set_link, worsen_first_default,
};
use flows::{
    an_outbound_address_is_pinned_and_works_when_it_is_back,
    s14_a_running_download_survives_the_move, s61_while_held_new_flows_fail_at_once,
    s62_a_datagram_flow_goes_on_from_the_new_address,
    s62_an_echo_flow_goes_on_from_the_new_address,
};
use hostile::{
    s06_what_is_not_of_the_kernel_is_counted_and_changes_nothing,
    s68_a_forged_message_ends_the_monitor_and_changes_nothing,
    s68_requests_of_a_datapath_that_was_taken_over_change_nothing,
};
use lacking::{
    s55_a_host_that_cannot_be_watched_is_looked_at,
    s58_a_rule_for_our_user_makes_the_template_by_its_table,
    s59_without_ipv6_the_family_is_off_and_the_other_is_followed,
};
use links::{
    a_listener_on_an_interface_hears_the_one_that_returns,
    a_tap_in_use_keeps_its_name_and_gets_the_new_one_too,
    a_tap_that_users_have_renamed_keeps_their_name, a_tap_with_a_packet_socket_keeps_its_name,
    s08_a_bridge_of_containers_is_never_template,
    s48_s49_a_number_is_no_identity_and_a_named_link_is_known_again,
    s50_a_renamed_template_stays_the_template,
    s51_an_address_that_moves_to_another_link_is_followed,
    s65_a_tap_whose_new_name_is_taken_keeps_its_own,
};
use lost_addresses::{
    a_connection_from_a_template_that_is_lost_for_good_is_reset,
    a_connection_from_an_address_that_goes_is_reset_on_both_sides,
    a_connection_of_local_mode_is_reset_at_the_first_binding,
    s14_a_connection_from_what_was_left_lives_as_long_as_the_hosts_address,
};
use random::{at_rest_the_namespace_is_as_after_a_fresh_start, histories_end_as_the_rules_say};
use routes::{
    a_default_route_by_nexthop_object_is_followed, s56_a_router_outside_the_subnet_is_reproduced,
    s57_of_two_hops_the_one_that_lives_is_used, s60_two_uplinks_that_fight_are_left_to_it,
};
use status::{
    a_transition_is_one_line_and_what_leads_to_nothing_is_none, usr1_writes_how_things_stand,
    usr2_puts_right_what_users_removed,
};
use storms::{
    a_flush_in_the_middle_of_a_reading_is_not_taken_for_the_users,
    a_storm_of_the_namespaces_users_costs_little,
    an_address_on_another_cable_is_noticed_though_another_is_template,
    s22_a_host_that_was_renumbered_in_its_sleep_is_followed,
    s52_a_change_in_the_middle_of_a_storm_is_applied, s52_unrelated_events_wake_nobody,
    s52_what_the_namespaces_users_do_elsewhere_wakes_nobody,
    s53_events_that_are_lost_right_after_others_are_made_up_for, s53_lost_events_are_made_up_for,
    s54_nothing_goes_on_the_strength_of_interrupted_readings,
};
use tests::harness::{self, Case};
use tests::lab::address::prefix_length;
use tests::lab::admin::{Admin, Inside, Way, index_of};
use tests::lab::wait;
use tests::lab::{Family, Lab, MONITOR, Session, UPLINK, process, service};
use tests::netlink::Netlink;
use tests::{Outcome, case};
use tunnels::{
    s23_traffic_goes_through_a_vpn_and_the_identity_stays,
    s24_a_tunnel_that_is_allowed_gives_its_own_end_and_a_way_by_its_peer,
    s25_a_tunnel_that_is_the_only_way_is_template_until_there_is_another,
    s26_a_vpn_by_halves_comes_and_goes_and_nothing_happens,
    s27_a_guard_counts_with_a_default_route_and_is_left_when_it_goes,
    s28_of_two_tunnels_one_goes_and_nothing_happens,
};
use users::{
    a_default_route_of_users_that_discards_is_left_alone,
    hops_that_users_append_to_a_route_of_ours_stay,
    ipv6_that_was_switched_off_and_on_is_complete_again,
    s41_a_default_route_of_users_is_left_alone,
    s42_what_users_have_configured_stays_through_every_move,
    s43_an_address_that_users_deleted_stays_deleted,
    s44_the_tap_stays_down_and_is_complete_when_up_again,
    s45_what_was_observed_of_users_is_not_the_hosts_to_change,
    what_users_do_in_the_pause_after_a_storm_of_theirs_counts,
};
use watched::{Watched, default_route, default_via, never_gone, position};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, s01_a_host_without_network_gives_local_mode_at_once),
        case!(families, s02_the_first_address_and_default_route_bind),
        case!(families, s03_s04_a_named_interface_is_waited_for),
        case!(families, s05_the_name_of_the_tap_has_no_influence_on_binding),
        case!(families, s06_what_is_not_of_the_kernel_is_counted_and_changes_nothing),
        case!(families, s07_without_config_net_nothing_in_the_namespace_changes),
        case!(families, s08_a_bridge_of_containers_is_never_template),
        case!(families, s09_one_family_binds_late_and_leaves_the_other_alone),
        case!(families, s10_a_default_route_that_comes_late_is_reproduced),
        case!(families, s11_a_renewed_address_is_there_before_the_old_one_goes),
        case!(families, s12_a_gap_between_two_addresses_is_held),
        case!(families, s13_renumbering_within_a_subnet_loses_nothing),
        case!(families, s14_a_better_uplink_is_taken_and_the_old_address_lingers),
        case!(families, s14_a_running_download_survives_the_move),
        case!(families, s16_a_lost_uplink_is_left_without_settling),
        case!(families, s17_a_pulled_cable_moves_to_the_other_uplink),
        case!(families, s18_a_sticky_template_is_waited_for),
        case!(families, s19_a_short_interruption_leaves_the_namespace_untouched),
        case!(families, s19_a_download_outlives_a_pulled_cable),
        case!(families, s19_an_upload_outlives_a_pulled_cable),
        case!(lab, s20_a_default_route_that_vanishes_silently_is_noticed),
        case!(families, s15_what_was_left_may_go),
        case!(lab, s21_a_default_route_that_goes_with_an_address_is_held),
        case!(families, s22_a_host_that_was_renumbered_in_its_sleep_is_followed),
        case!(families, s23_traffic_goes_through_a_vpn_and_the_identity_stays),
        case!(families, s24_a_tunnel_that_is_allowed_gives_its_own_end_and_a_way_by_its_peer),
        case!(families, s25_a_tunnel_that_is_the_only_way_is_template_until_there_is_another),
        case!(families, s26_a_vpn_by_halves_comes_and_goes_and_nothing_happens),
        case!(families, s27_a_guard_counts_with_a_default_route_and_is_left_when_it_goes),
        case!(families, s28_of_two_tunnels_one_goes_and_nothing_happens),
        case!(families, s29_a_deprecated_address_is_deprecated_and_goes_when_the_hosts_does),
        case!(families, s30_refreshed_lifetimes_lead_to_nothing),
        case!(lab, s31_privacy_addresses_that_rotate_lead_to_nothing),
        case!(lab, s32_a_tentative_address_is_waited_for),
        case!(families, s33_an_address_that_expires_is_held_and_does_not_expire_by_itself),
        case!(families, s48_s49_a_number_is_no_identity_and_a_named_link_is_known_again),
        case!(families, s50_a_renamed_template_stays_the_template),
        case!(families, s51_an_address_that_moves_to_another_link_is_followed),
        case!(lab, s56_a_router_outside_the_subnet_is_reproduced),
        case!(families, s57_of_two_hops_the_one_that_lives_is_used),
        case!(families, s60_two_uplinks_that_fight_are_left_to_it),
        case!(lab, s65_a_tap_whose_new_name_is_taken_keeps_its_own),
        case!(families, s25_hold_over_gives_local_mode_and_the_way_back),
        case!(families, s41_a_default_route_of_users_is_left_alone),
        case!(families, a_default_route_of_users_that_discards_is_left_alone),
        case!(families, what_users_do_in_the_pause_after_a_storm_of_theirs_counts),
        case!(lab, ipv6_that_was_switched_off_and_on_is_complete_again),
        case!(lab, a_flush_in_the_middle_of_a_reading_is_not_taken_for_the_users),
        case!(families, s42_what_users_have_configured_stays_through_every_move),
        case!(families, s43_an_address_that_users_deleted_stays_deleted),
        case!(families, s44_the_tap_stays_down_and_is_complete_when_up_again),
        case!(families, s45_what_was_observed_of_users_is_not_the_hosts_to_change),
        case!(families, s47_values_of_the_command_line_are_not_followed),
        case!(families, s52_a_change_in_the_middle_of_a_storm_is_applied),
        case!(lab, a_storm_of_the_namespaces_users_costs_little),
        case!(families, s52_unrelated_events_wake_nobody),
        case!(families, s52_what_the_namespaces_users_do_elsewhere_wakes_nobody),
        case!(families, an_address_on_another_cable_is_noticed_though_another_is_template),
        case!(families, s53_lost_events_are_made_up_for),
        case!(families, s53_events_that_are_lost_right_after_others_are_made_up_for),
        case!(families, s54_nothing_goes_on_the_strength_of_interrupted_readings),
        case!(families, s55_a_host_that_cannot_be_watched_is_looked_at),
        case!(families, s58_a_rule_for_our_user_makes_the_template_by_its_table),
        case!(lab, s59_without_ipv6_the_family_is_off_and_the_other_is_followed),
        case!(families, s14_a_connection_from_what_was_left_lives_as_long_as_the_hosts_address),
        case!(families, a_connection_from_an_address_that_goes_is_reset_on_both_sides),
        case!(families, a_connection_from_a_template_that_is_lost_for_good_is_reset),
        case!(lab, a_connection_of_local_mode_is_reset_at_the_first_binding),
        case!(families, s61_while_held_new_flows_fail_at_once),
        case!(families, s62_a_datagram_flow_goes_on_from_the_new_address),
        case!(families, s62_an_echo_flow_goes_on_from_the_new_address),
        case!(families, an_outbound_address_is_pinned_and_works_when_it_is_back),
        case!(families, a_listener_on_an_interface_hears_the_one_that_returns),
        case!(lab, a_tap_in_use_keeps_its_name_and_gets_the_new_one_too),
        case!(lab, a_tap_that_users_have_renamed_keeps_their_name),
        case!(lab, a_tap_with_a_packet_socket_keeps_its_name),
        case!(families, a_default_route_by_nexthop_object_is_followed),
        case!(families, hops_that_users_append_to_a_route_of_ours_stay),
        case!(lab, s64_the_tap_is_renamed_at_the_first_binding_and_keeps_its_old_name),
        case!(lab, at_rest_the_namespace_is_as_after_a_fresh_start),
        case!(lab, histories_end_as_the_rules_say),
        case!(families, usr1_writes_how_things_stand),
        case!(families, usr2_puts_right_what_users_removed),
        case!(families, a_transition_is_one_line_and_what_leads_to_nothing_is_none),
        case!(families, s66_without_following_all_stays_as_at_start),
        case!(families, s67_readiness_waits_for_a_network_if_asked_to),
        case!(lab, s68_requests_of_a_datapath_that_was_taken_over_change_nothing),
        case!(lab, s68_a_forged_message_ends_the_monitor_and_changes_nothing),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// `CAP_NET_BIND_SERVICE`, which low ports of the host's loopback take; it changes nothing of the configuration.
const NET_BIND_SERVICE: u64 = 1 << 10;

fn s01_a_host_without_network_gives_local_mode_at_once(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let loopback = lab.host().tcp(Family::V4.loopback(), service::echo)?;
    let mut watched = Watched::start(lab, &[])?;

    watched.wait_for("address 169.254.2.1/16", true)?;
    let gateway = format!("169.254.2.2:{}", loopback.port());
    watched.session.must(["tcp", "echo", &gateway, "1", "1000"])?;
    watched.session.end(7)?.expect_code(7)?;
    Ok(())
}

fn s02_the_first_address_and_default_route_bind(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let mut watched = Watched::start(lab, &[])?;

    come_online(lab, family, Some(0))?;

    watched.wait_for_default(family.gateway())?;
    watched.wait_for_address(family.host(), true)?;
    if family == Family::V4 {
        watched.wait_for("address 169.254.2.1/16", false)?;
        watched.wait_for("route 0.0.0.0/0 via 169.254.2.2", false)?;
    }
    watched.reach(lab, family)?;
    let udp = lab.remote().udp_echo(family.internet())?;
    watched.session.must(["udp", "echo", &udp.endpoint(), "64"])?;
    Ok(())
}

fn s03_s04_a_named_interface_is_waited_for(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    add_second_uplink(lab)?;
    let watched = Watched::start(lab, &["-i", UPLINK])?;
    let mut log = watched.inside.listen()?;

    bring_second_online(lab, family, Some(0))?;
    come_online(lab, family, None)?;

    watched.wait_for_address(family.host(), true)?;
    let (other, _, _) = second(family);
    let seen = log.lines()?;
    assert!(!seen.iter().any(|line| line.contains(&format!("{other}/"))), "{seen:#?}");
    // The named interface has no default route, so there is none but local mode's while it lasts.
    watched.wait_for(default_route(family.gateway()), false)
}

fn s05_the_name_of_the_tap_has_no_influence_on_binding(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let mut watched = Watched::start(lab, &["-I", "foo0"])?;

    come_online(lab, family, Some(0))?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.inside.run(|| index_of("foo0"))?;
    assert!(watched.inside.run(|| index_of(UPLINK)).is_err());
    watched.reach(lab, family)
}

fn s07_without_config_net_nothing_in_the_namespace_changes(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let pasta = lab.pasta().with(["-d"]);
    let mut watched = Watched::new(pasta.session()?)?;
    let mut log = watched.inside.listen()?;

    come_online(lab, family, Some(0))?;

    // The log tells that the binding was made; nothing was sent into the namespace.
    let bound = format!("bound {UPLINK}");
    wait::until("the binding", || {
        watched.session.running().errors().contains(&bound).then_some(())
    })?;
    assert_eq!(log.lines()?, [] as [String; 0]);
    assert_eq!(watched.inside.show()?, [] as [String; 0]);
    assert_eq!(process::only(MONITOR)?.capabilities("CapEff")?, NET_BIND_SERVICE);
    Ok(())
}

fn s09_one_family_binds_late_and_leaves_the_other_alone(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[family])?;
    let mut watched = Watched::start(lab, &[])?;
    let other = family.other();
    watched.wait_for_address(other.host(), true)?;
    let mut log = watched.inside.listen()?;

    come_online(lab, family, Some(0))?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&other.host().to_string())), "{lines:#?}");
    never_gone(lines, default_route(other.gateway()));
    watched.reach(lab, family)?;
    watched.reach(lab, other)
}

fn s10_a_default_route_that_comes_late_is_reproduced(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    // An ordinary route makes the uplink a candidate where nothing leads everywhere.
    come_online(lab, family, None)?;
    let mut watched = Watched::start(lab, &["-i", UPLINK])?;
    watched.wait_for_address(family.host(), true)?;
    assert!(!watched.has(&default_via(family.gateway()))?);

    on_host(lab, |admin| admin.add_route(first_default(family, 0)?))?;

    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)
}

fn s11_a_renewed_address_is_there_before_the_old_one_goes(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &[])?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut log = watched.inside.listen()?;
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));

    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, new, len))?;
    watched.wait_for_address(new, true)?;
    watched.session.must(["tcp", "open", "kept", &echo.endpoint()])?;
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.delete_address(link, old, len)?;
        let onward = Way::default(link, family.gateway(), 0);
        // The kernel may have taken the default route of IPv4 along.
        let _ = admin.add_route(onward);
        Ok(())
    })?;

    watched.wait_for_address(old, false)?;
    let lines = log.lines()?;
    let added = position(lines, &format!("+ address {new}/"));
    assert!(added < position(lines, &format!("- address {old}/")), "{lines:#?}");
    assert!(watched.has(default_route(new))?, "{:#?}", watched.inside.show()?);
    Ok(())
}

fn s12_a_gap_between_two_addresses_is_held(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    let mut log = watched.inside.listen()?;
    let (old, new, len) = (family.host(), renewed(family), prefix_length(family));

    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, old, len))?;
    let held = format!("held {UPLINK}");
    wait::until("the hold", || watched.session.running().errors().contains(&held).then_some(()))?;
    assert!(watched.has(&format!("address {old}/"))?);
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, new, len)?;
        let _ = admin.add_route(first_default(family, 0)?);
        Ok(())
    })?;

    watched.wait_for_address(old, false)?;
    watched.wait_for_address(new, true)?;
    watched.wait_for_default(family.gateway())?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|line| line.contains("169.254.2.")), "{lines:#?}");
    watched.reach(lab, family)
}

fn s13_renumbering_within_a_subnet_loses_nothing(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &[])?;
    let mut log = watched.inside.listen()?;
    let (old, new, len) = (family.host(), renewed(family), prefix_length(family));
    // The host keeps the new address when it removes the old one.
    lab.host()
        .run(|| Ok(std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "1")?))?;

    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, new, len))?;
    watched.wait_for_address(new, true)?;
    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, old, len))?;
    watched.wait_for_address(old, false)?;

    watched.wait_for_address(new, true)?;
    let lines = log.lines()?;
    never_gone(lines, &format!("address {new}/"));
    never_gone(lines, default_route(new));
    assert!(watched.has(&default_via(family.gateway()))?);
    watched.reach(lab, family)
}

fn s14_a_better_uplink_is_taken_and_the_old_address_lingers(lab: &Lab, family: Family) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &[])?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    watched.session.must(["tcp", "open", "before", &echo.endpoint()])?;
    let mut log = watched.inside.listen()?;

    bring_second_online(lab, family, Some(100))?;

    let (new, gateway, _) = second(family);
    watched.wait_for_address(new, true)?;
    watched.wait_for_default(gateway)?;
    let lingering = format!("address {}/{} deprecated", family.host(), prefix_length(family));
    watched.wait_for(&lingering, true)?;
    watched.wait_for(
        &format!("{} via {} metric 2600", default_route(gateway), family.gateway()),
        false,
    )?;
    watched.session.must(["tcp", "exchange", "before", "1", "100000"])?;
    // The kernel announces addresses of IPv6 some time after they are there, so only the other
    // family's log tells the order.
    if family == Family::V4 {
        let lines = log.lines()?;
        let added = position(lines, &format!("+ address {new}/"));
        assert!(added < position(lines, &format!("+ {lingering}")), "{lines:#?}");
    }
    Ok(())
}

fn s17_a_pulled_cable_moves_to_the_other_uplink(lab: &Lab, family: Family) -> Outcome {
    add_second_uplink(lab)?;
    bring_second_online(lab, family, Some(2600))?;
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;

    // The far end going down is what a pulled cable looks like from here.
    lab.remote().run(|| {
        let netlink = Netlink::open()?;
        Ok(netlink.set_up(netlink.link("uplink")?.index, false)?)
    })?;

    let (address, gateway, _) = second(family);
    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)?;
    // Traffic itself follows the routes of the host, which are its own affair.
    watched.wait_for_address(family.host(), false)
}

fn s19_a_short_interruption_leaves_the_namespace_untouched(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    watched.session.must(["tcp", "open", "kept", &echo.endpoint()])?;
    let mut log = watched.inside.listen()?;

    set_link(lab, UPLINK, false)?;
    let held = format!("{} held {UPLINK}", if family == Family::V4 { "IPv4" } else { "IPv6" });
    wait::until("the hold", || watched.session.running().errors().contains(&held).then_some(()))?;
    set_link(lab, UPLINK, true)?;
    on_host(lab, |admin| {
        // IPv4 addresses survive the interruption, IPv6 ones are added again.
        admin
            .add_address(index_of(UPLINK)?, family.host(), prefix_length(family))
            .or_else(|error| if family == Family::V4 { Ok(()) } else { Err(error) })?;
        admin.add_route(first_default(family, 0)?)
    })?;
    let again = "usable again";
    wait::until("the return", || watched.session.running().errors().contains(again).then_some(()))?;

    watched.session.must(["tcp", "exchange", "kept", "1", "100000"])?;
    watched.reach(lab, family)?;
    let lines = log.lines()?;
    never_gone(lines, &format!("address {}/", family.host()));
    never_gone(lines, default_route(family.gateway()));
    Ok(())
}

fn s20_a_default_route_that_vanishes_silently_is_noticed(lab: &Lab) -> Outcome {
    add_second_uplink(lab)?;
    bring_second_online(lab, Family::V4, Some(2600))?;
    let watched = Watched::start(lab, &["-4"])?;
    watched.wait_for_address(Family::V4.host(), true)?;

    set_link(lab, UPLINK, false)?;

    let (address, gateway, _) = second(Family::V4);
    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)
}

fn s25_hold_over_gives_local_mode_and_the_way_back(lab: &Lab, family: Family) -> Outcome {
    // The hold time is the default's ten seconds; the deadline is far beyond.
    let mut watched = Watched::start(lab, &[])?;
    let mut log = watched.inside.listen()?;

    go_offline(lab, &[family])?;
    watched.wait_for_address(family.host(), false)?;
    watched.wait_for(&default_via(family.gateway()), false)?;
    if family == Family::V4 {
        let lines = log.lines()?;
        let local = position(lines, "+ address 169.254.2.1/");
        assert!(local < position(lines, &format!("- address {}/", family.host())), "{lines:#?}");
    }
    come_online(lab, family, Some(0))?;
    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)
}

fn s47_values_of_the_command_line_are_not_followed(lab: &Lab, family: Family) -> Outcome {
    let (address, gateway) = match family {
        Family::V4 => ("192.0.2.99", "192.0.2.1"),
        Family::V6 => ("2001:db8::99", "fe80::1"),
    };
    let watched = Watched::start(lab, &["-a", address, "-g", gateway])?;
    watched.wait_for(&format!("address {address}/"), true)?;
    let mut log = watched.inside.listen()?;

    for family in [family, family.other()] {
        on_host(lab, |admin| {
            let link = index_of(UPLINK)?;
            admin.add_address(link, elsewhere(family), prefix_length(family))?;
            admin.delete_address(link, family.host(), prefix_length(family))
        })?;
    }

    let other = family.other();
    watched.wait_for_address(elsewhere(other), true)?;
    watched.wait_for_address(other.host(), false)?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&elsewhere(family).to_string())), "{lines:#?}");
    never_gone(lines, &format!("address {address}/"));
    assert!(watched.has(&format!("{} via {gateway}", default_route(family.gateway())))?);
    Ok(())
}

fn s64_the_tap_is_renamed_at_the_first_binding_and_keeps_its_old_name(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let watched = Watched::start(lab, &[])?;
    watched.inside.run(|| index_of("tap0"))?;

    come_online(lab, Family::V4, Some(0))?;

    wait::until("the new name", || watched.inside.run(|| index_of(UPLINK)).ok())?;
    // Between the two requests that this takes, the old name leads nowhere for a moment.
    let by_old_name = || Ok(nix::net::if_::if_nametoindex("tap0")?);
    let by_old_name = wait::until("the old name", || watched.inside.run(by_old_name).ok())?;
    assert_eq!(by_old_name, watched.inside.run(|| index_of(UPLINK))?);
    Ok(())
}

fn s16_a_lost_uplink_is_left_without_settling(lab: &Lab, family: Family) -> Outcome {
    add_second_uplink(lab)?;
    // Nothing moves by itself within an hour.
    let mut watched = Watched::start(lab, &["--settle", "3600000"])?;
    bring_second_online(lab, family, Some(0))?;

    go_offline(lab, &[family])?;

    let (address, gateway, _) = second(family);
    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)?;
    // A connection from the lost address, which goes last, would not get far.
    watched.wait_for_address(family.host(), false)?;
    watched.reach(lab, family)
}

fn s18_a_sticky_template_is_waited_for(lab: &Lab, family: Family) -> Outcome {
    add_second_uplink(lab)?;
    bring_second_online(lab, family, Some(2600))?;
    let watched = Watched::start(lab, &["--follow", "sticky", "--hold", "0"])?;
    watched.wait_for_address(family.host(), true)?;
    let mut log = watched.inside.listen()?;

    go_offline(lab, &[family])?;
    watched.wait_for_address(family.host(), false)?;
    come_online(lab, family, Some(0))?;

    watched.wait_for_address(family.host(), true)?;
    let (other, _, _) = second(family);
    let lines = log.lines()?;
    assert!(!lines.iter().any(|line| line.contains(&other.to_string())), "{lines:#?}");
    Ok(())
}

fn s66_without_following_all_stays_as_at_start(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["--follow", "off"])?;
    let before = watched.inside.show()?;
    let mut log = watched.inside.listen()?;
    // The monitor has nothing left that it could change the configuration with.
    assert_eq!(process::only(MONITOR)?.capabilities("CapEff")?, NET_BIND_SERVICE);

    let added = renewed(family);
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, added, prefix_length(family)))?;
    watched.reach(lab, family)?;

    assert_eq!(log.lines()?, [] as [String; 0]);
    assert_eq!(watched.inside.show()?, before);
    Ok(())
}

fn s67_readiness_waits_for_a_network_if_asked_to(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let pasta = lab.pasta().configured().with(["--bind-wait", "60000"]);
    let running = pasta.start(["lab-client", "show"])?;
    // The monitor is confined before it waits.
    wait::until("the confined monitor", || {
        let monitor = process::only(MONITOR).ok()?;
        monitor.status("Seccomp").ok().filter(|mode| mode == "2")
    })?;

    come_online(lab, family, Some(0))?;

    let finished = running.finish()?.expect_code(0)?;
    let address = format!("- address {}/{} on", family.host(), prefix_length(family));
    assert!(finished.output.iter().any(|line| line.starts_with(&address)), "{finished:?}");
    Ok(())
}
