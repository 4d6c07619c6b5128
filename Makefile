# Builds and installs the programs for packages. Cargo alone is enough to work on them.
#
#   make                              release build, the same octets from any directory, and its bill of materials
#   make install DESTDIR= PREFIX=     what packaging/files lists
#   make uninstall                    removes it
#   make source                       archive of the sources and of all crates, to build from offline
#
# packaging/install names the other directories that may be set (LIBEXECDIR, UNITDIR, ...).

PREFIX ?= /usr/local
LIBEXECDIR ?= $(PREFIX)/libexec
CARGO ?= cargo
CARGO_HOME ?= $(HOME)/.cargo
CARGO_TARGET_DIR ?= target
# offline for builds from the archive of `make source`.
CARGOFLAGS ?= --locked

export PREFIX LIBEXECDIR CARGO_TARGET_DIR

# Paths of this machine stay out of the programs.
REMAP = --remap-path-prefix=$(CURDIR)=/usr/src/pasta --remap-path-prefix=$(CARGO_HOME)=/usr/src/cargo

.PHONY: all install uninstall source check

all:
	PASTA_LIBEXECDIR=$(LIBEXECDIR)/pasta RUSTFLAGS="$(RUSTFLAGS) $(REMAP)" \
		$(CARGO) build --release $(CARGOFLAGS) -p pasta -p pasta-monitor -p pasta-datapath
	CARGO="$(CARGO)" packaging/sbom $(CARGOFLAGS) >$(CARGO_TARGET_DIR)/release/pasta.cdx.json

install:
	packaging/install install

uninstall:
	packaging/install uninstall

check:
	$(CARGO) test $(CARGOFLAGS) --workspace

source:
	packaging/source
