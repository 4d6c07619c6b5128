#!/usr/bin/env bash
# Makes the system that the callers run in: Debian sid with Podman, Buildah, rootlesskit and the C program
# pasta, one ordinary user, and one small container image.
#
#   root.sh DIRECTORY
#
# Nothing is done where DIRECTORY already has it. Exit status 77: it cannot be made here, and the last
# line on stderr says why. CALLERS_MIRROR names another archive than the one that the machine uses.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

root=${1:?directory}
# Raised by any change below, so that an old copy is not taken for a new one.
version=4

skip() {
    echo "root.sh: $*" >&2
    exit 77
}

if [ "$(cat "$root/etc/callers-version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
packages=(
    podman buildah rootlesskit passt               # who calls, and what is called
    crun catatonit netavark aardvark-dns nftables  # what Podman runs
    uidmap fuse-overlayfs
    iproute2 iputils-ping procps util-linux        # what the cases use
    dnsmasq-base socat jq busybox-static ca-certificates
    dhcpcd-base udhcpc systemd ndisc6              # clients that configure a namespace
    network-manager dbus
    nginx curl openssl wireguard-go wireguard-tools  # protocols that people use
    bind9-dnsutils traceroute mtr-tiny iputils-tracepath
)
debian_sid "$root" "${packages[@]}"

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
echo "$version" >"$made/etc/callers-version"
debian_done "$root"
