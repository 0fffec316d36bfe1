# What measuring costs. Included by the Makefile, which defines install_missing; needs root. Leaves nothing behind but
# target/bench and docs/benchmarks.md, also when it is interrupted.
#
#   make bench                   everything, in about a quarter of an hour; writes docs/benchmarks.md
#   make bench STAGES="request report"     only that (benches/run has the list), keeping the rest of the last run
#   make bench BENCH_DAEMON=PATH           another build of the daemon
#   make bench ROUNDS=2                    to try the race itself out; its figures are worth nothing
#   make bench-quick             the cost of a request, beside some of the peers
#   make bench-quick OTHERS="PATH..."      and beside other builds of the daemon
#
# On a machine that does nothing else: neighbours make all figures worse, and the spread wider.
BENCH_NEEDS := fio:fio losetup:mount strace:strace biolatency:libbpf-tools biolatency-bpfcc:bpfcc-tools bpftrace:bpftrace
BENCH_OBJECT := target/bench/race.bpf.o
STAGES :=
ifdef ROUNDS
export ROUNDS
endif

.PHONY: bench bench-quick bench-tools

bench: bench-tools test-tools $(BENCH_OBJECT) ## the race against its peers, 15 minutes; writes docs/benchmarks.md
	SUDO="$(SUDO)" CARGO="$(CARGO)" $(if $(BENCH_DAEMON),BENCH_DAEMON="$(BENCH_DAEMON)") benches/run $(STAGES)

# The programs are the same in a debug build, and that is what is measured here.
bench-quick: bench-tools $(BENCH_OBJECT) ## the cost of a request beside its peers', in 90 s
	$(CARGO) build --locked
	$(CARGO) bench --locked --profile dev --bench race -- quick $(CURDIR)/$(BENCH_OBJECT) $(or $(BENCH_DAEMON),$(CURDIR)/target/debug/blkiolatd) $(OTHERS)

bench-tools: build-tools
	$(call install_missing,$(BENCH_NEEDS))
	@test -e /usr/include/bpf/bpf_helpers.h || $(SUDO) apt-get -qy install --no-install-recommends libbpf-dev

$(BENCH_OBJECT): benches/bpf/race.bpf.c bpf/kernel.h | bench-tools
	mkdir -p $(@D)
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I bpf -c $< -o $@
