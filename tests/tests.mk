# The tests, read by Makefile: what runs them, what they are built from, and fuzzing.
# tests/README.md tells what stands where.

.PHONY: test test-ci test-all test-onnx onnx-run test-programs test-fuzz check-all coverage analyze fuzz print-tests manifest

# CC and CXX as given, if they are.
given = $(if $(filter default undefined,$(origin $(1))),,$($(1)))

#: make test     every test once with one compiler, CC=gcc; ONLY=NAME runs one alone, SAN=1 all
#:               under sanitizers
#: make test-ci  the second compiler, all sanitizers, and what takes long
#: make test-all check-all, mcu, analyze, coverage, test-onnx: an hour or so; TABLE=docs/targets.md keeps the table
#: make check-all  every compiler and processor at hand, under emulators; N=400 random networks,
#:               TABLE=FILE for the result as a table
#: make coverage how much of ptq.h the tests reach (gcc, lcov)
#: make analyze  clang-tidy, cppcheck, gcc -fanalyzer
#: make manifest writes tests/manifest anew, hashes of what must not change, and says what did
#: make fuzz     fuzz every parser, the command line, and kernels against kernels with libFuzzer or
#:               FUZZER=afl, FUZZ_SECONDS=60 each (clang, afl++)
test:
	@sh tools/packages.sh
	@CC='$(call given,CC)' CXX='$(call given,CXX)' ONLY='$(ONLY)' JOBS='$(JOBS)' \
	    sh tests/run.sh $(if $(findstring command,$(origin SAN)),one $(SAN),test)

test-ci:
	@sh tools/packages.sh
	@CC='$(call given,CC)' CXX='$(call given,CXX)' ONLY='$(ONLY)' JOBS='$(JOBS)' \
	    sh tests/run.sh ci

# What takes an hour, one after the other: all of them, even if one fails.
TEST_ALL := check-all mcu analyze coverage test-onnx
test-all:
	@failed=; for target in $(TEST_ALL); do \
	    echo "make $$target"; \
	    $(MAKE) --no-print-directory $$target || failed="$$failed $$target"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

check-all: $(BUILD)/ptq
	@sh tests/checks/check_all.sh $(if $(TABLE),--markdown '$(TABLE)') $(N)

coverage:
	@sh tests/checks/coverage.sh

# 500 random models beside ONNX Runtime, not the 100 of every run; and ONNX's own tests.
test-onnx: $(BUILD)/ptq onnx-run
	@RANDOM_MODELS=500 RANDOM_SEED=2 BUILD=$(BUILD) PTQ=$(BUILD)/ptq \
	    sh tests/commands/cli_onnx_random.sh || [ $$? -eq 77 ]
	@sh tests/peers/onnx_nodes.sh $(BUILD)/ptq || [ $$? -eq 77 ]

analyze: $(BUILD)/ptq
	@sh tests/checks/analyze.sh $(filter-out -W%,$(CFLAGS)) -D_POSIX_C_SOURCE=200809L -I$(BUILD) -Itools/ptq $(LIB_CFLAGS)

TEST_SOURCES := $(wildcard tests/*/test_*.c)
TESTS := $(patsubst %.c,$(BUILD)/%,$(notdir $(TEST_SOURCES)))
ifeq ($(HAVE_ONNX),)
TESTS := $(filter-out $(BUILD)/test_onnx,$(TESTS))
endif
ifneq ($(shell pkg-config --exists cmocka 2>/dev/null || echo none),)
TESTS :=
endif
# test_kernels_emulated has all that test_kernels has, and test_manifest runs what others run too:
# under sanitizers one copy is enough. clang's go without vector kernels: there is nothing to test
# of them, and thousands of images take minutes.
LEFT_OUT := $(if $(SAN),kernels manifest $(if $(findstring clang,$(CC)),kernels_emulated \
            golden golden_int recover))
TESTS    := $(filter-out $(LEFT_OUT:%=$(BUILD)/test_%),$(TESTS))

# To compile the library again for every test takes minutes under the sanitizers. Only the tests
# that see internals or set macros need a copy of their own; the others link the one object.
OWN_COPY := $(patsubst %.c,$(BUILD)/%,$(notdir $(shell grep -l 'ptq__\|define PTQ_' $(TEST_SOURCES))))

# What takes longest to compile comes first, so that all processors end together.
test-programs: $(filter $(OWN_COPY),$(TESTS)) $(TESTS) \
               $(if $(SAN),,$(BUILD)/ptq-scalar)

# What must not change, written anew: a person looks at the differences.
manifest: test-programs tools
	@$(BUILD)/test_manifest --write >$(BUILD)/manifest.log 2>&1 || \
	    { cat $(BUILD)/manifest.log; exit 1; }
	@grep -E '^(changed|new|gone|tests/manifest)' $(BUILD)/manifest.log
	@BUILD=$(BUILD) PTQ=$(BUILD)/ptq sh tests/commands/cli_manifest.sh --write

print-tests:
	@echo $(notdir $(TESTS))

linked = $(if $(filter $@,$(OWN_COPY)),,$(1))
# What of them is not about vector kernels does without these; and what is not about how the
# compiler optimizes them is compiled in half the time.
$(addprefix $(BUILD)/test_,calibrate file net observe ops run tensor): \
    private CFLAGS += -DPTQ_NO_SIMD $(if $(SAN),,-O1)
$(addprefix $(BUILD)/test_,kernels_emulated manifest recover): private CFLAGS += -O1 -Wno-psabi
$(if $(SAN),$(BUILD)/ptq_impl.o): private CFLAGS += -O1

$(BUILD)/test_train: LINKED := $(TRAINER)
$(BUILD)/test_train: $(TRAINER)

# What explains, compares layers, corrects biases, searches and advises is the tool's.
MEASURED := $(patsubst %,$(BUILD)/tool/measure/%.o,advice arithmetic expect explain layers \
              mix nodes search)
MEASURE_TESTS := $(addprefix $(BUILD)/test_,calibrate faults integer metrics real recover)
$(MEASURE_TESTS): LINKED := $(MEASURED)
$(MEASURE_TESTS): $(MEASURED)

# And so is what compares kernels.
KERNEL_TESTS := $(addprefix $(BUILD)/test_,kernels kernels_emulated)
$(KERNEL_TESTS): LINKED := $(BUILD)/tool/measure/kernel_test.o
$(KERNEL_TESTS): $(BUILD)/tool/measure/kernel_test.o

vpath test_%.c $(sort $(dir $(TEST_SOURCES)))
$(TESTS): $(BUILD)/%: %.c $(BUILD)/ptq_impl.o
	$(Q)$(COMPILE) -Itests/shared -Itools/ptq $(call linked,-DPTQ_IMPLEMENTATION_DONE) $< \
	    $(call linked,$(BUILD)/ptq_impl.o) $(LINKED) -lcmocka -lm -o $@

# This one tests files of the tool, which print; the tool's own objects are linked.
ONNX_TESTED := $(patsubst tools/ptq/%.c,$(BUILD)/tool/%.o,$(wildcard tools/ptq/shared/*.c \
                 tools/ptq/onnx/*.c tools/ptq/import/onnx*.c tools/ptq/export/onnx*.c)) $(ONNX_OBJECT)
$(BUILD)/test_onnx: CFLAGS += -D_POSIX_C_SOURCE=200809L -I$(BUILD) $(LIB_CFLAGS)
$(BUILD)/test_onnx: LINKED := $(ONNX_TESTED) $(LIB_LDFLAGS)
$(BUILD)/test_onnx: $(ONNX_TESTED)

# So does this one.
READERS := $(patsubst tools/ptq/%.c,$(BUILD)/tool/%.o,$(wildcard tools/ptq/shared/*.c \
             tools/ptq/data/*.c)) $(STB_OBJECT)
$(BUILD)/test_readers: CFLAGS += -D_POSIX_C_SOURCE=200809L $(LIB_CFLAGS)
$(BUILD)/test_readers: LINKED := $(READERS) $(LIB_LDFLAGS)
$(BUILD)/test_readers: $(READERS)

# What tests/peers/onnx_random.py and ONNX Runtime are compared with.
onnx-run: $(if $(HAVE_ONNX),$(BUILD)/onnx-run)
$(BUILD)/onnx-run: CFLAGS += -D_POSIX_C_SOURCE=200809L -I$(BUILD) $(LIB_CFLAGS)
$(BUILD)/onnx-run: tests/peers/onnx_run.c $(BUILD)/ptq_impl.o $(ONNX_TESTED)
	$(Q)$(COMPILE) -Itools/ptq $< $(BUILD)/ptq_impl.o $(ONNX_TESTED) $(LIB_LDFLAGS) -lm -o $@

# Fuzzing: `make fuzz` drives every target with libFuzzer (FUZZER=afl: with AFL++) for FUZZ_SECONDS;
# the tests replay the seeds. A driver brings main(): the one that replays files, or the fuzzer's.
HAVE_KERAS   := $(and $(filter hdf5,$(LIBS)),$(filter jansson,$(LIBS)))
FUZZ_TARGETS := model graph cifar10 calibration npy idx zip tflite $(if $(HAVE_ONNX),onnx) \
                $(if $(HAVE_KERAS),keras) arguments kernels
COMMA        := ,
FUZZ_SECONDS ?= 60
FUZZER       ?= libfuzzer
FUZZ_DRIVER  ?= tests/fuzz/replay.c

# What tests/fuzz/replay.sh runs; the ordinary tests compare kernels in their own way.
test-fuzz: $(BUILD)/ptq $(patsubst %,$(BUILD)/fuzz-%,seeds $(filter-out kernels,$(FUZZ_TARGETS)))

fuzz:
	@FUZZER=$(FUZZER) sh tests/fuzz/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

$(BUILD)/fuzz-seeds: tests/fuzz/seeds.c $(BUILD)/ptq_impl.o
	$(Q)$(COMPILE) -D_POSIX_C_SOURCE=200809L -DPTQ_IMPLEMENTATION_DONE $< \
	    $(BUILD)/ptq_impl.o -lm -o $@

$(BUILD)/fuzz-onnx: LINKED := $(ONNX_TESTED) $(LIB_LDFLAGS)
$(BUILD)/fuzz-onnx: $(ONNX_TESTED)

READER_FUZZERS := $(addprefix $(BUILD)/fuzz-,npy idx zip)
$(READER_FUZZERS): LINKED := $(READERS) $(LIB_LDFLAGS)
$(READER_FUZZERS): $(READERS) tests/fuzz/arrays.h

TFLITE_FUZZED := $(patsubst tools/ptq/%.c,$(BUILD)/tool/%.o,$(wildcard tools/ptq/shared/*.c \
                   tools/ptq/import/tflite*.c) tools/ptq/import/flatbuffer.c)
$(BUILD)/fuzz-tflite: LINKED := $(TFLITE_FUZZED) $(LIB_LDFLAGS)
$(BUILD)/fuzz-tflite: $(TFLITE_FUZZED)

KERAS_FUZZED := $(patsubst tools/ptq/%.c,$(BUILD)/tool/%.o,$(wildcard tools/ptq/shared/*.c \
                  tools/ptq/import/keras*.c) tools/ptq/import/assume.c)
$(BUILD)/fuzz-keras: CFLAGS += $(LIB_CFLAGS)
$(BUILD)/fuzz-keras: LINKED := $(KERAS_FUZZED) $(LIB_LDFLAGS)
$(BUILD)/fuzz-keras: $(KERAS_FUZZED)

$(BUILD)/fuzz-%: tests/fuzz/%.c tests/fuzz/fuzz.h tests/fuzz/networks.h \
                 $(filter %.c,$(FUZZ_DRIVER)) $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) -Itools/ptq -D_POSIX_C_SOURCE=200809L -DPTQ_IMPLEMENTATION_DONE $< $(FUZZ_DRIVER) \
	    $(BUILD)/ptq_impl.o $(LINKED) -lm -o $@

# The whole tool but for main, and functions of it and of the library in whose place those of the
# harness are called.
FUZZED_TOOL = $(filter-out %/main.o,$(TOOL_OBJECTS))
WRAPPED     = count_cores images_open progress_show pthread_create ptq_calibrate \
              ptq_calibration_load ptq_convert ptq_evaluate test_kernels \
              ptq_observer_range ptq_resnet8 seconds_now trainer_create
$(BUILD)/fuzz-arguments: LINKED = $(FUZZED_TOOL) $(addprefix -Wl$(COMMA)--wrap=,$(WRAPPED)) \
                                  $(LIB_LDFLAGS)
$(BUILD)/fuzz-arguments: $(FUZZED_TOOL)

# This one sees internals, and its vector kernels take minutes to instrument.
$(BUILD)/fuzz-kernels: tests/fuzz/kernels.c tests/fuzz/fuzz.h tools/ptq/measure/kernel_test.c ptq.h \
                       $(filter %.c,$(FUZZ_DRIVER)) | $(BUILD)
	$(Q)$(CC) $(CFLAGS) $< tools/ptq/measure/kernel_test.c $(FUZZ_DRIVER) -lm -o $@
