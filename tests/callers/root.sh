#!/usr/bin/env bash
# Makes the system that the callers run in: Debian sid with Podman, Buildah, rootlesskit and the C program
# pasta, one ordinary user, and one small container image.
#
#   root.sh DIRECTORY
#
# Nothing is done where DIRECTORY already has it. Exit status 77: it cannot be made here, and the last
# line on stderr says why. CALLERS_MIRROR names another archive than the one that the machine uses.
set -euo pipefail

root=${1:?directory}
# Raised by any change below, so that an old copy is not taken for a new one.
version=1

skip() {
    echo "root.sh: $*" >&2
    exit 77
}

if [ "$(cat "$root/etc/callers-version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
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

packages=(
    podman buildah rootlesskit passt               # who calls, and what is called
    crun catatonit netavark aardvark-dns nftables  # what Podman runs
    uidmap fuse-overlayfs
    iproute2 iputils-ping procps util-linux        # what the cases use
    dnsmasq-base socat jq busybox-static ca-certificates
)
include=$(IFS=,; echo "${packages[*]}")

# Made beside the place and moved there at the end: an interrupted run leaves nothing that looks complete.
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

# The image: busybox, and socat with the libraries that it needs.
image=$made/opt/image
mkdir -p "$image"/{bin,etc,tmp,proc,sys,dev,var/www}
cp "$made/bin/busybox" "$image/bin/"
for name in $(chroot "$made" busybox --list); do
    [ -e "$image/bin/$name" ] || ln -s busybox "$image/bin/$name"
done
cp "$made/usr/bin/socat" "$image/bin/"
for library in $(chroot "$made" ldd /usr/bin/socat | grep -o '/[^ ]*'); do
    mkdir -p "$image$(dirname "$library")"
    cp -L "$made$library" "$image$library"
done
echo root:x:0:0::/:/bin/sh >"$image/etc/passwd"
tar -C "$image" --owner=0 --group=0 -cf "$made/opt/image.tar" .
rm -r "$image"

echo 'tester:x:1000:1000::/home/tester:/bin/bash' >>"$made/etc/passwd"
echo 'tester:x:1000:' >>"$made/etc/group"
echo 'tester:100000:65536' | tee "$made/etc/subuid" >"$made/etc/subgid"
mkdir -p "$made/home/tester" "$made/opt/pasta" "$made/opt/callers" "$made/old"
rm -rf "$made/var/cache/apt" "$made/var/lib/apt/lists"
echo "$version" >"$made/etc/callers-version"

rm -rf --one-file-system "$root"
mv "$made" "$root"
trap - EXIT
