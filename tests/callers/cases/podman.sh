# podman run with pasta as its network, the default of rootless Podman.

BOX=(podman run --rm "$IMAGE")

# Whether the program under test is what Podman runs: without this a case could pass by another one.
program_is_ours() {
    local pid
    for pid in $(pgrep '^pasta'); do
        if [ "$PASTA" = reference ]; then
            [[ $(readlink "/proc/$pid/exe") == /usr/bin/pasta* ]] || return 1
        else
            [[ $(readlink "/proc/$pid/exe") == /opt/pasta/pasta* ]] || return 1
        fi
    done
    [ -n "${pid:-}" ]
}

case_podman_default() {
    host_online first
    podman_start
    program_is_ours
    has '192\.0\.2\.2/24' -- podman_inside ip addr show eth0
    has '2001:db8::2/64' -- podman_inside ip addr show eth0
    has 'default via 192\.0\.2\.1 dev eth0' -- podman_inside ip route
    has 'default via ' -- podman_inside ip -6 route
    has '^nameserver 169\.254\.1\.1' -- podman_inside cat /etc/resolv.conf
    has '^169\.254\.1\.2.*host\.containers\.internal' -- podman_inside cat /etc/hosts
    network_works podman 5
    # --no-map-gw is passed: the gateway is not the host's loopback.
    not echoes podman_inside -- "TCP4:$GATEWAY4:$LOOPBACK_PORT"
    podman_stop
    nothing_left
}

# The network is there before the first process of the container runs.
case_podman_ready_at_start() {
    host_online first
    has "^192\.0\.2\.2$" -- user podman run --rm "$IMAGE" socat -u "TCP4:$FAR4:$PEER_PORT" -
    has '2001:0*db8:.*:0*2\]?$' -- user podman run --rm "$IMAGE" socat -u "TCP6:[$FAR6]:$PEER_PORT" -
    nothing_left
}

case_podman_exit_status() {
    host_online first
    local status=0
    user podman run --rm "$IMAGE" sh -c 'exit 42' || status=$?
    [ "$status" -eq 42 ]
    nothing_left
}

# Podman sees what we say and fails: a port that is taken, an option that does not exist.
case_podman_start_fails() {
    host_online first
    socat TCP4-LISTEN:8080,fork,reuseaddr PIPE &
    local taken=$!
    within 2 echoes -- TCP4:127.0.0.1:8080
    has '8080' -- fails user podman run --rm -p 0.0.0.0:8080:80 "$IMAGE" true
    kill "$taken"
    wait "$taken" 2>/dev/null || true
    has "unrecognized option '--no-such-option'" -- \
        fails user podman run --rm --network=pasta:--no-such-option "$IMAGE" true
    nothing_left
}

# The output of a command that has to fail.
fails() {
    if "$@" 2>&1; then
        fail "succeeded: $*"
    fi
}

case_podman_publish() {
    host_online first
    ip addr add 192.0.2.77/24 dev eth0
    user podman run -d --name c -p "8080:$SERVER_PORT" -p "192.0.2.77:8081:$SERVER_PORT" \
        -p "127.0.0.1:8082:$SERVER_PORT" -p "[::1]:8083:$SERVER_PORT" -p "8090-8092:7200-7202" \
        -p "8080:$SERVER_PORT/udp" -p "192.0.2.77:8081:$SERVER_PORT/udp" -p "127.0.0.1:8082:$SERVER_PORT/udp" \
        "$IMAGE" sh -c "$SERVER" >/dev/null
    local protocol
    for protocol in TCP UDP; do
        within 5 echoes remote -- "${protocol}4:$HOST4:8080"
        within 5 echoes remote -- "${protocol}6:[$HOST6]:8080"
        within 5 echoes -- "${protocol}4:127.0.0.1:8080"
        within 5 echoes -- "${protocol}6:[::1]:8080"
        within 5 echoes remote -- "${protocol}4:192.0.2.77:8081"
        not echoes remote -- "${protocol}4:$HOST4:8081"
        within 5 echoes -- "${protocol}4:127.0.0.1:8082"
        not echoes remote -- "${protocol}4:$HOST4:8082"
    done
    within 5 echoes -- "TCP6:[::1]:8083"
    within 5 echoes remote -- "TCP4:$HOST4:8090"
    podman_stop
    nothing_left
}

# The server in the container sees who connects, which no other rootless port forwarding has.
case_podman_source_address() {
    host_online first
    user podman run -d --name c -p 8080:7200 "$IMAGE" \
        socat TCP4-LISTEN:7200,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR' >/dev/null
    within 5 has '^192\.0\.2\.1$' -- remote socat -u "TCP4:$HOST4:8080,connect-timeout=2" -
    podman_stop
    nothing_left
}

# --network=pasta:OPTIONS
with_options() {
    user podman run -d --cap-add NET_RAW --name c --network="pasta:$1" "$IMAGE" sh -c "$SERVER" >/dev/null
}

case_podman_option_map_gw_and_tcp_ns() {
    host_online first
    with_options "--map-gw,-T,$LOOPBACK_PORT,-4"
    within 5 echoes podman_inside -- "TCP4:$GATEWAY4:$LOOPBACK_PORT"
    within 5 echoes podman_inside -- "TCP4:127.0.0.1:$LOOPBACK_PORT"
    has_not 'inet6 2001' -- podman_inside ip addr
    podman_stop
    nothing_left
}

case_podman_option_address() {
    host_online first
    with_options '-a,10.0.2.100,-n,24,-g,10.0.2.2,-I,tap7,--ns-mac-addr,9a:55:9a:55:9a:99'
    has '10\.0\.2\.100/24' -- podman_inside ip -4 addr show tap7
    has '9a:55:9a:55:9a:99' -- podman_inside ip link show tap7
    has 'default via 10\.0\.2\.2 dev tap7' -- podman_inside ip route
    within 5 echoes podman_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    podman_stop
    nothing_left
}

case_podman_option_ipv6_only() {
    host_online first
    with_options '-6'
    has_not 'inet (192|169)' -- podman_inside ip addr
    within 5 echoes podman_inside -- "TCP6:[$FAR6]:$REMOTE_PORT"
    podman_stop
    nothing_left
}

case_podman_option_mtu() {
    host_online first
    with_options '--mtu,1400'
    has 'mtu 1400' -- podman_inside ip link show eth0
    within 5 echoes podman_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    podman_stop
    nothing_left
}

case_podman_option_files() {
    host_online first
    with_options '--pid,/home/tester/given.pid,-l,/home/tester/given.log,--trace'
    [ "$(cat /home/tester/given.pid)" -eq "$(pgrep -o '^pasta')" ]
    within 2 grep -q '^pasta ' /home/tester/given.log
    [ "$(stat -c '%a %U' /home/tester/given.log)" = '600 tester' ]
    podman_stop
    nothing_left
}

case_podman_option_outbound() {
    host_online first
    ip addr add 192.0.2.77/24 dev eth0
    with_options '-o,192.0.2.77,--dns-forward,169.254.9.9'
    within 5 has '^192\.0\.2\.77$' -- podman_inside socat -u "TCP4:$FAR4:$PEER_PORT,connect-timeout=2" -
    within 5 has "$FAR4" -- podman_inside nslookup remote.test 169.254.9.9
    podman_stop
    nothing_left
}

case_podman_option_ports() {
    host_online first
    with_options "-t,127.0.0.1/8080:$SERVER_PORT,-u,%eth0/8080:$SERVER_PORT,-U,$HOST_PORT"
    within 5 echoes -- "TCP4:127.0.0.1:8080"
    not echoes remote -- "TCP4:$HOST4:8080"
    within 5 echoes remote -- "UDP4:$HOST4:8080"
    within 5 echoes podman_inside -- "UDP4:127.0.0.1:$HOST_PORT"
    podman_stop
    nothing_left
}

case_podman_restart() {
    host_online first
    podman_start
    local before
    before=$(pgrep -o '^pasta')
    user podman restart -t 5 c >/dev/null
    [ "$(pgrep -o '^pasta')" != "$before" ] || fail "the namespace is new and pasta is not"
    network_works podman 5
    podman_stop
    nothing_left
}

case_podman_kill() {
    host_online first
    podman_start
    within 5 echoes podman_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    user podman kill c >/dev/null
    within 1 not pasta_runs
    podman_stop
    nothing_left
}

# The network of a container survives the end of others.
case_podman_neighbours() {
    host_online first
    podman_start
    user podman run -d --name d "$IMAGE" sh -c "$SERVER" >/dev/null
    user podman rm -f -t 5 d >/dev/null
    network_works podman 5
    podman_stop
    nothing_left
}

# A second container that wants the same port fails and takes nothing from the first.
case_podman_port_taken_by_us() {
    host_online first
    podman_start
    has 8080 -- fails user podman run --rm -p "8080:$SERVER_PORT" "$IMAGE" true
    network_works podman 5
    podman_stop
    nothing_left
}

case_podman_fifty_in_parallel() {
    host_online first
    local name
    for name in {1..50}; do
        echo "c$name"
    done | user xargs -P 10 -I NAME podman run -d --name NAME "$IMAGE" sleep inf >/dev/null
    [ "$(user podman ps -q | wc -l)" -eq 50 ]
    for name in c1 c25 c50; do
        within 5 echoes user podman exec -i "$name" -- "TCP4:$FAR4:$REMOTE_PORT"
    done
    for name in {1..50}; do
        echo "c$name"
    done | user xargs -P 10 -I NAME podman rm -f -t 0 NAME >/dev/null
    nothing_left
}

# As docs/podman.md has it: in a directory of the configuration, and not in the path.
case_podman_helper_directory() {
    host_online first
    local directory
    directory=$(dirname "$(command -v pasta)")
    user mkdir -p /home/tester/.config/containers
    user tee /home/tester/.config/containers/containers.conf >/dev/null <<END
[engine]
helper_binaries_dir = ["$directory", "/usr/libexec/podman", "/usr/lib/podman"]
END
    PATH=${PATH#/opt/pasta:}
    has "^$directory/pasta\$" -- user env PATH="$PATH" podman info --format '{{.Host.Pasta.Executable}}'
    user podman network create net1 >/dev/null
    user env PATH="$PATH" podman run -d --name c --network net1 "$IMAGE" sh -c "$SERVER" >/dev/null
    program_is_ours
    within 5 echoes podman_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    podman_stop
    nothing_left
}
