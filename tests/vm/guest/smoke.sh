# shellcheck shell=dash
# The program under test while known requests go to four kinds of disk. tests/vm/smoke compares what
# it recorded with the kernel's own counts, which are left in /out.
#
#   PROBE   btf | tracepoint | auto
#   DEPTH   requests in flight at once on each disk
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
mount_kernel_fs
check nvme load_nvme
check virtio load_virtio
check null_blk load_null 1000000
check scsi_debug load_scsi 2000000 lbpu=1
scsi=$(scsi_disk)
disks="nvme0n1 vda nullb0 $scsi"
check ext4 load ext4
check mke2fs /bin/mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/nvme0n1
mkdir /mnt
# Nothing that goes on in the background after mounting; the second is the default in 5.10.
options=noinit_itable
case $(uname -r) in 5.*) ;; *) options=$options,no_prefetch_block_bitmaps ;; esac
check mount mount -o $options /dev/nvme0n1 /mnt
sync

blkiolatd doctor >/out/doctor.txt 2>&1
equal doctor "the exit code of 'blkiolatd doctor' (see doctor.txt)" $? 0

# Nothing is in flight at either count, so the two agree to the request.
for disk in $disks; do wait_until 100 idle "$disk"; done
save_stats /tmp/quiet
devices=$(for disk in $disks; do echo "--device $disk"; done)
equal doctor-probe "the verdict of 'blkiolatd doctor'" "$(grep -c '^verdict.*will use' /out/doctor.txt)" 1
# shellcheck disable=SC2086  # words
if ! start_daemon /out/daemon.log attached blkiolatd run --no-print --interval 0.5 --flush-every 1 \
    --output /out/out.jsonl --probe "$PROBE" $devices; then
    fail start "blkiolatd did not attach"
    finish
fi
ok start
save_stats /out/before
check quiet-start cmp /tmp/quiet /out/before

for disk in $disks; do
    fio --name="$disk" --filename="/dev/$disk" --readonly --rw=randread --bs=4k --iodepth="$DEPTH" --ioengine=libaio \
        --direct=1 --number_ios=600 --size=32m --eta=never --output="/out/fio-$disk.txt" || fail "fio-$disk" "$(cat "/out/fio-$disk.txt")"
done
# The file system's disk is written through it only.
for disk in vda nullb0 "$scsi"; do
    fio --name="$disk" --filename="/dev/$disk" --rw=randrw --bsrange=4k-256k --iodepth="$DEPTH" --ioengine=libaio --direct=1 \
        --number_ios=300 --size=32m --eta=never --output="/out/fio-rw-$disk.txt" || fail "fio-rw-$disk" "$(cat "/out/fio-rw-$disk.txt")"
done
/bin/blkdiscard -o 0 -l 1048576 /dev/vda
/bin/blkdiscard -o 0 -l 1048576 "/dev/$scsi"
file=0
while [ $file -lt 30 ]; do
    dd if=/dev/zero of=/mnt/$file bs=4k count=1 conv=fsync 2>/dev/null
    file=$((file + 1))
done
fio --name=fsync --directory=/mnt --rw=write --bs=4k --size=400k --fsync=4 --numjobs="$(((DEPTH + 1) / 2))" --eta=never --output=/out/fio-fsync.txt
for disk in vda "$scsi"; do
    dd if=/dev/zero "of=/dev/$disk" bs=64k count=16 conv=fsync 2>/dev/null
done
check umount umount /mnt
sync
for disk in $disks; do wait_until 100 idle "$disk"; done

save_stats /out/after
stop_daemon
equal stop "the exit code after SIGTERM" $? 0
finish
