# shellcheck shell=dash
# Helpers for the scripts that tests/vm/run runs inside a machine. For busybox sh, which prefers its own
# commands: a program that busybox has too (mke2fs, blkdiscard) is called by its path, /bin/NAME.
#
# A test prints 'ok NAME' or 'FAIL NAME: why'; 'finish' at the end turns failures into the exit code.

failures=0
passes=0
ok() {
    passes=$((passes + 1))
    echo "ok $1"
}
fail() {
    failures=$((failures + 1))
    echo "FAIL $1: $2"
}
# equal NAME WHAT GOT EXPECTED
equal() {
    if [ "$3" = "$4" ]; then
        ok "$1"
    else
        fail "$1" "$2 is $3, expected $4"
    fi
}
# check NAME COMMAND...: COMMAND succeeds; what it printed is shown only if not. It runs in a subshell.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        ok "$name"
    else
        fail "$name" "'$*' failed: $output"
    fi
}
finish() {
    [ "$failures" = 0 ] && [ "$passes" -gt 0 ]
    exit
}

# wait_until TENTHS COMMAND...: tries COMMAND ten times a second until it succeeds.
wait_until() {
    local tenths=$1
    shift
    while ! "$@"; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}

# --- Kernel file systems and modules. ---

mount_kernel_fs() {
    mount -t tracefs tracefs /sys/kernel/tracing
    mount -t debugfs debugfs /sys/kernel/debug
    modprobe configfs 2>/dev/null # built in, in some kernels
    mount -t configfs configfs /sys/kernel/config
    mkdir -p /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
}

# load MODULE [PARAMETER...]; says what the kernel said when it fails.
load() {
    modprobe "$@" && return
    echo "cannot load $*:"
    dmesg | tail -n 5
    return 1
}

# wait_disk NAME: until the disk is there with its node in /dev.
wait_disk() {
    wait_until 300 test -b "/dev/$1" && return
    echo "no disk $1; there are: $(ls /sys/block)"
    return 1
}

load_nvme() { load nvme && wait_disk nvme0n1; }
load_virtio() { load virtio_pci && load virtio_blk && wait_disk vda; }

# load_null NANOSECONDS [PARAMETER...]: nullb0, whose requests complete by a timer after this time.
# Parameters: for example submit_queues=2 hw_queue_depth=64 nr_devices=4.
load_null() {
    local delay=$1
    shift
    load null_blk queue_mode=2 irqmode=2 completion_nsec="$delay" gb=1 bs=512 "$@" && wait_disk nullb0
}

# make_null NAME KEY=VALUE...: one more null_blk disk made by configfs (load_null with nr_devices=0
# first, or beside it), with what module parameters do not have: cache_size, discard, badblocks.
# Its disk is named NAME from 6.? on, nullbN before: the name is printed.
make_null() {
    local dir=/sys/kernel/config/nullb/$1 setting
    mkdir "$dir" || return
    shift
    for setting; do
        echo "${setting#*=}" >"$dir/${setting%%=*}" || return
    done
    echo 1 >"$dir/power" || return
    if [ -e "/sys/block/${dir##*/}" ]; then
        echo "${dir##*/}"
    else
        echo "nullb$(cat "$dir/index")"
    fi
}

# load_scsi NANOSECONDS [PARAMETER...]: a scsi_debug disk whose requests take this long. Prints its name.
load_scsi() {
    local delay=$1
    shift
    modprobe sd_mod 2>/dev/null
    load scsi_debug ndelay="$delay" dev_size_mb=64 "$@" >&2 || return
    wait_until 300 scsi_disk
}
scsi_disk() {
    local disk
    for disk in /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*; do
        [ -b "/dev/${disk##*/}" ] && echo "${disk##*/}" && return
    done
    return 1
}

# --- The kernel's own count of completed requests. ---

# stat_field DISK NUMBER: fields of /sys/block/DISK/stat from 1: reads 1, read sectors 3, read ms 4,
# writes 5, write sectors 7, write ms 8, in flight 9, discards 12, discard sectors 14, flushes 16.
stat_field() { awk -v n="$2" '{ print $n }' "/sys/block/$1/stat"; }

# Requests that the kernel has not completed.
inflight() {
    local reads writes
    read -r reads writes <"/sys/block/$1/inflight" && echo $((reads + writes))
}
idle() { [ "$(inflight "$1")" = 0 ]; }

# Keeps the kernel's counts of every disk in a file for the comparison on the host:
# one line 'DISK MAJOR:MINOR field1 ... field17' each; '-' for the number of a hidden disk.
save_stats() {
    local disk
    for disk in /sys/block/*; do
        stat_line "${disk##*/}"
    done >"$1"
}
stat_line() {
    local number=- stat
    [ ! -e "/sys/block/$1/dev" ] || read -r number <"/sys/block/$1/dev"
    read -r stat <"/sys/block/$1/stat" && echo "$1 $number $stat"
}

# --- The program under test. ---

# start_daemon LOG READY PROGRAM...: runs PROGRAM in the background with its output in LOG and waits until a
# line of it matches the pattern READY. Its process id is in $daemon. Fails when it ends before.
start_daemon() {
    local log=$1 ready=$2
    shift 2
    : >"$log" # before the first look at it
    "$@" >"$log" 2>&1 &
    daemon=$!
    wait_until 600 ready_or_gone "$log" "$ready" && grep -q "$ready" "$log" && return
    echo "not ready: $*"
    tail -n 40 "$log"
    return 1
}
ready_or_gone() { grep -q "$2" "$1" || ! kill -0 "$daemon" 2>/dev/null; }

# stop_daemon: asks it to end and gives its exit code.
stop_daemon() {
    kill -TERM "$daemon"
    wait "$daemon"
}
