#!/bin/busybox sh
# The guest's first process: mounts the host's files, runs the command, powers off.
# The host exports two folders: "host", a root, read-only, which gets an overlay in memory; and
# "job", where the command stands, and where its output and exit status go. The folders that
# /job/folders names are below the root as well, read-only.
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /memory /root /job
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

fail() {
    echo "guest: $*" >/dev/console
    poweroff -f
    sleep 60
}

# A module that needs another loads on a later round.
for round in 1 2 3; do
    for module in /modules/*; do
        insmod "$module" 2>/dev/null && rm "$module"
    done
done

share() { # TAG OPTIONS FOLDER
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$2" "$1" "$3" || fail "no 9p mount of $3"
}
share host ro,cache=loose /host
share job rw,cache=none /job
mount -t tmpfs -o mode=755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root ||
    fail "no overlay"
while read -r tag folder; do
    mkdir -p "/root$folder"
    share "$tag" ro,cache=loose "/root$folder"
done </job/folders
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir /root/run/job
for folder in proc sys dev; do
    mount --rbind "/$folder" "/root/$folder" || fail "no bind mount of /$folder"
done
mount --bind /job /root/run/job
ip link set lo up
hostname guest

# Else the kernel would now and then make a huge page of some that a process has touched and others
# that it has not: how many pages it has would depend on the time.
holes=/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none
[ -e "$holes" ] && echo 0 >"$holes"

# The host ends the guest when its time is up; this is for when the host's side has gone.
(sleep "$(cat /job/seconds)"; poweroff -f) &

. /job/prepare
read -r booted rest </proc/uptime
setsid chroot /root /bin/sh /run/job/command </dev/null >>/job/out 2>>/job/err
status=$?
read -r ended rest </proc/uptime
echo "$status $booted $ended" >/job/status
poweroff -f
