# What a user and a developer of wantasticd can ask for; `make help` lists it.
PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
NEED    := .ci/need
MINUTES ?= 1

BUILD_PACKAGES := gcc libc6-dev make python3-dev python3-venv libssl-dev
TEST_PACKAGES  := $(BUILD_PACKAGES) iproute2 iputils-ping nftables iperf3 tcpdump \
	wireguard-go wireguard-tools libfaketime libsodium-dev shellcheck qemu-user valgrind \
	ncat iptables busybox systemd curl openssh-client openssh-server proxychains4 bind9-dnsutils \
	postgresql-15 chromium chromium-driver linux-source-6.12
BINARY_PACKAGES := $(BUILD_PACKAGES) binutils patch perl xz-utils
QEMU_PACKAGES  := $(BINARY_PACKAGES) qemu-user
FUZZ_PACKAGES  := $(BUILD_PACKAGES) clang-16 libclang-rt-16-dev llvm-16

.DEFAULT_GOAL := help
.PHONY: help build protos run test soak lint format bench bench-aead bench-tunnel bench-netstack bench-fleet bench-storm \
	bench-flood fuzz asan test-qemu binary binary-check image image-test clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements.txt
	@$(NEED) $(BUILD_PACKAGES)
	@[ -x $(PY) ] || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing Python packages into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

build: $(STAMP) ## Compile the native rooms in place
	@$(PY) setup.py --quiet build_ext --inplace

run: build ## The whole system on loopback: server, gateway, a device, a page through the tunnel
	@$(PY) -m wantastic.server.demo

test: build ## Run the whole test suite
	@$(NEED) $(TEST_PACKAGES)
	@$(PY) -m pytest $(TESTS)

protos: $(STAMP) # The control plane's messages; make build does it as well
	@$(PY) protos/generate.py

lint: protos ## ruff, mypy --strict, cython-lint, compiler warnings, layering
	@$(NEED) shellcheck
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/cython-lint --no-pycodestyle cext
	@shellcheck .ci/run .ci/need buildroot/package/wantasticd/S60wantasticd
	@$(PY) -m pytest tests/unit/test_layering.py

format: $(STAMP) ## Let ruff lay out the Python files
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix --exit-zero --quiet .

bench: bench-aead bench-tunnel bench-netstack bench-flood ## Every benchmark, each against its peers in the same run

FOREIGN = $(filter mips mipsel armv7 aarch64,$(ARCH))
bench-aead: build ## AEAD against OpenSSL and libsodium, ns per packet; ARCH=mipsel: instructions
	@$(PY) -m tests.bench.$(if $(FOREIGN),aead_foreign $(FOREIGN),aead)

bench-tunnel: build ## TUN mode against wireguard-go and boringtun (root)
	@$(NEED) $(TEST_PACKAGES)
	@$(PY) -m tests.bench.tunnel

bench-netstack: build ## Userspace mode against gVisor, slirp4netns, passt and Linux CUBIC (root)
	@$(NEED) $(TEST_PACKAGES) slirp4netns passt
	@$(PY) -m tests.bench.netstack

bench-fleet: build ## The reference server under a fleet of devices, SQLite and PostgreSQL
	@$(NEED) $(TEST_PACKAGES)
	@$(PY) -m tests.bench.fleet

bench-storm: build ## The reference server restarted under 1,000 connected agents, minutes
	@$(PY) -m tests.bench.storm

bench-flood: build ## Handshake floods against us and wireguard-go (root)
	@$(NEED) $(TEST_PACKAGES)
	@$(PY) -m tests.bench.flood

fuzz: $(STAMP) ## Every fuzz target for MINUTES=1; TARGET=room:name for one
	@$(NEED) $(FUZZ_PACKAGES)
	@$(PY) -m tests.fuzz.run --minutes $(MINUTES) $(addprefix --target ,$(TARGET)) \
		$(addprefix --seed ,$(SEED))

soak: build ## Ten minutes of traffic, memory must stay flat (root); WANTASTIC_SOAK_S for longer
	@$(NEED) $(TEST_PACKAGES)
	@$(PY) -m pytest tests/interop/soak.py

asan: $(STAMP) ## The native tests under AddressSanitizer and UBSan
	@$(NEED) $(BUILD_PACKAGES)
	@$(PY) -m tests.support.sanitized

test-qemu: $(STAMP) ## The native tests on another CPU by qemu-user: ARCH=mips|mipsel|armv7|aarch64
	@$(NEED) $(QEMU_PACKAGES)
	@$(PY) -m buildroot.static test-qemu --arch $(or $(ARCH),mips) -- $(or $(TESTS),tests/native)

binary: $(STAMP) ## One static executable: ARCH=x86_64|aarch64|armv7|mipsel|mips TRANSPORT=grpcio|slim
	@$(NEED) $(BINARY_PACKAGES)
	@$(PY) -m buildroot.static binary --arch $(or $(ARCH),x86_64) \
		$(if $(TRANSPORT),--transport $(TRANSPORT)) \
		$(if $(PYTHON_AS),--python $(PYTHON_AS)) \
		$(if $(FEATURES),--features=$(FEATURES)) $(if $(UPDATE_MODULES),--update-modules)

binary-check: build ## Build as `make binary`, then hold it to its budgets (root)
	@$(NEED) $(BINARY_PACKAGES) curl iproute2 nftables qemu-user-static
	@$(PY) -m buildroot.static binary --check --arch $(or $(ARCH),x86_64) \
		$(if $(TRANSPORT),--transport $(TRANSPORT)) $(if $(PYTHON_AS),--python $(PYTHON_AS)) \
		$(if $(FEATURES),--features=$(FEATURES))

image: $(STAMP) ## A firmware image: BOARD=malta|vexpress|aarch64_virt BUILDROOT=PATH
	@$(PY) -m buildroot.image --board "$(or $(BOARD),malta)" --buildroot "$(BUILDROOT)"

image-test: build ## Boot the executable on an emulated router: BOARD=malta|virt (root)
	@$(NEED) $(BINARY_PACKAGES) cpio curl e2fsprogs iproute2 nftables \
		qemu-system-arm qemu-system-mips squashfs-tools
	@$(PY) -m buildroot.imagetest --board $(or $(BOARD),malta) \
		$(if $(EXECUTABLE),--executable $(EXECUTABLE))

clean: ## Remove everything that was built
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f wantastic/control/auth_pb2.py wantastic/control/auth_pb2.pyi
	find cext wantastic tests -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +
