# The kinds of caller that cases about the host's network have in common. For each KIND:
#
#   KIND_start     starts a container (or what the caller calls it) with a server in it
#   KIND_inside    runs a command in it
#   KIND_stop      ends it
#   KIND_host      the name of the host in it, or empty
#   KIND_port      the port of the host that leads to its server, or empty
#   KIND_families  the IP versions that it has
#   KIND_resolver  the address that pasta forwards queries from, where resolv.conf has another one

IMAGE=localhost/box

# Echo services of a container. It ends at once on TERM, although it may be process 1 there, and takes its
# children along, although it may not be.
SERVER="socat TCP6-LISTEN:$SERVER_PORT,ipv6only=0,fork,reuseaddr PIPE &
tcp=\$!
socat -T 2 UDP6-LISTEN:$SERVER_PORT,ipv6only=0,fork,reuseaddr PIPE &
trap \"kill \$tcp \$!; exit\" TERM
wait"
PUBLISH=(-p "8080:$SERVER_PORT" -p "8080:$SERVER_PORT/udp")

image_up() {
    user podman import -q /opt/image.tar "$IMAGE" >/dev/null
}

# podman run, with the default network.
podman_start() {
    user podman run -d --cap-add NET_RAW --name c "${PUBLISH[@]}" "$IMAGE" sh -c "$SERVER" >/dev/null
}
podman_inside() {
    user podman exec -i c "$@"
}
podman_stop() {
    user podman rm -f -t 5 c >/dev/null
}
podman_port=8080
podman_host=host.containers.internal
podman_families='4 6'

# podman run, in a bridge network of the user's: pasta serves the namespace that all bridges are in.
bridge_start() {
    user podman network create --ipv6 net1 >/dev/null
    user podman run -d --cap-add NET_RAW --name c --network net1 "${PUBLISH[@]}" "$IMAGE" \
        sh -c "$SERVER" >/dev/null
}
bridge_inside() {
    podman_inside "$@"
}
bridge_stop() {
    podman_stop
    user podman network rm net1 >/dev/null
}
bridge_port=8080
bridge_host=host.containers.internal
bridge_families='4 6'

# A pod: its infrastructure container has the network.
pod_start() {
    user podman pod create --name p "${PUBLISH[@]}" >/dev/null
    user podman run -d --cap-add NET_RAW --name c --pod p "$IMAGE" sh -c "$SERVER" >/dev/null
}
pod_inside() {
    podman_inside "$@"
}
pod_stop() {
    user podman pod rm -f -t 5 p >/dev/null
}
pod_port=8080
pod_host=host.containers.internal
pod_families='4 6'

# A step of a build, with a network of its own, which `buildah run` only has if asked. Buildah has no way
# into a running step, and the root of the host has.
buildah_start() {
    local container
    container=$(user buildah from --pull-never --name b "$IMAGE")
    "${AS_USER[@]}" buildah run --network=private "$container" sh -c "$SERVER" &
    BUILD=$!
    within 10 server_pid
}
server_pid() {
    SERVER_PID=$(pgrep -f "^socat TCP6-LISTEN:$SERVER_PORT" | head -n 1)
    [ -n "$SERVER_PID" ]
}
server_inside() {
    server_pid
    nsenter -t "$SERVER_PID" --mount --net "$@"
}
buildah_inside() {
    server_inside "$@"
}
buildah_stop() {
    server_pid
    kill -TERM "$(ps -o ppid= "$SERVER_PID")"
    wait "$BUILD" || true
    user buildah rm b >/dev/null
}
buildah_port=
# Buildah writes both files once, with what the host has at that time, which may be nothing.
buildah_host=169.254.1.2
buildah_resolver=169.254.1.1
buildah_families='4 6'

# rootlesskit, as Docker's dockerd-rootless.sh calls it: with /etc and /run copied, for its resolv.conf. It
# configures the interface itself, for IPv4 only.
ROOTLESSKIT=(rootlesskit --net=pasta --mtu=65520 --copy-up=/etc --copy-up=/run --propagation=rslave
    --port-driver=implicit)

rootlesskit_start() {
    "${AS_USER[@]}" "${ROOTLESSKIT[@]}" "$@" sh -c "$SERVER" &
    KIT=$!
    within 10 server_pid
}
rootlesskit_inside() {
    server_inside "$@"
}
rootlesskit_stop() {
    kill -TERM "$KIT"
    wait "$KIT" 2>/dev/null || true
}
rootlesskit_port=$SERVER_PORT
rootlesskit_host=
rootlesskit_families='4'

# The same with the network namespace apart, as Docker has it since version 25: its children enter it.
detached_start() {
    local enter='exec nsenter --net="$ROOTLESSKIT_STATE_DIR/netns" sh -c'
    "${AS_USER[@]}" "${ROOTLESSKIT[@]}" --detach-netns sh -c "$enter \"\$0\"" "$SERVER" &
    KIT=$!
    within 10 server_pid
}
detached_inside() {
    server_inside "$@"
}
detached_stop() {
    rootlesskit_stop
}
detached_port=$SERVER_PORT
detached_host=
detached_resolver=10.0.2.3
detached_families='4'

# All that a container of KIND is to have while the host is online: network_works KIND SECONDS
network_works() {
    local inside=$1_inside host=$1_host port=$1_port families=$1_families resolver=$1_resolver
    local seconds=$2 protocol family
    local -A far=([4]=$FAR4 [6]="[$FAR6]") ours=([4]=$HOST4 [6]="[$HOST6]")
    for protocol in TCP UDP; do
        for family in ${!families}; do
            within "$seconds" echoes "$inside" -- "$protocol$family:${far[$family]}:$REMOTE_PORT"
            [ -z "${!port}" ] || within "$seconds" echoes remote -- "$protocol$family:${ours[$family]}:${!port}"
        done
        [ -z "${!host}" ] || within "$seconds" echoes "$inside" -- "$protocol:${!host}:$HOST_PORT"
    done
    within "$seconds" has "$FAR4" -- "$inside" busybox nslookup remote.test ${!resolver:-}
    within "$seconds" "$inside" ping -c 1 -W 1 "$FAR4"
    [ -z "${!port}" ] || within "$seconds" echoes -- "TCP4:127.0.0.1:${!port}"
}
