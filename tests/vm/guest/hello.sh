# shellcheck shell=dash
# The machine itself: does the kernel boot, have BTF as asked, and have every disk the tests use?
#
#   tests/vm/run KERNEL - tests/vm/guest/hello.sh
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
echo "# $(uname -r), up $(cut -d' ' -f1 /proc/uptime) s"
mount_kernel_fs
if [ "$HIDE_BTF" = yes ]; then
    equal no-btf "/sys/kernel/btf" "$(ls /sys/kernel/btf)" ""
else
    check btf test -s /sys/kernel/btf/vmlinux
fi
check tracefs test -e /sys/kernel/tracing/events/block/block_rq_issue/format
check nvme load_nvme
check virtio load_virtio
check null_blk load_null 1000000
check scsi_debug load_scsi 1000000
for disk in nvme0n1 vda nullb0 "$(scsi_disk)"; do
    queue=/sys/block/$disk/queue
    echo "# $disk: scheduler $(cat "$queue/scheduler"), wbt_lat_usec $(cat "$queue/wbt_lat_usec" 2>&1), cache $(cat "$queue/write_cache")"
    before=$(stat_field "$disk" 1)
    dd if="/dev/$disk" of=/dev/null bs=4096 count=32 iflag=direct 2>/dev/null
    equal "reads-$disk" "reads in stat" $(($(stat_field "$disk" 1) - before)) 32
done
for module in bfq kyber-iosched dm-mod ext4 zram brd raid1 loop xfs; do
    check "module-$module" load "$module"
done
echo "# up $(cut -d' ' -f1 /proc/uptime) s"
finish
