# shellcheck shell=dash
# A thousand disks, and disks with names that are meant to hurt: records right, memory bounded.
#
#   tests/vm/run --timeout 900 KERNEL blkiolatd tests/vm/guest/many.sh
#
# DISKS (default 1000) null_blk disks; READS requests on each.
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
mount_kernel_fs
DISKS=${DISKS:-1000} READS=3
out=/tmp/out.jsonl
memory_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$daemon/status"; }
# shellcheck disable=SC2317  # called through wait_until
windows() { [ "$(wc -l <"$out")" -ge "$1" ]; }

load null_blk nr_devices="$DISKS" queue_mode=2 irqmode=0 submit_queues=1 hw_queue_depth=16 gb=1
wait_disk "nullb$((DISKS - 1))"
start_daemon /tmp/log attached /bin/blkiolatd run --config /dev/null --interval 500ms --device '*' \
    --flush-every 1 --output $out --print >/dev/null
before=$(memory_kib)
number=0
while [ "$number" -lt "$DISKS" ]; do
    dd if="/dev/nullb$number" of=/dev/null bs=4096 count=$READS iflag=direct 2>/dev/null
    number=$((number + 1))
done
echo "# memory: $before KiB at the start, $(memory_kib) KiB with $DISKS disks in use"
check memory [ "$(memory_kib)" -lt 98304 ]

# Since 6.10 or so a null_blk disk bears the name of its directory in configfs.
evil=$(printf 'a\033[2J"\\\r')
hostile=$(make_null "$evil" size=16 memory_backed=1 2>/dev/null) || hostile=''
case $hostile in
nullb* | '') echo "# this kernel names disks itself" ;;
*)
    node=$(printf '/tmp/node')
    dev=$(cat "/sys/block/$hostile/dev")
    mknod "$node" b "${dev%:*}" "${dev#*:}"
    dd if="$node" of=/dev/null bs=4096 count=$READS iflag=direct 2>/dev/null
    ;;
esac
# Two more windows see all of it.
wait_until 600 windows $(($(wc -l <$out) + 3))
stop_daemon
equal control-characters-in-records "the number of lines with any" \
    "$(tr -d '\n' <$out | tr '\000-\037\177' '!' | grep -c '!')" 0
# The terminal's picture and the log go to the same file here.
equal control-characters-in-terminal "the number of lines with any" \
    "$(grep -c "$(printf '[\001-\010\013-\037\177]')" /tmp/log)" 0
case $hostile in
nullb* | '') ;;
*) check hostile-name grep -q 'a\\u001b\[2J\\"' $out ;;
esac

# Each disk's reads, over all windows.
tr '{' '\n' <$out | sed -n 's/.*"device_name":"\(nullb[0-9]*\)","total":\([0-9]*\),.*/\1 \2/p' |
    awk '{ sum[$1] += $2 } END { for (disk in sum) print disk, sum[disk] }' | sort >/tmp/recorded
for disk in /sys/block/nullb*; do
    echo "${disk##*/} $(stat_field "${disk##*/}" 1)"
done | sort >/tmp/kernel
equal disks "number of disks recorded" "$(wc -l </tmp/recorded)" "$DISKS"
# The kernel's counts begin before the daemon does: reads of the partition table.
awk -v reads=$READS '$2 < reads' /tmp/recorded >/tmp/short
missed=$(sed -n 's/.*"probe_misses":\([0-9]*\).*/\1/p' $out | awk '{ sum += $1 } END { print sum + 0 }')
full=$(sed -n 's/.*"device_table_full":\([0-9]*\).*/\1/p' $out | awk '{ sum += $1 } END { print sum + 0 }')
echo "# $(awk '{ sum += $2 } END { print sum }' /tmp/recorded) requests recorded, $missed missed, device table full $full times"
if [ "$(wc -l </tmp/short)" -le "$missed" ]; then
    ok reads
else
    fail reads "too few of $(head -n 3 /tmp/short | tr '\n' ';') and $missed missed"
fi
finish
