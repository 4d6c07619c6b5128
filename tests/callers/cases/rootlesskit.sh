# rootlesskit, below rootless Docker: the namespace is that of a PID, or a path with its user namespace.

case_rootlesskit_plain() {
    host_online first
    local out
    out=$(user rootlesskit --net=pasta --copy-up=/etc sh -c "ip -4 addr show tap0; ip route; cat /etc/resolv.conf
        socat -u TCP4:$FAR4:$PEER_PORT -")
    has '10\.0\.2\.100/24' -- echo "$out"
    has 'default via 10\.0\.2\.2' -- echo "$out"
    has '^nameserver 10\.0\.2\.3' -- echo "$out"
    has '^192\.0\.2\.2$' -- echo "$out"
    nothing_left
}

case_rootlesskit_exit_status() {
    host_online first
    local status=0
    user rootlesskit --net=pasta sh -c 'exit 42' || status=$?
    [ "$status" -eq 42 ]
    nothing_left
}

# The gateway's address leads to the host's loopback unless that is switched off.
case_rootlesskit_host_loopback() {
    host_online first
    rootlesskit_start
    program_is_ours
    within 5 echoes rootlesskit_inside -- "TCP4:10.0.2.2:$LOOPBACK_PORT"
    rootlesskit_stop
    nothing_left
    ROOTLESSKIT+=(--disable-host-loopback)
    rootlesskit_start
    within 5 echoes rootlesskit_inside -- "TCP4:$FAR4:$REMOTE_PORT"
    not echoes rootlesskit_inside -- "TCP4:10.0.2.2:$LOOPBACK_PORT"
    rootlesskit_stop
    nothing_left
}

# Ports that appear while it runs: no other program is asked to open them.
case_rootlesskit_implicit_ports() {
    host_online first
    rootlesskit_start
    within 5 echoes remote -- "TCP4:$HOST4:$SERVER_PORT"
    server_pid
    nsenter -t "$SERVER_PID" --net socat TCP4-LISTEN:7300,fork,reuseaddr PIPE &
    local later=$!
    within 5 echoes remote -- "TCP4:$HOST4:7300"
    kill "$later"
    within 5 not echoes remote -- "TCP4:$HOST4:7300"
    rootlesskit_stop
    nothing_left
}
