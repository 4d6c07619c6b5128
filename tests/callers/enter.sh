#!/usr/bin/env bash
# Runs COMMAND as root inside a throw-away copy of the system that root.sh made.
#
#   enter.sh ROOT reference|DIRECTORY COMMAND...
#
# COMMAND gets PID, mount and network namespaces of its own. Everything that it starts dies with it,
# and all that it writes is in memory, so an interrupted case leaves nothing. The `pasta` of that
# system is the C program, or the one of DIRECTORY, and then the C program is not there at all.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    exec unshare --mount --propagation private --net --pid --fork --kill-child -- "$0" --inside "$@"
fi
shift
root=$1 pasta=$2
shift 2
callers=$(cd "$(dirname "$0")" && pwd)

mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/{upper,work,system}
mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/system
cd /mnt/system

mount -t proc proc proc
mount -t sysfs sysfs sys
# Podman wants a version 2 hierarchy and makes do without one that it may write to.
mount -t cgroup2 cgroup2 sys/fs/cgroup || true
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs home/tester
chown 1000:1000 home/tester
mkdir -p run/netns run/user/1000
chown 1000:1000 run/user/1000
chmod 700 run/user/1000

# A device directory of our own: the machine may lack /dev/net/tun, or have it for root only.
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200 fuse:10:229; do
    IFS=: read -r name major minor <<<"$node"
    mkdir -p "dev/$(dirname "$name")"
    mknod -m 666 "dev/$name" c "$major" "$minor"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

mount --bind "$callers" opt/callers
if [ "$pasta" != reference ]; then
    rm -f usr/bin/pasta* usr/bin/passt*
    mkdir -p usr/libexec/podman
    mount --bind "$pasta" opt/pasta
fi

pivot_root . old
cd /
mount --make-rshared /
umount -l /old
exec env -i PATH=/opt/pasta:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=dumb LANG=C.UTF-8 \
    PASTA="$pasta" "$@"
