/* The kernels of a processor other than the one at hand, under an emulator or in a WebAssembly
   runtime: needs nothing but the header. See check_all.sh.

     kernels_main N                        self-test, and N random networks of each kind, for every
                                           instruction set that there is
     kernels_main N PIXELS MODEL...        and the logits of integer models for the first 20 records
                                           of a CIFAR-10 file, as checksums, scalar included

   Prints a line for each; exit status 0 only if all agree with the scalar kernels. */
#define PTQ_IMPLEMENTATION
#include "ptq.h"

static int failed(const char *isa, const char *what, const ptq_error *err)
{
    printf("%s: %s: %s\n", isa, what, err->text);
    return 1;
}

static int check_networks(ptq_isa isa, long count)
{
    const char *name = ptq_isa_name(isa);
    ptq_error err;
    long seed;
    int integer;
    if (ptq_kernel_self_test(isa, &err))
        return failed(name, "self-test", &err);
    for (seed = 0; seed < 2 * count; seed++) {
        integer = seed % 2 == 0;
        if (ptq__probe_once(isa, 1000 + (uint64_t)(seed / 2), integer, &err))
            return failed(name, integer ? "integer network" : "float network", &err);
    }
    printf("%s: self-test, %ld integer networks equal, %ld float networks close\n", name, count,
           count);
    return 0;
}

/* FNV-1a of the logits of 20 images. */
static int logits_of(ptq_isa isa, const ptq_model *model, const uint8_t *pixels, uint32_t *sum)
{
    ptq_plan_options options;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_error err;
    float logits[20 * 10];
    ptq_status status;
    size_t i;
    memset(&options, 0, sizeof options);
    options.isa = isa;
    status = ptq_plan_create(model, &options, &plan, &err);
    if (!status)
        status = ptq_session_create(plan, NULL, &session, &err);
    if (!status)
        status = ptq_run(session, pixels, 20, logits, NULL, &err);
    ptq_session_free(session);
    ptq_plan_free(plan);
    if (status)
        return failed(ptq_isa_name(isa), "logits", &err);
    for (*sum = 2166136261u, i = 0; i < sizeof logits; i++)
        *sum = (*sum ^ ((const uint8_t *)logits)[i]) * 16777619u;
    printf("%s: logits %08x\n", ptq_isa_name(isa), (unsigned)*sum);
    return 0;
}

static int check_logits(const uint8_t *pixels, const char *path)
{
    ptq_model *model = NULL;
    ptq_error err;
    uint32_t scalar = 0, sum;
    int isa, bad;
    if (ptq_model_load(path, NULL, &model, &err))
        return failed("model", path, &err);
    bad = logits_of(PTQ_ISA_SCALAR, model, pixels, &scalar);
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT && !bad; isa++) {
        if (!ptq_isa_available((ptq_isa)isa))
            continue;
        bad = logits_of((ptq_isa)isa, model, pixels, &sum);
        if (!bad && sum != scalar) {
            printf("%s: the logits differ from those of scalar\n", ptq_isa_name((ptq_isa)isa));
            bad = 1;
        }
    }
    ptq_model_free(model);
    return bad;
}

static int read_pixels(const char *path, uint8_t *pixels)
{
    uint8_t record[3073];
    FILE *file = fopen(path, "rb");
    int i;
    for (i = 0; i < 20 && file && fread(record, sizeof record, 1, file) == 1; i++)
        memcpy(pixels + i * 3072, record + 1, 3072);
    if (file)
        fclose(file);
    if (i == 20)
        return 0;
    printf("%s: there are no 20 CIFAR-10 records to read\n", path);
    return 1;
}

int main(int argc, char **argv)
{
    static uint8_t pixels[20 * 3072];
    int isa, i, bad = 0, some = 0;
    if (argc < 2) {
        printf("usage: kernels_main COUNT [PIXELS MODEL...]\n");
        return 1;
    }
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_available((ptq_isa)isa)) {
            bad |= check_networks((ptq_isa)isa, strtol(argv[1], NULL, 10));
            some = 1;
        }
    if (!some)
        printf("no vector kernels here\n");
    if (argc > 2)
        bad |= read_pixels(argv[2], pixels);
    for (i = 3; i < argc && !bad; i++)
        bad |= check_logits(pixels, argv[i]);
    return bad || !some;
}
