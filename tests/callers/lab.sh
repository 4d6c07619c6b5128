# The host that a case runs on, a remote machine, and what both of them serve. Sourced by case.sh, which is
# process 1 of its PID namespace and root of the host; the remote is a second network namespace.
#
# The host has one of two networks, or none. The same remote machine is the gateway and the resolver of
# both, and is also reached at addresses behind the gateway:
#
#   network   host                              gateway and resolver
#   first     192.0.2.2/24   2001:db8::2/64     192.0.2.1     2001:db8::1
#   second    203.0.113.2/24 2001:db8:1::2/64   203.0.113.1   2001:db8:1::1

FAR4=198.51.100.1
FAR6=2001:db8:ffff::1
# Ports of the echo services of the remote, of those of the host (one on loopback only), and of the server
# that cases start in a container.
REMOTE_PORT=7000
PEER_PORT=7001
HOST_PORT=7100
LOOPBACK_PORT=5000
SERVER_PORT=7200

fail() {
    echo "$*" >&2
    return 1
}

# Ends the case, which cannot run here.
skip() {
    echo "$*" >&2
    exit 77
}

# Runs a command every 50 ms until it succeeds, for at most $1 seconds; its last output is shown otherwise.
within() {
    local seconds=$1 end output
    shift
    end=$((${EPOCHREALTIME/./} + seconds * 1000000))
    until output=$("$@" 2>&1); do
        if ((${EPOCHREALTIME/./} >= end)); then
            fail "not within $seconds s: $*"$'\n'"$output"
            return 1
        fi
        # What read waits for never comes: a pause without a process.
        read -rt 0.05 <>"$NEVER" || true
    done
}

remote() {
    nsenter --net="/proc/$REMOTE/ns/net" "$@"
}

# Runs a command as the ordinary user. The array is for one that is put in the background: $! is then its own.
AS_USER=(setpriv --reuid tester --regid tester --init-groups --inh-caps=-all
    env -i -C /home/tester HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1000 TERM=dumb
    LANG=C.UTF-8 PATH="$PATH")
user() {
    "${AS_USER[@]}" "$@"
}

lab_up() {
    NEVER=$(mktemp -u)
    mkfifo "$NEVER"
    unshare --net sleep inf &
    REMOTE=$!
    within 2 test "/proc/$REMOTE/ns/net" -ef "/proc/$REMOTE/ns/net"
    within 2 remote_is_apart
    ip link set lo up
    remote ip link set lo up
    # As on every distribution with systemd: whoever may open a socket may ping.
    echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
    remote sysctl -qw net.ipv4.ip_forward=0
    remote ip addr add "$FAR4/32" dev lo
    remote ip addr add "$FAR6/128" dev lo
    ip link add eth0 type veth peer name eth0 netns "$REMOTE"
    remote ip link set eth0 up

    serve remote TCP "$REMOTE_PORT"
    serve remote UDP "$REMOTE_PORT"
    serve host TCP "$HOST_PORT"
    serve host UDP "$HOST_PORT"
    remote socat "TCP4-LISTEN:$PEER_PORT,fork,reuseaddr" SYSTEM:'echo $SOCAT_PEERADDR' &
    remote socat "TCP6-LISTEN:$PEER_PORT,fork,reuseaddr,ipv6only=1" SYSTEM:'echo $SOCAT_PEERADDR' &
    socat "TCP4-LISTEN:$LOOPBACK_PORT,bind=127.0.0.1,fork,reuseaddr" PIPE &
    remote dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
        --address="/remote.test/$FAR4" --address="/remote.test/$FAR6" --address=/only4.test/192.0.2.99 &
    within 5 remote_serves
    : >/etc/resolv.conf
    echo '127.0.0.1 localhost' >/etc/hosts
}

remote_is_apart() {
    [ "$(readlink "/proc/$REMOTE/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

remote_serves() {
    [ "$(remote ss -Htln "sport = :$REMOTE_PORT or sport = :$PEER_PORT or sport = :53" | wc -l)" -ge 3 ]
}

# An echo service in both families: serve remote|host TCP|UDP PORT
serve() {
    local on=() bind4='' bind6=''
    if [ "$1" = remote ]; then
        # Else socat answers a datagram from the address that the route suggests, not from that it was for.
        on=(nsenter "--net=/proc/$REMOTE/ns/net") bind4=,bind=$FAR4 bind6=,bind=[$FAR6]
    fi
    "${on[@]}" socat -T 2 "$2"4-LISTEN:"$3",fork,reuseaddr"$bind4" PIPE &
    "${on[@]}" socat -T 2 "$2"6-LISTEN:"$3",fork,reuseaddr,ipv6only=1"$bind6" PIPE &
}

# host_online first|second: the host has this network and no other from now on.
host_online() {
    local prefix4=192.0.2 prefix6=2001:db8:
    if [ "$1" = second ]; then
        prefix4=203.0.113 prefix6=2001:db8:1:
    fi
    host_offline
    HOST4=$prefix4.2 HOST6=$prefix6:2 GATEWAY4=$prefix4.1 GATEWAY6=$prefix6:1
    remote ip addr add "$GATEWAY4/24" dev eth0
    remote ip addr add "$GATEWAY6/64" dev eth0 nodad
    ip link set eth0 up
    ip addr add "$HOST4/24" dev eth0
    ip addr add "$HOST6/64" dev eth0 nodad
    ip route add default via "$GATEWAY4"
    ip route add default via "$GATEWAY6"
    # As network managers do it: the file is replaced, not written to.
    echo "nameserver $GATEWAY4" >/etc/resolv.conf.new
    mv /etc/resolv.conf.new /etc/resolv.conf
}

# The cable is out and the network manager has cleaned up.
host_offline() {
    ip addr flush dev eth0
    ip link set eth0 down
    remote ip addr flush dev eth0 scope global
    : >/etc/resolv.conf.new
    mv /etc/resolv.conf.new /etc/resolv.conf
}

# Sends a number to an echo service and wants it back: echoes COMMAND-PREFIX... -- SOCAT-ADDRESS
echoes() {
    local prefix=() token=$RANDOM$RANDOM answer
    while [ "$1" != -- ]; do
        prefix+=("$1")
        shift
    done
    # How long the answer may take: a UDP socket has no end of file that would come before.
    local wait=0.4 limit=
    if [[ $2 == TCP* ]]; then
        wait=3 limit=,connect-timeout=2
    fi
    answer=$(echo "$token" | "${prefix[@]}" socat -t "$wait" - "$2$limit") || fail "no connection to $2"
    [ "$answer" = "$token" ] || fail "$2: sent $token, got '$answer'"
}

# The output of a command (after --) has a line that matches: has REGEX -- COMMAND...
has() {
    local regex=$1 output
    shift 2
    output=$("$@")
    grep -Eq -- "$regex" <<<"$output" || fail "no '$regex' in the output of $*:"$'\n'"$output"
}

# The opposite.
has_not() {
    local regex=$1 output
    shift 2
    output=$("$@")
    ! grep -Eq -- "$regex" <<<"$output" || fail "'$regex' in the output of $*:"$'\n'"$output"
}

# Fails if the command succeeds, so that it can be asked for the opposite in `within` too.
not() {
    ! "$@"
}

pasta_runs() {
    pgrep '^pasta' >/dev/null
}

namespace_is_mounted() {
    grep -hE ' - nsfs ' /proc/[0-9]*/mountinfo
}

namespace_has_file() {
    find /run/user/1000 -name 'netns-*' -o -name rootless-netns -type f | grep .
}

port_is_open() {
    ss -Htuln "sport = :8080 or sport = :$SERVER_PORT" | grep .
}

# No process, no mount of a namespace, no file and no listener of an ended instance, within a second.
nothing_left() {
    within 1 not pasta_runs
    within 1 not namespace_is_mounted
    within 1 not namespace_has_file
    within 1 not port_is_open
    has_not . -- find /tmp /run /home/tester /dev/shm -path '*/storage/*' -prune -o -iname '*pasta*' -print
}
