# Buildah, whose namespace is a path in /proc, and builds with Podman.

case_buildah_run() {
    host_online first
    buildah_start
    program_is_ours
    has '192\.0\.2\.2/24' -- buildah_inside ip addr show eth0
    network_works buildah 5
    within 5 echoes buildah_inside -- "TCP:host.containers.internal:$HOST_PORT"
    buildah_stop
    nothing_left
}

containerfile() {
    user mkdir /home/tester/context
    user tee /home/tester/context/Containerfile >/dev/null <<END
FROM $IMAGE
RUN cat /sys/class/net/eth0/tun_flags
RUN socat -u TCP4:$FAR4:$PEER_PORT - >/seen4
RUN socat -u TCP6:[$FAR6]:$PEER_PORT - >/seen6 && nslookup remote.test >/names
END
}

case_buildah_bud() {
    host_online first
    containerfile
    user buildah bud --pull-never --network=private -q -t built /home/tester/context >/dev/null
    has '^192\.0\.2\.2$' -- user podman run --rm built cat /seen4
    has '2001:0*db8' -- user podman run --rm built cat /seen6
    has "$FAR4" -- user podman run --rm built cat /names
    nothing_left
}

case_podman_build() {
    host_online first
    containerfile
    user podman build --pull=never --network=private -q -t built /home/tester/context >/dev/null
    has '^192\.0\.2\.2$' -- user podman run --rm built cat /seen4
    nothing_left
}
