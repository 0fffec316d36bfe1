# What measuring costs. Included by the Makefile, which defines install_missing; needs root.
#
#   make bench-quick   the cost per request, beside two peers
BENCH_NEEDS := fio:fio losetup:mount biolatency:libbpf-tools biolatency-bpfcc:bpfcc-tools bpftrace:bpftrace
BENCH_OBJECT := target/bench/race.bpf.o

.PHONY: bench-quick bench-tools

bench-tools: build-tools
	$(call install_missing,$(BENCH_NEEDS))
	@test -e /usr/include/bpf/bpf_helpers.h || $(SUDO) apt-get -qy install --no-install-recommends libbpf-dev

$(BENCH_OBJECT): benches/bpf/race.bpf.c bpf/kernel.h | bench-tools
	mkdir -p $(@D)
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I bpf -c $< -o $@

# The programs are the same in a debug build, and that is what is measured here.
bench-quick: bench-tools $(BENCH_OBJECT) ## the cost per request beside its peers', in 90 s
	$(CARGO) build --locked
	$(CARGO) bench --locked --profile dev --bench race -- quick $(CURDIR)/$(BENCH_OBJECT) $(CURDIR)/target/debug/blkiolatd
