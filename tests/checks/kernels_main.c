/* What the header computes as another compiler, processor, emulator or runtime has it: needs
   nothing but the header and shared/probes.h. See check_all.sh.

     kernels_main N                        self-test, and N random networks of each kind, for every
                                           instruction set that there is besides scalar
     kernels_main N RECORDS MODEL...       and the logits of integer models for the records of a
                                           CIFAR-10 file, 200 at most, as checksums, scalar included

   Prints a line for each; exit status 0 only if all agree with the scalar kernels. */
#define PTQ_IMPLEMENTATION
#include "ptq.h"

#include "../../tools/ptq/measure/kernel_test.c"
#include "../shared/probes.h"

enum { MOST_IMAGES = 200, CLASSES = 10 };

static int failed(const char *isa, const char *what, const ptq_error *err) {
    printf("%s: %s: %s\n", isa, what, err->text);
    return 1;
}

static int check_networks(ptq_isa isa, long count) {
    const char *name = ptq_name(PTQ_NAMES_ISA, isa);
    ptq_error err;
    long seed;
    int integer;
    if (test_kernels(isa, &err))
        return failed(name, "self-test", &err);
    for (seed = 0; seed < 2 * count; seed++) {
        integer = seed % 2 == 0;
        if (probe_once(isa, 1000 + (uint64_t)(seed / 2), integer, &err))
            return failed(name, integer ? "integer network" : "float network", &err);
    }
    printf("%s: self-test, %ld integer networks equal, %ld float networks close\n", name, count,
           count);
    return 0;
}

/* FNV-1a of 64 bits over the numbers as files have them, least significant byte first. */
static uint64_t checksum(const float *logits, int count) {
    uint64_t sum = 14695981039346656037u;
    uint32_t bits;
    int i, byte;
    for (i = 0; i < count; i++) {
        memcpy(&bits, &logits[i], sizeof bits);
        for (byte = 0; byte < 4; byte++)
            sum = (sum ^ (bits >> 8 * byte & 255)) * 1099511628211u;
    }
    return sum;
}

static int logits_of(ptq_isa isa, const ptq_model *model, const uint8_t *pixels, int images,
                     uint64_t *sum) {
    static float logits[MOST_IMAGES * CLASSES];
    ptq_plan_options options;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_error err;
    ptq_status status;
    memset(&options, 0, sizeof options);
    options.isa = isa;
    status = ptq_plan_create(model, &options, &plan, &err);
    if (!status)
        status = ptq_session_create(plan, NULL, &session, &err);
    if (!status)
        status = ptq_run(session, pixels, (size_t)images, logits, NULL, &err);
    ptq_session_free(session);
    ptq_plan_free(plan);
    if (status)
        return failed(ptq_name(PTQ_NAMES_ISA, isa), "logits", &err);
    *sum = checksum(logits, images * CLASSES);
    printf("%s: logits %08x%08x of %d images\n", ptq_name(PTQ_NAMES_ISA, isa),
           (unsigned)(*sum >> 32), (unsigned)(*sum & 0xffffffffu), images);
    return 0;
}

static int check_logits(const uint8_t *pixels, int images, const char *path) {
    ptq_model *model = NULL;
    ptq_error err;
    uint64_t scalar = 0, sum;
    int isa, bad;
    if (ptq_model_load(path, NULL, &model, &err))
        return failed("model", path, &err);
    bad = logits_of(PTQ_ISA_SCALAR, model, pixels, images, &scalar);
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT && !bad; isa++) {
        if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        bad = logits_of((ptq_isa)isa, model, pixels, images, &sum);
        if (!bad && sum != scalar) {
            printf("%s: the logits differ from those of scalar\n",
                   ptq_name(PTQ_NAMES_ISA, (unsigned)isa));
            bad = 1;
        }
    }
    ptq_model_free(model);
    return bad;
}

/* How many images there are. */
static int read_pixels(const char *path, uint8_t *pixels) {
    ptq_cifar10 *data = NULL;
    ptq_dataset set;
    ptq_error err;
    int i = 0, label;
    if (ptq_cifar10_open(path, PTQ_SPLIT_TEST, NULL, &data, &err)) {
        printf("%s\n", err.text);
        return 0;
    }
    set = *ptq_cifar10_dataset(data);
    while (i < MOST_IMAGES && (size_t)i < set.count &&
           !set.get(set.user, (size_t)i, pixels + i * 3072, &label, &err))
        i++;
    ptq_cifar10_free(data);
    return i;
}

int main(int argc, char **argv) {
    static uint8_t pixels[MOST_IMAGES * 3072];
    int isa, i, images = 0, bad = 0, some = 0;
    if (argc < 2) {
        printf("usage: kernels_main COUNT [RECORDS MODEL...]\n");
        return 1;
    }
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE) {
            bad |= check_networks((ptq_isa)isa, strtol(argv[1], NULL, 10));
            some = 1;
        }
    if (!some)
        printf("no vector kernels\n");
    if (argc > 2) {
        images = read_pixels(argv[2], pixels);
        bad |= !images;
    }
    for (i = 3; i < argc && !bad; i++)
        bad |= check_logits(pixels, images, argv[i]);
    return bad;
}
