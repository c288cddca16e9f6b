# make            build the shared and the static library, and milter-probe
# make install    PREFIX=/usr/local LIBDIR= INCLUDEDIR= BINDIR= DATADIR= MANDIR= ZSHDIR= DESTDIR=
# make uninstall  with the same variables
# make install-library, install-probe: one without the other
# make html       the manual pages for browsers, in target/html; needs mandoc
# make dist       the sources as an archive
# make deb        Debian packages, in target/deb
# make demo       a C filter and a mail, end to end
# make generated  SEED= COUNT=: conversations made up from so many seeds, with sendmail's libmilter and with this one
# make faults     system calls and allocations of the library fail, one at a time; make check has a sample
# make sources    fetch the released sources of filters, build and run them; needs the network for the first
# make races      ThreadSanitizer over the tests of the concurrency models, on x86_64 Linux
# make sanitize   that, and conversations with the library and a filter under AddressSanitizer and ThreadSanitizer
# make fuzz       coverage-guided fuzzing, TIME=60 seconds for each target; FUZZ=engine only that one; needs a C++ compiler
# make mutations  the library made wrong in many places, one at a time: a test notices each
# make mutants    the same for the protocol engine, with cargo-mutants; takes an hour
# make bench      measures this library beside the installed reference; QUICK=1 in less than three minutes, MODELS=1 with
#                 all its models
# make check      every check, with a count at the end; LIBMILTER_REQUIRE_ALL=1 allows no skips
#
# LIBMILTER_SONAME names the shared object for systems with another convention than Debian's.

PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
BINDIR = $(PREFIX)/bin
DATADIR = $(PREFIX)/share
MANDIR = $(DATADIR)/man
# Debian has /usr/share/zsh/vendor-completions.
ZSHDIR = $(DATADIR)/zsh/site-functions
DESTDIR =
SONAME = libmilter.so.1.0.1
LIBMILTER_SONAME ?= $(SONAME)

CARGO = cargo
LD = ld
NM = nm
OBJCOPY = objcopy
AR = ar

# What pkg-config reports: the sendmail release whose libmilter this one stands in for.
VERSION = 8.17.1
# What Rust's standard library takes from the C library where that still comes in parts.
LIBS_PRIVATE = -lpthread -ldl -lm -lrt -lutil

HEADERS = mfapi.h mfdef.h mfext.h
# What tells pkg-config and CMake about the library, by its place below LIBDIR.
DESCRIPTIONS = pkgconfig/milter.pc cmake/libmilter/libmilter-config.cmake cmake/libmilter/libmilter-config-version.cmake
DIST = libmilter-rs-$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TARGET = $${CARGO_TARGET_DIR:-target}
RELEASE = $(TARGET)/$${CARGO_BUILD_TARGET:+$$CARGO_BUILD_TARGET/}release
# Without a name of its own the library is installed as libmilter.so.
INSTALLED = $${LIBMILTER_SONAME:-libmilter.so}

# Builds the package $(1), which makes the files $(2). root often has no cargo: `sudo make install` then takes what an
# earlier `make` built.
cargo_build = if command -v $(CARGO) >/dev/null; then \
		$(CARGO) build --release --locked --package $(1); \
	elif (cd "$(RELEASE)" && ls $(2)) >/dev/null 2>&1; then \
		echo "$(CARGO) not found: using the $(1) built earlier"; \
	else \
		echo "$(CARGO) not found: install Rust (https://rustup.rs) or set CARGO" >&2; exit 1; \
	fi

all: archive probe

# The default name is left to build.rs, so that cargo sees no difference between `make` and `cargo build`.
library:
	@if [ '$(LIBMILTER_SONAME)' = '$(SONAME)' ]; then unset LIBMILTER_SONAME; \
	else export LIBMILTER_SONAME='$(LIBMILTER_SONAME)'; fi; \
	$(call cargo_build,libmilter,libmilter.so libmilter.a)

# Cargo's archive carries Rust's standard library with global names, which clash as soon as a program contains a second
# such archive. Here everything becomes one object in which only the names of the C interface are global. Those of libsm
# are weak, for programs that bring a libsm of their own.
archive: library
	@set -e; built="$(RELEASE)"; stage="$$built/install"; mkdir -p "$$stage"; \
	if [ "$$stage/libmilter.a" -nt "$$built/libmilter.a" ] && [ "$$stage/libmilter.a" -nt Makefile ]; then exit 0; fi; \
	$(NM) -D --defined-only "$$built/libmilter.so" | awk '{ print $$NF }' > "$$stage/names"; \
	$(LD) -r --gc-sections --force-group-allocation $$(sed 's/^/-u /' "$$stage/names") \
		-o "$$stage/milter.o" --whole-archive "$$built/libmilter.a"; \
	$(OBJCOPY) --keep-global-symbols="$$stage/names" --wildcard --weaken-symbol='sm_*' --strip-debug \
		-R .llvmbc -R .llvmcmd "$$stage/milter.o"; \
	rm -f "$$stage/libmilter.a"; \
	$(AR) rcsD "$$stage/libmilter.a" "$$stage/milter.o"

# The program, and what shells complete, which it says itself.
probe:
	@$(call cargo_build,milter-probe,milter-probe)
	@set -e; program="$(RELEASE)/milter-probe"; stage="$(RELEASE)/install"; mkdir -p "$$stage"; \
	for shell in bash zsh fish; do \
		if [ "$$stage/completions.$$shell" -nt "$$program" ]; then continue; fi; \
		if "$$program" completions $$shell > "$$stage/$$shell.$$$$"; then \
			mv "$$stage/$$shell.$$$$" "$$stage/completions.$$shell"; \
		else \
			rm -f "$$stage/$$shell.$$$$"; echo "milter-probe does not run here: no completions for $$shell" >&2; \
		fi; \
	done

install: install-library install-probe
	@[ -n '$(DESTDIR)' ] || echo "Installed below $(PREFIX). The dynamic linker may need an ldconfig."

install-library: archive
	@set -e; LIBMILTER_SONAME='$(LIBMILTER_SONAME)'; lib='$(DESTDIR)$(LIBDIR)'; include='$(DESTDIR)$(INCLUDEDIR)'; \
	mkdir -p "$$lib/pkgconfig" "$$lib/cmake/libmilter" "$$include/libmilter"; \
	install -m 755 "$(RELEASE)/libmilter.so" "$$lib/$(INSTALLED)"; \
	[ "$(INSTALLED)" = libmilter.so ] || ln -sf "$(INSTALLED)" "$$lib/libmilter.so"; \
	install -m 644 "$(RELEASE)/install/libmilter.a" "$$lib"; \
	for header in $(HEADERS); do install -m 644 "include/libmilter/$$header" "$$include/libmilter"; done; \
	for description in $(DESCRIPTIONS); do \
		sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
			-e '/^[a-z]*dir=/s|=$(PREFIX)/|=$${prefix}/|' \
			-e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS_PRIVATE@|$(LIBS_PRIVATE)|' \
			"$$description.in" > "$$lib/$$description"; \
		chmod 644 "$$lib/$$description"; \
	done; \
	for page in man/*.[37]; do \
		section="$(DESTDIR)$(MANDIR)/man$${page##*.}"; mkdir -p "$$section"; install -m 644 "$$page" "$$section"; \
	done

install-probe: probe
	@set -e; data='$(DESTDIR)$(DATADIR)'; stage="$(RELEASE)/install"; \
	put() { mkdir -p "$${3%/*}"; install -m "$$1" "$$2" "$$3"; }; \
	put 755 "$(RELEASE)/milter-probe" '$(DESTDIR)$(BINDIR)/milter-probe'; \
	put 644 man/milter-probe.1 '$(DESTDIR)$(MANDIR)/man1/milter-probe.1'; \
	if ! [ -f "$$stage/completions.fish" ]; then exit 0; fi; \
	put 644 "$$stage/completions.bash" "$$data/bash-completion/completions/milter-probe"; \
	put 644 "$$stage/completions.zsh" '$(DESTDIR)$(ZSHDIR)/_milter-probe'; \
	put 644 "$$stage/completions.fish" "$$data/fish/vendor_completions.d/milter-probe.fish"

uninstall:
	@set -e; LIBMILTER_SONAME='$(LIBMILTER_SONAME)'; lib='$(DESTDIR)$(LIBDIR)'; include='$(DESTDIR)$(INCLUDEDIR)'; \
	rm -f "$$lib/$(INSTALLED)" "$$lib/libmilter.so" "$$lib/libmilter.a"; \
	for description in $(DESCRIPTIONS); do rm -f "$$lib/$$description"; done; \
	for header in $(HEADERS); do rm -f "$$include/libmilter/$$header"; done; \
	for page in man/*.[1-9]; do rm -f "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}"; done; \
	rm -f '$(DESTDIR)$(BINDIR)/milter-probe' '$(DESTDIR)$(ZSHDIR)/_milter-probe' \
		'$(DESTDIR)$(DATADIR)/bash-completion/completions/milter-probe' \
		'$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/milter-probe.fish'; \
	for own in "$$lib/cmake/libmilter" "$$include/libmilter"; do \
		if [ -d "$$own" ]; then rmdir "$$own" 2>/dev/null || :; fi; \
	done

# Everything but what building leaves behind; under its name only when it is complete.
dist:
	@set -e; mkdir -p "$(TARGET)"; name="$(DIST)"; fresh="$(TARGET)/$$name.$$$$"; \
	tar -c -z -f "$$fresh" --exclude-vcs --exclude-caches-all --exclude=./target --transform "s|^\.|$$name|" .; \
	mv "$$fresh" "$(TARGET)/$$name.tar.gz"

# Built from the archive, so that nothing gets into the packages or into this tree that does not belong there.
deb: dist
	@set -e; place="$(TARGET)/deb"; rm -rf "$$place"; mkdir -p "$$place"; \
	tar -x -z -f "$(TARGET)/$(DIST).tar.gz" -C "$$place"; \
	(cd "$$place/$(DIST)" && MAKEFLAGS= dpkg-buildpackage --build=binary --no-sign); \
	rm -rf "$$place/$(DIST)"; ls "$$place"/*.deb

html:
	@man/html "$(TARGET)/html"

demo:
	@sh ctests/demo.sh

generated:
	@LIBMILTER_GENERATED_SEED='$(SEED)' LIBMILTER_GENERATED_COUNT='$(COUNT)' \
		$(CARGO) test --release --locked --package ctests --test generated -- --nocapture generated

faults:
	@LIBMILTER_FAULTS=all $(CARGO) test --locked --package ctests --test faults -- --nocapture

sources:
	ctests/sources/fetch "$${LIBMILTER_SOURCES:-$(TARGET)/sources}"
	$(CARGO) test --locked --package ctests --test sources

# The sanitizer is not among what stable compilers offer, hence RUSTC_BOOTSTRAP.
races:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	CARGO_TARGET_DIR="$(TARGET)/races" TSAN_OPTIONS="suppressions=$$PWD/src/model/races.supp" \
		$(CARGO) test --locked --package libmilter --lib --target x86_64-unknown-linux-gnu model:: -- --skip check

# Conversations with the library and a filter that are built with AddressSanitizer, and with ThreadSanitizer.
sanitize: races
	$(CARGO) test --locked --package ctests --test sanitizers

# What `cargo fuzz build -s none` does; fuzz/README.md says why without it. The first corpus of a target gets what is new.
TIME = 60
HOST = $$(rustc -vV | sed -n 's/^host: //p')
FUZZ = engine stream reply record options address
fuzz:
	RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
		-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
		-Cllvm-args=-sanitizer-coverage-trace-compares" \
		$(CARGO) build --release --locked --manifest-path fuzz/Cargo.toml --target "$(HOST)" --target-dir "$(TARGET)/fuzz"
	@for target in $(FUZZ); do \
		found="$(TARGET)/fuzz/found/$$target"; mkdir -p "$$found/corpus" || exit 1; \
		if ! "$(TARGET)/fuzz/$(HOST)/release/$$target" -max_total_time=$(TIME) -max_len=512 -timeout=10 -print_final_stats=1 \
			-artifact_prefix="$$found/" "$$found/corpus" "fuzz/corpus/$$target" >"$$found/log" 2>&1; \
		then \
			cat "$$found/log"; echo "fuzz $$target: failed; the bytes are in $$found" >&2; exit 1; \
		fi; \
		sed -n "s/^stat::number_of_executed_units: /fuzz $$target: executions /p" "$$found/log"; \
	done

mutations:
	$(CARGO) test --locked --package ctests --test mutations

mutants:
	@command -v cargo-mutants >/dev/null || { echo "cargo-mutants not found: cargo install --locked cargo-mutants" >&2; exit 1; }
	@mkdir -p "$(TARGET)"; env -u CARGO_TARGET_DIR $(CARGO) mutants --package milter-protocol --output "$(TARGET)"

# BENCHFLAGS takes further options, shown by BENCHFLAGS=--help. PUBLISH=1 writes README.md and docs/bench, and with MODELS=1
# docs/models.md.
bench:
	$(CARGO) run --quiet --profile tools --locked --package bench -- --output "$(TARGET)/bench" \
		$(if $(QUICK),--quick) $(if $(MODELS),--models) \
		$(if $(PUBLISH),$(if $(MODELS),--publish-models docs/models.md,--publish README.md docs/bench)) $(BENCHFLAGS)

# Goes on after a failure, so that the last line counts everything.
check:
	@passed=0; failed=0; mkdir -p "$(TARGET)"; target=$$(cd "$(TARGET)" && pwd); \
	export LIBMILTER_SKIP_LOG="$$target/skipped"; : > "$$LIBMILTER_SKIP_LOG"; \
	run() { echo "+ $$*"; if "$$@"; then passed=$$((passed + 1)); else failed=$$((failed + 1)); fi; }; \
	run $(CARGO) fmt --all --check; \
	run $(CARGO) fmt --manifest-path fuzz/Cargo.toml --check; \
	run $(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings; \
	run $(CARGO) clippy --package ctests --test mutations --locked -- -D warnings; \
	run $(CARGO) test --package ctests --test mutations --locked -- the_table; \
	run env RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --document-private-items --locked; \
	echo "+ $(CARGO) test --workspace"; \
	{ $(CARGO) test --workspace --no-fail-fast --locked 2>&1; echo "test status: $$?"; } | tee "$$target/tests.log"; \
	set -- $$(awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
		/^test status:/ { if ($$3 != 0 && failed == 0) failed = 1 } \
		END { print passed + 0, failed + 0, ignored + 0 }' "$$target/tests.log"); \
	skipped=$$(($$3 + $$(wc -l < "$$LIBMILTER_SKIP_LOG"))); passed=$$((passed + $$1)); failed=$$((failed + $$2)); \
	cat "$$LIBMILTER_SKIP_LOG"; \
	echo "$$passed passed, $$failed failed, $$skipped skipped"; \
	[ "$$failed" -eq 0 ] && { [ "$${LIBMILTER_REQUIRE_ALL:-0}" != 1 ] || [ "$$skipped" -eq 0 ]; }

clean:
	$(CARGO) clean

.PHONY: all library archive probe install install-library install-probe uninstall dist deb html demo generated faults sources races sanitize fuzz mutations mutants bench check clean
