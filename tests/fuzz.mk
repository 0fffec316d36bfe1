# Searches for input that breaks a promise. Included by the Makefile. `make test-host` replays the kept
# corpus, with a thousand inputs made from it per target, and needs none of this.
#
#   make fuzz                      every target for FUZZ_SECONDS each, one after the other
#   make fuzz-TARGET               one target: config, report, archive, format, arguments
#   make test-fuzz                 the replay alone, with more made inputs: FUZZ_CASES per target
#
# What is found is in fuzz/artifacts/TARGET: mend it and put the file into fuzz/corpus/TARGET, where it
# stays as a regression test. No sanitizer: the inputs' parsers have no unsafe code. cargo fuzz needs
# rustup's nightly toolchain.

FUZZ_TARGETS := config report archive format arguments
FUZZ_SECONDS ?= 1800
FUZZ_CASES ?= 10000
# What a run learns stays out of the tree; `cargo fuzz cmin` says which of it is worth keeping.
FUZZ_CORPUS := .cache/fuzz

.PHONY: fuzz test-fuzz fuzz-tools $(FUZZ_TARGETS:%=fuzz-%)

fuzz: $(FUZZ_TARGETS:%=fuzz-%) ## search for input that breaks a promise, FUZZ_SECONDS per kind

fuzz-tools: build-tools
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	$(call install_missing,c++:g++)

$(FUZZ_TARGETS:%=fuzz-%): fuzz-%: fuzz-tools
	mkdir -p $(FUZZ_CORPUS)/$*
	$(CARGO) +nightly fuzz run --sanitizer none $* $(FUZZ_CORPUS)/$* fuzz/corpus/$* -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=1500 -print_final_stats=1

test-fuzz: build-tools ## the kept inputs of the fuzzers, and FUZZ_CASES made from them per kind
	BLKIOLATD_FUZZ_CASES=$(FUZZ_CASES) $(CARGO) test --locked --test fuzz_replay
