# fish completion for pasta(1)
# Generated from the table of options, see README.md.

set -g __pasta_options \
    netns= \
    userns= \
    netns-only \
    no-netns-quit \
    no-pidns \
    no-die-with-parent \
    f/foreground \
    P/pid= \
    c/conf-path= \
    runas= \
    chroot-fallback \
    F/fd= \
    h/help \
    version \
    config-net \
    4/ipv4-only \
    6/ipv6-only \
    i/interface= \
    I/ns-ifname= \
    a/address= \
    n/netmask= \
    g/gateway= \
    m/mtu= \
    ns-mac-addr= \
    no-copy-routes \
    no-copy-addrs \
    follow= \
    settle= \
    hold= \
    linger= \
    tunnels= \
    bind-wait= \
    rename= \
    M/mac-addr= \
    o/outbound= \
    no-map-gw \
    map-host-loopback= \
    no-host-loopback \
    map-guest-addr= \
    dns-forward= \
    dns-host= \
    outbound-if4= \
    outbound-if6= \
    freebind \
    t/tcp-ports= \
    u/udp-ports= \
    T/tcp-ns= \
    U/udp-ns= \
    host-lo-to-ns-lo \
    no-splice \
    splice-only \
    no-tcp \
    no-udp \
    no-icmp \
    no-ndp \
    no-dhcp \
    no-dhcpv6 \
    no-ra \
    D/dns= \
    S/search= \
    dhcp-dns \
    dhcp-search \
    H/hostname= \
    fqdn= \
    d/debug \
    trace \
    q/quiet \
    l/log-file= \
    log-size= \
    stats= \
    p/pcap= \
    e/stderr \
    explain \
    json \
    sandbox-report \
    strict-sandbox \
    audit

# Prints COMMAND and its arguments as they are so far; fails while there are only options.
function __pasta_command
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    argparse -s $__pasta_options -- $words 2>/dev/null
    or return 1
    test -n "$argv[1]"
    and not string match -q -- '-*' $argv[1]
    and string join0 -- $argv
end

function __pasta_has_no_command
    not __pasta_command >/dev/null
end

function __pasta_complete_command
    __fish_complete_subcommand --commandline (__pasta_command | string split0)
end

complete -c pasta -f
complete -c pasta -n 'not __pasta_has_no_command' -a '(__pasta_complete_command)'
complete -c pasta -n __pasta_has_no_command -a '(__fish_complete_command)'
complete -c pasta -n 'string match -qr "^[0-9]" -- (commandline -ct)' -a '(__fish_complete_pids)'

complete -c pasta -n __pasta_has_no_command -l netns -d 'Attach to this network namespace: a path, or a name in /run/netns' -r -F -a '(command ls /run/netns 2>/dev/null)'
complete -c pasta -n __pasta_has_no_command -l userns -d 'User namespace to enter (default: the one that owns the network namespace)' -r -F
complete -c pasta -n __pasta_has_no_command -l netns-only -d 'Neither enter nor create a user namespace'
complete -c pasta -n __pasta_has_no_command -l no-netns-quit -d 'Do not end when the namespace is unlinked or unmounted, or its process ends: run until killed'
complete -c pasta -n __pasta_has_no_command -l no-pidns -d 'Run COMMAND in the caller\'s PID namespace, without a new /proc'
complete -c pasta -n __pasta_has_no_command -l no-die-with-parent -d 'Do not end COMMAND when pasta is killed: it goes on without a network'
complete -c pasta -n __pasta_has_no_command -s f -l foreground -d 'Stay in the foreground when attached (always so with COMMAND)'
complete -c pasta -n __pasta_has_no_command -s P -l pid -d 'Write the process id of pasta to this file once all is ready' -r -F
complete -c pasta -n __pasta_has_no_command -s c -l conf-path -d 'Make a control socket at this path, for pesto: status, changes of forwarded ports' -r -F
complete -c pasta -n __pasta_has_no_command -l runas -d 'User to change to when started by root, by name or number (default: nobody)' -x -a '(__fish_complete_users)'
complete -c pasta -n __pasta_has_no_command -l chroot-fallback -d 'Where pivot_root(2) is refused (initramfs), move the root and use chroot(2)'
complete -c pasta -n __pasta_has_no_command -s F -l fd -d 'Use the tap open at this descriptor instead of creating one; it is not configured' -x
complete -c pasta -n __pasta_has_no_command -s h -l help -d 'Print this help'
complete -c pasta -n __pasta_has_no_command -l version -d 'Print the version'
complete -c pasta -n __pasta_has_no_command -l config-net -d 'Configure the interface as the host\'s: addresses, routes, up. Without it the interface is left down'
complete -c pasta -n __pasta_has_no_command -s 4 -l ipv4-only -d 'IPv4 only'
complete -c pasta -n __pasta_has_no_command -s 6 -l ipv6-only -d 'IPv6 only'
complete -c pasta -n __pasta_has_no_command -s i -l interface -d 'Host interface whose addresses and routes are copied, the template (default: chosen by its routes)' -x -a '(command ls /sys/class/net)'
complete -c pasta -n __pasta_has_no_command -s I -l ns-ifname -d 'Name of the interface in the namespace (default: as on the host, or tap0)' -x
complete -c pasta -n __pasta_has_no_command -s a -l address -d 'Address of the interface, may be repeated (default: those of the host)' -x
complete -c pasta -n __pasta_has_no_command -s n -l netmask -d 'Prefix of the IPv4 address given with -a (default: by its class)' -x
complete -c pasta -n __pasta_has_no_command -s g -l gateway -d 'Default gateway, one for each family (default: the host\'s)' -x
complete -c pasta -n __pasta_has_no_command -s m -l mtu -d 'MTU of the interface; 0 leaves it alone, auto copies the template\'s (default: 65520)' -x -a 'auto'
complete -c pasta -n __pasta_has_no_command -l ns-mac-addr -d 'MAC address of the interface (default: random)' -x
complete -c pasta -n __pasta_has_no_command -l no-copy-routes -d 'Deprecated: one default route instead of the host\'s routes, needs --config-net'
complete -c pasta -n __pasta_has_no_command -l no-copy-addrs -d 'Deprecated: one address instead of all of the host\'s, needs --config-net'
complete -c pasta -n __pasta_has_no_command -l follow -d 'roam: follow the host, to better interfaces too; sticky: stay with the first one; once: stop after the first configuration; off: do not follow (default: roam; sticky with -i)' -x -a 'roam sticky once off'
complete -c pasta -n __pasta_has_no_command -l settle -d 'Quiet time before a change to a better interface (default: 1000)' -x
complete -c pasta -n __pasta_has_no_command -l hold -d 'How long the configuration is kept after its interface is lost (default: 10000)' -x -a 'inf'
complete -c pasta -n __pasta_has_no_command -l linger -d 'At least how long old addresses are kept after a change to another interface (default: 30)' -x
complete -c pasta -n __pasta_has_no_command -l tunnels -d 'Whether a tunnel, such as a VPN, may be the template (default: avoid, if there is anything else)' -x -a 'avoid allow never'
complete -c pasta -n __pasta_has_no_command -l bind-wait -d 'Wait up to this long for a network before COMMAND starts (default: 0)' -x
complete -c pasta -n __pasta_has_no_command -l rename -d 'Whether an interface that was made while the host was offline gets the name of the first template (default: auto)' -x -a 'auto never'
complete -c pasta -n __pasta_has_no_command -s M -l mac-addr -d 'MAC address of the gateway, as seen in the namespace (default: 9a:55:9a:55:9a:55)' -x
complete -c pasta -n __pasta_has_no_command -s o -l outbound -d 'Source address of outbound traffic, one for each family (default: chosen by the kernel)' -x
complete -c pasta -n __pasta_has_no_command -l no-map-gw -d 'Do not map the gateway\'s address to the host\'s loopback'
complete -c pasta -n __pasta_has_no_command -l map-host-loopback -d 'Address that is mapped to the host\'s loopback (default: the gateway\'s)' -x -a 'none'
complete -c pasta -n __pasta_has_no_command -l no-host-loopback -d 'Nothing leads to the host\'s loopback: --no-map-gw, -T none and -U none'
complete -c pasta -n __pasta_has_no_command -l map-guest-addr -d 'Address that is mapped to the host\'s own address (default: none)' -x -a 'none'
complete -c pasta -n __pasta_has_no_command -l dns-forward -d 'Forward DNS queries that are sent to this address, one for each family (default: none)' -x
complete -c pasta -n __pasta_has_no_command -l dns-host -d 'Resolver that they are forwarded to (default: those of the host\'s /etc/resolv.conf, the next one after an error)' -x
complete -c pasta -n __pasta_has_no_command -l outbound-if4 -d 'Host interface that outbound IPv4 is bound to; the template too, without -i' -x -a '(command ls /sys/class/net)'
complete -c pasta -n __pasta_has_no_command -l outbound-if6 -d 'Host interface that outbound IPv6 is bound to; the template too, without -i' -x -a '(command ls /sys/class/net)'
complete -c pasta -n __pasta_has_no_command -l freebind -d 'Bind sockets also to addresses that the host does not have'
complete -c pasta -n __pasta_has_no_command -s t -l tcp-ports -d 'TCP ports of the host that lead into the namespace (default: auto, the ports that are listened on there, but for low and ephemeral ones)' -x -a 'auto all none'
complete -c pasta -n __pasta_has_no_command -s u -l udp-ports -d 'The same for UDP' -x -a 'auto all none'
complete -c pasta -n __pasta_has_no_command -s T -l tcp-ns -d 'TCP ports of the namespace\'s loopback that lead to the host\'s (default: auto, the ports that are listened on there, but for ephemeral ones)' -x -a 'auto all none'
complete -c pasta -n __pasta_has_no_command -s U -l udp-ns -d 'The same for UDP' -x -a 'auto all none'
complete -c pasta -n __pasta_has_no_command -l host-lo-to-ns-lo -d 'Connections to the host\'s loopback arrive at the namespace\'s loopback'
complete -c pasta -n __pasta_has_no_command -l no-splice -d 'Local connections to forwarded ports go through the interface, as all others'
complete -c pasta -n __pasta_has_no_command -l splice-only -d 'Create no interface, only forward ports between both loopbacks'
complete -c pasta -n __pasta_has_no_command -l no-tcp -d 'Drop TCP, forward no TCP port'
complete -c pasta -n __pasta_has_no_command -l no-udp -d 'Drop UDP, forward no UDP port'
complete -c pasta -n __pasta_has_no_command -l no-icmp -d 'Drop echo (ping); implies --no-ndp'
complete -c pasta -n __pasta_has_no_command -l no-ndp -d 'Do not answer neighbour and router solicitations'
complete -c pasta -n __pasta_has_no_command -l no-dhcp -d 'Do not answer DHCP clients'
complete -c pasta -n __pasta_has_no_command -l no-dhcpv6 -d 'Do not answer DHCPv6 clients'
complete -c pasta -n __pasta_has_no_command -l no-ra -d 'Do not send router advertisements'
complete -c pasta -n __pasta_has_no_command -s D -l dns -d 'Resolver named to clients of DHCP and router advertisements, up to three of a family (default: the host\'s)' -x -a 'none'
complete -c pasta -n __pasta_has_no_command -s S -l search -d 'Search domain named to these clients, up to six (default: the host\'s)' -x -a 'none'
complete -c pasta -n __pasta_has_no_command -l dhcp-dns -d 'Name the resolvers to these clients'
complete -c pasta -n __pasta_has_no_command -l dhcp-search -d 'Name the search domains to these clients'
complete -c pasta -n __pasta_has_no_command -s H -l hostname -d 'Host name of a new namespace (default: pasta- and the host\'s), and named to these clients' -x
complete -c pasta -n __pasta_has_no_command -l fqdn -d 'Fully qualified domain name, named to these clients' -x
complete -c pasta -n __pasta_has_no_command -s d -l debug -d 'Log more, with timestamps'
complete -c pasta -n __pasta_has_no_command -l trace -d 'Log every event too; implies --debug'
complete -c pasta -n __pasta_has_no_command -s q -l quiet -d 'Log warnings and errors only'
complete -c pasta -n __pasta_has_no_command -s l -l log-file -d 'Log to this file (default: the system log when attached, else standard error)' -r -F
complete -c pasta -n __pasta_has_no_command -l log-size -d 'Size at which the oldest part of the log file is removed (default: 1048576)' -x
complete -c pasta -n __pasta_has_no_command -l stats -d 'Print event counters, at most this often; in the foreground only' -x
complete -c pasta -n __pasta_has_no_command -s p -l pcap -d 'Write the namespace\'s frames to this file, for tcpdump or Wireshark' -r -F
complete -c pasta -n __pasta_has_no_command -s e -l stderr -d 'Deprecated, without effect'
complete -c pasta -n __pasta_has_no_command -l explain -d 'Print what would be done with these options on this host, and do nothing'
complete -c pasta -n __pasta_has_no_command -l json -d 'With --explain: print it as JSON'
complete -c pasta -n __pasta_has_no_command -l sandbox-report -d 'Print the privileges that each process has left, before COMMAND starts'
complete -c pasta -n __pasta_has_no_command -l strict-sandbox -d 'Start only if no measure of the sandbox is missing, and end with the monitor; abi:N asks for Landlock ABI N (default: 6)'
complete -c pasta -n __pasta_has_no_command -l audit -d 'Print the privileges, namespaces and descriptors of the running pasta with process ID PID; status 1 if one is not as it should be'
