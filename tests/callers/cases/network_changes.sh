# The host's network changes while a container runs, for each kind of caller.

steady() {
    host_online first
    "$1_start"
    network_works "$1" 5
    "$1_stop"
    nothing_left
}

# The host has no network when the container starts, and gets one later.
starts_offline() {
    host_offline
    "$1_start"
    host_online first
    network_works "$1" 10
    "$1_stop"
    nothing_left
}

# The host goes to another network: addresses, gateway and resolver are new, the old ones are gone.
moves() {
    host_online first
    "$1_start"
    network_works "$1" 5
    host_online second
    network_works "$1" 10
    "$1_stop"
    nothing_left
}

for kind in podman bridge pod buildah rootlesskit detached; do
    eval "case_${kind}_steady() { steady $kind; }"
    eval "case_${kind}_starts_offline() { starts_offline $kind; }"
    eval "case_${kind}_moves() { moves $kind; }"
done
