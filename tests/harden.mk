# Power failures, long runs and the supply chain. Included by the Makefile.
#
#   make test-power  power failures of a disk with a volatile cache, and of whole machines (tests/vm/power)
#   make test-many   a thousand disks, and one whose name has control characters
#   make soak    a million windows (60 days at 5 s), as fast as they go: about a minute
#   make deny    licences, sources and bans of what the programs are built from (deny.toml), and
#                known advisories; installs cargo-deny, which takes some minutes to build, and needs
#                github.com for the advisories

SOAK_WINDOWS ?= 1000000

.PHONY: test-power test-many soak deny

test-power: test-tools static ## power failures, in emulated machines
	$(SUDO) tests/vm/power --rounds 5 --kills 2 6.12 $(BINARY)

test-many: test-tools static ## a thousand disks, in an emulated machine
	$(SUDO) tests/vm/run --timeout 900 6.12 $(BINARY) tests/vm/guest/many.sh

soak: build-tools ## a million windows: memory, descriptors and disk use stay flat
	BLKIOLATD_SOAK=$(SOAK_WINDOWS) $(CARGO) test --release --locked --test archive soak -- --nocapture

deny: build-tools ## licences, sources and advisories of the dependencies
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check
