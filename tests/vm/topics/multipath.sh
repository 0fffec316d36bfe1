# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Two controllers lead to one namespace: requests run on two hidden disks, which have no number of
# their own, and the visible disk above them has bios only.

head=$(nvme_with paths)
if [ -z "$head" ] || [ "$(cat /sys/module/nvme_core/parameters/multipath)" != Y ]; then
    skip_case round-robin "this kernel has no NVMe multipath"
else
    paths=$(cd /sys/block && ls -d "${head%n*}"c*n*)
    for policy in /sys/class/nvme-subsystem/*/iopolicy; do echo round-robin >"$policy"; done
    case_begin round-robin trace
    load_disk fio "$head" --rw=randrw --bs=4k --iodepth=8 --number_ios=400
    # shellcheck disable=SC2086  # words
    case_end $paths
    witness "paths" "$(echo "$paths" | wc -w)" eq 2
    for path in $paths; do
        claim counts "$path"
        claim some "$path" read
    done
    # shellcheck disable=SC2086  # words
    claim sum-fio fio.json $paths
    claim absent "$head"
    skip_probe tracepoint "classic tracepoints print the number of a hidden disk, which sysfs does not publish: it has no name for it"
fi
