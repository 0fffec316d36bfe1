# shellcheck shell=bash
# What the tests that use other Debian releases share: where cached artefacts live, where this
# machine gets its packages from, and an apt that leaves the machine's own apt state alone.
# Sourced by tests/vm/* and tests/nspawn/*; not run by itself.

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Directory of artefacts that are fetched once and used by every clone on this machine.
# BLKIOLATD_CACHE overrides it.
cache_dir() {
    local home=${XDG_CACHE_HOME:-${HOME:?neither BLKIOLATD_CACHE nor HOME is set}/.cache}
    local dir=${BLKIOLATD_CACHE:-$home/blkiolatd}
    mkdir -p "$dir" || die "cannot make the cache directory $dir; set BLKIOLATD_CACHE to a writable one"
    printf '%s\n' "$dir"
}

# need COMMAND PACKAGE...: stops with the fix when COMMAND is missing.
need() {
    local command=$1
    shift
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null ||
        die "needs '$command': run 'make test-tools' or 'apt-get install $*'"
}

# debian_uri LABEL: base URI of the archive with this Release label ("Debian" or
# "Debian-Security"), as the machine's own apt configuration has it.
debian_uri() {
    local uri
    # Labels come from downloaded Release files, which a new machine does not have yet.
    uri=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' | awk -F'|' -v l="$1" '$1 == l && !n++ { print $2 }')
    if [ -z "$uri" ]; then
        apt-get update >&2 || die "apt-get update failed, so the package mirror is unknown"
        uri=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' | awk -F'|' -v l="$1" '$1 == l && !n++ { print $2 }')
    fi
    [ -n "$uri" ] || die "no '$1' archive in this machine's apt sources; add one to /etc/apt/sources.list"
    printf '%s\n' "${uri%/}"
}

# Keys of every Debian release still signed for, old ones included.
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_source SUITE: the sources.list line of a Debian release's main archive.
debian_source() {
    local uri
    uri=$(debian_uri Debian) || exit 1
    printf 'deb [signed-by=%s] %s %s main\n' "$DEBIAN_KEYRING" "$uri" "$1"
}

# private_apt ROOT COMMAND...: runs apt-get or apt-cache with all state below ROOT and the sources
# in ROOT/sources.list. The machine's proxy and certificate settings still apply.
private_apt() {
    local root=$1 command=$2
    shift 2
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
    : >>"$root/status"
    "$command" -q \
        -o "Dir::State=$root" -o "Dir::State::lists=$root/lists" -o "Dir::State::status=$root/status" \
        -o "Dir::Cache=$root/cache" \
        -o "Dir::Etc::sourcelist=$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Sandbox::User=root "$@"
}

# in_lock FILE COMMAND...: runs COMMAND while no other process holds FILE, so that parallel test
# runs fetch an artefact once.
in_lock() {
    local lock=$1
    shift
    mkdir -p "$(dirname "$lock")"
    ( flock 9; "$@" ) 9>"$lock"
}
