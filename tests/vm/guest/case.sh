# shellcheck shell=dash disable=SC2154  # topic, daemon: set by those that source this
# What a topic (tests/vm/topics/NAME.sh) is written with. A topic makes load and leaves evidence; it
# judges nothing. Each case has a directory, /out/TOPIC/CASE, with the kernel's counts before and after, the
# numbers of the records that belong to it, other witnesses, and the claims that tests/vm/judging decides
# on the host.
#
#   case_begin NAME [trace]     everything before it belongs to no case; 'trace': ftrace watches too
#   case_end [DISK...]          waits until these have nothing in flight
#   claim KIND ARGUMENT...      see tests/vm/judging/claims.py
#   witness TEXT GOT OP WANT    something else that must hold for the case to show anything
#   may_skip MOST               probe btf may be skipped so often, if the audit says so (within a case)
#   skip_case NAME WHY          this kernel or device cannot show it
#   skip_probe PROBE WHY        this probe cannot see it (within a case)

# Both measure the same load. The kernel's BTF is hidden from the second, which must find its own way.
PROBES="btf tracepoint"
tracing=/sys/kernel/tracing

# --- The programs under test. ---

# measure [OPTION...]: (re)starts blkiolatd for each probe, with these options added.
measure() {
    local probe
    stop_measuring
    mkdir -p /run/no-btf
    for probe in $PROBES; do
        # shellcheck disable=SC2016  # for the inner shell
        case $probe in
        btf) set_apart='' ;;
        *) set_apart='unshare -m sh -c '\''mount --bind /run/no-btf /sys/kernel/btf && exec "$@"'\'' sh' ;;
        esac
        echo "--- measure $*" >>"/out/$probe.log"
        touch "/out/$probe.jsonl"
        if ! eval start_daemon "/run/$probe.log" '"attached"' "$set_apart" \
            blkiolatd run --no-print --interval 0.5 --flush-every 1 --output "/out/$probe.jsonl" \
            --probe "$([ "$probe" = btf ] && echo btf || echo auto)" '--device "*"' '"$@"'; then
            echo "# probe $probe did not start"
            return 1
        fi
        eval "daemon_$probe=$daemon"
    done
}

stop_measuring() {
    local probe pid
    for probe in $PROBES; do
        eval "pid=\${daemon_$probe:-}"
        [ -n "$pid" ] || continue
        kill -TERM "$pid"
        wait "$pid"
        echo "--- exit code $?" >>"/run/$probe.log"
        cat "/run/$probe.log" >>"/out/$probe.log"
        eval "daemon_$probe="
    done
}

count_lines() { wc -l <"/out/$1.jsonl"; }
more_lines() { [ "$(count_lines "$1")" -gt "$2" ]; }

# boundary NAME: ends a window of each probe and waits until it is written; what happens after it belongs to
# later windows. Notes in the case's directory how many records there are then. A window that had ended
# already may be written meanwhile: the second is certainly new. SIGHUP ends a window at once.
boundary() {
    local probe pid lines end
    for probe in $PROBES; do
        eval "pid=\$daemon_$probe"
        lines=$(count_lines "$probe")
        for end in 1 2; do
            kill -HUP "$pid" && soon more_lines "$probe" $((lines + end - 1)) || echo "# probe $probe wrote no record"
        done
        echo "$probe $1 $((lines + 2))" >>"$case_dir/lines"
    done
}

# soon COMMAND...: tries COMMAND 50 times a second, for 20 s, until it succeeds.
soon() {
    local tries=1000
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        usleep 20000
    done
}

# --- Cases. ---

case_begin() {
    case_dir=/out/$topic/$1
    mkdir -p "$case_dir"
    echo "# $topic/$1 at $(cut -d' ' -f1 /proc/uptime) s"
    dmesg -c >/dev/null
    boundary first
    save_stats "$case_dir/before"
    if [ "${2:-}" = trace ]; then
        echo >$tracing/trace
        echo 1 >$tracing/tracing_on
        trace_events 1
    fi
}

trace_events() {
    local event
    for event in issue complete requeue; do
        echo "$1" >$tracing/events/block/block_rq_$event/enable
    done
}

case_end() {
    local disk
    for disk; do
        soon idle "$disk" || echo "# $disk is not idle: $(cat "/sys/block/$disk/inflight")"
    done
    save_stats "$case_dir/after"
    if [ "$(cat $tracing/events/block/block_rq_issue/enable)" = 1 ]; then
        trace_events 0
        grep -v '^#' $tracing/trace | gzip -1 >"$case_dir/trace.gz"
        echo >$tracing/trace
    fi
    boundary last
    dmesg -c >"$case_dir/dmesg"
}

# retire DISK: keeps the kernel's counts of a disk that is going to be removed.
retire() {
    soon idle "$1"
    stat_line "$1" >>"$case_dir/gone"
}

claim() { echo "$*" >>"$case_dir/claims"; }
witness() { echo "witness '$1' '$2' $3 '$4'" >>"$case_dir/claims"; }
may_skip() { claim may-skip "$1"; }
skip_probe() { echo "skip $1 '$2'" >>"$case_dir/claims"; }
skip_case() {
    mkdir -p "/out/$topic/$1"
    echo "$2" >"/out/$topic/$1/skip"
}

# --- Load. ---

# load_disk NAME DISK OPTION...: fio on a disk; its JSON is kept under NAME as a witness.
load_disk() {
    local name=$1 disk=$2
    shift 2
    load_fio "$name" --filename="/dev/$disk" --direct=1 "$@"
}
load_fio() {
    local name=$1
    shift
    fio --name="$name" --ioengine=libaio --thread --group_reporting --lat_percentiles=1 --percentile_list=50:99 \
        --size=32m --randrepeat=1 --output-format=json --eta=never --output="$case_dir/$name.json" "$@" \
        >"$case_dir/$name.log" 2>&1 && rm -f "$case_dir/$name.log"
}

# --- Facts. ---

# kernel_from MAJOR.MINOR: whether this kernel is as new. For what no file shows; prefer looking.
kernel_from() {
    local release major minor
    release=$(uname -r)
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt "${1%.*}" ] || { [ "$major" = "${1%.*}" ] && [ "$minor" -ge "${1#*.}" ]; }
}

# nvme_with SERIAL: names of the visible disks on controllers with this serial number.
nvme_with() {
    local disk
    for disk in /sys/block/nvme*; do
        disk=${disk##*/}
        case $disk in *c[0-9]*n*) continue ;; esac
        # A multipath head lies under its subsystem, which has a serial number too.
        [ "$(tr -d ' ' <"/sys/block/$disk/device/serial" 2>/dev/null)" = "$1" ] && echo "$disk"
    done
    true
}

# scsi KEY VALUE: a setting of scsi_debug.
scsi() { echo "$2" >"/sys/bus/pseudo/drivers/scsi_debug/$1"; }
# queue DISK KEY VALUE
queue() { echo "$3" >"/sys/block/$1/queue/$2"; }
