# Programs that people have, inside and outside: the same answers on the same network. `pasta` is attached to a
# namespace that it configures; the programs run there, and on the host beside them.

# A namespace that is configured: protocol_namespace OPTION...
protocol_namespace() {
    host_online first
    client_namespace --config-net "$@"
    client_resolvers >/dev/null
    echo "nameserver $GATEWAY4" >/tmp/client-etc/resolv.conf
    within 5 has "inet $HOST4/24 " -- client_inside ip addr show dev eth0
}

# Two routers and a server behind the remote machine: remote is the first of them.
more_routers() {
    local link name number previous=remote
    remote sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    for link in second:6 last:4; do
        name=${link%:*} number=${link#*:}
        unshare --net sleep inf &
        eval "${name^^}=$!"
        within 2 is_apart "$!"
        within_machine "$previous" ip link add onward type veth peer name back netns "$!"
        within_machine "$name" ip link set lo up
        within_machine "$name" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        local link4=172.16.$number link6=2001:db8:$number:
        within_machine "$previous" ip addr add "$link4.1/24" dev onward
        within_machine "$previous" ip addr add "$link6:1/64" dev onward nodad
        within_machine "$previous" ip link set onward up
        within_machine "$name" ip addr add "$link4.2/24" dev back
        within_machine "$name" ip addr add "$link6:2/64" dev back nodad
        within_machine "$name" ip link set back up
        within_machine "$name" ip route add default via "$link4.1"
        within_machine "$name" ip route add default via "$link6:1"
        previous=$name
    done
    remote ip route add 172.16.4.0/24 via 172.16.6.2
    remote ip route add 2001:db8:4::/64 via 2001:db8:6::2
    LAST4=172.16.4.2 LAST6=2001:db8:4::2
    within 5 ping -c 1 -W 1 "$LAST4"
    within 5 ping -c 1 -W 1 "$LAST6"
}
is_apart() {
    [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}
within_machine() {
    local pid=${1^^}
    nsenter "--net=/proc/${!pid}/ns/net" "${@:2}"
}

# The routers that a program shows, and over how many their answers came if it says so, one a line: hops COMMAND...
hops() {
    local address='(172\.16\.[46]|192\.0\.2)\.[0-9]+|2001:db8:[0-9a-f:]+'
    "$@" 2>&1 | grep -Eo "$address|(back|asymm) +[0-9]+" | awk '!seen[$0]++'
}

# What a program shows of the path is the same inside as on the host: same_path COMMAND...
same_path() {
    local outside inside
    outside=$(hops "$@")
    inside=$(hops client_inside "$@")
    if [ "$(wc -l <<<"$outside")" -lt 3 ]; then
        fail "on the host, $* shows"$'\n'"$outside"
        return 1
    fi
    [ "$inside" = "$outside" ] || fail "$* shows inside"$'\n'"$inside"$'\n'"and on the host"$'\n'"$outside"
}

case_protocol_traceroute() {
    protocol_namespace
    more_routers
    local last
    for last in "$LAST4" "$LAST6"; do
        within 20 same_path traceroute -n -q 1 -w 1 "$last"
        within 20 same_path traceroute -n -q 1 -w 1 -I "$last"
        within 20 same_path traceroute -n -q 1 -w 1 -T -p 7 "$last"
        within 20 same_path tracepath -n "$last"
        within 20 same_path mtr -n -r -c 1 -G 0.3 "$last"
        within 20 same_path mtr -n -r -c 1 -G 0.3 -u "$last"
        # With both ports given, it tells its probes apart by the checksum alone.
        within 20 same_path mtr -n -r -c 1 -G 0.3 -u -P 33434 -L 40404 "$last"
    done
    client_stop
}

case_protocol_dig() {
    protocol_namespace
    local way
    for way in +notcp +tcp; do
        within 10 has "$FAR4" -- client_inside dig +short "$way" remote.test
        within 10 has "$FAR6" -- client_inside dig +short "$way" remote.test AAAA
        within 10 has 'status: (NXDOMAIN|REFUSED)' -- client_inside dig "$way" nowhere.example
        within 10 has "$FAR4" -- client_inside dig +short "$way" "@$FAR6" remote.test
    done
    client_stop
}

# A web server that speaks QUIC as well, with one large file: web_server "ADDRESS..." PREFIX-COMMAND...
web_server() {
    local addresses=$1 address
    shift
    mkdir -p /tmp/web/files
    head -c 50000000 /dev/urandom >/tmp/web/files/large
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=remote.test \
        -keyout /tmp/web/key -out /tmp/web/certificate 2>/dev/null
    {
        echo "daemon off; pid /tmp/web/pid; error_log /tmp/web/errors; events {}"
        echo "http { access_log off; server {"
        for address in $addresses; do
            echo "listen $address quic reuseport; listen $address ssl;"
        done
        echo "ssl_certificate /tmp/web/certificate; ssl_certificate_key /tmp/web/key; root /tmp/web/files; } }"
    } >/tmp/web/configuration
    "$@" nginx -c /tmp/web/configuration &
    WEB=$!
}

# The large file arrives over HTTP/3, and is what it was: downloads URL PREFIX-COMMAND...
downloads() {
    local url=$1 version
    shift
    version=$("$@" curl --silent --show-error --insecure --http3-only --max-time 60 \
        --output /tmp/web/copy --write-out '%{http_version}' "$url") || version=none
    if [ "$version" != 3 ]; then
        fail "$url: version $version"
        return 1
    fi
    cmp /tmp/web/files/large /tmp/web/copy
}

case_protocol_http3() {
    protocol_namespace
    web_server "$FAR4:443 [$FAR6]:443" nsenter "--net=/proc/$REMOTE/ns/net"
    local address
    for address in "$FAR4" "[$FAR6]"; do
        within 60 downloads "https://$address/large" "${INSIDE[@]}"
    done
    kill "$WEB"
    client_stop
}

case_protocol_http3_to_the_namespace() {
    protocol_namespace -t 4443 -u 4443
    web_server "0.0.0.0:4443 [::]:4443" "${INSIDE[@]}"
    local address
    for address in "$HOST4" "[$HOST6]"; do
        within 60 downloads "https://$address:4443/large" nsenter "--net=/proc/$REMOTE/ns/net"
    done
    kill "$WEB"
    client_stop
}

# One end of a tunnel: wireguard_end NAME TUNNEL-ADDRESS PREFIX-COMMAND...
wireguard_end() {
    local name=$1 address=$2
    shift 2
    wg genkey >"/tmp/$name.key"
    wg pubkey <"/tmp/$name.key" >"/tmp/$name.public"
    WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 "$@" wireguard-go --foreground "$name" >/dev/null 2>&1 &
    within 5 test -S "/var/run/wireguard/$name.sock"
    "$@" ip addr add "$address/24" dev "$name"
    "$@" ip link set "$name" up
}

case_protocol_wireguard() {
    protocol_namespace -u 51820
    local remote=(nsenter "--net=/proc/$REMOTE/ns/net") endpoint
    wireguard_end wgo 10.77.0.1 "${remote[@]}"
    wireguard_end wgi 10.77.0.2 "${INSIDE[@]}"
    "${INSIDE[@]}" wg set wgi listen-port 51820 private-key /tmp/wgi.key peer "$(cat /tmp/wgo.public)" \
        allowed-ips 10.77.0.1/32
    head -c 5000000 /dev/urandom >/tmp/wireguard.octets
    # The namespace is the client in each family, then the server.
    for endpoint in "$FAR4:51821" "[$FAR6]:51821"; do
        "${remote[@]}" wg set wgo listen-port 51821 private-key /tmp/wgo.key peer "$(cat /tmp/wgi.public)" \
            allowed-ips 10.77.0.2/32
        "${INSIDE[@]}" wg set wgi peer "$(cat /tmp/wgo.public)" endpoint "$endpoint"
        tunnel_carries
    done
    for endpoint in "$HOST4:51820" "[$HOST6]:51820"; do
        "${INSIDE[@]}" wg set wgi peer "$(cat /tmp/wgo.public)" remove
        "${INSIDE[@]}" wg set wgi peer "$(cat /tmp/wgo.public)" allowed-ips 10.77.0.1/32
        "${remote[@]}" wg set wgo peer "$(cat /tmp/wgi.public)" remove
        "${remote[@]}" wg set wgo peer "$(cat /tmp/wgi.public)" allowed-ips 10.77.0.2/32 endpoint "$endpoint"
        within 20 "${remote[@]}" ping -c 1 -W 1 10.77.0.2
        tunnel_carries
    done
    pkill wireguard-go
    client_stop
}

# Octets go through the tunnel to the remote machine and are what they were.
tunnel_carries() {
    local remote=(nsenter "--net=/proc/$REMOTE/ns/net") sink
    within 20 "${INSIDE[@]}" ping -c 1 -W 1 10.77.0.1
    timeout 60 "${remote[@]}" socat -u TCP4-LISTEN:9000,bind=10.77.0.1,reuseaddr CREATE:/tmp/wireguard.copy &
    sink=$!
    within 20 "${INSIDE[@]}" socat -u FILE:/tmp/wireguard.octets TCP4:10.77.0.1:9000
    wait "$sink"
    cmp /tmp/wireguard.octets /tmp/wireguard.copy
}
