systemd-sysusers blkiolatd.conf || :
systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -eq 1 ]; then
    systemctl --no-reload preset blkiolatd.service >/dev/null 2>&1 || :
fi
