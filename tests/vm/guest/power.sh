# shellcheck shell=dash
# Power failures: with output.fsync every line that was written before the last one in the file survives.
#
# MODE=cache  a null_blk disk whose volatile cache is lost with its power (nullb's cache_size), ROUNDS times
# MODE=kill   records on the virtio disk 'log' until tests/vm/power kills the whole machine
#
# Run by tests/vm/power.
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
mount_kernel_fs
load ext4
mkdir -p /log
cat >/tmp/config.toml <<'END'
[sampling]
interval = "20ms"
[output]
path = "/log/b.jsonl"
flush_every = 1
fsync = true
[rotation]
max_size = "16KiB"
[retention]
min_free_space = 0
END

run_daemon() { start_daemon /tmp/log 'attached' /bin/blkiolatd run --config /tmp/config.toml --no-print; }

# Every record's number, in the order of the files; a segment beside its archive is about to go. Fails on
# an archive that is not whole.
numbers() {
    local file
    for file in /log/b-*.jsonl.gz /log/b-*.jsonl /log/b.jsonl; do
        case $file in
        *.gz) echo "$file" ;;
        */b.jsonl) ;;
        *) [ -e "$file.gz" ] || echo "$file" ;;
        esac
    done | sort | while read -r file; do
        [ -e "$file" ] || continue
        case $file in
        *.gz) zcat "$file" || return 1 ;;
        *) cat "$file" ;;
        esac
    done | sequence
    [ ! -e /log/b.jsonl ] || sequence </log/b.jsonl
}
# A line that is not whole gives a word that is no number.
sequence() { sed -e '/^{"timestamp":.*}$/!s/.*/torn/' -e 's/.*"seq":\([0-9]*\),.*/\1/'; }
# The last number in the active file or the segments, while the daemon is at work.
compressed() { [ -z "$(ls /log/b-*.jsonl /log/*.tmp 2>/dev/null)" ]; }
newest() { numbers 2>/dev/null | grep -v torn | sort -n | tail -n 1; }
has_reached() { [ "$(newest || echo 0)" -ge "$1" ] 2>/dev/null; }

# survived NAME VISIBLE: everything before the line that was seen last is there, once and in order,
# and then what the daemon wrote after its new start.
survived() {
    numbers >/tmp/numbers
    if awk -v visible="$2" '
        /torn/ { print "a torn line"; exit 1 }
        $1 == 0 && NR > 1 { second++; next_number = 0 }
        $1 != next_number { print "record " $1 " where " next_number " was expected"; exit 1 }
        { next_number++; if (!second) first = next_number }
        END { if (first < visible || second != 1) {
            print first " records of " visible " and " second + 0 " later runs"; exit 1 } }
    ' /tmp/numbers >/tmp/why; then ok "$1"; else fail "$1" "$(cat /tmp/why)"; fi
}

case $MODE in
cache)
    load null_blk nr_devices=0
    disk=$(make_null power size=64 memory_backed=1 cache_size=32 blocksize=512 queue_mode=2)
    power=/sys/kernel/config/nullb/power/power
    wait_disk "$disk"
    /bin/mke2fs -q -t ext4 "/dev/$disk"
    lost_cache=0
    for round in $(seq "$ROUNDS"); do
        mount -t ext4 "/dev/$disk" /log || fail "mount-$round" "no file system"
        run_daemon || break
        # From no rotation to several.
        wait_until 1200 has_reached $((20 + round * 53 % 300))
        # Never synced: it shows that the disk's cache is really lost.
        echo "$round" >"/log/unsynced-$round"
        visible=$(newest)
        # Taking a disk away in good order writes what its file system holds: so that one dies first.
        /bin/xfs_io -x -c shutdown /log
        echo 0 >"$power"
        kill -KILL "$daemon"
        wait "$daemon" 2>/dev/null
        umount /log || umount -l /log
        echo 1 >"$power"
        wait_disk "$disk"
        mount -t ext4 "/dev/$disk" /log || fail "mount-again-$round" "no file system"
        [ -s "/log/unsynced-$round" ] || lost_cache=$((lost_cache + 1))
        # The next start puts the files in order.
        run_daemon || break
        wait_until 1200 compressed
        stop_daemon
        survived "round-$round" "$visible"
        echo "# round $round: $visible records seen, $(find /log -name "*.gz" | wc -l) archives"
        rm -f /log/b* /log/unsynced*
        umount /log
    done
    echo "# the unsynced file was lost $lost_cache times of $ROUNDS"
    equal cache-is-lost "how often it was lost" "$lost_cache" "$ROUNDS"
    finish
    ;;
kill)
    load_virtio
    disk=$(for d in /sys/block/vd*; do [ "$(cat "$d/serial")" = log ] && echo "${d##*/}"; done)
    mount -t ext4 "/dev/$disk" /log || exit 1
    run_daemon || exit 1
    while sleep 0.2; do
        echo "visible $(newest)"
    done
    ;;
esac
