#!/bin/busybox sh
# shellcheck shell=dash
#
# The first process of a guest: loads modules, makes / of the image and a layer in memory, mounts the
# scratch disk, runs its `job`, and ends the machine. Console: messages of the kernel and of this script.
# ttyS1: what the job prints. ttyS2, which the job writes to itself: its results.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
while read -r module; do
    insmod "/modules/$module" || echo "insmod $module failed"
done </modules/order

fail() {
    echo "init: $1"
    reboot -f
}

for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vdb ] && break
    sleep 1
done
mount -t ext4 -o ro /dev/vda /image || fail "no image"
mount -t tmpfs -o size=1500m none /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work none /new || fail "no overlay"
mount -t ext4 /dev/vdb /new/scratch || fail "no scratch disk"
mount -t proc none /new/proc
mount -t sysfs none /new/sys
mount -t devtmpfs none /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts none /new/dev/pts
mount -t tmpfs none /new/dev/shm
mkdir -p /new/tmp # which may be where the environment is
chmod 1777 /new/tmp /new/dev/shm /new/scratch
ln -s /proc/self/fd /new/dev/fd
ln -s /proc/self/fd/0 /new/dev/stdin
ln -s /proc/self/fd/1 /new/dev/stdout
ln -s /proc/self/fd/2 /new/dev/stderr

# Tests want an address beside loopback's, of the device that the module has made, and to map more memory than
# there is.
ip link set lo up
ip address add 192.0.2.1/24 dev dummy0 && ip link set dummy0 up
hostname guest
echo 1 >/proc/sys/vm/overcommit_memory
ulimit -n 20000

stty -F /dev/ttyS1 raw -echo
stty -F /dev/ttyS2 raw -echo
# Without a controlling terminal, and with a reader who never blocks it.
chroot /new /bin/env -i PATH=/bin HOME=/root LANG=C.UTF-8 TMPDIR=/scratch setsid \
    sh -c 'sh /scratch/job 2>&1 </dev/null | cat' >/dev/ttyS1 2>&1 </dev/null
sync
umount /new/scratch || mount -o remount,ro /new/scratch
sleep 1
reboot -f
