# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Disks whose time is known: is that what is recorded?

# A disk that takes no time shows what this machine itself takes.
quick=$(make_null quick queue_mode=2 irqmode=0 size=64)
case_begin floor trace
load_disk fio "$quick" --rw=randread --bs=4k --iodepth=1 --number_ios=400
case_end "$quick"
claim counts "$quick" instant
claim fio "$quick" fio.json
claim trace "$quick"

# timed NAME DISK NANOSECONDS DEPTH REQUESTS
timed() {
    case_begin "$1" trace
    load_disk fio "$2" --rw=randread --bs=4k --iodepth="$4" --number_ios="$5"
    case_end "$2"
    claim counts "$2"
    claim fio "$2" fio.json
    claim trace "$2"
    claim latency "$2" read "$3" fio.json floor "$quick"
}
timed_null() {
    local disk
    disk=$(make_null "us$1" queue_mode=2 irqmode=2 completion_nsec="$1"000 size=64 hw_queue_depth=128) || return
    timed "null-$1us" "$disk" "$1"000 "$2" "$3"
}
timed_null 10 1 400
timed_null 100 1 400
timed_null 1000 4 400
timed_null 10000 16 400
timed_null 100000 64 320

scsi ndelay 200000
timed scsi-200us "$scsi" 200000 1 300
scsi ndelay 5000000
timed scsi-5ms "$scsi" 5000000 8 300
# In ticks of the kernel's clock.
scsi delay 5
timed scsi-5-ticks "$scsi" 20000000 8 200
scsi ndelay 20000
