# Makes Debian sid in a new directory. Sourced by what tests on a system of its own.
#
#   debian_sid DIRECTORY PACKAGE...
#
# Sets `made`, a directory beside DIRECTORY with that system: it is moved there when all else is done, so that an
# interrupted run leaves nothing that looks complete. The one who sources this defines `skip MESSAGE`, which ends
# with status 77. CALLERS_MIRROR names another archive than the one that the machine uses.

debian_sid() {
    local root=$1 mirror log include
    shift
    [ "$(id -u)" -eq 0 ] || skip "needs root, to make a system with files of several users"
    if ! command -v mmdebstrap >/dev/null; then
        command -v apt-get >/dev/null || skip "needs mmdebstrap, and there is no apt-get to install it"
        apt-get install -y -qq mmdebstrap >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq mmdebstrap; } >/dev/null 2>&1 ||
            skip "mmdebstrap is missing and cannot be installed"
    fi
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        apt-get install -y -qq debian-archive-keyring >/dev/null 2>&1 ||
        skip "the keys of Debian's archive are missing and cannot be installed"

    # The archive that the machine itself uses is near and known to be reachable; only Debian's has sid.
    mirror=${CALLERS_MIRROR:-}
    if [ -z "$mirror" ] && grep -qx 'ID=debian' /etc/os-release 2>/dev/null; then
        mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
            sed -n -e 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\) .*/\2/p' -e 's/^URIs: *\(http[^ ]*\).*/\1/p' |
            grep -v security | head -n 1) || true
    fi
    mirror=${mirror:-http://deb.debian.org/debian}

    include=$(IFS=,; echo "$*")
    mkdir -p "$(dirname "$root")"
    made=$(mktemp -d "$root.XXXXXX")
    trap 'rm -rf --one-file-system "$made"' EXIT
    chmod 755 "$made"

    # A mirror that is a snapshot has signatures past their date.
    log=$made.log
    if ! timeout "${CALLERS_ROOT_SECONDS:-600}" mmdebstrap --quiet --variant=apt --include="$include" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        sid "$made" "$mirror" >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        skip "mmdebstrap cannot make a system from $mirror"
    fi
    rm -f "$log"
}

# Puts what debian_sid made into its place.
debian_done() {
    rm -rf "$made"/var/cache/apt "$made"/var/lib/apt/lists
    rm -rf --one-file-system "$1"
    mv "$made" "$1"
    trap - EXIT
}
