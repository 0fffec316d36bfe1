# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Disks with a volatile cache: is a device flush counted once, and is nothing else taken for a write?

# Several threads submit at once: newer kernels skip an issue program that would interrupt another one. On 7.2, one or
# three of some 300 were.
newer_may_skip() { ! kernel_from 6.13 || may_skip 12; }

cached=$(make_null cached queue_mode=2 irqmode=2 completion_nsec=100000 memory_backed=1 cache_size=8 size=64)
for disk in "$nvme" vda "$scsi" "$cached"; do
    kind=$(echo "$disk" | sed 's/n1$//; s/[0-9]*$//; s/^sd[a-z]*/scsi/; s/^cached$/null/; s/^vda$/virtio/; s/^nullb$/null/')
    # Each fsync is an empty flush request of its own; those that wait together share one device flush.
    case_begin "fsync-$kind"
    load_disk fio "$disk" --ioengine=psync --rw=randwrite --bs=4k --fsync=1 --numjobs=3 --number_ios=40
    case_end "$disk"
    claim counts "$disk" flushed
    claim fio "$disk" fio.json
    claim some "$disk" flush
    newer_may_skip
    witness "the cache" "$(cat "/sys/block/$disk/queue/write_cache")" eq "write back"

    # O_DSYNC on a block device is a FUA write and then an fsync; a disk without FUA gets a flush in its place.
    case_begin "fua-$kind" trace
    load_disk fio "$disk" --ioengine=psync --rw=randwrite --bs=4k --sync=dsync --number_ios=80
    case_end "$disk"
    claim counts "$disk" flushed
    claim fio "$disk" fio.json
    claim trace "$disk"
    claim some "$disk" flush
    if [ "$(cat "/sys/block/$disk/queue/fua")" = 1 ]; then
        witness "FUA writes that ftrace saw" "$(zcat "$case_dir/trace.gz" | grep -c 'rq_issue: [0-9,]* WF')" eq 80
    fi
done

# A journal's commits: writes with a preflush and with FUA, which complete twice.
modprobe ext4
/bin/mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$nvme"
mkdir -p /mnt
# Nothing that goes on in the background after mounting; the second is the default in 5.10.
options=noinit_itable
case $(uname -r) in 5.*) ;; *) options=$options,no_prefetch_block_bitmaps ;; esac
mount -o "$options" "/dev/$nvme" /mnt
sync
case_begin ext4-fsync trace
load_fio fio --directory=/mnt --ioengine=psync --rw=write --bs=4k --size=160k --fsync=2 --numjobs=3
sync
case_end "$nvme"
claim counts "$nvme" flushed
claim trace "$nvme"
claim some "$nvme" flush
claim some "$nvme" write
newer_may_skip
umount /mnt
