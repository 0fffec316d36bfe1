# shellcheck shell=bash disable=SC2317  # functions are called through check and wait_until
# What the booted tree itself can do: the parts of systemd that the packaging tests rely on.
#
#   tests/nspawn/run --disk 8 SUITE tests/nspawn/hello.sh
failures=0
# check NAME COMMAND...: COMMAND succeeds.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok $name"
    else
        echo "FAIL $name: '$*' failed: $output"
        failures=1
    fi
}
# wait_until COMMAND...: for 10 seconds at most.
wait_until() {
    local _
    for _ in {1..100}; do
        "$@" && return
        sleep 0.1
    done
    return 1
}
# unit NAME COMMAND SETTING...: a service made of these.
unit() {
    local name=$1 command=$2
    shift 2
    { echo '[Service]'; printf '%s\n' "ExecStart=/bin/bash -c '$command'" "$@"; } >"/etc/systemd/system/$name.service"
    systemctl daemon-reload
}
running() { [ "$(systemctl is-system-running)" = running ]; }
state_is() { [ "$(systemctl show --value -p "$2" "$1")" = "$3" ]; }

echo "# $(systemctl --version | head -n 1), kernel $(uname -r)"
check booted wait_until running
check cgroup2 test -e /sys/fs/cgroup/cgroup.controllers
check disk dd "if=/dev/$TEST_DISK" of=/dev/null bs=4k count=1 iflag=direct
check disk-in-sysfs test -e "/sys/block/$TEST_DISK/stat"
check journal journalctl -n 1

unit notify 'systemd-notify --ready --status=good; sleep infinity' Type=notify NotifyAccess=all
check notify systemctl start notify
check status state_is notify StatusText good

unit watchdog 'systemd-notify --ready; sleep infinity' Type=notify NotifyAccess=all WatchdogSec=500ms TimeoutAbortSec=1s
check watchdog-start systemctl start watchdog
check watchdog wait_until state_is watchdog Result watchdog

# The sandbox of a probe: both capabilities without root, no devices, nothing writable, calls filtered.
# shellcheck disable=SC2016  # for the service's shell
unit sandbox 'grep -q "CapEff:.*000000c000000000" /proc/self/status && ! test -e /dev/loop0 && ! touch /usr/x && test "$(id -u)" != 0' \
    Type=oneshot DynamicUser=yes 'CapabilityBoundingSet=CAP_BPF CAP_PERFMON' 'AmbientCapabilities=CAP_BPF CAP_PERFMON' \
    NoNewPrivileges=yes ProtectSystem=strict ProtectHome=yes PrivateDevices=yes PrivateNetwork=yes PrivateTmp=yes \
    ProtectKernelTunables=yes ProtectControlGroups=yes 'SystemCallFilter=@system-service bpf' MemoryDenyWriteExecute=yes \
    'RestrictAddressFamilies=AF_UNIX AF_NETLINK' RestrictNamespaces=yes
check sandbox systemctl start sandbox
unit filtered 'chroot / /bin/true' Type=oneshot SystemCallFilter=@system-service SystemCallErrorNumber=EPERM
check filter-refuses bash -c '! systemctl start filtered'
check security systemd-analyze security --no-pager sandbox
echo "# tracefs: $(ls -d /sys/kernel/tracing/events/block 2>&1)"
echo "# memory.max $(ls /sys/fs/cgroup/system.slice/memory.max 2>/dev/null || echo 'is not there: MemoryMax= has no effect')"
exit $failures
