/* Flash and RAM of standalone headers, layer by layer, before anyone compiles them; and whether they
   are as little as is asked for. */
#include <stdio.h>
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"
#include "shared/output.h"

/* What gcc 12.2 -O2 makes of the code for a Cortex-M4 (measured on ResNet8 and on MobileNet-like
   networks of `make mcu`), rounded up: of all kernels, and of each convolution in strips, which with
   --small share theirs. */
enum { CODE_KERNELS = 6000, CODE_STRIP = 1100, CODE_SMALL_STRIP = 160 };

/* The buffers that all layers share are behind the arena. */
static size_t shared_bytes(const header *h) { return strips_bytes(h) + 2 * h->patch; }

size_t budget_code(const header *h, int small) {
    return CODE_KERNELS + (size_t)((small ? CODE_SMALL_STRIP : CODE_STRIP) * h->strips.count);
}

static size_t code_bytes(const header *h) { return budget_code(h, h->small); }

/* ---- What lives ---- */

/* The result of `index` lies in the arena: not the caller's pixels, nor the logits. */
static int is_stored(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];

    return node->q.type != PTQ_TYPE_F32 && !(index == h->start && h->pixels_in_place);
}

/* While `at` runs; what it writes over is counted as its result. */
static int lives(const header *h, int index, int at) {
    if (!is_stored(h, index))
        return 0;
    if (index == at)
        return 1;
    if (is_stored(h, at) && offset_of(h, index) == offset_of(h, at))
        return 0;
    for (int i = at; i <= h->logits; i++)
        for (int k = 0; k < 2; k++)
            if (h->model->node[i].input[k] == index && index < at)
                return 1;
    return 0;
}

static size_t live_bytes(const header *h, int at) {
    size_t bytes = 0;

    for (int i = h->start; i <= at; i++)
        if (lives(h, i, at))
            bytes += elements(h->model->node[i].shape);
    return bytes;
}

static int find_peak(const header *h) {
    int peak = h->start;

    for (int i = h->start; i <= h->logits; i++)
        if (live_bytes(h, i) > live_bytes(h, peak))
            peak = i;
    return peak;
}

/* "conv1.relu (16384 bytes) and block1.conv1.relu (16384)" */
static void name_peak(const header *h, char *text, size_t size) {
    int peak = find_peak(h), named = 0;

    *text = 0;
    for (int i = h->start; i <= peak; i++) {
        size_t used = strlen(text);

        if (lives(h, i, peak))
            snprintf(text + used, size - used, "%s%s (%zu bytes)", named++ ? " and " : "",
                     h->model->node[i].out, elements(h->model->node[i].shape));
    }
}

/* ---- What is said ---- */

void budget_tell(const header *h) {
    say("\n%-24s %9s %9s\n", "node", "flash", "RAM");
    for (int i = h->start; i <= h->logits; i++)
        say("%-24s %9zu %9zu\n", h->model->node[i].name, h->flash[i], live_bytes(h, i));
    say("%-24s %9s %9zu\n", "gaps between results", "", h->arena - live_bytes(h, find_peak(h)));
    say("%-24s %9s %9zu\n", "buffers of all nodes", "", shared_bytes(h));
    say("%-24s %9zu\n", "code, about", code_bytes(h));
    say("%-24s %9zu %9zu\n", "all", h->constants + code_bytes(h), h->arena + shared_bytes(h));
    say("%sode is estimated for a Cortex-M4, -O2.\n",
        h->small ? "C" : "RAM is most with Arm's DSP instructions or on ARMv6-M; c");
}

static int refuse_flash(const header *h, int limit) {
    return fail("constants take %zu bytes of flash and code about %zu, more than the %d of --flash;"
                " quantize with fewer --weight-bits%s",
                h->constants, code_bytes(h), limit, h->small ? "" : ", or give --small");
}

static int refuse_ram(const header *h, int limit) {
    char peak[400];

    name_peak(h, peak, sizeof peak);
    return fail(
        "the network takes %zu bytes of RAM, more than the %d of --ram: %zu of results, most "
        "at node %s, where %s live, and %zu of buffers%s",
        h->arena + shared_bytes(h), limit, h->arena, h->model->node[find_peak(h)].name, peak,
        shared_bytes(h),
        h->small ? "; it needs a network of smaller images or fewer channels"
                 : "; give --small, which needs fewer buffers");
}

/* 0 where it fits; else 1 after an error. */
int budget_check(const header *h, const header_form *form) {
    if (form->flash && h->constants + code_bytes(h) > (size_t)form->flash)
        return refuse_flash(h, form->flash);
    if (form->ram && h->arena + shared_bytes(h) > (size_t)form->ram)
        return refuse_ram(h, form->ram);
    return 0;
}
