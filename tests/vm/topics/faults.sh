# shellcheck shell=dash
# Requests that do not simply succeed: counted once, with their whole time, and forgotten afterwards. What ftrace
# saw tells what happened; see Model in tests/vm/judging/trace.py.

scsi_device=/sys/block/$scsi/device
queue "$scsi" scheduler none
scsi ndelay 2000000

# Sectors 0x1234 to 0x123d are bad: the four before them are read, then the request fails.
case_begin medium-error trace
scsi opts 2
for _ in 1 2 3 4 5; do
    dd if="/dev/$scsi" of=/dev/null bs=4096 skip=582 count=1 iflag=direct 2>/dev/null
done
scsi opts 0
case_end "$scsi"
claim counts "$scsi" errors
claim trace "$scsi" partial failed

# Every 7th read returns half of its data; the rest is asked for again, by the same request.
case_begin short-transfer trace
scsi every_nth 7
scsi opts 0x80
load_disk fio "$scsi" --rw=randread --bs=32k --iodepth=4 --number_ios=140
scsi opts 0
scsi every_nth 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" partial

# The driver is busy and gives every 5th request back.
case_begin busy trace
scsi every_nth 5
scsi opts 0x4000
load_disk fio "$scsi" --rw=randrw --bs=4k --iodepth=4 --number_ios=200
scsi opts 0
scsi every_nth 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued

# A transport error: the command fails and is tried again.
case_begin transport-error trace
scsi every_nth 9
scsi opts 16
load_disk fio "$scsi" --rw=randread --bs=4k --iodepth=4 --number_ios=150
scsi opts 0
scsi every_nth 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued

# No answer: after a second the kernel aborts the command and tries again.
timeout=$(cat "$scsi_device/timeout")
case_begin timeout trace
echo 1 >"$scsi_device/timeout"
scsi every_nth 20
scsi opts 4
load_disk fio "$scsi" --rw=randread --bs=4k --iodepth=2 --number_ios=50
scsi opts 0
scsi every_nth 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued
claim slowest "$scsi" read 1000000

case_begin abort trace
scsi every_nth 20
scsi opts 0x8000
load_disk fio "$scsi" --rw=randread --bs=4k --iodepth=2 --number_ios=50
scsi opts 0
scsi every_nth 0
case_end "$scsi"
echo "$timeout" >"$scsi_device/timeout"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued
scsi ndelay 20000

# A disk is pulled out while it works on 16 requests, 300 ms each.
slow=$(nvme_with slow)
case_begin removed trace
load_disk fio "$slow" --rw=randread --bs=4k --iodepth=16 --number_ios=400 --ioengine=libaio --ignore_error=EIO:ENODEV:ENXIO &
load=$!
busy_with() { [ "$(inflight "$slow")" -ge 16 ]; }
soon busy_with
echo 1 >"/sys/block/$slow/device/device/remove"
wait $load
case_end
claim trace "$slow" failed
witness "whether the disk is still there" "$(ls /sys/block | grep -cx "$slow")" eq 0
