# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Requests that do not simply succeed: counted once, with their whole time, and forgotten afterwards. What ftrace
# saw tells what happened; see Model in tests/vm/judging/trace.py.

# opts of scsi_debug: what happens to every_nth command.
MEDIUM_ERROR=2 TIMEOUT=4 TRANSPORT_ERROR=16 SHORT_TRANSFER=0x100 HOST_BUSY=0x8000
# inject OPT NTH; inject 0 0 ends it
inject() {
    scsi every_nth "$2"
    scsi opts "$1"
}

scsi_device=/sys/block/$scsi/device
queue "$scsi" scheduler none
scsi ndelay 2000000

# Sectors 0x1234 to 0x123d are bad: the four before them are read, then the request fails.
case_begin medium-error trace
inject $MEDIUM_ERROR 0
for _ in 1 2 3 4 5; do
    dd if="/dev/$scsi" of=/dev/null bs=4096 skip=582 count=1 iflag=direct 2>/dev/null
done
inject 0 0
case_end "$scsi"
claim counts "$scsi" errors
claim trace "$scsi" partial failed

# Every 7th read returns half of its data; the rest is asked for again, by the same request.
case_begin short-transfer trace
inject $SHORT_TRANSFER 7
load_disk fio "$scsi" --rw=randread --bs=32k --iodepth=4 --number_ios=140
inject 0 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" partial

# The driver is busy and gives every 5th request back.
case_begin busy trace
inject $HOST_BUSY 5
load_disk fio "$scsi" --rw=randrw --bs=4k --iodepth=4 --number_ios=200
inject 0 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued

# The same, where at every place of the disk the record of a read of 32 KiB was left, as if its completion had been missed:
# a request that is given back before it was issued must not take it for its own.
# leave_reads MIB: puts them into the table of probe tracepoint, the only one of this name
leave_reads() {
    bytes='function bytes(count, number) {
        text = ""
        for (; count > 0; count--) { text = text sprintf(" 0x%02x", number % 256); number = int(number / 256) }
        return text
    }'
    number=$(awk -F: '{ print $1 * 1048576 + $2 }' "/sys/block/$scsi/dev")
    # Both probes have a table of this name; this one knows disks by their numbers.
    # shellcheck disable=SC2046  # bytes are words
    for id in $(bpftool map show | awk -F: '/name device_slots/ { print $1 }'); do
        slot=$(bpftool -j map lookup id "$id" key $(awk "$bytes BEGIN { print bytes(8, $number) }") |
            sed -n 's/.*"value":\["\(0x..\)","\(0x..\)".*/\1 \2/p')
        [ -z "$slot" ] || break
    done
    # struct pending_key and struct pending of bpf/blkiolat.h
    awk "$bytes"'{
        start = int($1) * 1000000000
        for (sector = 0; sector < mib * 2048; sector += 8)
            print "map update name pending key" bytes(8, sector) bytes(4, number) bytes(4, 0),
                "value" bytes(8, start) bytes(4, 32768), slot, "0 0"
    }' mib="$1" number="$number" slot="$slot" /proc/uptime >/tmp/records
    bpftool batch file /tmp/records >/dev/null
}
# Of other disks, and before, single records may have been left.
hundreds_left() { tail -n 1 /out/tracepoint.jsonl | grep -q "\"device_name\":\"$scsi\",\"count\":[0-9]\{3\}"; }
few_left() { ! hundreds_left; }
case_begin left-behind trace
check left-behind leave_reads 8
check left-behind-seen soon hundreds_left
inject $HOST_BUSY 5
load_disk fio "$scsi" --rw=randrw --bs=4k --iodepth=4 --number_ios=200 --size=8m
inject 0 0
# Those that no request replaced are dropped, because the kernel has nothing in flight.
check left-behind-dropped soon few_left
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued

# A transport error: the command fails and is tried again.
case_begin transport-error trace
inject $TRANSPORT_ERROR 9
load_disk fio "$scsi" --rw=randread --bs=4k --iodepth=4 --number_ios=150
inject 0 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued

# No answer: after a second the kernel aborts the command and tries again.
timeout=$(cat "$scsi_device/timeout")
case_begin timeout trace
echo 1 >"$scsi_device/timeout"
inject $TIMEOUT 20
load_disk fio "$scsi" --rw=randread --bs=4k --iodepth=2 --number_ios=50
inject 0 0
case_end "$scsi"
claim counts "$scsi"
claim fio "$scsi" fio.json
claim trace "$scsi" requeued
claim slowest "$scsi" read 1000000

echo "$timeout" >"$scsi_device/timeout"
scsi ndelay 20000

slow=$(nvme_with slow)
busy_with() { [ "$(inflight "$1")" -ge "$2" ]; }

# A disk whose requests take 300 ms is taken out while it works: it goes when its requests have ended.
case_begin removed-busy trace
load_disk fio "$slow" --rw=randread --bs=4k --iodepth=16 --number_ios=400 --ignore_error=EIO:ENODEV:ENXIO &
load=$!
soon busy_with "$slow" 16
echo 1 >"/sys/block/$slow/device/device/remove"
wait $load
case_end
claim trace "$slow"
witness "whether the disk is still there" "$(test -e "/sys/block/$slow" && echo yes || echo no)" eq no

# A disk that no longer answers is taken out: its requests fail.
echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host
second_disk() {
    for second in /sys/block/sd*; do
        second=${second##*/}
        [ "$second" != "$scsi" ] && [ -b "/dev/$second" ] && return
    done
    return 1
}
soon second_disk
case_begin removed-dead trace
echo 1 >"/sys/block/$second/device/timeout"
inject $TIMEOUT -1
load_disk fio "$second" --rw=randread --bs=4k --iodepth=4 --number_ios=4 --ignore_error=EIO:ENODEV:ENXIO &
load=$!
soon busy_with "$second" 4
echo -1 >/sys/bus/pseudo/drivers/scsi_debug/add_host
wait $load
inject 0 0
case_end
claim trace "$second" failed
witness "whether the disk is still there" "$(test -e "/sys/block/$second" && echo yes || echo no)" eq no
