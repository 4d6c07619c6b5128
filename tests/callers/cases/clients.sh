# Programs that configure a namespace from inside, by DHCP, DHCPv6 and router advertisements. `pasta` is
# attached to it as the ordinary user, without --config-net; the programs are run by the host's root, as
# they change to users that the namespace does not have.

# Starts a namespace and pasta; the interface is up and has nothing yet.
client_namespace() {
    "${AS_USER[@]}" unshare --user --map-root-user --net sleep inf &
    NAMESPACE=$!
    within 2 namespace_is_apart
    # Clients write /etc/resolv.conf, which is replaced on the host at the same time: mounting over that one
    # file would not last. Where /sys can be written to, systemd-networkd waits for udev, which is not there.
    cp -a /etc /tmp/client-etc
    : >/tmp/client-etc/resolv.conf
    nsenter "--net=/proc/$NAMESPACE/ns/net" unshare --mount sh -c \
        'mount --bind /tmp/client-etc /etc && mount -t sysfs -o ro sysfs /sys && exec sleep inf' &
    MOUNTS=$!
    INSIDE=(nsenter --mount --net --target "$MOUNTS" --)
    within 2 client_inside test /etc -ef /tmp/client-etc
    user pasta -I eth0 --dhcp-dns --dhcp-search "$@" "$NAMESPACE"
}

namespace_is_apart() {
    [ "$(readlink "/proc/$NAMESPACE/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# INSIDE is an array for one that is put in the background: $! is then its own.
client_inside() {
    "${INSIDE[@]}" "$@"
}
client_host=
client_port=
client_resolver=
client_families='4 6'

# Ends the namespace, and the client if there is one.
client_stop() {
    if [ -n "${CLIENT:-}" ]; then
        kill "$CLIENT" ${BUS:+"$BUS"}
        wait "$CLIENT" || true
    fi
    kill "$MOUNTS" "$NAMESPACE"
    wait "$MOUNTS" "$NAMESPACE" || true
    rm -rf /tmp/client-etc
    nothing_left
}

# The namespace has the host's IPv4 address, an address of the host's IPv6 prefix, both default routes and
# the resolver: client_configured SECONDS
client_configured() {
    within "$1" has "inet $HOST4/24 " -- client_inside ip addr show dev eth0
    within "$1" has "inet6 ${HOST6%::2}:[0-9a-f:]+/(64|128) scope global" -- client_inside ip addr show dev eth0
    within "$1" has "default via $GATEWAY4 dev eth0" -- client_inside ip route
    within "$1" has 'default (proto ra |nhid [0-9]+ )?via fe80:.* dev eth0' -- client_inside ip -6 route
    within "$1" has "^nameserver $GATEWAY4\$" -- client_resolvers
    network_works client "$1"
}

client_resolvers() {
    client_inside cat /etc/resolv.conf
}

# What the old network had is not used for anything new: client_has_moved SECONDS
client_has_moved() {
    client_configured "$1"
    within "$1" has_not 'inet 192\.0\.2\.' -- client_inside ip addr show dev eth0
    within "$1" has_not '2001:db8::.*preferred_lft ([1-9]|forever)' -- client_addresses
}

# One line for each IPv6 address.
client_addresses() {
    client_inside ip -o -6 addr show dev eth0
}

# udhcpc, and the kernel for IPv6.
udhcpc_start() {
    client_inside ip link set eth0 up
    cat >/tmp/udhcpc.script <<'END'
#!/bin/sh
case $1 in
deconfig) ip -4 addr flush dev "$interface" && ip link set "$interface" up ;;
bound | renew)
    ip -4 addr flush dev "$interface"
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip addr add "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
END
    chmod +x /tmp/udhcpc.script
    "${INSIDE[@]}" udhcpc -f -i eth0 -t 5 -T 1 -A 1 -s /tmp/udhcpc.script -O mtu &
    CLIENT=$!
}
udhcpc_renew() {
    kill -USR1 "$CLIENT"
}

# dhcpcd, for both families.
dhcpcd_start() {
    cat >/tmp/dhcpcd.conf <<'END'
duid
noarp
option domain_name_servers, domain_search, interface_mtu, classless_static_routes
END
    client_inside ip link set eth0 up
    "${INSIDE[@]}" dhcpcd --nobackground --config /tmp/dhcpcd.conf eth0 &
    CLIENT=$!
}
dhcpcd_renew() {
    client_inside dhcpcd --config /tmp/dhcpcd.conf --rebind eth0
}

# systemd-networkd, for both families; without systemd it says nothing of resolvers to anybody, so they are
# read where it keeps them.
networkd_start() {
    mkdir -p /tmp/client-etc/systemd/network /run/systemd/netif
    printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n[DHCPv4]\nUseMTU=yes\n' \
        >/tmp/client-etc/systemd/network/eth0.network
    chown -R systemd-network:systemd-network /run/systemd/netif
    # Identifiers of clients are made of it.
    echo 0123456789abcdef0123456789abcdef >/tmp/client-etc/machine-id
    "${INSIDE[@]}" /usr/lib/systemd/systemd-networkd &
    CLIENT=$!
    client_resolvers() { networkd_resolvers && cat /tmp/client-etc/resolv.conf; }
}
networkd_resolvers() {
    local servers
    servers=$(sed -n 's/^DNS=//p' /run/systemd/netif/state)
    [ -n "$servers" ] || return 1
    printf 'nameserver %s\n' $servers >/tmp/client-etc/resolv.conf
}
# It has no way to be asked without systemd: a new start confirms what it has.
networkd_renew() {
    kill "$CLIENT"
    wait "$CLIENT" || true
    networkd_start
}

# NetworkManager with its own client, for both families, on a bus of its own.
networkmanager_start() {
    local settings=/tmp/client-etc/NetworkManager
    mkdir -p /run/dbus "$settings/system-connections"
    echo 0123456789abcdef0123456789abcdef >/tmp/client-etc/machine-id
    printf '[main]\nplugins=keyfile\ndhcp=internal\nrc-manager=file\n[connectivity]\nenabled=false\n' \
        >"$settings/NetworkManager.conf"
    install -m 600 /dev/stdin "$settings/system-connections/eth0.nmconnection" <<'END'
[connection]
id=eth0
type=tun
interface-name=eth0
[tun]
mode=2
vnet-hdr=true
[ipv4]
method=auto
[ipv6]
method=auto
END
    "${INSIDE[@]}" dbus-daemon --system --nofork --nopidfile &
    BUS=$!
    within 5 test -S /run/dbus/system_bus_socket
    "${INSIDE[@]}" NetworkManager --debug --log-level=WARN &
    CLIENT=$!
    # A tap that others have made is theirs, it thinks.
    within 10 nmcli --wait 0 device set eth0 managed yes
}
networkmanager_renew() {
    nmcli --wait 0 connection up eth0
}

# dhclient, and the kernel for IPv6. Debian sid does not have it any more.
dhclient_start() {
    command -v dhclient >/dev/null || skip 'dhclient is not in this system'
    client_inside ip link set eth0 up
    mkdir -p /var/lib/dhcp
    cat >/tmp/dhclient.script <<'END'
#!/bin/sh
case $reason in
EXPIRE | FAIL | RELEASE | STOP) ip -4 addr flush dev "$interface" ;;
BOUND | RENEW | REBIND | REBOOT)
    ip -4 addr flush dev "$interface"
    ip addr add "$new_ip_address/$new_subnet_mask" dev "$interface"
    ip route replace default via "${new_routers%% *}" dev "$interface"
    for server in $new_domain_name_servers; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
END
    chmod +x /tmp/dhclient.script
    "${INSIDE[@]}" dhclient -d -4 -sf /tmp/dhclient.script -lf /tmp/dhclient.leases -pf /tmp/dhclient.pid eth0 &
    CLIENT=$!
}
# It is not to be asked: a new start confirms what it has.
dhclient_renew() {
    kill "$CLIENT"
    wait "$CLIENT" || true
    dhclient_start
}

# The client gets what the host has, and what it has next.
client_follows() {
    host_online first
    client_namespace
    "$1_start"
    client_configured 20
    host_online second
    # The present address works until the client asks again.
    within 10 echoes client_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    client_renew "$1"
    client_has_moved 20
    client_stop
}

# Asks again until the answer has the new address: while the host's network is yet to be known, the answer is
# the old one for a minute. Not by `within`: what is started in it would not be ours.
client_renew() {
    local attempt
    for attempt in 1 2 3; do
        "$1_renew"
        if within 8 has "inet $HOST4/24 " -- client_inside ip addr show dev eth0; then
            return
        fi
    done
    fail "asked $attempt times"
}

# The host's address stays, with another prefix and another router, which is the server's address too.
client_takes_another_router() {
    local router=192.0.2.9
    host_online first
    client_namespace
    "$1_start"
    client_configured 20
    remote ip addr add "$router/24" dev eth0
    ip addr add "$HOST4/20" dev eth0
    ip addr delete "$HOST4/24" dev eth0
    ip route replace default via "$router"
    within 65 has "default via $router dev eth0" -- client_inside ip route
    within 5 has "inet $HOST4/20 " -- client_inside ip addr show dev eth0
    network_works client 5
    client_stop
}

# A lease of local mode is short: the client finds the host's network by itself.
client_starts_offline() {
    host_offline
    client_namespace
    "$1_start"
    within 20 has 'inet 169\.254\.2\.1/16 ' -- client_inside ip addr show dev eth0
    host_online first
    client_configured 65
    client_stop
}

# The client is not asked to renew: it does within a minute.
client_renews_in_time() {
    host_online first
    client_namespace
    "$1_start"
    client_configured 20
    host_online second
    client_has_moved 65
    client_stop
}

for client in udhcpc dhcpcd networkd networkmanager dhclient; do
    eval "case_client_${client}_follows() { client_follows $client; }"
    eval "case_client_${client}_starts_offline() { client_starts_offline $client; }"
    eval "case_client_${client}_renews_in_time() { client_renews_in_time $client; }"
    eval "case_client_${client}_takes_another_router() { client_takes_another_router $client; }"
done

# The kernel configures IPv6 by itself.
case_client_kernel_autoconfiguration() {
    local client_families=6
    host_online first
    client_namespace
    client_inside ip link set eth0 up
    within 10 has "inet6 ${HOST6%::2}:[0-9a-f:]+/64 scope global" -- client_inside ip addr show dev eth0
    within 10 has 'default via fe80:.* proto ra' -- client_inside ip -6 route
    within 10 echoes client_inside -- "TCP6:[$FAR6]:$REMOTE_PORT"
    host_online second
    within 15 has "inet6 ${HOST6%::2}:[0-9a-f:]+/64 scope global" -- client_inside ip addr show dev eth0
    within 15 has_not '2001:db8::.*preferred_lft ([1-9]|forever)' -- client_addresses
    within 10 echoes client_inside -- "TCP6:[$FAR6]:$REMOTE_PORT"
    client_stop
}

# rdisc6 reads what is advertised, with every field.
case_client_rdisc6() {
    host_online first
    client_namespace
    client_inside ip link set eth0 up
    within 10 has 'Prefix *: 2001:db8::/64' -- client_inside rdisc6 -1 eth0
    has 'MTU *: *65520 bytes \(valid\)' -- client_inside rdisc6 -1 eth0
    has 'Stateful address conf\. *: *Yes' -- client_inside rdisc6 -1 eth0
    has 'Router lifetime *: *1800 ' -- client_inside rdisc6 -1 eth0
    client_stop
}

# A rootless container without a network of Podman's, which runs a DHCP client of its own: it gets what the
# host has, and what it has next.
case_client_in_a_container() {
    host_online first
    user podman run -d --network none --cap-add NET_ADMIN --cap-add NET_RAW --name c "$IMAGE" \
        sh -c "$SERVER" >/dev/null
    user pasta -I eth0 --dhcp-dns "$(user podman inspect -f '{{.State.Pid}}' c)"
    podman_inside ip link set eth0 up
    podman_inside sh -c 'cat >/tmp/script && chmod +x /tmp/script' <<'END'
#!/bin/sh
case $1 in
deconfig) ip -4 addr flush dev "$interface" ;;
bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    ip route replace default via "${router%% *}" dev "$interface"
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
END
    user podman exec -d c udhcpc -f -t 5 -T 1 -A 1 -i eth0 -p /tmp/udhcpc.pid -s /tmp/script
    container_inside() { podman_inside "$@"; }
    container_families='4 6' container_host='' container_port='' container_resolver=''
    container_is_configured
    host_online second
    podman_inside sh -c 'kill -USR1 "$(cat /tmp/udhcpc.pid)"'
    container_is_configured
    has_not 'inet 192\.0\.2\.' -- podman_inside ip addr show eth0
    podman_stop
    nothing_left
}

container_is_configured() {
    within 10 has "inet $HOST4/24 " -- podman_inside ip addr show eth0
    within 10 has "inet6 ${HOST6%::2}:[0-9a-f:]+/64 scope global" -- podman_inside ip addr show eth0
    network_works container 10
}
