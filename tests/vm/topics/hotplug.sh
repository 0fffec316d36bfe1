# shellcheck shell=dash disable=SC2154  # topic, nvme, scsi ...: guest/suite.sh
# Disks that come and go, and many of them.

hosts=/sys/bus/pseudo/drivers/scsi_debug/add_host
newest() {
    local disk found=1
    for disk in /sys/block/sd*; do
        disk=${disk##*/}
        [ "$disk" = "$scsi" ] || [ ! -b "/dev/$disk" ] || { echo "$disk" && found=0; }
    done
    return $found
}
no_newest() { ! newest >/dev/null; }

# One name and number after the other is used again, by another disk each time.
case_begin reused-number
rounds=0
while [ $rounds -lt 8 ]; do
    echo 1 >$hosts
    soon newest >/dev/null
    disk=$(newest)
    dd if="/dev/$disk" of=/dev/null bs=4096 count=$((20 + rounds)) iflag=direct 2>/dev/null
    cat "/sys/block/$disk/dev" >>"$case_dir/numbers"
    retire "$disk"
    echo -1 >$hosts
    soon no_newest
    rounds=$((rounds + 1))
done
case_end
claim counts "$disk"
witness "how many numbers 8 disks had" "$(sort -u "$case_dir/numbers" | wc -l)" lt 8

# 66 disks at once.
case_begin many-disks
disks='' number=0
while [ $number -lt 66 ]; do
    disks="$disks $(make_null "many$number" queue_mode=2 irqmode=0 size=8)"
    number=$((number + 1))
done
for disk in $disks; do
    dd if="/dev/$disk" of=/dev/null bs=4096 count=$((3 + ${#disk})) iflag=direct 2>/dev/null
done
# shellcheck disable=SC2086  # words
case_end $disks
for disk in $disks; do
    claim counts "$disk" instant
done
witness "disks" "$(echo "$disks" | wc -w)" eq 66
number=0
while [ $number -lt 66 ]; do
    rmdir "/sys/kernel/config/nullb/many$number"
    number=$((number + 1))
done
