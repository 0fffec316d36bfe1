# Tests on other kernels and other systemds. Included by the Makefile, which defines test; needs root and
# the machine's package mirror the first time (see BLKIOLATD_CACHE in tests/support/debian.sh).
#
#   make test-tools     installs what these tests need
#   make test-kernels   the suite of cases (tests/vm/topics, and bios) on every kernel, two machines at a time; KERNELS=6.12,
#                       TOPICS=counts,flush and BINARY=PATH choose
#   make correctness-table  puts the results of the last 'make test-kernels' into docs/correctness.md
#   make test-systemd  the package under the systemd of each suite, two at a time
#   make test-machines  the machines themselves, without the program under test

# Static, so that it runs whatever libraries a distribution has.
BINARY ?= $(STATIC_BINARY)
KERNELS := 5.10 6.1 6.12 sid
SUITES := bullseye bookworm trixie
TEST_PACKAGES := qemu-system-x86 busybox-static kmod xz-utils zstd fio e2fsprogs util-linux \
	dmsetup bpftool xfsprogs mmdebstrap systemd-container debian-archive-keyring gcc binutils
# One package manager at a time, and only when something is missing.
APT_LOCK := /run/lock/blkiolatd-apt

.PHONY: test-systemd
test-systemd: test-tools ## the package under real systemds, in throw-away Debian trees
	$(MAKE) --no-print-directory deb STATIC=1
	$(CC) -static -O1 -Wall -Wextra -Werror -o target/intruder tests/nspawn/intruder.c
	set -o pipefail; package=$$(ls -t target/blkiolatd_*.deb | head -n 1); \
	export package; printf '%s\n' $(SUITES) | xargs -P 2 -I SUITE bash -o pipefail -c \
	    '$(SUDO) tests/nspawn/run --timeout 300 --disk 64 SUITE tests/nspawn/service.sh "$$package" target/intruder | sed "s/^/SUITE: /"'

.PHONY: test-tools test-kernels test-judging correctness-table test-machines $(SUITES:%=test-tree-%)

test-tools:
	@dpkg -s $(TEST_PACKAGES) >/dev/null 2>&1 || $(SUDO) flock $(APT_LOCK) sh -c \
		'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $(TEST_PACKAGES)'

test-kernels: test-tools test-judging static ## Debian's kernels in emulated machines, judged by the kernel, fio and ftrace
	$(SUDO) tests/vm/suite --results target/kernels.json $(TOPICS:%=--only %) $(BINARY) $(KERNELS)

# What decides about the kernels' evidence is itself tested: it must see what is wrong.
test-judging:
	python3 -m unittest discover -q -s tests/vm -p 'test_*.py'

correctness-table:
	tests/vm/table target/kernels.json docs/correctness.md

test-machines: test-tools $(SUITES:%=test-tree-%)
	for kernel in $(KERNELS); do $(SUDO) tests/vm/run $$kernel - tests/vm/guest/hello.sh || exit; done

$(SUITES:%=test-tree-%): test-tree-%: test-tools
	$(SUDO) tests/nspawn/run --disk 8 $* tests/nspawn/hello.sh
