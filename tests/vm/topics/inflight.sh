# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Requests that do not come back, and very many at once.

disk=$(make_null deep queue_mode=2 irqmode=2 completion_nsec=4000000000 size=64)
soon idle "$disk"
queue "$disk" io_timeout 60000 # null_blk's is 5 s from 5.15 on

# Seen while they hang, counted when they have ended.
case_begin hung-null
load_disk fio "$disk" --rw=randread --bs=4k --iodepth=3 --number_ios=3
case_end "$disk"
claim counts "$disk"
claim fio "$disk" fio.json
claim hangs "$disk" read 3 3000000 4000000

# 12,096 at once, more than the 10,240 that other tools have room for: 63 hosts, whose 192 commands each take 100 s.
hosts=/sys/bus/pseudo/drivers/scsi_debug/add_host
others() {
    local disk
    for disk in /sys/block/sd*; do
        disk=${disk##*/}
        [ "$disk" = "$scsi" ] || [ ! -b "/dev/$disk" ] || echo "$disk"
    done
}
others_are() { [ "$(others | wc -l)" -eq "$1" ]; }
kernel_inflight() {
    local sum=0 deep
    for deep in $disks; do
        sum=$((sum + $(inflight "$deep")))
    done
    echo $sum
}
# Before 6.4 all hosts of scsi_debug share 192 commands, and null_blk's timer is over before an emulated processor has made so many.
if kernel_from 6.4; then
    echo 63 >$hosts
    wait_until 1200 others_are 63 || echo "# disks: $(others | wc -l)"
    disks=$(others | tr '\n' ' ')
    jobs=''
    for deep in $disks; do
        soon idle "$deep"
        queue "$deep" scheduler none
        queue "$deep" nomerges 2
        echo 300 >"/sys/block/$deep/device/timeout"
        jobs="$jobs --name=$deep --filename=/dev/$deep"
    done
    scsi delay 25000 # jiffies, of 4 ms
    case_begin many-requests
    # shellcheck disable=SC2086  # words
    fio --ioengine=libaio --thread --group_reporting --direct=1 --rw=read --bs=4k --iodepth=192 --iodepth_batch=64 --size=16m \
        --number_ios=192 --output-format=json --eta=never --output="$case_dir/fio.json" $jobs &
    load=$!
    most=0
    while kill -0 $load 2>/dev/null; do
        now=$(kernel_inflight)
        [ "$now" -le "$most" ] || most=$now
        usleep 500000
    done
    wait $load
    # shellcheck disable=SC2086  # words
    case_end $disks
    for deep in $disks; do
        claim counts "$deep"
    done
    # shellcheck disable=SC2086  # words
    claim sum-fio fio.json $disks
    witness "requests that the kernel had in flight" "$most" ge 10241
    claim peak 10241
    # Dozens of threads submit at once: newer kernels skip an issue program that would interrupt another one. 1,681 of 12,096
    # were skipped on 7.2 where two processors were emulated at the same time.
    ! kernel_from 6.13 || may_skip 3000
    # They stay: probe tracepoint can have missed completions, and goes on naming their disks.
    scsi ndelay 20000
else
    skip_case many-requests "before 6.4 the hosts of scsi_debug share room for 192 commands, and no other device here can hold as many"
fi

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
