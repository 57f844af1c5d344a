/* The kernels of a processor other than the one at hand, under an emulator or in a WebAssembly
   runtime: needs nothing but the header. See check_all.sh.

     kernels_main N                        self-test, and N random networks of each kind, for every
                                           instruction set that there is
     kernels_main N MODEL PIXELS           and the logits of a model for the first 20 records of a
                                           CIFAR-10 file, as a checksum, scalar included
     kernels_main isa NAME N [...]         with one instruction set

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
    printf("%s: %ld integer networks equal, %ld float networks close\n", name, count, count);
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

static int check_logits(ptq_isa only, const char *model_path, const char *pixels_path)
{
    static uint8_t record[20][3073], pixels[20 * 3072];
    ptq_model *model = NULL;
    ptq_error err;
    uint32_t scalar = 0, sum;
    FILE *file = fopen(pixels_path, "rb");
    int i, isa, bad;
    if (!file || fread(record, sizeof record[0], 20, file) != 20) {
        printf("%s: no 20 CIFAR-10 records\n", pixels_path);
        return 1;
    }
    fclose(file);
    for (i = 0; i < 20; i++)
        memcpy(pixels + i * 3072, record[i] + 1, 3072);
    if (ptq_model_load(model_path, NULL, &model, &err))
        return failed("model", model_path, &err);
    bad = logits_of(PTQ_ISA_SCALAR, model, pixels, &scalar);
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT && !bad; isa++) {
        if (!ptq_isa_available((ptq_isa)isa) || (only && isa != (int)only))
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

int main(int argc, char **argv)
{
    ptq_isa only = PTQ_ISA_AUTO;
    int isa, bad = 0, some = 0;
    if (argc > 2 && !strcmp(argv[1], "isa")) {
        only = ptq_isa_find(argv[2]);
        argc -= 2;
        argv += 2;
    }
    if (argc != 2 && argc != 4) {
        printf("usage: kernels_main [isa NAME] COUNT [MODEL PIXELS]\n");
        return 1;
    }
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_available((ptq_isa)isa) && (!only || isa == (int)only)) {
            bad |= check_networks((ptq_isa)isa, strtol(argv[1], NULL, 10));
            some = 1;
        }
    if (!some)
        printf("no vector kernels here\n");
    if (argc == 4)
        bad |= check_logits(only, argv[2], argv[3]);
    return bad || !some;
}
