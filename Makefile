# ptq.h itself needs no build. This makes what stands around it, in build/ only: the command-line
# tool, the examples, the tests. How the tool is built stands in tools/tools.mk, the tests in
# tests/tests.mk.

CFLAGS = -std=c99 -O2 $(WARN) -ffp-contract=off -pthread -I. $(VARIANT_FLAGS) $(EXTRA)
WARN   = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
COMPILE = $(CC) $(CFLAGS) -MMD -MP -MF $@.d -MT $@ # and keep which headers it took

.PHONY: all tools examples run run-cifar10 run-shapes10 data install uninstall clean help
all: tools examples

# ---- Variants: each has a directory of its own, such as build/clang or build/clang-san ----

# SAN=1: with address and undefined-behaviour sanitizers. NO_SIMD=1: without vector kernels.
# COVERAGE=1: instrumented, for tests/checks/coverage.sh.
VARIANT := $(strip $(filter-out cc gcc,$(notdir $(firstword $(CC)))) $(if $(SAN),san) \
             $(if $(NO_SIMD),scalar) $(if $(COVERAGE),coverage))
EMPTY   :=
BUILD   := $(patsubst %/,%,build/$(subst $(EMPTY) ,-,$(VARIANT)))

# Line numbers are what a sanitizer's report needs; what more -g tells takes a quarter of the time
# to compile, and -O1 more than it saves the tests, but for the library that all of them share and
# the kernels (tests.mk). clang needs minutes to instrument the vector kernels; under gcc they are
# sanitized too. Release behaviour is measured: no test can make an assertion fail that holds.
SANITIZE := -O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
VARIANT_FLAGS := $(if $(SAN),$(SANITIZE)) \
    $(if $(or $(NO_SIMD),$(and $(SAN),$(findstring clang,$(CC)))),-DPTQ_NO_SIMD) \
    $(if $(COVERAGE),-O1 --coverage -DNDEBUG -DTEST_COVERAGE)

# Each file made is told by its name; V=1 shows commands, make -s nothing.
Q = $(if $(V),,@$(if $(findstring s,$(firstword -$(MAKEFLAGS))),,echo '  $@';))

# ---- Data and models ----

PTQ_SHARED ?= ../shared
DATA  = $(or $(CIFAR10_DIR),$(patsubst %/test_batch.bin,%,$(firstword $(wildcard \
        $(addsuffix /cifar-10-batches-bin/test_batch.bin,data $(PTQ_SHARED)/data)))))
MODEL = $(or $(PTQ_MODEL),$(firstword $(wildcard \
        $(PTQ_SHARED)/models/resnet8_mlperf.safetensors \
        examples/models/resnet8-cifar10.safetensors)))

# What stands in where CIFAR-10 or a model for it is missing.
SHAPES       := $(BUILD)/shapes10-data
SHAPES_MODEL := examples/models/resnet8-shapes10.safetensors

data:
	@sh tools/data/get_cifar10.sh data

# ---- The main job: quantize with every preset, compare with float ----

run: $(if $(and $(DATA),$(MODEL)),run-cifar10,run-shapes10)

run-cifar10: $(BUILD)/03_calibrate_convert_evaluate
	@echo 'CIFAR-10: $(DATA); model: $(MODEL)'
	@$< '$(MODEL)' '$(DATA)'

run-shapes10: $(BUILD)/03_calibrate_convert_evaluate $(SHAPES)/test_batch.bin
	@echo 'Shapes-10, ten drawn objects: $(SHAPES)$(if $(PTQ_MODEL), (PTQ_MODEL is for CIFAR-10))'
	@$(BUILD)/03_calibrate_convert_evaluate '$(SHAPES_MODEL)' '$(SHAPES)'
	@echo '$(FOR_CIFAR10)'

FOR_CIFAR10 = For CIFAR-10 $(if $(DATA),there is no model here: set PTQ_MODEL to a ResNet8 file,$\
              run "make data" (162 MiB) or set CIFAR10_DIR to the folder of test_batch.bin) and $\
              "make run" again.

# ---- Installation ----

PREFIX  ?= /usr/local
DESTDIR ?=

install: $(BUILD)/ptq
	@sh tools/install/install.sh '$(BUILD)' '$(PREFIX)' '$(DESTDIR)'

uninstall:
	@sh tools/install/install.sh --remove '$(PREFIX)' '$(DESTDIR)'

clean:
	rm -rf build

# The lines of the makefiles that begin with `#:`.
help:
	@sed -n 's/^#: //p' Makefile tools/tools.mk tests/tests.mk

#: make          build the command-line tool, the programs that make data, the examples
#: make run      quantize ResNet8 with every preset and compare with float, on CIFAR-10 where
#:               it is at hand, else on Shapes-10, which is drawn on the spot
#: make data     download CIFAR-10 (162 MiB) into data/
#: make install  program, header, man page, completions, pkg-config and CMake files:
#:               PREFIX=/usr/local, DESTDIR= for packagers; make uninstall removes them
#: make clean    remove build/
#: Variables: CC, CXX, SAN=1 (address and undefined-behaviour sanitizers), V=1 (commands shown)

include tools/tools.mk
include tests/tests.mk

# What each object was made from, headers included, as the compiler told.
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
