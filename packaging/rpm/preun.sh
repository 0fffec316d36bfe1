# 0: the last version goes; 1: another takes its place. The records stay in both cases.
if [ "$1" -eq 0 ]; then
    systemctl --no-reload disable --now blkiolatd.service >/dev/null 2>&1 || :
fi
