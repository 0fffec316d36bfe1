# shellcheck shell=dash disable=SC2154,SC2034  # shared with case.sh and topics
# Runs topics in one machine, one after the other, while blkiolatd measures with both probes. Prints progress
# only; what is right is decided by tests/vm/suite from what is left in /out.
#
#   TOPICS   names of files of tests/vm/topics, without .sh
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
# shellcheck source=tests/vm/guest/case.sh
. ./case.sh
mount_kernel_fs
uname -r >/out/release
echo mono >"$tracing/trace_clock"
echo 8192 >"$tracing/buffer_size_kb"
check virtio load_virtio
# One queue for polled requests. The machine's other controllers come with the first.
check nvme load nvme poll_queues=1
check nvme-disks soon test -b "/dev/$(nvme_with test)"
check null_blk load null_blk nr_devices=0
modprobe sd_mod 2>/dev/null
check scsi_debug load scsi_debug ndelay=20000 dev_size_mb=64 lbpu=1
check scsi-disk wait_until 300 scsi_disk
nvme=$(nvme_with test)
scsi=$(scsi_disk)
blkiolatd doctor >/out/doctor.txt 2>&1
# shellcheck disable=SC2119  # no options
measure || { fail measure "blkiolatd did not start: $(cat /run/*.log)"; finish; }
ok measure
for topic in $TOPICS; do
    # shellcheck disable=SC1090  # chosen by tests/vm/suite
    . "./$topic.sh"
done
stop_measuring
finish
