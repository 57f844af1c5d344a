# The command-line tool, read by Makefile, and what is made with it: data, examples, figures, the
# page for browsers, timings.

.PHONY: no-stb mcu bench bench-peers bench-train evidence bench-web web check-web figures lib \
        print-build FORCE

print-build:
	@echo $(BUILD)

# ---- Libraries: the tool does without what is not here, and says so where it matters ----

LIB_NAMES ?= hdf5 jansson librsvg-2.0 zlib
LIBS    := $(shell for lib in $(LIB_NAMES); do pkg-config --exists $$lib && echo $$lib; \
             done 2>/dev/null)
ifneq ($(LIBS),)
LIB_CFLAGS  := $(patsubst %,-DPTQ_HAVE_%,$(patsubst librsvg-%,librsvg,$(LIBS))) \
               $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(LIBS)))
LIB_LDFLAGS := $(shell pkg-config --libs $(LIBS))
endif

# The tool and an example read pictures with stb_image.
STB := $(shell $(CC) -E -include stb/stb_image.h -x c /dev/null >/dev/null 2>&1 && echo stb)
ifneq ($(and $(STB),$(LIB_NAMES)),)
LIBS       += stb
LIB_CFLAGS += -DPTQ_HAVE_stb
STB_OBJECT := $(BUILD)/stb.o
endif

tools: $(BUILD)/ptq $(BUILD)/shapes10 $(if $(STB),,no-stb)

no-stb:
	@echo 'what reads pictures is left out: stb_image is not installed (Debian: libstb-dev)'

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

# What the compiler of another project's format makes is not held to our warnings.
$(BUILD)/onnx/onnx.pb-c.c: $(ONNX_PROTO) | $(BUILD)
	$(Q)protoc-c --c_out=$(BUILD) -I$(patsubst %/onnx/onnx.proto,%,$(ONNX_PROTO)) $(ONNX_PROTO)

$(BUILD)/onnx/onnx.pb-c.h: $(BUILD)/onnx/onnx.pb-c.c ;

$(BUILD)/onnx.pb-c.o: $(BUILD)/onnx/onnx.pb-c.c
	$(Q)$(CC) $(filter-out $(WARN),$(CFLAGS)) -w -isystem $(BUILD) -c $< -o $@

# Rewritten only when the libraries change, so that the tool is built anew when one is installed.
$(BUILD)/libs: FORCE | $(BUILD)
	@echo '$(LIBS)' | cmp -s - $@ || echo '$(LIBS)' >$@

$(BUILD):
	@mkdir -p $@

# ---- The tool: tools/ptq, an object a file ----

# One object for programs and for the shared library: it takes ten seconds to compile.
# No function may take more than 8 KiB of a stack, of which small systems have little.
FRAME := $(if $(or $(SAN),$(COVERAGE)),,-Wframe-larger-than=8192)
$(BUILD)/ptq_impl.o: tools/ptq_impl.c ptq.h | $(BUILD)
	$(Q)$(COMPILE) $(FRAME) -fPIC -fno-semantic-interposition -c $< -o $@

# C code that the tool writes into headers, as a list of C strings.
EXPORTED := $(patsubst %,$(BUILD)/%.inc,library_runner standalone_kernels \
             standalone_xnnpack standalone_fixed strips)
.SECONDARY: $(EXPORTED)
$(BUILD)/%.inc: tools/ptq/export/%.h | $(BUILD)
	@sed 's/[\\"]/\\&/g; s/.*/"&\\n",/' $< >$@

$(BUILD)/strips.inc: $(patsubst %,tools/ptq/export/strips/%.h,opening pairs mve dsp bytes thumb plain \
                                                           closing small) \
                     | $(BUILD)
	@sed 's/[\\"]/\\&/g; s/.*/"&\\n",/' $^ >$@

# Told here, for the compiler takes them for headers of the system, which it does not list.
$(BUILD)/tool/export/c_header.o: $(BUILD)/library_runner.inc
$(BUILD)/tool/export/c_arithmetic.o: $(patsubst %,$(BUILD)/standalone_%.inc,kernels xnnpack fixed)
$(BUILD)/tool/export/c_strips.o: $(BUILD)/strips.inc

TOOL_OBJECTS := $(patsubst tools/ptq/%.c,$(BUILD)/tool/%.o,$(wildcard tools/ptq/*.c \
                  tools/ptq/*/*.c)) $(ONNX_OBJECT) $(STB_OBJECT)

$(BUILD)/tool/%.o: tools/ptq/%.c $(BUILD)/libs | $(ONNX_HEADER) $(EXPORTED)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -Itools/ptq -I$(BUILD) -D_POSIX_C_SOURCE=200809L $(LIB_CFLAGS) -c $< -o $@

# Training may fuse multiplications and additions: its results need not be the same everywhere.
# What trains stands apart from what the subcommand does around it: test_train links it alone.
TRAINER := $(patsubst %,$(BUILD)/tool/train/%.o,trainer compile memory threads state weights fake \
             operators convolution norm kernels optimizer)
$(BUILD)/tool/train/kernels.o: CFLAGS += -ffp-contract=fast $(if $(SAN),-O1)

$(BUILD)/ptq: $(TOOL_OBJECTS) $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $^ $(LIB_LDFLAGS) -lm -o $@

# Without vector kernels, to make what is the same on every machine: tests/commands/cli_manifest.sh.
$(BUILD)/ptq_impl-scalar.o: tools/ptq_impl.c ptq.h | $(BUILD)
	$(Q)$(COMPILE) -DPTQ_NO_SIMD -c $< -o $@

$(BUILD)/ptq-scalar: $(TOOL_OBJECTS) $(BUILD)/ptq_impl-scalar.o
	$(Q)$(CC) $(CFLAGS) $^ $(LIB_LDFLAGS) -lm -o $@

#: make lib      the shared library build/libptq.so, for other languages
lib: $(BUILD)/libptq.so

$(BUILD)/libptq.so: $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) -shared $< -lm -o $@

# ---- Programs that make data sets: tools/data ----

$(BUILD)/cifar_files.o: tools/data/cifar_files.c | $(BUILD)
	$(Q)$(COMPILE) -D_POSIX_C_SOURCE=200809L -c $< -o $@

$(BUILD)/shapes10: tools/data/shapes10.c $(BUILD)/cifar_files.o $(BUILD)/ptq_impl.o
	$(Q)$(COMPILE) $(filter %.c %.o,$^) -lm -o $@

# Undefined shifts in stb_image are its own affair; what it does to memory is ours.
$(BUILD)/stb.o: tools/stb_impl.c | $(BUILD)
	$(Q)$(CC) $(CFLAGS) -w $(if $(SAN),-fno-sanitize=undefined) -c $< -o $@

$(SHAPES)/test_batch.bin: $(BUILD)/shapes10
	@rm -rf $(@D)
	@$< $(@D) --train 2000 --test 2000

# ---- Examples ----

EXAMPLES := $(patsubst examples/%,$(BUILD)/%,$(basename $(wildcard examples/*.c \
              examples/*.cpp)) examples/09_two_files)
HAVE_CXX := $(shell command -v $(firstword $(CXX)))
EXAMPLES := $(filter-out $(if $(STB),,%/06_classify_a_picture) $(if $(HAVE_CXX),,%/08_from_cpp), \
              $(EXAMPLES))

# The models of the repository in integers, for the examples. CIFAR-10's is quantized from a kept
# calibration: its images are not here.
INTEGER_MODELS := $(patsubst %,build/models/resnet8-%-int8.safetensors,shapes10 cifar10)

examples: $(EXAMPLES) $(SHAPES)/test_batch.bin $(INTEGER_MODELS)
	@$(if $(HAVE_CXX),:,echo '08_from_cpp is left out: there is no C++ compiler')

# An example by itself is compiled by "cc -O2 -pthread FILE -lm". Here the implementation that it
# asks for is the one object that everything links, for it takes most of the time to compile. What an
# example includes is among its prerequisites the second time, and not to be compiled by itself.
LINK_EXAMPLE = -DPTQ_IMPLEMENTATION_DONE $(filter-out examples/../%,$(filter %.c %.cpp %.o,$^)) -lm -o $@

$(filter-out %/08_from_cpp %/09_two_files,$(EXAMPLES)): $(BUILD)/%: examples/%.c \
                                                        $(BUILD)/ptq_impl.o
	$(Q)$(COMPILE) $(LINK_EXAMPLE)

$(BUILD)/08_from_cpp: examples/08_from_cpp.cpp ptq.h $(BUILD)/ptq_impl.o
	$(Q)$(CXX) $(patsubst -std=c99,-std=c++11,$(CFLAGS)) $(LINK_EXAMPLE)

$(BUILD)/09_two_files: $(wildcard examples/09_two_files/*.[ch]) ptq.h $(BUILD)/ptq_impl.o
	$(Q)$(CC) $(CFLAGS) $(LINK_EXAMPLE)

# This one compares with the integer models.
$(BUILD)/06_classify_a_picture: | $(INTEGER_MODELS)
ifeq ($(STB),)
$(BUILD)/06_classify_a_picture: no-stb
	@false
endif

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

# ---- The figures of docs/, most of them from Shapes-10 ----

#: make figures  draw the figures of docs/ anew (minutes)
FIGURES := number-line fold observers trace residual channels bits interval sensitivity

# kernel.svg shows times, those of this machine.
figures: $(BUILD)/figures $(BUILD)/ptq $(SHAPES)/test_batch.bin
	@for name in $(FIGURES); do \
	    echo "docs/figures/$$name.svg"; \
	    $< $$name docs/figures/$$name.svg '$(SHAPES_MODEL)' '$(SHAPES)' >/dev/null || exit 1; \
	done
	@for name in $$($(BUILD)/ptq mistake --list | cut -d' ' -f1); do \
	    $(BUILD)/ptq mistake $$name --model '$(SHAPES_MODEL)' --data '$(SHAPES)' || exit 1; \
	done >$(BUILD)/mistakes.txt
	@$< mistakes docs/figures/mistakes.svg <$(BUILD)/mistakes.txt
	@sh tools/docs/check_docs.sh --parts docs/7-fast-kernel.md >$(BUILD)/kernel.c
	@$(CC) -std=c99 -O3 -march=native $(BUILD)/kernel.c -o $(BUILD)/kernel
	@$(BUILD)/kernel times | $< kernel docs/figures/kernel.svg

$(BUILD)/figures: tools/docs/figures.c $(wildcard tools/docs/figures/*.[ch]) $(BUILD)/tool/report/svg.o \
                  $(patsubst %,$(BUILD)/tool/measure/%.o,explain arithmetic nodes search) $(BUILD)/ptq_impl.o
	$(Q)$(COMPILE) -Itools/ptq -Itools/docs $(filter %.c %.o,$^) -lm -o $@

# ---- Timings ----

#: make bench    time float and integers, all instruction sets, layer by layer; layers of ImageNet
#:               networks on the best one (a minute and a half)
#: make bench-peers  the same network in other engines, turn by turn with this one
#: make bench-train  train in C and in PyTorch, turn by turn, where PyTorch is at hand

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
            $$(test ! -f '$(BENCH_MODEL)' || echo --quantized '$(BENCH_MODEL)') && \
            sh tools/bench/bench_layers.sh '$(BUILD)/bench_layers'
RUN_bench-peers = sh tools/bench/bench_peers.sh '$(BUILD)' '$(PTQ_SHARED)/peers' '$(MODEL)' \
                  '$(BENCH_MODEL)' && \
                  sh tools/bench/bench_layers.sh '$(BUILD)/bench_layers' $(LAYERS_ONEDNN)

bench bench-peers: $(BUILD)/bench_layers
$(BUILD)/bench_layers: tools/bench/bench_layers.c $(BUILD)/ptq_impl.o \
                       $(filter-out $(BUILD)/tool/main.o,$(TOOL_OBJECTS))
	$(Q)$(COMPILE) -Itools/ptq -D_POSIX_C_SOURCE=200809L $(filter %.c %.o,$^) $(LIB_LDFLAGS) -lm -o $@

# oneDNN 2, where it is installed (Debian: libdnnl-dev); version 3 has another interface.
ifneq ($(wildcard $(addsuffix /include/oneapi/dnnl/dnnl.hpp,/usr /usr/local)),)
LAYERS_ONEDNN := $(BUILD)/bench_layers_onednn
bench-peers: $(LAYERS_ONEDNN)
endif
$(BUILD)/bench_layers_onednn: tools/bench/bench_layers.cpp tools/bench/layers.h | $(BUILD)
	$(Q)$(CXX) -O2 $< -ldnnl -o $@

bench-train: $(BUILD)/ptq $(BUILD)/shapes10
	@sh tools/bench/bench_train.sh $^

#: make evidence  what each step of best and best-high adds, at several bits: an hour or two
evidence: $(BUILD)/ptq
	@sh tools/docs/evidence.sh $<

# ---- Microcontrollers, under QEMU ----

#: make mcu      the network on emulated microcontrollers: instructions, flash, RAM, stack, equality;
#:               CPU=cortex-m4 and MODELS=resnet8 one alone, IMAGES=200, EXPORT=--small
mcu: $(BUILD)/ptq $(BUILD)/shapes10
	@IMAGES='$(IMAGES)' MODELS='$(MODELS)' EXPORT='$(EXPORT)' sh tools/mcu/mcu.sh '$(BUILD)' '$(PTQ_SHARED)' $(CPU)

# ---- The page: two builds of the library, models, and drawn pictures, in one file ----

#: make web      the page for a browser: ptq.h in WebAssembly, one file that needs no server
#: make check-web  opens it in Chromium and compares with the native program
#: make bench-web  times it on node, beside TensorFlow Lite where that is at hand
WEB       := $(BUILD)/web
WEB_PARTS := $(addprefix $(WEB)/,simd.wasm scalar.wasm shapes10/test_batch.bin)
WASM_CC   ?= clang --target=wasm32-wasi

web: $(WEB)/ptq.html
	@echo 'open $< in a browser'

$(WEB)/ptq.html: $(WEB_PARTS) $(wildcard examples/web/* examples/models/*)
	@sh examples/web/build.sh examples/web/page.html $(WEB) >$@.part && mv $@.part $@

$(WEB)/simd.wasm: private CFLAGS += -msimd128
$(WEB)/%.wasm: examples/web/ptq_web.c tools/ptq/measure/arithmetic.c \
               tools/ptq/measure/arithmetic.h ptq.h
	@mkdir -p $(@D)
	$(Q)$(WASM_CC) $(filter-out -pthread -fsanitize% -fno-sanitize%,$(CFLAGS)) -Itools/ptq \
	    -nostartfiles -Wl,--no-entry,--strip-all,--stack-first,-z,stack-size=1048576 \
	    $(filter %.c,$^) -o $@

$(WEB)/shapes10/test_batch.bin: $(BUILD)/shapes10
	@rm -rf $(@D) && mkdir -p $(WEB)
	@$< $(@D) --train 100 --test 100

check-web: $(BUILD)/ptq
	@sh tests/checks/check_web.sh $(BUILD) || [ $$? -eq 77 ]

bench-web: $(BUILD)/ptq $(WEB_PARTS)
	@sh tools/bench/bench_web.sh $(WEB) '$(PTQ_SHARED)'
