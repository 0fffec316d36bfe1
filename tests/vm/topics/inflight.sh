# shellcheck shell=dash
# Requests that do not come back, and very many at once.

# Made side by side, because the kernel looks for partitions, 4 s for each of its reads. null_blk's own patience is 5 s.
number=0
while [ $number -lt 12 ]; do
    make_null "deep$number" queue_mode=2 irqmode=2 completion_nsec=4000000000 size=64 hw_queue_depth=1024 submit_queues=1 \
        >"/tmp/deep$number" &
    makers="${makers:-} $!"
    number=$((number + 1))
done
# shellcheck disable=SC2086  # words
wait $makers
# shellcheck disable=SC2046  # words
disks=$(echo $(cat /tmp/deep*))
disk=${disks%% *}

# Seen while they hang, counted when they have ended.
case_begin hung-null
load_disk fio "$disk" --rw=randread --bs=4k --iodepth=3 --number_ios=3
case_end "$disk"
claim counts "$disk"
claim fio "$disk" fio.json
claim hangs "$disk" 3 3000000 4000000

# 12,276 at once, more than the 10,240 that other tools have room for.
case_begin many-requests
jobs=''
for disk in $disks; do
    jobs="$jobs --name=$disk --filename=/dev/$disk"
done
# shellcheck disable=SC2086  # words
fio --ioengine=libaio --thread --group_reporting --direct=1 --rw=randread --bs=4k --iodepth=1023 --iodepth_batch=128 \
    --number_ios=1023 --norandommap --size=32m --output-format=json --eta=never --output="$case_dir/fio.json" $jobs
# shellcheck disable=SC2086  # words
case_end $disks
for disk in $disks; do
    claim counts "$disk"
done
# shellcheck disable=SC2086  # words
claim sum-fio fio.json $disks
claim peak 10241

# The device never answers; the kernel gives up after three seconds, and asks again.
timeout=$(cat "/sys/block/$scsi/device/timeout")
case_begin hung-scsi trace
echo 3 >"/sys/block/$scsi/device/timeout"
scsi every_nth 0
scsi every_nth -1
scsi opts 4
dd if="/dev/$scsi" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null &
load=$!
asked() { [ "$(inflight "$scsi")" = 1 ]; }
soon asked
scsi opts 0
scsi every_nth 0
wait $load
case_end "$scsi"
echo "$timeout" >"/sys/block/$scsi/device/timeout"
claim counts "$scsi"
claim trace "$scsi"
claim hangs "$scsi" 1 2000000 3000000
