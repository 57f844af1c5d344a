/* bench_layers_onednn [SECONDS]: oneDNN (version 2) on the layers of bench_layers, one thread, with
   the tensors' layouts that it likes best; codes unsigned, weights signed, a scale for each channel,
   a ReLU fused, as there. */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "layers.h"

using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;

struct layer {
    const char *name;
    int size, in, out, kernel, stride, groups;
};

static const layer layers[] = {
#define X(...) {__VA_ARGS__},
    BENCH_LAYERS(X)
#undef X
};

static double microseconds() {
    using namespace std::chrono;
    return (double)duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count() *
           1e-3;
}

static memory filled(const memory::desc &desc, const engine &cpu, int value) {
    memory m(desc, cpu);
    std::memset(m.get_data_handle(), value, desc.get_size());
    return m;
}

static void time_layer(const layer &l, bool integer, double seconds) {
    engine cpu(engine::kind::cpu, 0);
    stream queue(cpu);
    int g = l.groups, side = (l.size + l.stride - 1) / l.stride;
    int pads = std::max((side - 1) * l.stride + l.kernel - l.size, 0), before = pads / 2;
    memory::dims w{l.out, l.in, l.kernel, l.kernel};
    if (g > 1)
        w = {g, l.out / g, l.in / g, l.kernel, l.kernel};
    type codes = integer ? type::u8 : type::f32;
    convolution_forward::desc desc(prop_kind::forward_inference, algorithm::convolution_direct,
                                   {{1, l.in, l.size, l.size}, codes, tag::any},
                                   {w, integer ? type::s8 : type::f32, tag::any},
                                   {{l.out}, integer ? type::s32 : type::f32, tag::a},
                                   {{1, l.out, side, side}, codes, tag::any}, {l.stride, l.stride},
                                   {before, before}, {pads - before, pads - before});
    primitive_attr attr;
    post_ops after;
    if (integer)
        attr.set_output_scales(2, std::vector<float>((size_t)l.out, 0.01f));
    after.append_eltwise(1, algorithm::eltwise_relu, 0, 0);
    attr.set_post_ops(after);
    convolution_forward::primitive_desc best(desc, attr, cpu);
    convolution_forward run(best);
    std::unordered_map<int, memory> of{{DNNL_ARG_SRC, filled(best.src_desc(), cpu, 1)},
                                       {DNNL_ARG_WEIGHTS, filled(best.weights_desc(), cpu, 1)},
                                       {DNNL_ARG_BIAS, filled(best.bias_desc(), cpu, 0)},
                                       {DNNL_ARG_DST, filled(best.dst_desc(), cpu, 0)}};
    std::vector<double> took;
    double begin = microseconds();
    for (int i = 0; i < 2003 && (i < 4 || microseconds() - begin < seconds * 1e6); i++) {
        double start = microseconds();
        run.execute(queue, of);
        queue.wait();
        if (i >= 3)
            took.push_back(microseconds() - start);
    }
    std::sort(took.begin(), took.end());
    double macs = (double)side * side * l.out * l.kernel * l.kernel * l.in / g;
    double median = took[took.size() / 2];
    std::printf("LAYER onednn %s %.2f %.2f %.1f 0 %s\n", integer ? "int8" : "float", median,
                took[0], macs / median * 1e-3, l.name);
    std::fflush(stdout);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? std::atof(argv[1]) : 1;
    for (const layer &l : layers)
        for (int integer = 0; integer < 2; integer++)
            time_layer(l, integer != 0, seconds);
    return 0;
}
