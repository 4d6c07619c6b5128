# Bridge networks of a rootless user: one pasta serves the namespace that all of them are in.

case_bridge_names_and_out() {
    host_online first
    user podman network create --ipv6 net1 >/dev/null
    user podman run -d --name first --network net1 "$IMAGE" sh -c "$SERVER" >/dev/null
    user podman run -d --name second --network net1 -p "8080:$SERVER_PORT" "$IMAGE" sh -c "$SERVER" >/dev/null
    [ "$(pgrep -c '^pasta(\.avx2)?$')" -eq 1 ] || fail "not one pasta for both"
    within 5 echoes user podman exec -i first -- "TCP:second:$SERVER_PORT"
    within 5 echoes user podman exec -i second -- "UDP:first:$SERVER_PORT"
    within 5 echoes user podman exec -i first -- "TCP4:$FAR4:$REMOTE_PORT"
    within 5 echoes user podman exec -i second -- "TCP6:[$FAR6]:$REMOTE_PORT"
    within 5 has "$FAR4" -- user podman exec first nslookup remote.test
    within 5 echoes remote -- "TCP4:$HOST4:8080"
    # The namespace is kept for the second one.
    user podman rm -f -t 5 first >/dev/null
    within 5 echoes user podman exec -i second -- "TCP4:$FAR4:$REMOTE_PORT"
    user podman rm -f -t 5 second >/dev/null
    user podman network rm net1 >/dev/null
    nothing_left
}

case_bridge_two_networks() {
    host_online first
    user podman network create net1 >/dev/null
    user podman network create net2 >/dev/null
    user podman run -d --name one --network net1 "$IMAGE" sh -c "$SERVER" >/dev/null
    user podman run -d --name two --network net2 "$IMAGE" sh -c "$SERVER" >/dev/null
    within 5 echoes user podman exec -i one -- "TCP4:$FAR4:$REMOTE_PORT"
    within 5 echoes user podman exec -i two -- "TCP4:$FAR4:$REMOTE_PORT"
    user podman network connect net2 one
    within 5 echoes user podman exec -i one -- "TCP:two:$SERVER_PORT"
    user podman rm -f -t 5 one two >/dev/null
    user podman network rm net1 net2 >/dev/null
    nothing_left
}

case_bridge_unshare() {
    host_online first
    local out
    out=$(user podman unshare --rootless-netns sh -c "ip -4 addr; ip route
        socat -u TCP4:$FAR4:$PEER_PORT -; echo nameserver; cat /etc/resolv.conf")
    has '192\.0\.2\.2/24' -- echo "$out"
    has 'default via 192\.0\.2\.1' -- echo "$out"
    has '^192\.0\.2\.2$' -- echo "$out"
    has '^nameserver 169\.254\.1\.1' -- echo "$out"
    nothing_left
}

case_bridge_restart() {
    host_online first
    bridge_start
    network_works bridge 5
    user podman restart -t 5 c >/dev/null
    network_works bridge 5
    bridge_stop
    nothing_left
}

# A pod on its own: two containers with one network.
case_pod_shared_network() {
    host_online first
    pod_start
    user podman run -d --init --name d --pod p "$IMAGE" sleep inf >/dev/null
    within 5 echoes user podman exec -i d -- "TCP4:127.0.0.1:$SERVER_PORT"
    within 5 echoes user podman exec -i d -- "TCP4:$FAR4:$REMOTE_PORT"
    user podman pod restart p >/dev/null
    network_works pod 5
    pod_stop
    nothing_left
}
