# shellcheck shell=dash
# Bios of disks without request queues while blkiolatd measures with --bio. Each case has a disk of its own, so that
# the sums of all records belong to it. tests/vm/judging/bio.py compares them with the kernel's counts and with fio's,
# which are left in /out.
#
#   facts NAME DISK    what a case was: lines of /out/cases, read by tests/vm/judging/bio.py
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
mount_kernel_fs
uname -r >/out/release

# dm NAME TABLE: a device-mapper disk; prints its kernel name.
dm() {
    printf '%s\n' "$2" | dmsetup create "$1" --noudevrules --noudevsync || return
    set -- "$(dmsetup info -c --noheadings -o blkdevname "$1")"
    wait_disk "$1" >&2 && echo "$1"
}

number() { cat "/sys/block/$1/dev"; }

# array NAME LEVEL DISK DISK: an md array of two disks without superblocks, made through sysfs.
array() {
    local name=$1 level=$2 md=/sys/block/$1/md slot=0 disk member
    shift 2
    echo "$name" >/sys/module/md_mod/parameters/new_array || return
    echo none >"$md/metadata_version" || return
    echo "$level" >"$md/level" || return
    echo 2 >"$md/raid_disks" || return
    [ "$level" != raid0 ] || echo 65536 >"$md/chunk_size" || return
    for disk; do
        number "$disk" >"$md/new_dev" || return
        member=$md/dev-$disk
        # 5.10 asks a member without a superblock for nothing.
        [ "$(cat "$member/size")" != 0 ] || echo 65536 >"$member/size" || return
        echo $slot >"$member/slot" || return
        slot=$((slot + 1))
    done
    # Both halves are equal: nothing to synchronise.
    if [ "$level" != raid0 ]; then
        echo 65536 >"$md/component_size" || return # KiB
        echo none >"$md/resync_start" || return
    fi
    echo active >"$md/array_state" || return
    wait_disk "$name" >&2 && echo "$name"
}

# timed NAME: a null_blk disk of 64 MiB that takes 500 us, has a cache and keeps what is written.
timed() {
    make_null "$1" queue_mode=2 irqmode=2 completion_nsec=500000 memory_backed=1 size=64 hw_queue_depth=64 submit_queues=2 cache_size=8
}

# load_disk CASE DISK OPTION...
load_disk() {
    local case=$1 disk=$2
    shift 2
    echo "$case $disk" >>/out/cases
    fio --name="$case" --filename="/dev/$disk" --ioengine=libaio --direct=1 --thread --group_reporting --size=32m \
        --lat_percentiles=1 --output-format=json --eta=never --output="/out/fio-$case.json" "$@" >"/out/fio-$case.log" 2>&1
}

check virtio load_virtio
check nvme load nvme
check null_blk load null_blk nr_devices=0
for module in dm_mod dm_delay dm_multipath dm_round_robin md_mod raid0 raid1 zram; do check $module load $module; done
check brd load brd rd_nr=1 rd_size=65536

null=$(timed null)
sectors=131072
linear=$(dm linear "0 $sectors linear $(number "$null") 0")
stripe_a=$(timed stripe_a) stripe_b=$(timed stripe_b)
striped=$(dm striped "0 $((2 * sectors)) striped 2 64 $(number "$stripe_a") 0 $(number "$stripe_b") 0")
raid0_a=$(timed raid0_a) raid0_b=$(timed raid0_b)
raid0=$(array md_raid0 raid0 "$raid0_a" "$raid0_b")
raid1_a=$(timed raid1_a) raid1_b=$(timed raid1_b)
raid1=$(array md_raid1 raid1 "$raid1_a" "$raid1_b")
# In place from md to device mapper: without md's own accounting there is no clone.
null_a=$(timed null_a) null_b=$(timed null_b)
lower_a=$(dm lower_a "0 $sectors linear $(number "$null_a") 0")
lower_b=$(dm lower_b "0 $sectors linear $(number "$null_b") 0")
stacked=$(array md_stacked raid0 "$lower_a" "$lower_b")
echo 0 >"/sys/block/$stacked/queue/iostats"
uncounted_a=$(timed uncounted_a) uncounted_b=$(timed uncounted_b)
uncounted=$(array md_uncounted raid0 "$uncounted_a" "$uncounted_b")
echo 0 >"/sys/block/$uncounted/queue/iostats"
# The first MiB is bad.
bad=$(make_null bad queue_mode=2 irqmode=0 size=64 memory_backed=1 badblocks=+0-2047)
over_bad=$(dm over_bad "0 $sectors linear $(number "$bad") 0")
# The same in place.
bad_a=$(make_null bad_a queue_mode=2 irqmode=0 size=64 memory_backed=1 badblocks=+0-2047)
bad_b=$(make_null bad_b queue_mode=2 irqmode=0 size=64 memory_backed=1 badblocks=+0-2047)
raid_bad=$(array md_bad raid0 "$bad_a" "$bad_b")
echo 0 >"/sys/block/$raid_bad/queue/iostats"
failing=$(dm failing "0 $sectors error")
held=$(dm held "0 $sectors linear $(number "$null") 0")
early=$(dm early "0 $sectors linear $(number "$null") 0")
queues=$(timed queues)
requests=$(dm requests "0 $sectors multipath 2 queue_mode mq 0 1 1 round-robin 0 1 0 $(number "$queues")")
echo 32M >/sys/block/zram0/disksize
for disk in "$linear" "$striped" "$raid0" "$raid1" "$stacked" "$uncounted" "$over_bad" "$raid_bad" "$failing" "$held" "$early" "$requests"; do
    # The first who opens a disk has the kernel look for partitions.
    check "disk-${disk:-missing}" test -b "/dev/${disk:?}" && head -c 1 "/dev/$disk" >/dev/null 2>&1
done
for disk in /sys/block/*; do echo "${disk##*/} $(cat "$disk/dm/name" 2>/dev/null) $(echo "$disk"/slaves/*)"; done >/out/disks

head=''
for disk in /sys/block/nvme*; do
    disk=${disk##*/}
    case $disk in
    *c*n*) ;;
    *) [ "$(tr -d ' ' <"/sys/block/$disk/device/serial" 2>/dev/null)" = paths ] && head=$disk ;;
    esac
done
[ -n "$head" ] || echo "# no NVMe multipath head: $(ls /sys/block)"

blkiolatd doctor >/out/doctor.txt 2>&1
equal doctor "lines of the doctor on the bio layer" "$(grep -c '^bio .*sampling.bio' /out/doctor.txt)" 1

# queued COUNT: whether so many bios were queued at the disk since watch_queue DISK, as ftrace saw it.
tracing=/sys/kernel/tracing
watch_queue() {
    echo "dev == $(($(number "$1" | sed 's/:/ * 1048576 + /')))" >$tracing/events/block/block_bio_queue/filter
    echo >$tracing/trace
    echo 1 >$tracing/events/block/block_bio_queue/enable
}
# shellcheck disable=SC2317  # called by wait_until
queued() { [ "$(grep -c block_bio_queue "$tracing/trace")" -ge "$1" ]; }

# Eight reads hang in a suspended disk while the daemon attaches.
watch_queue "$early"
dmsetup suspend --noflush --nolockfs early
fio --name=early --filename="/dev/$early" --ioengine=libaio --direct=1 --thread --rw=randread --bs=4k --iodepth=8 --number_ios=8 \
    --size=32m --eta=never --output=/out/fio-early.txt &
early_fio=$!
check early-queued wait_until 600 queued 8
echo 0 >$tracing/events/block/block_bio_queue/enable
if ! start_daemon /out/daemon.log 'attached.*probe="bio"\|attached.*probe=bio' blkiolatd run --bio --no-print --interval 0.5 --flush-every 1 \
    --output /out/out.jsonl --device '*'; then
    fail start "blkiolatd did not attach"
    finish
fi
ok start
dmsetup resume --noudevsync early
wait $early_fio
lines() { wc -l </out/out.jsonl; }
# shellcheck disable=SC2317  # called by wait_until
more_lines() { [ "$(lines)" -gt "$1" ]; }
wait_until 100 more_lines $(($(lines) + 4))
lines >/out/early
save_stats /out/before

load_disk linear "$linear" --rw=randrw --bs=4k --iodepth=8 --number_ios=300 --fsync=20
load_disk striped "$striped" --rw=randrw --bs=256k --iodepth=4 --number_ios=40
load_disk raid0 "$raid0" --rw=randrw --bs=256k --iodepth=4 --number_ios=40
load_disk raid1 "$raid1" --rw=randrw --bs=4k --iodepth=4 --number_ios=200 --fsync=10
load_disk uncounted "$uncounted" --rw=randrw --bsrange=4k-256k --iodepth=4 --number_ios=200 --fsync=20
load_disk stacked "$stacked" --rw=randrw --bsrange=4k-256k --iodepth=4 --number_ios=200
load_disk zram zram0 --rw=randrw --bs=4k --iodepth=4 --number_ios=200 --size=16m
load_disk brd ram0 --rw=randrw --bs=4k --iodepth=4 --number_ios=200
load_disk requests "$requests" --rw=randrw --bs=4k --iodepth=4 --number_ios=200
if [ -n "$head" ]; then
    # Neighbours in one submission become one request of several bios.
    load_disk head "$head" --rw=randrw --bs=4k --iodepth=16 --number_ios=200 --fsync=20
    load_disk head-merged "$head" --rw=write --bs=4k --iodepth=32 --iodepth_batch=16 --iodepth_batch_complete_min=16 --number_ios=256
fi
# What fails for its reader is the witness: 5.10's null_blk takes no bad blocks.
for disk in "$failing" "$over_bad" "$raid_bad"; do
    read=0 failed=0
    while [ $read -lt 5 ]; do
        dd if="/dev/$disk" of=/dev/null bs=4k count=1 iflag=direct skip=$read 2>/dev/null || failed=$((failed + 1))
        read=$((read + 1))
    done
    echo "$disk $read $failed" >>/out/failures
done

# Reads that hang for three seconds, and are counted when they end.
watch_queue "$held"
dmsetup suspend --noflush --nolockfs held
fio --name=held --filename="/dev/$held" --ioengine=libaio --direct=1 --thread --rw=randread --bs=4k --iodepth=8 --number_ios=8 \
    --size=32m --eta=never --output=/out/fio-held.txt &
held_fio=$!
check held-queued wait_until 600 queued 8
echo 0 >$tracing/events/block/block_bio_queue/enable
lines >/out/held-from
sleep 3
lines >/out/held-until
dmsetup resume --noudevsync held
wait $held_fio

save_stats /out/after
stop_daemon
equal stop "the exit code after SIGTERM" $? 0
echo "linear=$linear striped=$striped raid0=$raid0 raid1=$raid1 stacked=$stacked uncounted=$uncounted over_bad=$over_bad raid_bad=$raid_bad failing=$failing held=$held early=$early requests=$requests head=$head lower_a=$lower_a lower_b=$lower_b" >/out/names
finish
