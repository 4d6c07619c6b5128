//! What somebody who knows another program's command line is to write here.

/// Options of container engines, slirp4netns and unshare(1), and what does the same.
const OF_OTHERS: &[(&str, &str)] = &[
    ("publish", PORTS),
    ("expose", PORTS),
    ("port", PORTS),
    (
        "publish-all",
        "'-t auto' forwards every TCP port that is listened on, '-u auto' every UDP port",
    ),
    ("interactive", TERMINAL),
    ("tty", TERMINAL),
    ("rm", "nothing is left when COMMAND ends"),
    (
        "detach",
        "without '--foreground' pasta goes to the background when it attaches to a namespace",
    ),
    ("net", NAMESPACE),
    ("network", NAMESPACE),
    ("configure", "'--config-net' configures the interface"),
    ("disable-host-loopback", "'--no-host-loopback' closes the host's loopback"),
    ("enable-ipv6", "IPv6 is on where the host has it; '-4' switches it off"),
    ("cidr", "'-a ADDRESS/PREFIX' and '-g ADDRESS' give address and gateway"),
    ("api-socket", "'-c PATH' serves a control socket, and 'pesto' is its client"),
    ("macaddress", "'--ns-mac-addr MAC' gives the namespace's link-layer address"),
    ("mac-address", "'--ns-mac-addr MAC' gives the namespace's link-layer address"),
    ("map-root-user", "COMMAND is root of its own namespaces already"),
];

const PORTS: &str =
    "'-t HOST:NAMESPACE' forwards a TCP port and '-u' a UDP port, as in '-t 8080:80'";
const TERMINAL: &str = "COMMAND has pasta's terminal";
const NAMESPACE: &str =
    "'--config-net COMMAND' makes a configured namespace, '--netns PATH' attaches to one";

/// A line about the unknown option `name`, one of `known`, where there is one to be given.
pub(super) fn for_unknown(
    name: &str,
    mut known: impl Iterator<Item = &'static str>,
) -> Option<String> {
    if let Some((_, hint)) = OF_OTHERS.iter().find(|(other, _)| *other == name) {
        return Some(format!("Here {hint}."));
    }
    let dashes = name.replace('_', "-").to_lowercase();
    let alike = known.find(|it| *it == dashes || it.replace('-', "") == dashes)?;
    Some(format!("There is '--{alike}'."))
}

/// What is wrong with this group of short options, if it is one of container engines that would be taken for another
/// thing here.
pub(super) fn not_options(group: &[u8]) -> Option<String> {
    (group == b"it")
        .then(|| format!("'-it' would be the interface 't' ('-i t'); {TERMINAL} without an option"))
}

/// What is wrong with `path` for a capture, if it looks like ports to publish.
pub(super) fn not_a_capture(path: &str) -> Option<String> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_digit());
    let mut parts = path.trim_end_matches("/tcp").trim_end_matches("/udp").rsplit(':');
    let is_ports = parts.next().is_some_and(digits) && parts.next().is_some_and(digits);
    is_ports.then(|| {
        format!("-p is the capture file, and '{path}' looks like ports: {PORTS} (a file of that name: './{path}')")
    })
}
