# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Requests that do not come back, and very many at once.

# Made side by side, because the kernel looks for partitions, 4.8 s for each of its reads. (From 5.15 on it gives up after 5 s.)
number=0
while [ $number -lt 6 ]; do
    make_null "deep$number" queue_mode=2 irqmode=2 completion_nsec=4800000000 size=64 hw_queue_depth=1024 submit_queues=2 \
        >"/tmp/deep$number" &
    makers="${makers:-} $!"
    number=$((number + 1))
done
# shellcheck disable=SC2086  # words
wait $makers
disks=$(cat /tmp/deep* | tr '\n' ' ')
disk=${disks%% *}
for deep in $disks; do
    soon idle "$deep"
    queue "$deep" io_timeout 60000 # null_blk's is 5 s from 5.15 on
done

# Seen while they hang, counted when they have ended.
case_begin hung-null
load_disk fio "$disk" --rw=randread --bs=4k --iodepth=3 --number_ios=3
case_end "$disk"
claim counts "$disk"
claim fio "$disk" fio.json
claim hangs "$disk" read 3 3000000 4000000

# 12,276 at once, more than the 10,240 that other tools have room for. A busy host does not get there at once.
kernel_inflight() {
    local sum=0 deep
    for deep in $disks; do
        sum=$((sum + $(inflight "$deep")))
    done
    echo $sum
}
jobs=''
for deep in $disks; do
    queue "$deep" nomerges 2
    jobs="$jobs --name=$deep --filename=/dev/$deep"
done
case_begin many-requests
most=0 attempt=0
while [ "$most" -le 10240 ] && [ $attempt -lt 8 ]; do
    attempt=$((attempt + 1))
    # Each of the two jobs of a disk has sectors of its own.
    # shellcheck disable=SC2086  # words
    fio --ioengine=libaio --thread --group_reporting --gtod_reduce=1 --direct=1 --rw=read --bs=4k --iodepth=1023 --iodepth_batch=128 --numjobs=2 \
        --offset_increment=16m --size=16m --number_ios=1023 --output-format=json --eta=never \
        --output="$case_dir/fio-$attempt.json" $jobs &
    load=$!
    while kill -0 $load 2>/dev/null; do
        now=$(kernel_inflight)
        [ "$now" -le "$most" ] || most=$now
        usleep 100000
    done
    wait $load
    claim_fio="${claim_fio:-} fio-$attempt.json"
done
# shellcheck disable=SC2086  # words
case_end $disks
for deep in $disks; do
    claim counts "$deep"
done
# shellcheck disable=SC2086  # words
claim sum-fio "$(echo $claim_fio | tr ' ' ,)" $disks
witness "requests that the kernel had in flight" "$most" ge 10241
claim peak 10241
# Twelve threads submit at once: newer kernels skip an issue program that would interrupt another one.
may_skip

# The device never answers, for longer than any request should take, and then the kernel asks again.
device=/sys/block/$scsi/device
timeout=$(cat "$device/timeout")
asked() { [ "$(cat /sys/class/scsi_host/host*/host_busy | sort -n | tail -n 1)" -gt 0 ]; }
case_begin hung-scsi trace
echo 12 >"$device/timeout"
scsi every_nth -1
scsi opts 4
dd if="/dev/$scsi" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null &
load=$!
soon asked
scsi opts 0
scsi every_nth 0
wait $load
case_end "$scsi"
claim counts "$scsi"
claim trace "$scsi" requeued
claim hangs "$scsi" read 1 11000000 12000000

# The same with a flush, which the kernel's own count of requests in flight leaves out.
case_begin hung-flush trace
echo 6 >"$device/timeout" # twice as long for a flush
scsi every_nth -1
scsi opts 4
dd if=/dev/null of="/dev/$scsi" conv=fsync,notrunc 2>/dev/null &
load=$!
soon asked
scsi opts 0
scsi every_nth 0
wait $load
case_end "$scsi"
claim counts "$scsi" flushed
claim trace "$scsi"
claim hangs "$scsi" flush 1 11000000 12000000

# The device refuses a request for twelve seconds: it is given back and issued again all the time.
case_begin refused trace
scsi every_nth -1
scsi opts 0x8000
dd if="/dev/$scsi" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null &
load=$!
sleep 12
scsi opts 0
scsi every_nth 0
wait $load
case_end "$scsi"
echo "$timeout" >"$device/timeout"
claim counts "$scsi"
claim trace "$scsi" requeued
claim hangs "$scsi" read 1 11000000 12000000
