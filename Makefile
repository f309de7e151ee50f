# The two commands are `make run` and `make test`; `make help` lists the rest.
WERROR ?= OFF
JOBS ?= $(shell nproc)
CACHE := .cache
KERNEL ?= $(CACHE)/kernels/cloud-amd64/vmlinuz
INITRD ?= $(CACHE)/initrd-amd64
APPEND ?= console=ttyS0
RUN_OPTIONS ?=
ROUNDS ?=
BENCH_OPTIONS ?=
FUZZ_OPTIONS ?=
PREFIX ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help build install deb run test examples bench stress fuzz tsan lint clean guests

help:
	@echo "make run    boot Debian's stock cloud kernel: a shell on a terminal, else a short script and power-off"
	@echo "make test   build and run every test"
	@echo "make build  the executable, build/trapline"
	@echo "make install  executable, man page and completions (PREFIX=/usr/local, DESTDIR=)"
	@echo "make deb    build/trapline_VERSION_amd64.deb"
	@echo "make examples  one small kernel in three builds (docs/paravirtualization.md)"
	@echo "make bench  workloads natively, under every engine, QEMU TCG and Bochs (ROUNDS=N, BENCH_OPTIONS='--quick ...')"
	@echo "make stress a hundred kills under writes to disks; litmus tests, and stress-ng, on 4 vCPUs for ten minutes (ENGINE=, SECONDS=, CPUS=)"
	@echo "make fuzz   ten million random instructions against this CPU (ENGINE=interpret, FUZZ_OPTIONS=)"
	@echo "make tsan   the tests in which threads meet, built with ThreadSanitizer"
	@echo "make lint   clang-format, layers, documents, scripts, clang-tidy"
	@echo "make clean  remove build/ (the guest cache in .cache/ stays)"

build:
	@scripts/setup.sh build
	@scripts/build.sh release trapline

install: build
	@cmake --build build --target completions -- --quiet
	DESTDIR="$(DESTDIR)" cmake --install build --prefix "$(PREFIX)"

deb:
	@scripts/setup.sh build deb
	@scripts/build.sh release trapline
	@scripts/deb.sh

run: build
	@scripts/setup.sh guest
	@scripts/guest-kernel.sh cloud-amd64
	@scripts/guest-initrd.sh amd64
	@scripts/run.sh "$(KERNEL)" "$(INITRD)" "$(APPEND)" $(RUN_OPTIONS)

guests:
	@scripts/setup.sh guest
	@scripts/guest-kernel.sh cloud-amd64 amd64 rt-amd64 686-pae 686
	@scripts/guest-initrd.sh amd64 i386
	@scripts/guest-firmware.sh

test:
	@scripts/setup.sh build guest test
	@scripts/guest-kernel.sh cloud-amd64 amd64 rt-amd64 686-pae 686
	@scripts/guest-initrd.sh amd64 i386
	@scripts/guest-firmware.sh
	@WERROR=$(WERROR) scripts/build.sh release all
	@ctest --test-dir build --output-on-failure -j $(JOBS)

examples: build
	@$(MAKE) --no-print-directory -C examples

bench: build
	@scripts/setup.sh guest bench
	@scripts/guest-kernel.sh cloud-amd64
	@scripts/guest-initrd.sh amd64
	@bench/run.sh $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_OPTIONS)

stress: build
	@scripts/setup.sh guest test
	@scripts/guest-kernel.sh cloud-amd64
	@TRAPLINE_KILLS=20 build/tests/guest/guest_test --gtest_filter='*DiskKill*' --gtest_brief=1
	@tests/guest/stress.sh $(or $(ENGINE),auto) $(or $(SECONDS),600) $(or $(CPUS),4)
	@tests/guest/stress_ng.sh $(or $(ENGINE),auto) $(or $(SECONDS),600) $(or $(CPUS),4)

fuzz: build
	build/trapline fuzz --engine $(or $(ENGINE),interpret) --count 10000000 $(FUZZ_OPTIONS)

tsan:
	@scripts/setup.sh build test
	@WERROR=$(WERROR) scripts/build.sh tsan race_tests
	@ctest --preset tsan -j $(JOBS)

lint:
	@scripts/setup.sh build test lint
	@scripts/lint.sh

clean:
	rm -rf build
