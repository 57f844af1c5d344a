# ptq.h itself needs no build: this makes what stands around it, in build/ only.
# Another compiler, SAN=1 or NO_SIMD=1 has a directory of its own: build/clang, build/clang-san,
# build/san-scalar.

VARIANT := $(strip $(filter-out cc gcc,$(notdir $(firstword $(CC)))) $(if $(SAN),san) \
             $(if $(NO_SIMD),scalar) $(if $(COVERAGE),coverage))
EMPTY   :=
BUILD   := $(patsubst %/,%,build/$(subst $(EMPTY) ,-,$(VARIANT)))

# Each file made is told by its name; V=1 shows commands, make -s nothing.
QUIET := $(findstring s,$(firstword -$(MAKEFLAGS)))
Q      = $(if $(V),,@$(if $(QUIET),,echo '  $@';))

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
CFLAGS  := -std=c99 $(if $(SAN),-O1,-O2) $(WARN) -ffp-contract=off -pthread -I. $(EXTRA)
ifneq ($(SAN),)
# Line numbers are what a report needs; what more -g tells takes a quarter of the time to compile.
CFLAGS  += -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# clang needs minutes to instrument the vector kernels; under gcc they are sanitized too.
NO_VECTORS := $(or $(NO_SIMD),$(findstring clang,$(CC)))
endif
ifneq ($(or $(NO_SIMD),$(NO_VECTORS)),)
CFLAGS  += -DPTQ_NO_SIMD
endif

ifneq ($(COVERAGE),)
# Release behaviour is measured: no test can make an assertion fail that holds.
CFLAGS  += -O1 --coverage -DNDEBUG -DTEST_COVERAGE
endif

# The tool does without what pkg-config does not know, and says so where it matters.
LIB_NAMES ?= hdf5 jansson librsvg-2.0
LIBS    := $(shell for lib in $(LIB_NAMES); do pkg-config --exists $$lib && echo $$lib; \
             done 2>/dev/null)
ifneq ($(LIBS),)
LIB_CFLAGS  := $(patsubst %,-DPTQ_HAVE_%,$(patsubst librsvg-%,librsvg,$(LIBS))) \
               $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(LIBS)))
LIB_LDFLAGS := $(shell pkg-config --libs $(LIBS))
endif

# images2cifar and an example read pictures with stb_image; without it, they are left out.
STB := $(shell $(CC) -E -include stb/stb_image.h -x c /dev/null >/dev/null 2>&1 && echo stb)

# ONNX takes protobuf-c, its compiler and the official description of the format.
ONNX_PROTO := $(firstword $(wildcard $(addsuffix /include/onnx/onnx.proto,/usr /usr/local)))
HAVE_ONNX  := $(and $(ONNX_PROTO),$(shell command -v protoc-c), \
                $(shell pkg-config --exists libprotobuf-c 2>/dev/null && echo yes))
ifneq ($(HAVE_ONNX),)
LIBS        += onnx
LIB_CFLAGS  += -DPTQ_HAVE_onnx -isystem $(BUILD) \
               $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libprotobuf-c))
LIB_LDFLAGS += $(shell pkg-config --libs libprotobuf-c)
ONNX_HEADER := $(BUILD)/onnx/onnx.pb-c.h
ONNX_OBJECT := $(BUILD)/onnx.pb-c.o
endif

TOOL_OBJECTS := $(patsubst tools/ptq/%.c,$(BUILD)/ptq-%.o,$(wildcard tools/ptq/*.c)) $(ONNX_OBJECT)
EXAMPLES     := $(patsubst examples/%,$(BUILD)/%,$(basename $(wildcard examples/*.c \
                  examples/*.cpp)) examples/09_two_files)
ifeq ($(STB),)
EXAMPLES     := $(filter-out $(BUILD)/06_classify_a_picture,$(EXAMPLES))
endif
HAVE_CXX     := $(shell command -v $(firstword $(CXX)))
ifeq ($(HAVE_CXX),)
EXAMPLES     := $(filter-out $(BUILD)/08_from_cpp,$(EXAMPLES))
endif

PTQ_SHARED ?= ../shared
DATA  = $(or $(CIFAR10_DIR),$(patsubst %/test_batch.bin,%,$(firstword $(wildcard \
        $(addsuffix /cifar-10-batches-bin/test_batch.bin,data $(PTQ_SHARED)/data)))))
MODEL = $(or $(PTQ_MODEL),$(firstword $(wildcard \
        $(PTQ_SHARED)/models/resnet8_mlperf.safetensors \
        examples/models/resnet8-cifar10.safetensors)))

# What stands in where CIFAR-10 or a model for it is missing.
SHAPES       := $(BUILD)/shapes10-data
SHAPES_MODEL := examples/models/resnet8-shapes10.safetensors

# The models of the repository in integers, for the examples. CIFAR-10's is quantized from a kept
# calibration: its images are not here.
INTEGER_MODELS := $(patsubst %,build/models/resnet8-%-int8.safetensors,shapes10 cifar10)

.PHONY: all tools no-stb run run-cifar10 run-shapes10 bench bench-peers web check-web bench-web \
        data figures bench-train clean help print-build FORCE

all: tools examples

.PHONY: examples install uninstall lib
examples: $(EXAMPLES) $(SHAPES)/test_batch.bin $(INTEGER_MODELS)
	@$(if $(HAVE_CXX),:,echo '08_from_cpp is left out: there is no C++ compiler')

tools: $(BUILD)/ptq $(BUILD)/shapes10 $(if $(STB),$(BUILD)/images2cifar,no-stb)

no-stb:
	@echo 'what reads pictures is left out: stb_image is not installed (Debian: libstb-dev)'

help:
	@echo 'make          build the command-line tool, the programs that make data, the examples'
	@echo 'make run      quantize ResNet8 with every preset and compare with float, on CIFAR-10 where'
	@echo '              it is at hand, else on Shapes-10, which is drawn on the spot'
	@echo 'make test     every test once with one compiler, CC=gcc, under sanitizers what reads files;'
	@echo '              ONLY=NAME runs one alone, SAN=1 all under sanitizers, SAN= none'
	@echo 'make test-ci  the second compiler, all sanitizers, and what takes long'
	@echo 'make test-all check-all, analyze, coverage: an hour or so; TABLE=docs/targets.md keeps the table'
	@echo 'make manifest writes tests/manifest anew, hashes of what must not change, and says what did'
	@echo 'make fuzz     fuzz every parser, the command line, and kernels against kernels with libFuzzer or'
	@echo '              FUZZER=afl, FUZZ_SECONDS=60 each (clang, afl++)'
	@echo 'make bench    time float and integers, all instruction sets, layer by layer (a minute)'
	@echo 'make bench-peers  the same network in other engines, turn by turn with this one'
	@echo 'make bench-train  train in C and in PyTorch, turn by turn, where PyTorch is at hand'
	@echo 'make web      the page for a browser: ptq.h in WebAssembly, one file that needs no server'
	@echo 'make check-web  opens it in Chromium and compares with the native program'
	@echo 'make bench-web  times it on node, beside TensorFlow Lite where that is at hand'
	@echo 'make figures  draw the figures of docs/ anew (minutes)'
	@echo 'make check-all  every compiler and processor at hand, under emulators; N=400 random networks,'
	@echo '              TABLE=FILE for the result as a table'
	@echo 'make coverage how much of ptq.h the tests reach (gcc, lcov)'
	@echo 'make analyze  clang-tidy, cppcheck, gcc -fanalyzer'
	@echo 'make data     download CIFAR-10 (162 MiB) into data/'
	@echo 'make install  program, header, man page, completions, pkg-config and CMake files:'
	@echo '              PREFIX=/usr/local, DESTDIR= for packagers; make uninstall removes them'
	@echo 'make lib      the shared library build/libptq.so, for other languages'
	@echo 'make clean    remove build/'
	@echo 'Variables: CC, CXX, SAN=1 (address and undefined-behaviour sanitizers), V=1 (commands shown)'

run: $(if $(and $(DATA),$(MODEL)),run-cifar10,run-shapes10)

run-cifar10: $(BUILD)/03_calibrate_convert_evaluate
	@$< '$(MODEL)' '$(DATA)'

FOR_CIFAR10 = For CIFAR-10 $(if $(DATA),there is no model here: set PTQ_MODEL to a ResNet8 file,$\
              run "make data" (162 MiB) or set CIFAR10_DIR to the folder of test_batch.bin) and $\
              "make run" again.

# The figures of docs/, most of them from Shapes-10. kernel.svg shows times, those of this machine.
FIGURES := number-line fold observers trace residual channels bits interval sensitivity

figures: $(BUILD)/figures $(BUILD)/ptq $(SHAPES)/test_batch.bin
	@for name in $(FIGURES); do \
	    echo "docs/figures/$$name.svg"; \
	    $< $$name docs/figures/$$name.svg '$(SHAPES_MODEL)' '$(SHAPES)' >/dev/null || exit 1; \
	done
	@for name in $$($(BUILD)/ptq mistake --list | cut -d' ' -f1); do \
	    $(BUILD)/ptq mistake $$name --model '$(SHAPES_MODEL)' --data '$(SHAPES)' || exit 1; \
	done >$(BUILD)/mistakes.txt
	@$< mistakes docs/figures/mistakes.svg <$(BUILD)/mistakes.txt
	@awk '/^```c part/ { inside = 1; next } /^```/ { inside = 0 } inside' docs/7-fast-kernel.md \
	    >$(BUILD)/kernel.c
	@$(CC) -std=c99 -O3 -march=native $(BUILD)/kernel.c -o $(BUILD)/kernel
	@$(BUILD)/kernel times | $< kernel docs/figures/kernel.svg

run-shapes10: $(BUILD)/03_calibrate_convert_evaluate $(SHAPES)/test_batch.bin
	@echo 'Shapes-10, ten drawn objects: $(SHAPES)$(if $(PTQ_MODEL), (PTQ_MODEL is for CIFAR-10))'
	@$(BUILD)/03_calibrate_convert_evaluate '$(SHAPES_MODEL)' '$(SHAPES)'
	@echo '$(FOR_CIFAR10)'

$(SHAPES)/test_batch.bin: $(BUILD)/shapes10
	@rm -rf $(@D)
	@$< $(@D) --train 2000 --test 2000

# Two variants may be at it at once: each writes a file of its own, and the last one stays.
build/models/%-int8.safetensors: examples/models/%.safetensors | $(BUILD)/ptq \
                                 $(SHAPES)/test_batch.bin
	@mkdir -p $(@D)
	@$(BUILD)/ptq quantize --model $< $(INTEGERS_FROM_$*) --no-measure -o $@.$(VARIANT) \
	    >$(BUILD)/integers.log
	@mv $@.$(VARIANT) $@

INTEGERS_FROM_resnet8-shapes10 = --data $(SHAPES)
INTEGERS_FROM_resnet8-cifar10  = --preset tflite \
                                 --calibration examples/models/resnet8-cifar10.calibration.json

print-build:
	@echo $(BUILD)

# The integer model is a real one where there are training images, and kept; else the tool makes one
# that is good for its speed alone.
BENCH_MODEL = $(BUILD)/bench_int8.safetensors
bench bench-peers: $(BUILD)/ptq
	@if [ -n '$(MODEL)' ] && [ -f '$(DATA)/data_batch_1.bin' ] && \
	    { [ ! -f '$(BENCH_MODEL)' ] || [ '$(BUILD)/ptq' -nt '$(BENCH_MODEL)' ]; }; then \
	    $(BUILD)/ptq quantize --model '$(MODEL)' --data '$(DATA)' --preset tflite \
	        -o '$(BENCH_MODEL)' >'$(BUILD)/bench_int8.log' || exit 1; \
	fi
	@$(RUN_$@)

RUN_bench = $(BUILD)/ptq bench --table --json '$(BUILD)/bench.json' \
            $(if $(MODEL),--model '$(MODEL)') \
            $$(test ! -f '$(BENCH_MODEL)' || echo --quantized '$(BENCH_MODEL)')
RUN_bench-peers = sh tools/bench_peers.sh '$(BUILD)' '$(PTQ_SHARED)/peers' '$(MODEL)' \
                  '$(BENCH_MODEL)'

# The page: two builds of the library, models, and drawn pictures, in one file.
WEB       := $(BUILD)/web
WEB_PARTS := $(addprefix $(WEB)/,simd.wasm scalar.wasm shapes10/test_batch.bin)
WASM_CC   ?= clang --target=wasm32-wasi

web: $(WEB)/ptq.html
	@echo 'open $< in a browser'

$(WEB)/ptq.html: $(WEB_PARTS) $(wildcard examples/web/* examples/models/*)
	@sh examples/web/build.sh examples/web/page.html $(WEB) >$@.part && mv $@.part $@

$(WEB)/simd.o: private CFLAGS += -msimd128
$(WEB)/%.o: examples/web/ptq_web.c ptq.h
	@mkdir -p $(@D)
	$(Q)$(WASM_CC) $(filter-out -pthread -fsanitize% -fno-sanitize%,$(CFLAGS)) -c $< -o $@

.SECONDARY: $(WEB)/simd.o $(WEB)/scalar.o
$(WEB)/%.wasm: $(WEB)/%.o
	$(Q)$(WASM_CC) -nostartfiles -Wl,--no-entry,--strip-all,--stack-first,-z,stack-size=1048576 \
	    $< -o $@

$(WEB)/shapes10/test_batch.bin: $(BUILD)/shapes10
	@rm -rf $(@D) && mkdir -p $(WEB)
	@$< $(@D) --train 100 --test 100

check-web: $(BUILD)/ptq
	@sh tests/check_web.sh $(BUILD) || [ $$? -eq 77 ]

bench-web: $(BUILD)/ptq $(WEB_PARTS)
	@sh tools/bench_web.sh $(WEB) '$(PTQ_SHARED)'
bench-train: $(BUILD)/ptq $(BUILD)/shapes10
	@sh tools/bench_train.sh $^

data:
	@sh tools/get_cifar10.sh data

PREFIX  ?= /usr/local
DESTDIR ?=

install: $(BUILD)/ptq
	@sh tools/install/install.sh '$(BUILD)' '$(PREFIX)' '$(DESTDIR)'

uninstall:
	@sh tools/install/install.sh --remove '$(PREFIX)' '$(DESTDIR)'

# For other languages: the public functions as a shared library.
lib: $(BUILD)/libptq.so

$(BUILD)/libptq.so: $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) -shared $< -lm -o $@

clean:
	rm -rf build

$(BUILD):
	@mkdir -p $@

# Rewritten only when the libraries change, so that the tool is built anew when one is installed.
$(BUILD)/libs: FORCE | $(BUILD)
	@echo '$(LIBS)' | cmp -s - $@ || echo '$(LIBS)' >$@

# One object for programs and for the shared library: it takes ten seconds to compile.
$(BUILD)/ptq_impl.o: tools/ptq_impl.c ptq.h | $(BUILD)
	$(Q)$(CC) $(CFLAGS) -fPIC -fno-semantic-interposition -c $< -o $@

# What the compiler of another project's format makes is not held to our warnings.
$(BUILD)/onnx/onnx.pb-c.c: $(ONNX_PROTO) | $(BUILD)
	$(Q)protoc-c --c_out=$(BUILD) -I$(patsubst %/onnx/onnx.proto,%,$(ONNX_PROTO)) $(ONNX_PROTO)

$(BUILD)/onnx/onnx.pb-c.h: $(BUILD)/onnx/onnx.pb-c.c ;

$(BUILD)/onnx.pb-c.o: $(BUILD)/onnx/onnx.pb-c.c
	$(Q)$(CC) $(filter-out $(WARN),$(CFLAGS)) -w -isystem $(BUILD) -c $< -o $@

ONNX_USERS := onnx_file onnx_import onnx_export import export
$(ONNX_USERS:%=$(BUILD)/ptq-%.o): $(ONNX_HEADER)

$(BUILD)/ptq-%.o: tools/ptq/%.c $(wildcard tools/ptq/*.h) ptq.h $(BUILD)/libs
	$(Q)$(CC) $(CFLAGS) -D_POSIX_C_SOURCE=200809L $(LIB_CFLAGS) -c $< -o $@

# C code that the tool writes into headers, as a list of C strings.
$(BUILD)/%.inc: tools/ptq/%.h | $(BUILD)
	@sed 's/[\\"]/\\&/g; s/.*/"&\\n",/' $< >$@

$(BUILD)/ptq-c_header.o $(BUILD)/ptq-c_standalone.o: CFLAGS += -I$(BUILD)
$(BUILD)/ptq-c_header.o $(BUILD)/ptq-c_standalone.o $(BUILD)/ptq-export.o: tools/ptq/c_header.h
$(BUILD)/ptq-c_header.o: tools/ptq/library_runner.h $(BUILD)/library_runner.inc
$(BUILD)/ptq-c_standalone.o: $(BUILD)/standalone_kernels.inc
$(BUILD)/ptq-import.o $(BUILD)/ptq-torch.o: tools/ptq/torch.h
$(BUILD)/test_standalone: tools/ptq/standalone_kernels.h

# Training may fuse multiplications and additions: its results need not be the same everywhere.
TRAINER := $(patsubst %,$(BUILD)/ptq-%.o,trainer trainer_kernels optimizer)
$(BUILD)/ptq-trainer_kernels.o: CFLAGS += -ffp-contract=fast
$(TRAINER) $(BUILD)/ptq-train.o: $(wildcard tools/ptq/trainer*.h tools/ptq/optimizer.h)

$(BUILD)/ptq: $(TOOL_OBJECTS) $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $^ $(LIB_LDFLAGS) -lm -o $@

# Without vector kernels, to make what is the same on every machine: tests/cli_manifest.sh.
$(BUILD)/ptq_impl-scalar.o: tools/ptq_impl.c ptq.h | $(BUILD)
	$(Q)$(CC) $(CFLAGS) -DPTQ_NO_SIMD -c $< -o $@

$(BUILD)/ptq-scalar: $(TOOL_OBJECTS) $(BUILD)/ptq_impl-scalar.o
	$(Q)$(CC) $(CFLAGS) $^ $(LIB_LDFLAGS) -lm -o $@

# Programs that make data sets.
$(BUILD)/cifar_files.o: tools/cifar_files.c tools/cifar_files.h ptq.h | $(BUILD)
	$(Q)$(CC) $(CFLAGS) -D_POSIX_C_SOURCE=200809L -c $< -o $@

$(BUILD)/shapes10: tools/shapes10.c $(BUILD)/cifar_files.o $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $^ -lm -o $@

# Undefined shifts in stb_image are its own affair; what it does to memory is ours.
$(BUILD)/stb.o: tools/stb_impl.c | $(BUILD)
	$(Q)$(CC) $(CFLAGS) -w $(if $(SAN),-fno-sanitize=undefined) -c $< -o $@

# The figures of docs/.
$(BUILD)/figures: tools/figures.c $(BUILD)/ptq-svg.o $(BUILD)/ptq_impl.o tools/ptq/svg.h
	$(Q)$(CC) $(CFLAGS) -Itools $(filter-out %.h,$^) -lm -o $@

$(BUILD)/images2cifar: tools/images2cifar.c $(BUILD)/cifar_files.o $(BUILD)/ptq_impl.o \
                       $(BUILD)/stb.o
	$(Q)$(CC) $(CFLAGS) -D_POSIX_C_SOURCE=200809L $^ -lm -o $@

# An example by itself is compiled by "cc -O2 -pthread FILE -lm". Here the implementation that it
# asks for is the one object that everything links, for it takes most of the time to compile.
LINK_EXAMPLE = -DPTQ_IMPLEMENTATION_DONE $(filter %.c %.cpp %.o,$^) -lm -o $@

$(filter-out %/08_from_cpp %/09_two_files,$(EXAMPLES)): $(BUILD)/%: examples/%.c ptq.h \
                                                        $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $(LINK_EXAMPLE)

$(BUILD)/08_from_cpp: examples/08_from_cpp.cpp ptq.h $(BUILD)/ptq_impl.o
	$(Q)$(CXX) $(patsubst -std=c99,-std=c++11,$(CFLAGS)) $(LINK_EXAMPLE)

# This one compares with the integer models.
$(BUILD)/06_classify_a_picture: | $(INTEGER_MODELS)
ifeq ($(STB),)
$(BUILD)/06_classify_a_picture: no-stb
	@false
endif

$(BUILD)/09_two_files: $(wildcard examples/09_two_files/*.[ch]) ptq.h $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $(LINK_EXAMPLE)

include tests/tests.mk
