# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Every way that requests come and go: does each count agree with the kernel's?

for scheduler in none mq-deadline bfq kyber; do
    name=scheduler-$scheduler
    case $scheduler in bfq) modprobe bfq ;; kyber) modprobe kyber-iosched ;; esac
    queue vda scheduler $scheduler
    case_begin $name
    load_disk fio vda --rw=randrw --bsrange=4k-64k --iodepth=16 --number_ios=400
    case_end vda
    claim counts vda
    witness "the scheduler in use" "$(sed 's/.*\[\(.*\)\].*/\1/' /sys/block/vda/queue/scheduler)" eq $scheduler
done
queue vda scheduler none

# Neighbours that wait in the plug become one request.
queue vda scheduler mq-deadline
case_begin merged
load_disk fio vda --rw=write --bs=4k --iodepth=64 --iodepth_batch=32 --iodepth_batch_complete_min=32 --number_ios=1024
case_end vda
claim counts vda
claim bytes vda fio.json
claim merges vda
queue vda scheduler none

# One I/O of 256 KiB is 16 requests.
disk=$(make_null split queue_mode=2 irqmode=2 completion_nsec=50000 size=64)
queue "$disk" max_sectors_kb 16
case_begin split
load_disk fio "$disk" --rw=randrw --bs=256k --iodepth=4 --number_ios=64
case_end "$disk"
claim counts "$disk"
claim fio "$disk" fio.json 16

interrupts_of() { awk '/nvme/ { for (i = 2; i <= 3; i++) sum += $i } END { print sum + 0 }' /proc/interrupts; }
case_begin polled
before=$(interrupts_of)
load_disk fio "$nvme" --ioengine=io_uring --hipri=1 --rw=randread --bs=4k --iodepth=8 --number_ios=1000
after=$(interrupts_of)
case_end "$nvme"
claim counts "$nvme"
claim fio "$nvme" fio.json
witness "whether the disk polls" "$(cat "/sys/block/$nvme/queue/io_poll")" eq 1
witness "interrupts for 1,000 requests" $((after - before)) lt 200

# The NVMe driver completes what one interrupt found in a batch.
if grep -q '^blk_mq_end_request_batch' "$tracing/available_filter_functions"; then
    queue "$nvme" scheduler none
    case_begin batched
    echo blk_mq_end_request_batch >"$tracing/set_ftrace_filter"
    echo function >"$tracing/current_tracer"
    load_disk fio "$nvme" --rw=randread --bs=4k --iodepth=64 --iodepth_batch=16 --number_ios=1500
    batches=$(grep -c blk_mq_end_request_batch "$tracing/trace")
    echo nop >"$tracing/current_tracer"
    echo >"$tracing/set_ftrace_filter"
    case_end "$nvme"
    claim counts "$nvme"
    claim fio "$nvme" fio.json
    witness "batches that the kernel completed" "$batches" ge 1
else
    skip_case batched "this kernel has no batched completion (5.16)"
fi

# Without the kernel's own accounting, fio is the witness.
disk=$(make_null uncounted queue_mode=2 irqmode=2 completion_nsec=500000 size=64)
queue "$disk" iostats 0
case_begin iostats-off trace
load_disk fio "$disk" --rw=randrw --bs=4k --iodepth=8 --number_ios=400
case_end
claim fio "$disk" fio.json
claim trace "$disk"
witness "requests in stat" "$(($(stat_field "$disk" 1) + $(stat_field "$disk" 5)))" lt 400

case_begin wbt-off
if [ -e "/sys/block/$nvme/queue/wbt_lat_usec" ]; then
    wbt=$(cat "/sys/block/$nvme/queue/wbt_lat_usec")
    queue "$nvme" wbt_lat_usec 0
fi
load_disk fio "$nvme" --rw=randrw --bsrange=4k-32k --iodepth=16 --number_ios=600
case_end "$nvme"
claim counts "$nvme"
witness "the target of write-back throttling" "$(cat "/sys/block/$nvme/queue/wbt_lat_usec")" eq 0
queue "$nvme" wbt_lat_usec "$wbt"

case_begin discard
load_disk fio vda --rw=randtrim --bs=64k --iodepth=1 --ioengine=psync --number_ios=100
case_end vda
claim counts vda
claim fio vda fio.json

# The kernel counts them as writes; they are 'other' here.
case_begin write-zeroes
/bin/blkdiscard -z -o 0 -l 1048576 "/dev/$nvme"
case_end "$nvme"
claim counts "$nvme"
claim some "$nvme" other
