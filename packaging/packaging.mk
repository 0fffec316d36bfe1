# Targets that make packages; included by the Makefile.
#
#   make man       manual pages and completions in target/packaging
#   make static    binaries that need no library, in target/$(STATIC_TRIPLE)/release
#   make install   everything below DESTDIR (default: the running system), with PREFIX=/usr
#   make deb       target/blkiolatd_*.deb
#   make rpm       target/blkiolatd-*.rpm
#
# `make deb STATIC=1` (also rpm, install) takes the static binaries: such a package installs on every
# distribution, whatever the age of its C library.

CARGO ?= cargo
PREFIX ?= /usr
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d

# Kept in the project, so that nothing is installed for the user.
PACKAGING_TOOLS := $(CURDIR)/.cache/tools
CARGO_DEB := $(PACKAGING_TOOLS)/bin/cargo-deb
CARGO_GENERATE_RPM := $(PACKAGING_TOOLS)/bin/cargo-generate-rpm
DOCUMENTS := target/packaging

STATIC_TRIPLE ?= $(shell uname -m)-unknown-linux-gnu
STATIC_BINARY := target/$(STATIC_TRIPLE)/release/blkiolatd
ifeq ($(STATIC),1)
PACKAGED := static
PACKAGED_DIR := target/$(STATIC_TRIPLE)/release
PACKAGED_TARGET := --target $(STATIC_TRIPLE)
else
PACKAGED := packaged-release
PACKAGED_DIR := target/release
PACKAGED_TARGET :=
endif

.PHONY: man static packaged-release install deb rpm

man:
	$(CARGO) run --quiet --locked --example documents $(DOCUMENTS)

packaged-release:
	$(CARGO) build --release --locked --bins

# Where the system keeps libelf.a and libz.a, and what else its libelf needs (zstd, from elfutils 0.189
# on some distributions).
STATIC_LIBRARIES = $(dir $(shell $(CC) -print-file-name=libelf.a))
STATIC_LINK_ARGS = $(filter -lzstd -llzma -lbz2,$(shell pkg-config --static --libs-only-l libelf))

# With --target the flags do not reach build scripts and procedural macros, which cannot be static.
static:
	LIBBPF_SYS_LIBRARY_PATH="$(STATIC_LIBRARIES)" \
	RUSTFLAGS="-C target-feature=+crt-static $(STATIC_LINK_ARGS:%=-C link-arg=%) $(RUSTFLAGS)" \
	    $(CARGO) build --release --locked --bins --features static --target $(STATIC_TRIPLE)

# An administrator's configuration is not overwritten.
install: $(PACKAGED) man
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(PACKAGED_DIR)/blkiolatd $(PACKAGED_DIR)/blkiolat
	install -D -m 644 packaging/blkiolatd.service $(DESTDIR)$(UNITDIR)/blkiolatd.service
	sed -i 's,/usr/bin/blkiolatd,$(PREFIX)/bin/blkiolatd,; s,/etc/blkiolatd,$(SYSCONFDIR)/blkiolatd,' \
	    $(DESTDIR)$(UNITDIR)/blkiolatd.service
	install -D -m 644 packaging/blkiolatd.sysusers $(DESTDIR)$(SYSUSERSDIR)/blkiolatd.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/blkiolatd packaging/blkiolatd-tracepoint.conf
	set -e; for page in $(DOCUMENTS)/man/*; do \
	    install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man$${page##*.} $$page; \
	done
	set -e; for file in $(DOCUMENTS)/completions/*.bash; do name=$$(basename $$file .bash); \
	    directory=$$(dirname $$file); share=$(DESTDIR)$(PREFIX)/share; \
	    install -D -m 644 $$file $$share/bash-completion/completions/$$name; \
	    install -D -m 644 -t $$share/zsh/site-functions $$directory/_$$name; \
	    install -D -m 644 -t $$share/fish/vendor_completions.d $$directory/$$name.fish; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/blkiolatd/blkiolatd.toml || \
	    install -D -m 644 -t $(DESTDIR)$(SYSCONFDIR)/blkiolatd config/blkiolatd.toml

deb: $(PACKAGED) man $(CARGO_DEB)
	$(CARGO_DEB) --no-build --no-strip --locked $(PACKAGED_TARGET) --output target/

rpm: $(PACKAGED) man $(CARGO_GENERATE_RPM)
	$(CARGO_GENERATE_RPM) $(PACKAGED_TARGET) --output target/

# Not optimised: compiling them so takes longer than they ever run.
$(PACKAGING_TOOLS)/bin/%:
	$(CARGO) install --quiet --locked --debug --root $(PACKAGING_TOOLS) $*
