# ptq.h itself needs no build: this makes what stands around it, in build/ only.
# Another compiler or SAN=1 has a directory of its own: build/clang, build/san, build/clang-san.

VARIANT := $(strip $(filter-out cc gcc,$(notdir $(firstword $(CC)))) $(if $(SAN),san))
EMPTY   :=
BUILD   := $(patsubst %/,%,build/$(subst $(EMPTY) ,-,$(VARIANT)))

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
CFLAGS  := -std=c99 $(if $(SAN),-O1,-O2) $(WARN) -ffp-contract=off -pthread -I. $(EXTRA)
ifneq ($(SAN),)
CFLAGS  += -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# clang needs minutes to instrument the vector kernels; under gcc they are sanitized too.
ifneq ($(findstring clang,$(CC)),)
CFLAGS  += -DPTQ_NO_SIMD
endif
endif

# The tool does without what pkg-config does not know, and says so where it matters.
LIBS    := $(shell for lib in hdf5 jansson; do pkg-config --exists $$lib && echo $$lib; done 2>/dev/null)
ifneq ($(LIBS),)
LIB_CFLAGS  := $(patsubst %,-DPTQ_HAVE_%,$(LIBS)) \
               $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(LIBS)))
LIB_LDFLAGS := $(shell pkg-config --libs $(LIBS))
endif

TOOL_OBJECTS := $(patsubst tools/ptq/%.c,$(BUILD)/ptq-%.o,$(wildcard tools/ptq/*.c))
EXAMPLES     := $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/*.c))
TESTS        := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/test_*.c))

PTQ_SHARED ?= ../shared
DATA  = $(or $(CIFAR10_DIR),$(patsubst %/test_batch.bin,%,$(firstword $(wildcard \
        $(addsuffix /cifar-10-batches-bin/test_batch.bin,data $(PTQ_SHARED)/data)))))
MODEL = $(or $(PTQ_MODEL),$(firstword $(wildcard \
        $(PTQ_SHARED)/models/resnet8_mlperf.safetensors examples/models/*.safetensors)))

.PHONY: all run test test-programs bench data clean help print-build FORCE

all: $(BUILD)/ptq $(EXAMPLES)

help:
	@echo 'make          build the command-line tool and the examples'
	@echo 'make run      quantize ResNet8 with every preset and compare with float on CIFAR-10'
	@echo 'make test     every compiler at hand, plain and under sanitizers; CC= or SAN= picks one'
	@echo 'make bench    time the float network on one thread'
	@echo 'make data     download CIFAR-10 (162 MiB) into data/'
	@echo 'make clean    remove build/'
	@echo 'Variables: CC, CXX, SAN=1 (address and undefined-behaviour sanitizers)'

run: $(BUILD)/03_calibrate_convert_evaluate
	@test -n '$(MODEL)' || echo 'No model here: set PTQ_MODEL to a .safetensors file of ResNet8;' \
	    '"ptq import" makes one of pretrainedResnet.h5 (github.com/mlcommons/tiny).' >&2
	@test -n '$(DATA)' || echo 'No CIFAR-10 here: "make data" downloads it (162 MiB);' \
	    'or set CIFAR10_DIR to the directory of test_batch.bin.' >&2
	@test -n '$(MODEL)' -a -n '$(DATA)'
	@$(BUILD)/03_calibrate_convert_evaluate '$(MODEL)' '$(DATA)'

test:
	@sh tools/packages.sh
	@sh tests/run.sh $(if $(findstring command,$(origin CC) $(origin SAN)),'$(CC)' '$(CXX)' '$(SAN)')

test-programs: $(TESTS)

print-build:
	@echo $(BUILD)

bench: $(BUILD)/ptq
	@$(BUILD)/ptq bench --all --batch 1 --threads 1

data:
	@sh tools/get_cifar10.sh data

clean:
	rm -rf build

$(BUILD):
	@mkdir -p $@

# Rewritten only when the libraries change, so that the tool is built anew when one is installed.
$(BUILD)/libs: FORCE | $(BUILD)
	@echo '$(LIBS)' | cmp -s - $@ || echo '$(LIBS)' >$@

$(BUILD)/ptq_impl.o: tools/ptq_impl.c ptq.h | $(BUILD)
	$(CC) $(CFLAGS) -c $< -o $@

$(BUILD)/ptq-%.o: tools/ptq/%.c tools/ptq/common.h ptq.h $(BUILD)/libs
	$(CC) $(CFLAGS) -D_POSIX_C_SOURCE=200809L $(LIB_CFLAGS) -c $< -o $@

# Training may fuse multiplications and additions: its results need not be the same everywhere.
TRAINER := $(patsubst %,$(BUILD)/ptq-%.o,trainer trainer_kernels optimizer)
$(BUILD)/ptq-trainer_kernels.o: CFLAGS += -ffp-contract=fast
$(TRAINER) $(BUILD)/ptq-train.o: $(wildcard tools/ptq/trainer*.h tools/ptq/optimizer.h)

$(BUILD)/ptq: $(TOOL_OBJECTS) $(BUILD)/ptq_impl.o
	$(CC) $(CFLAGS) $^ $(LIB_LDFLAGS) -lm -o $@

$(EXAMPLES): $(BUILD)/%: examples/%.c ptq.h | $(BUILD)
	$(CC) $(CFLAGS) $< -lm -o $@

# To compile the library again for every test takes minutes under the sanitizers. Only the tests that
# see internals or set macros need a copy of their own; the others link the one object.
OWN_COPY := $(shell grep -l 'ptq__\|define PTQ_' tests/test_*.c)
linked    = $(if $(filter $<,$(OWN_COPY)),,$(1))

$(BUILD)/test_train: OBJECTS := $(TRAINER)
$(BUILD)/test_train: $(TRAINER)

$(TESTS): $(BUILD)/%: tests/%.c $(wildcard tests/*.h) ptq.h $(BUILD)/ptq_impl.o
	$(CC) $(CFLAGS) $(call linked,-DPTQ_IMPLEMENTATION_DONE) $< \
	    $(call linked,$(BUILD)/ptq_impl.o) $(OBJECTS) -lcmocka -lm -o $@
