# The first process of a PID namespace, in a mount and a network namespace of its own: runs dockerd
# there with these arguments, prints `ready`, and restarts it for each line that it reads. When
# there is no more to read it ends, and with it all processes and mounts.
set -eu

# What dockerd writes is in memory, and the machine's /etc under a layer of its own.
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /run/etc /run/work /run/context /run/proc
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
# Of all settings only those of this network can be written, and no module can be loaded.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount --bind /bin/false "$(readlink -f "$(command -v modprobe)")"
# A user namespace may mount /proc only where a whole one is to be seen (mount_too_revealing, fs/namespace.c).
mount -t proc proc /run/proc
# As `update-alternatives --set iptables` does.
for tool in iptables ip6tables; do
    ln -sf "$(command -v "$tool-$IPTABLES")" "/etc/alternatives/$tool"
done
cc -static -O -Wall -Werror -x c -o /run/context/peer - <<<"$PEER"

groups=/ephport-docker-$OWNER
start() {
    dockerd --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$groups" "$@" \
        >/run/dockerd.log 2>&1 &
    daemon=$!
    until docker version >/run/version 2>&1; do
        kill -0 "$daemon" || { cat /run/dockerd.log; exit 1; }
        sleep 0.05
    done
    echo ready
}
stop() {
    kill "$daemon"
    wait "$daemon" || true
}

start "$@"
while read -r _; do
    stop
    start "$@"
done
stop
# dockerd removes the groups of the containers, but not their parent.
find /sys/fs/cgroup -depth -type d -path "*$groups" -exec rmdir {} +
