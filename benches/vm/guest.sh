# shellcheck shell=dash
# Requests per second on null_blk with the daemon and without it, in turn: 'rate ON OFF' for each round.
#
#   ROUNDS   how often
#   SECONDS_EACH   how long each is measured
# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh
mount_kernel_fs
# Requests complete at once, in the context that issues them: nothing costs less without the daemon.
load null_blk queue_mode=2 irqmode=0 gb=1 bs=4096 submit_queues=2 hw_queue_depth=128 && wait_disk nullb0 || exit 1

requests() { echo $(($(stat_field nullb0 1) + $(stat_field nullb0 5))); }
# rate: requests that complete while it is measured, per second.
rate() {
    local before begun
    sleep 1
    begun=$(cut -d ' ' -f 1 /proc/uptime)
    before=$(requests)
    sleep "$SECONDS_EACH"
    awk -v r="$(($(requests) - before))" -v b="$begun" '{ printf "%.0f", r / ($1 - b) }' /proc/uptime
}

fio --name=hot --filename=/dev/nullb0 --thread --direct=1 --ioengine=libaio --rw=randrw --bs=4k --iodepth=64 --iodepth_batch=8 \
    --iodepth_batch_complete_min=8 --time_based --runtime=86400 --norandommap --gtod_reduce=1 >/tmp/fio 2>&1 &
fio=$!
round=0
while [ $round -lt "$ROUNDS" ]; do
    start_daemon /tmp/daemon attached blkiolatd run --no-print --no-output --interval 1 --device 'nullb*' || exit 1
    on=$(rate)
    stop_daemon
    echo "rate $on $(rate)"
    round=$((round + 1))
done
kill $fio
