# shellcheck shell=bash disable=SC2317  # functions are called through check and wait_until
# The package and its unit under a real systemd, from installation to purge. What the service records
# is compared with the kernel's own counts of the disk.
#
#   tests/nspawn/run --disk 64 SUITE tests/nspawn/service.sh target/blkiolatd_VERSION_ARCH.deb target/intruder
failures=0
unit=blkiolatd.service
logs=/var/log/blkiolatd
config=/etc/blkiolatd/blkiolatd.toml
drop_in=/run/systemd/system/$unit.d

ok() { echo "ok $1"; }
fail() {
    echo "FAIL $1: $2"
    failures=1
}
# check NAME COMMAND...: COMMAND succeeds.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$name"; else fail "$name" "'$*' failed: $output"; fi
}
# equal NAME FOUND EXPECTED
equal() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "found '$2', expected '$3'"; fi; }
# wait_until COMMAND...: for 30 seconds at most.
wait_until() {
    local _
    for _ in {1..300}; do
        "$@" && return
        sleep 0.1
    done
    return 1
}
show() { systemctl show --value -p "$1" $unit; }
shows() { [ "$(show "$1")" = "$2" ]; }
status_has() { show StatusText | grep -q "$1"; }
# set_key KEY VALUE: in the configuration file, where every key is shown.
set_key() { sed -i "s|^$1 = .*|$1 = $2|" $config; }
# interval_is SECONDS: the last record has it.
interval_is() { tail -n 1 "$logs/blkiolat.jsonl" 2>/dev/null | jq -e ".interval_s == $1" >/dev/null; }
# Reads and writes of the test's disk, as the kernel counts them since 'before'.
kernel_counts() { awk '{ print $1 + $5 }' "/sys/block/$TEST_DISK/stat"; }
# What all records have of them, and what the daemon knows that it missed: tracepoints leave requests
# out while others attach to them, and other tests may do that now.
recorded_counts() {
    { cat $logs/*.jsonl && { zcat $logs/*.gz 2>/dev/null || true; }; } | jq -rs --arg disk "$TEST_DISK" '
        def of_disk: .[] | select(.device_name == $disk);
        ([.[].latency_histogram | of_disk | .ops | .read.total, .write.total] | add // 0) as $recorded
        | ([.[].audit.probe_misses] | add // 0) as $missed
        | ([max_by(.timestamp).inflight | of_disk | .count] | add // 0) as $left
        | "\($recorded) \($missed + $left)"'
}
all_recorded() {
    local recorded missed expected=$(($(kernel_counts) - before))
    read -r recorded missed < <(recorded_counts)
    counts="$recorded recorded, $missed missed, of $expected"
    [ "$recorded" -le "$expected" ] && [ "$expected" -le $((recorded + missed)) ]
}
load() {
    dd if="/dev/$TEST_DISK" of=/dev/null bs=4k count="$1" iflag=direct 2>/dev/null
    dd if=/dev/zero of="/dev/$TEST_DISK" bs=8k count="$1" oflag=direct 2>/dev/null
}

version=$(systemctl --version | awk 'NR == 1 { print $2 }')
echo "# systemd $version, kernel $(uname -r)"
booted() { [ "$(systemctl is-system-running)" = running ]; }
check booted wait_until booted

# --- Installation. ---
check install dpkg -i ./blkiolatd_*.deb
equal not-enabled "$(systemctl is-enabled $unit)" disabled
equal not-started "$(systemctl is-active $unit)" inactive
# A minimal tree has no manual pages, and systemd 247 no ExecPaths=.
unknown="Unknown key name '(No)?ExecPaths'"
[ "${version%%[!0-9]*}" -lt 248 ] || unknown='^$'
equal verify "$(systemd-analyze verify /lib/systemd/system/$unit 2>&1 | grep -v "Command 'man " | grep -vE "$unknown")" ''
check doctor blkiolatd doctor
check enable-now systemctl enable --now $unit
equal active "$(systemctl is-active $unit)" active
pid=$(show MainPID)
equal user "$(ps -o user= -p "$pid")" blkiolatd
equal no-capabilities "$(grep -hE '^Cap(Eff|Prm|Amb|Inh)' /proc/"$pid"/task/*/status | awk '{ print $2 }' | sort -u)" 0000000000000000
# The journal's transport is its native one, with fields; priorities are syslog's.
attached() { journalctl -u $unit -o json MESSAGE=attached; }
check journal wait_until bash -c "journalctl -u $unit -o json MESSAGE=attached | grep -q ."
equal journal-fields "$(attached | jq -r '[.PROBE, .PRIORITY, .SYSLOG_IDENTIFIER, ._TRANSPORT] | join(" ")')" "btf 6 blkiolatd journal"

# --- Reload: the default leaves loop devices out. ---
set_key exclude '[]'
set_key include "['$TEST_DISK']"
set_key interval '"200ms"'
set_key flush_every 1
before=$(kernel_counts)
check reload systemctl reload $unit
check reload-takes-effect wait_until interval_is 0.2
equal same-process "$(show MainPID)" "$pid"
load 300
check counts wait_until all_recorded
all_recorded
echo "# $counts"
check status-line wait_until status_has '^[0-9]* windows, [0-9]* devices, [0-9]* I/O per second, 0 dropped$'
check status-shown bash -c "systemctl status --no-pager $unit | grep -q 'windows, '"
systemctl status --no-pager -n 0 $unit | grep -E 'Status|Tasks|Memory' | sed 's/^ */# /'

set_key interval '"3 moons"'
if systemctl reload $unit 2>reload-error; then fail bad-reload "it succeeded"; else ok bad-reload; fi
check bad-reload-says-where wait_until bash -c "journalctl -u $unit | grep -q '$config:[0-9]*:[0-9]*: sampling.interval'"
equal still-active "$(systemctl is-active $unit)" active
# Past the check: the daemon itself refuses it, too.
systemctl kill -s HUP --kill-who=main $unit
check bad-file-in-status wait_until status_has "last error: the old configuration stays in force: $config:"
load 100
check counts-after-bad-reload wait_until all_recorded
check old-interval interval_is 0.2
set_key interval '"100ms"'
check good-reload systemctl reload $unit
check good-reload-takes-effect wait_until interval_is 0.1
check error-is-over wait_until status_has ' dropped$'

# --- Rotation. ---
systemctl kill -s USR1 --kill-who=main $unit
archive() { ls $logs/blkiolat-*Z.jsonl.gz 2>/dev/null; }
check rotation wait_until archive
check gzip gzip -t "$(archive)"
wait_until test -s $logs/blkiolat.jsonl
for file in $logs/blkiolat.jsonl "$(archive)"; do
    equal "mode-of-${file##*.}" "$(stat -c '%a %U %G' "$file")" '640 blkiolatd blkiolatd'
done
equal mode-of-directory "$(stat -c '%a %U %G' $logs)" '750 blkiolatd blkiolatd'

# --- Stop: the last window, which is far from over, is there. ---
set_key interval '"1h"'
check long-window systemctl reload $unit
check long-window-begun wait_until bash -c "journalctl -u $unit | grep -q '\"1h\"'"
load 50
check stop systemctl stop $unit
check counts-after-stop all_recorded
all_recorded
echo "# $counts"
equal result "$(show Result)" success
equal exit-code "$(show ExecMainStatus)" 0

# --- Watchdog, with less patience. ---
set_key interval '"200ms"'
mkdir -p $drop_in
printf '[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\nRestartSec=100ms\n' >$drop_in/watchdog.conf
equal watchdog "$(show WatchdogUSec)" 1min
systemctl daemon-reload
check start-watched systemctl start $unit
equal watchdog-short "$(show WatchdogUSec)" 2s
first=$(show WatchdogTimestampMonotonic)
pinged() { [ "$(show WatchdogTimestampMonotonic)" -gt "$((first + 4000000))" ]; }
check watchdog-is-answered wait_until pinged
equal no-restart "$(show NRestarts)" 0
pid=$(show MainPID)
kill -STOP "$pid"
restarted() { [ "$(show NRestarts)" = 1 ] && shows ActiveState active; }
check restarted-by-watchdog wait_until restarted
check watchdog-in-journal bash -c "journalctl -u $unit | grep -q 'Watchdog timeout'"
rm -r $drop_in
systemctl daemon-reload
check restart systemctl restart $unit
check records-again wait_until interval_is 0.2

# --- Killed, as the kernel does at a memory limit (which cannot be reached here: a container has no memory controller): it
# comes back, and what it wrote is whole. ---
mkdir -p $drop_in
printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n' >$drop_in/restart.conf
systemctl daemon-reload
check restart-before-kill systemctl restart $unit
check records-before-kill wait_until interval_is 0.2
lines=$(cat "$logs"/*.jsonl | wc -l)
systemctl kill -s KILL --kill-who=main $unit
recovered() { [ "$(show NRestarts)" -ge 1 ] && shows ActiveState active && [ "$(cat "$logs"/*.jsonl | wc -l)" -gt $((lines + 1)) ]; }
check back-after-kill wait_until recovered
check records-whole-after-kill jq -e -s 'length > 1' "$logs"/*.jsonl
rm -r $drop_in
systemctl daemon-reload
check restart-after-kill systemctl restart $unit

# --- What is not mended by trying again is not tried again. ---
set_key interval '"3 moons"'
if systemctl restart $unit; then fail bad-start "it succeeded"; else ok bad-start; fi
equal bad-start-code "$(show ExecMainStatus)" 2
equal not-tried-again "$(show ActiveState) $(show NRestarts)" 'failed 0'
set_key interval '"200ms"'
# This script starts it more often than systemd allows in ten seconds.
systemctl reset-failed $unit
check start-mended systemctl start $unit

# --- Somebody who has taken the daemon over gets nowhere. ---
systemctl stop $unit
cp intruder /usr/bin/intruder
mkdir -p $drop_in
cat >$drop_in/intruder.conf <<END
[Service]
Type=oneshot
WatchdogSec=0
Restart=no
ExecStart=
ExecStart=/usr/bin/intruder
ExecPaths=/usr/bin/intruder
Environment=TEST_DISK=$TEST_DISK
StandardOutput=file:/run/intruder-says
END
systemctl daemon-reload
check intruder-runs systemctl start $unit
equal intruder-ends "$(tail -n 1 /run/intruder-says)" end
[ "${version%%[!0-9]*}" -ge 248 ] || sed -i '/^DONE run-\(shell\|own-file\)$/d' /run/intruder-says
equal intruder-is-allowed "$(grep -c '^allowed ' /run/intruder-says) $(grep '^DENIED ' /run/intruder-says)" '7 '
equal intruder-is-refused "$(grep '^DONE ' /run/intruder-says)" ''
echo "# refused: $(grep -c '^refused ' /run/intruder-says)"
# Without the unit an unprivileged user may do some of it: the test can fail. (Not as root: the kernel is
# this machine's.)
(cd /tmp && setpriv --reuid nobody --regid nogroup --clear-groups /usr/bin/intruder) >/run/intruder-alone 2>&1
for what in run-shell socket-inet see-other-processes map-code; do
    check "intruder-alone-$what" grep -q "^DONE $what" /run/intruder-alone
done
rm -rf $drop_in $logs/intruder /var/lib/blkiolatd/{intruder,owned,shell}
systemctl daemon-reload
check start-after-intruder systemctl start $unit
wait_until interval_is 0.2

exposure=$(systemd-analyze security --no-pager $unit | grep 'Overall exposure level')
echo "# ${exposure#*→ }"
check exposure awk -v level="$(echo "$exposure" | grep -oE '[0-9]+\.[0-9]+')" 'BEGIN { exit !(level != "" && level <= 0.7) }'

# --- What it takes, as its limits have to allow. ---
pid=$(show MainPID)
echo "# $(grep Threads /proc/"$pid"/status | tr -d '\t'), $(grep -E 'VmRSS|VmHWM' /proc/"$pid"/status | tr -s '\t\n' ' ')"
echo "# TasksCurrent $(show TasksCurrent) of $(show TasksMax), MemoryCurrent $(show MemoryCurrent) of $(show MemoryMax)"

# --- Removal. ---
check remove dpkg --remove blkiolatd
equal stopped "$(pgrep -x blkiolatd)" ''
check logs-kept test -s $logs/blkiolat.jsonl
check config-kept test -s $config
check purge dpkg --purge blkiolatd
check logs-removed test ! -e $logs
check state-removed test ! -e /var/lib/blkiolatd
check config-removed test ! -e $config
check user-kept id blkiolatd
if [ $failures != 0 ]; then
    journalctl -u $unit --no-pager -n 60 | sed 's/^/# /'
fi
exit $failures
