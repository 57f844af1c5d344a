/* CIFAR-10 files, sampling, evaluation over data sets of every kind. */
#include "test.h" /* first: it asks for POSIX */

#include <pthread.h>

enum { RECORD = PTQ_CIFAR10_RECORD };

/* Record `n` of a synthetic file: its label is n % 10, its pixels tell n, plane and place. */
static uint8_t pixel_of(int n, int plane, int place) {
    return (uint8_t)(n * 31 + plane * 7 + place);
}

static void make_record(uint8_t *record, int n) {
    int plane, place;

    record[0] = (uint8_t)(n % 10);
    for (plane = 0; plane < 3; plane++)
        for (place = 0; place < 1024; place++)
            record[1 + plane * 1024 + place] = pixel_of(n, plane, place);
}

/* `count` records from number `first` on, in a buffer to be freed. */
static uint8_t *make_records(int first, int count) {
    uint8_t *bytes = (uint8_t *)malloc((size_t)count * RECORD + 1);
    int i;

    assert_non_null(bytes);
    for (i = 0; i < count; i++)
        make_record(bytes + i * RECORD, first + i);
    return bytes;
}

static void write_records(const char *name, int first, int count) {
    uint8_t *bytes = make_records(first, count);

    write_file(in_directory(name), bytes, (size_t)count * RECORD);
    free(bytes);
}

/* Image `index` is record number `n`, channels innermost. */
static void assert_record(const ptq_dataset *data, size_t index, int n) {
    uint8_t pixels[3072];
    int label = -1, i;

    assert_ok(data->get(data->user, index, pixels, &label, &err));
    assert_int_equal(label, n % 10);
    for (i = 0; i < 3072; i++)
        if (pixels[i] != pixel_of(n, i % 3, i / 3))
            fail_msg("image %d, byte %d", (int)index, i);
}

/* ---------------------------------------------------------------------------------------------
   The reader */

static void records_from_memory(void **state) {
    uint8_t *bytes = make_records(4, 13), pixels[3072];
    ptq_cifar10 *data = NULL;
    ptq_dataset view;
    size_t i;
    int label;

    (void)state;
    assert_ok(ptq_cifar10_parse(bytes, 13 * RECORD, NULL, &data, &err));
    memset(bytes, 0, 13 * RECORD); /* copied, not borrowed */
    free(bytes);
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.count, 13);
    assert_int_equal(view.height, 32);
    assert_int_equal(view.width, 32);
    assert_int_equal(view.channels, 3);
    assert_int_equal(view.classes, 10);
    assert_string_equal(view.class_name[0], "airplane");
    assert_string_equal(view.class_name[9], "truck");
    assert_ptr_equal(view.class_name, ptq_cifar10_dataset(NULL)->class_name);
    for (i = 0; i < 13; i++)
        assert_record(&view, i, (int)i + 4);
    assert_int_not_equal(view.get(view.user, 13, pixels, &label, &err), PTQ_OK);
    ptq_cifar10_free(data);
    view = *ptq_cifar10_dataset(NULL);
    assert_int_equal(view.count, 0);
}

static void damaged_records(void **state) {
    uint8_t *bytes = make_records(0, 5);
    ptq_cifar10 *data = NULL;

    (void)state;
    assert_fails(PTQ_BAD_DATA, "", ptq_cifar10_parse(bytes, 0, NULL, &data, &err));
    assert_fails(PTQ_BAD_DATA, "", ptq_cifar10_parse(bytes, 1, NULL, &data, &err));
    assert_fails(PTQ_BAD_DATA, "15364",
                 ptq_cifar10_parse(bytes, 5 * RECORD - 1, NULL, &data, &err));
    bytes[3 * RECORD] = 10; /* one above the last class */
    assert_fails(PTQ_BAD_DATA, "10", ptq_cifar10_parse(bytes, 5 * RECORD, NULL, &data, &err));
    assert_non_null(strstr(err.text, "record 3"));
    bytes[3 * RECORD] = 255;
    assert_fails(PTQ_BAD_DATA, "255", ptq_cifar10_parse(bytes, 5 * RECORD, NULL, &data, &err));
    assert_null(data);
    free(bytes);
}

static void one_file_or_a_directory(void **state) {
    ptq_cifar10 *data = NULL;
    ptq_dataset view;
    size_t i;

    (void)state;
    write_records("data_batch_10.bin", 30, 2); /* numeric order: 1, 2, 10 */
    write_records("data_batch_2.bin", 20, 3);
    write_records("data_batch_1.bin", 10, 1);
    write_records("test_batch.bin", 50, 4);
    assert_ok(ptq_cifar10_open(test_directory, PTQ_SPLIT_TRAIN, NULL, &data, &err));
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.count, 6);
    assert_record(&view, 0, 10);
    for (i = 1; i < 4; i++)
        assert_record(&view, i, 19 + (int)i);
    assert_record(&view, 4, 30);
    assert_record(&view, 5, 31);
    ptq_cifar10_free(data);
    assert_ok(ptq_cifar10_open(test_directory, PTQ_SPLIT_TEST, NULL, &data, &err));
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.count, 4);
    assert_record(&view, 3, 53);
    ptq_cifar10_free(data);
    /* a file is itself, whatever the split */
    assert_ok(
        ptq_cifar10_open(in_directory("data_batch_2.bin"), PTQ_SPLIT_TEST, NULL, &data, &err));
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.count, 3);
    assert_record(&view, 0, 20);
    ptq_cifar10_free(data);
}

static void expect_open_failure(ptq_split split, const char *says) {
    ptq_cifar10 *data = NULL;
    ptq_status status = ptq_cifar10_open(test_directory, split, NULL, &data, &err);

    if (status == PTQ_OK || !strstr(err.text, says))
        fail_msg("%s: \"%s\"; wanted \"%s\"", ptq_name(PTQ_NAMES_STATUS, status),
                 status ? err.text : "", says);
    assert_null(data);
}

static void damaged_files_are_named(void **state) {
    uint8_t *bytes = make_records(0, 2);

    (void)state;
    write_records("data_batch_1.bin", 0, 2);
    write_file(in_directory("data_batch_2.bin"), bytes, 2 * RECORD - 7);
    expect_open_failure(PTQ_SPLIT_TRAIN, "data_batch_2.bin");
    write_file(in_directory("data_batch_2.bin"), "", 0);
    expect_open_failure(PTQ_SPLIT_TRAIN, "data_batch_2.bin");
    bytes[RECORD] = 77;
    write_file(in_directory("test_batch.bin"), bytes, 2 * RECORD);
    expect_open_failure(PTQ_SPLIT_TEST, "77");
    assert_non_null(strstr(err.text, "test_batch.bin"));
    free(bytes);
}

static void wrong_directories(void **state) {
    ptq_cifar10 *data = NULL;

    (void)state;
    expect_open_failure(PTQ_SPLIT_TEST, test_directory); /* nothing there at all */
    assert_fails(
        PTQ_IO_ERROR, "no-such-place",
        ptq_cifar10_open(in_directory("no-such-place"), PTQ_SPLIT_TEST, NULL, &data, &err));
    write_file(in_directory("cifar-10-binary.tar.gz"), "\x1F\x8B", 2);
    expect_open_failure(PTQ_SPLIT_TEST, "cifar-10-binary.tar.gz");
    remove(in_directory("cifar-10-binary.tar.gz"));
    write_file(in_directory("data_batch_1.mat"), "MATLAB 5.0", 10);
    expect_open_failure(PTQ_SPLIT_TRAIN, "Matlab");
    remove(in_directory("data_batch_1.mat"));
    write_file(in_directory("data_batch_1"), "\x80\x02}q", 4);
    expect_open_failure(PTQ_SPLIT_TRAIN, "Python");
    remove(in_directory("data_batch_1"));
    write_file(in_directory("test_batch"), "\x80\x02}q", 4);
    expect_open_failure(PTQ_SPLIT_TEST, "Python");
    remove(in_directory("test_batch"));
    write_records("data_batch_1.bin", 0, 1); /* training images, but no test set */
    expect_open_failure(PTQ_SPLIT_TEST, "test_batch.bin");
}

static void a_single_file_of_another_kind(void **state) {
    ptq_cifar10 *data = NULL;

    (void)state;
    write_file(in_directory("notes.txt"), "not images", 10);
    assert_int_not_equal(
        ptq_cifar10_open(in_directory("notes.txt"), PTQ_SPLIT_TEST, NULL, &data, &err), PTQ_OK);
    assert_non_null(strstr(err.text, "notes.txt"));
}

static void write_names(const char *text) {
    write_file(in_directory("batches.meta.txt"), text, strlen(text));
}

/* Names lie beside the data, a directory or one file, and say how many classes there are. */
static void names_of_classes(void **state) {
    ptq_cifar10 *data = NULL;
    ptq_dataset view;

    (void)state;
    write_records("test_batch.bin", 0, 3);
    write_names("cat\r\nsea horse\r\n\r\nz\xc3\xa9"
                "bra"); /* no newline at the end */
    assert_ok(ptq_cifar10_open(test_directory, PTQ_SPLIT_TEST, NULL, &data, &err));
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.classes, 3);
    assert_string_equal(view.class_name[0], "cat");
    assert_string_equal(view.class_name[1], "sea horse");
    assert_string_equal(view.class_name[2], "z\xc3\xa9"
                                            "bra");
    assert_record(&view, 2, 2);
    ptq_cifar10_free(data);
    data = NULL;
    write_names("a\nb\n");
    assert_fails(
        PTQ_BAD_DATA, "record 2 has label 2, labels are 0 to 1",
        ptq_cifar10_open(in_directory("test_batch.bin"), PTQ_SPLIT_TEST, NULL, &data, &err));
    write_names("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n\n");
    assert_ok(ptq_cifar10_open(in_directory("test_batch.bin"), PTQ_SPLIT_TEST, NULL, &data, &err));
    view = *ptq_cifar10_dataset(data);
    assert_int_equal(view.classes, 10);
    assert_string_equal(view.class_name[9], "9");
    ptq_cifar10_free(data);
    remove(in_directory("batches.meta.txt"));
    assert_ok(ptq_cifar10_open(test_directory, PTQ_SPLIT_TEST, NULL, &data, &err));
    assert_string_equal(ptq_cifar10_dataset(data)->class_name[0], "airplane");
    ptq_cifar10_free(data);
}

static void damaged_names(void **state) {
    static const char *const text[][2] = {
        {"", "no names"},
        {"\n\r\n\n", "no names"},
        {"a\nb\na\n", "two classes are named a"},
        {"a\tb\n", "control character"},
        {"\x1b[31mred\n", "control character"},
        {"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "more than 10"},
        {"012345678901234567890123456789012345678901234567890123456789012\n"
         "0123456789012345678901234567890123456789012345678901234567890123",
         "name of class 1"},
    };
    char longest[5001];
    int i;

    (void)state;
    write_records("test_batch.bin", 0, 1);
    for (i = 0; i < COUNT(text); i++) {
        write_names(text[i][0]);
        expect_open_failure(PTQ_SPLIT_TEST, text[i][1]);
        assert_non_null(strstr(err.text, "batches.meta.txt"));
    }
    memset(longest, '\n', 5000); /* all of it empty lines */
    longest[5000] = 0;
    write_names(longest);
    expect_open_failure(PTQ_SPLIT_TEST, "batches.meta.txt");
}

static void reader_runs_out_of_memory(void **state) {
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_cifar10 *data = NULL;
    ptq_status status = PTQ_OUT_OF_MEMORY;
    long n;

    (void)state;
    write_records("data_batch_1.bin", 0, 3);
    write_records("data_batch_2.bin", 3, 3);
    write_names("a\nb\nc\nd\ne\nf\n");
    for (n = 0; status != PTQ_OK; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        status = ptq_cifar10_open(test_directory, PTQ_SPLIT_TRAIN, &allocator, &data, &err);
        if (status == PTQ_OK)
            ptq_cifar10_free(data);
        assert_true(status == PTQ_OK || status == PTQ_OUT_OF_MEMORY);
        assert_int_equal(heap.live, 0);
    }
    assert_true(n > 2);
}

/* ---------------------------------------------------------------------------------------------
   PCG32 and sampling, once more from the published description */

typedef struct pcg {
    uint64_t state, inc;
} pcg;

static uint32_t pcg_next(pcg *g) {
    uint64_t old = g->state;
    uint32_t mixed = (uint32_t)(((old >> 18) ^ old) >> 27), turn = (uint32_t)(old >> 59);

    g->state = old * UINT64_C(6364136223846793005) + g->inc;
    return turn ? (mixed >> turn) | (mixed << (32 - turn)) : mixed;
}

static pcg pcg_start(uint64_t seed, uint64_t stream) {
    pcg g;

    g.state = 0;
    g.inc = 2 * stream + 1;
    pcg_next(&g);
    g.state += seed;
    pcg_next(&g);
    return g;
}

/* Evenly below `bound`: numbers under 2^32 mod bound are thrown away. */
static uint32_t pcg_below(pcg *g, uint32_t bound) {
    uint32_t reject = (uint32_t)((UINT64_C(1) << 32) % bound), r;

    do
        r = pcg_next(g);
    while (r < reject);
    return r % bound;
}

static void pcg32_reference_values(void **state) {
    /* the output of the reference implementation's demo: seed 42, stream 54 */
    static const uint32_t wanted[] = {0xa15c02b7u, 0x7b47f409u, 0xba1d3330u,
                                      0x83d2f293u, 0xbfa4784bu, 0xcbed606eu};
    ptq_rng rng;
    pcg mine;
    int i;

    (void)state;
    ptq_rng_seed(&rng, 42, 54);
    for (i = 0; i < COUNT(wanted); i++)
        assert_int_equal(ptq_rng_next(&rng), wanted[i]);
    ptq_rng_seed(&rng, UINT64_MAX, 7);
    mine = pcg_start(UINT64_MAX, 7);
    for (i = 0; i < 1000; i++)
        assert_int_equal(ptq_rng_next(&rng), pcg_next(&mine));
}

static void random_numbers_in_range(void **state) {
    static const uint32_t bounds[] = {1, 2, 3, 10, 1000, 0x80000001u, UINT32_MAX};
    ptq_rng rng;
    pcg mine;
    int i, j, seen[3] = {0, 0, 0};

    (void)state;
    ptq_rng_seed(&rng, 1, 2);
    mine = pcg_start(1, 2);
    for (i = 0; i < COUNT(bounds); i++)
        for (j = 0; j < 500; j++) {
            uint32_t r = ptq_rng_below(&rng, bounds[i]);
            assert_true(r < bounds[i]);
            assert_int_equal(r, pcg_below(&mine, bounds[i]));
            if (bounds[i] == 3)
                seen[r]++;
        }
    assert_true(seen[0] > 100 && seen[1] > 100 && seen[2] > 100);
    for (i = 0; i < 1000; i++) {
        float f = ptq_rng_float(&rng);
        assert_true(f >= 0 && f < 1);
        assert_true(f == floorf(f * 16777216) / 16777216); /* 24 bits */
    }
}

/* A data set whose labels are given; pixels do not matter. */
typedef struct labelled {
    const int *label;
    size_t asked;
} labelled;

static ptq_status get_label(void *user, size_t index, void *pixels, int *label, ptq_error *e) {
    labelled *l = (labelled *)user;

    (void)e;
    l->asked++;
    memset(pixels, 0, 12);
    *label = l->label[index];
    return PTQ_OK;
}

static ptq_dataset labelled_data(labelled *l, size_t count, int classes) {
    ptq_dataset d;

    memset(&d, 0, sizeof d);
    d.count = count;
    d.height = d.width = 2;
    d.channels = 3;
    d.classes = classes;
    d.type = PTQ_TYPE_U8;
    d.get = get_label;
    d.user = l;
    return d;
}

/* The sampling rule in its plainest form. */
static void sample_again(const int *label, size_t count, int classes, size_t wanted, uint64_t seed,
                         size_t *out) {
    unsigned char chosen[400];
    size_t pool[400], i, n, take;
    int c;

    memset(chosen, 0, sizeof chosen);
    for (c = 0; c < classes; c++) {
        pcg g = pcg_start(seed, (uint64_t)c);
        for (n = i = 0; i < count; i++)
            if (label[i] == c)
                pool[n++] = i;
        take = wanted / (size_t)classes + ((size_t)c < wanted % (size_t)classes);
        for (i = 0; i < take; i++) {
            size_t j = i + pcg_below(&g, (uint32_t)(n - i)), swap = pool[i];
            pool[i] = pool[j];
            pool[j] = swap;
            chosen[pool[i]] = 1;
        }
    }
    for (i = 0; i < count; i++)
        if (chosen[i])
            *out++ = i;
}

static void sampling_is_stratified_and_repeatable(void **state) {
    static const uint64_t seeds[] = {0, 1, 42, UINT64_MAX};
    test_random random = {8};
    int label[400], classes = 7, i;
    labelled l = {NULL, 0};
    ptq_dataset data;
    size_t j, n;

    (void)state;
    for (i = 0; i < 400; i++)
        label[i] = random_int(&random, 0, classes - 1);
    l.label = label;
    data = labelled_data(&l, 400, classes);
    for (i = 0; i < COUNT(seeds); i++)
        for (n = 1; n < 230; n += 38) {
            size_t got[400], again[400], wanted[400];
            int per_class[7] = {0, 0, 0, 0, 0, 0, 0}, c;

            assert_ok(ptq_sample(&data, n, seeds[i], got, NULL, &err));
            assert_ok(ptq_sample(&data, n, seeds[i], again, NULL, &err));
            assert_memory_equal(got, again, n * sizeof *got);
            for (j = 0; j < n; j++) {
                assert_true(j == 0 || got[j] > got[j - 1]); /* ascending, none twice */
                per_class[label[got[j]]]++;
            }
            for (c = 0; c < classes; c++) /* the first classes get the remainder */
                assert_int_equal(per_class[c], (int)n / classes + (c < (int)n % classes));
            sample_again(label, 400, classes, n, seeds[i], wanted);
            assert_memory_equal(got, wanted, n * sizeof *got);
        }
}

static void too_few_images_of_a_class(void **state) {
    static const int label[] = {0, 1, 2, 0, 1, 0, 1, 2, 0, 3};
    static const char *const names[] = {"ant", "bee", "cow", "dog"};
    labelled l = {NULL, 0};
    ptq_dataset data;
    size_t out[16], i, seen[4] = {0, 0, 0, 0};

    (void)state;
    l.label = label;
    data = labelled_data(&l, 10, 4);
    data.class_name = names;
    assert_ok(ptq_sample(&data, 4, 1, out, NULL, &err));
    assert_ok(ptq_sample(&data, 7, 1, out, NULL, &err)); /* 2 2 2 1 */
    /* The one dog, both cows, and of ants and bees what is left, ants first. */
    assert_ok(ptq_sample(&data, 8, 1, out, NULL, &err));
    for (i = 0; i < 8; i++)
        seen[label[out[i]]]++;
    assert_int_equal(seen[3], 1);
    assert_int_equal(seen[2], 2);
    assert_int_equal(seen[1], 2);
    assert_int_equal(seen[0], 3);
    assert_ok(ptq_sample(&data, 10, 1, out, NULL, &err)); /* all of it */
    for (i = 0; i < 10; i++)
        assert_int_equal(out[i], i);
    assert_fails(PTQ_BAD_DATA, "11", ptq_sample(&data, 11, 1, out, NULL, &err));
    assert_fails(PTQ_BAD_DATA, "", ptq_sample(&data, 0, 1, out, NULL, &err));
    assert_fails(PTQ_BAD_DATA, "", ptq_sample(&data, SIZE_MAX, 1, out, NULL, &err));
    data.classes = 3;
    assert_fails(PTQ_BAD_DATA, "3", ptq_sample(&data, 3, 1, out, NULL, &err)); /* label 3 */
}

/* Without labels every image is of one class; a mixture is a mistake. */
static void samples_without_labels(void **state) {
    int label[200];
    labelled l = {NULL, 0};
    ptq_dataset data;
    size_t out[50], again[50], i, spread = 0;

    (void)state;
    for (i = 0; i < 200; i++)
        label[i] = -1;
    l.label = label;
    data = labelled_data(&l, 200, 7);
    assert_ok(ptq_sample(&data, 50, 3, out, NULL, &err));
    for (i = 1; i < 50; i++) {
        assert_true(out[i] > out[i - 1] && out[i] < 200);
        spread += out[i] > out[i - 1] + 1;
    }
    assert_true(spread > 10);
    for (i = 0; i < 200; i++)
        label[i] = 0; /* the same as of one class with a name */
    data.classes = 1;
    assert_ok(ptq_sample(&data, 50, 3, again, NULL, &err));
    assert_memory_equal(out, again, sizeof out);
    label[77] = -1;
    assert_fails(PTQ_BAD_DATA, "image 77 has no label", ptq_sample(&data, 2, 3, out, NULL, &err));
    label[0] = -1;
    assert_fails(PTQ_BAD_DATA, "image 1 has a label", ptq_sample(&data, 2, 3, out, NULL, &err));
    label[0] = label[77] = 0;
    label[78] = -2;
    assert_fails(PTQ_BAD_DATA, "image 78 has label -2", ptq_sample(&data, 2, 3, out, NULL, &err));
}

static void sampling_runs_out_of_memory(void **state) {
    static const int label[] = {0, 1, 2, 0, 1, 0, 1, 2, 0, 2};
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    labelled l = {NULL, 0};
    ptq_dataset data;
    ptq_status status = PTQ_OUT_OF_MEMORY;
    size_t out[16];
    long n;

    (void)state;
    l.label = label;
    data = labelled_data(&l, 10, 3);
    for (n = 0; status != PTQ_OK; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        status = ptq_sample(&data, 6, 1, out, &allocator, &err);
        assert_true(status == PTQ_OK || status == PTQ_OUT_OF_MEMORY);
        assert_int_equal(heap.live, 0);
    }
}

static void subsets(void **state) {
    static const size_t indices[] = {4, 0, 4, 2}, beyond[] = {5, 6};
    uint8_t pixels[3072];
    int label;
    uint8_t *bytes = make_records(0, 6);
    ptq_cifar10 *data = NULL;
    const ptq_dataset *view;
    ptq_subset subset;

    (void)state;
    assert_ok(ptq_cifar10_parse(bytes, 6 * RECORD, NULL, &data, &err));
    free(bytes);
    assert_ok(ptq_subset_open(&subset, ptq_cifar10_dataset(data), indices, 4, &err));
    view = &subset.dataset;
    assert_int_equal(view->count, 4);
    assert_int_equal(view->classes, 10);
    assert_record(view, 0, 4);
    assert_record(view, 1, 0);
    assert_record(view, 3, 2);
    assert_fails(PTQ_INVALID_ARGUMENT, "image 4 of 4",
                 view->get(view->user, 4, pixels, &label, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "is 6; the data set has 6",
                 ptq_subset_open(&subset, ptq_cifar10_dataset(data), beyond, 2, &err));
    ptq_cifar10_free(data);
}

/* ---------------------------------------------------------------------------------------------
   Evaluation, on a network that counts: its logits are the means of the three channels */

typedef struct synthetic {
    int broken;  /* index at which something happens; -1: nowhere */
    int label;   /* the label there, or ... */
    int failure; /* ... an error */
} synthetic;

enum { SAMPLES = 60 };

/* Image i is brightest in channel i % 3; its label is that, but 0 for every fifth. */
static ptq_status get_synthetic(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    const synthetic *s = (const synthetic *)user;
    int i;

    for (i = 0; i < 12; i++)
        pixels[i] = (uint8_t)(i % 3 == (int)index % 3 ? 200 : 10);
    *label = index % 5 ? (int)index % 3 : 0;
    if ((int)index == s->broken && s->failure)
        return ptq_error_set(e, PTQ_IO_ERROR, "the tape broke at %zu", index);
    if ((int)index == s->broken)
        *label = s->label;
    return PTQ_OK;
}

/* The data set is one: the next call makes it another. */
static const ptq_dataset *synthetic_data(const synthetic *s) {
    static ptq_dataset d;

    memset(&d, 0, sizeof d);
    d.count = SAMPLES;
    d.height = d.width = 2;
    d.channels = d.classes = 3;
    d.type = PTQ_TYPE_U8;
    d.get = get_synthetic;
    d.user = (void *)(uintptr_t)s;
    return &d;
}

typedef struct counter {
    ptq_model *model;
    ptq_plan *plan;
} counter;

static counter open_counter(void) {
    counter c = {NULL, NULL};

    assert_ok(ptq_model_create(NULL, &c.model, &err));
    ptq_add_op(c.model, PTQ_OP_GLOBAL_AVG_POOL, "pool", ptq_add_input(c.model, "input", 2, 2, 3));
    assert_ok(ptq_plan_create(c.model, NULL, &c.plan, &err));
    return c;
}

static void close_counter(counter *c) {
    ptq_plan_free(c->plan);
    ptq_model_free(c->model);
}

static void evaluation_counts(void **state) {
    const synthetic good = {-1, 0, 0};
    counter c = open_counter();
    ptq_evaluation e;
    size_t wanted_total[3] = {0, 0, 0}, wanted_correct[3] = {0, 0, 0}, confusion[9] = {0}, i;

    (void)state;
    for (i = 0; i < SAMPLES; i++) {
        size_t label = i % 5 ? i % 3 : 0;
        wanted_total[label]++;
        wanted_correct[label] += label == i % 3;
        confusion[label * 3 + i % 3]++;
    }
    memset(&e, 0, sizeof e);
    assert_ok(ptq_evaluate(c.plan, synthetic_data(&good), NULL, &e, &err));
    assert_int_equal(e.total, SAMPLES);
    assert_int_equal(e.correct, 52); /* of 12 relabelled images 4 were class 0 anyway */
    assert_int_equal(e.classes, 3);
    assert_memory_equal(e.class_total, wanted_total, sizeof wanted_total);
    assert_memory_equal(e.class_correct, wanted_correct, sizeof wanted_correct);
    assert_memory_equal(e.confusion, confusion, sizeof confusion);
    for (i = 0; i < SAMPLES; i++) {
        assert_int_equal(e.label[i], i % 5 ? i % 3 : 0);
        assert_int_equal(e.prediction[i], i % 3);
        assert_near(e.logits[3 * i + i % 3], 200, 1e-4);
        assert_near(e.logits[3 * i + (i + 1) % 3], 10, 1e-4);
    }
    ptq_release(&e.memory);
    assert_null(e.memory.block[0]);
    ptq_release(&e.memory); /* twice is once */
    close_counter(&c);
}

static void evaluation_of_the_first_images(void **state) {
    const synthetic beyond = {7, 99, 0}; /* not reached */
    ptq_evaluate_options o;
    counter c = open_counter();
    ptq_evaluation e;

    (void)state;
    memset(&o, 0, sizeof o);
    o.limit = 7;
    assert_ok(ptq_evaluate(c.plan, synthetic_data(&beyond), &o, &e, &err));
    assert_int_equal(e.total, 7);
    ptq_release(&e.memory);
    o.limit = 100000; /* more than there are: all */
    {
        const synthetic good = {-1, 0, 0};
        assert_ok(ptq_evaluate(c.plan, synthetic_data(&good), &o, &e, &err));
        assert_int_equal(e.total, SAMPLES);
        ptq_release(&e.memory);
    }
    close_counter(&c);
}

/* The synthetic images as real numbers, a little brighter than bytes can say. */
static ptq_status get_real(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t pixels[12];
    float *real = (float *)item;
    int i;

    for (i = 0; i < 12; i++)
        real[i] = 0;
    if (get_synthetic(user, index, pixels, label, e))
        return PTQ_IO_ERROR;
    for (i = 0; i < 12; i++)
        real[i] = (float)pixels[i] + 0.25f;
    return PTQ_OK;
}

static ptq_status get_nan(void *user, size_t index, void *item, int *label, ptq_error *e) {
    ptq_status status = get_real(user, index, item, label, e);

    if (index == 5)
        memset(item, 255, sizeof(float));
    return status;
}

static void evaluation_of_real_numbers(void **state) {
    const synthetic good = {-1, 0, 0};
    ptq_dataset reals = *synthetic_data(&good);
    counter c = open_counter();
    ptq_evaluate_options o;
    ptq_evaluation e;
    size_t i;

    (void)state;
    memset(&o, 0, sizeof o);
    o.work.threads = 3;
    reals.type = PTQ_TYPE_F32;
    reals.get = get_real;
    assert_ok(ptq_evaluate(c.plan, &reals, &o, &e, &err));
    assert_int_equal(e.correct, 52);
    for (i = 0; i < SAMPLES; i++) {
        assert_near(e.logits[3 * i + i % 3], 200.25, 1e-4);
        assert_near(e.logits[3 * i + (i + 1) % 3], 10.25, 1e-4);
    }
    ptq_release(&e.memory);
    reals.get = get_nan;
    assert_fails(PTQ_BAD_NUMBER, "input 0", ptq_evaluate(c.plan, &reals, &o, &e, &err));
    close_counter(&c);
}

static void evaluation_refuses(void **state) {
    const synthetic high = {40, 3, 0}, low = {41, -1, 0}, failing = {42, 0, 1}, good = {-1, 0, 0};
    counter c = open_counter();
    ptq_evaluate_options o;
    ptq_dataset d;
    ptq_evaluation e;
    int threads;

    (void)state;
    memset(&o, 0, sizeof o);
    for (threads = 1; threads <= 3; threads += 2) {
        o.work.threads = threads;
        assert_fails(PTQ_BAD_DATA, "40", ptq_evaluate(c.plan, synthetic_data(&high), &o, &e, &err));
        assert_fails(PTQ_BAD_DATA, "image 41 has no label",
                     ptq_evaluate(c.plan, synthetic_data(&low), &o, &e, &err));
        assert_fails(PTQ_IO_ERROR, "tape",
                     ptq_evaluate(c.plan, synthetic_data(&failing), &o, &e, &err));
    }
    assert_fails(PTQ_BAD_DATA, "no images", ptq_evaluate(c.plan, NULL, NULL, &e, &err));
    d = *synthetic_data(&good);
    d.type = PTQ_TYPE_F16;
    assert_fails(PTQ_INVALID_ARGUMENT, "F16", ptq_evaluate(c.plan, &d, NULL, &e, &err));
    d = *synthetic_data(&good);
    d.count = 0;
    assert_fails(PTQ_BAD_DATA, "", ptq_evaluate(c.plan, &d, NULL, &e, &err));
    d = *synthetic_data(&good);
    d.height = 3;
    assert_fails(PTQ_BAD_DATA, "3", ptq_evaluate(c.plan, &d, NULL, &e, &err));
    d = *synthetic_data(&good);
    d.channels = 1;
    assert_fails(PTQ_BAD_DATA, "1", ptq_evaluate(c.plan, &d, NULL, &e, &err));
    d = *synthetic_data(&good);
    d.classes = 4;
    assert_fails(PTQ_BAD_DATA, "4", ptq_evaluate(c.plan, &d, NULL, &e, &err));
    close_counter(&c);
}

typedef struct watcher {
    pthread_t thread; /* that called the library */
    size_t calls, last, stop_at;
} watcher;

static int watch(void *user, size_t done, size_t total) {
    watcher *w = (watcher *)user;

    assert_true(pthread_equal(pthread_self(), w->thread));
    assert_int_equal(total, SAMPLES);
    assert_true(done >= w->last && done <= total);
    w->calls++;
    w->last = done;
    return done >= w->stop_at;
}

static ptq_status evaluate_watched(const counter *c, int threads, watcher *w) {
    const synthetic good = {-1, 0, 0};
    ptq_evaluate_options o;
    ptq_evaluation e;
    ptq_status status;

    memset(&o, 0, sizeof o);
    memset(&e, 0, sizeof e);
    o.work.progress = watch;
    o.work.threads = threads;
    o.work.user = w;
    w->thread = pthread_self();
    status = ptq_evaluate(c->plan, synthetic_data(&good), &o, &e, &err);
    assert_int_equal(status == PTQ_OK, e.total == SAMPLES);
    ptq_release(&e.memory);
    return status;
}

static void evaluation_reports_and_cancels(void **state) {
    watcher w;
    counter c = open_counter();
    ptq_status status;

    (void)state;
    memset(&w, 0, sizeof w);
    w.stop_at = SIZE_MAX;
    assert_ok(evaluate_watched(&c, 1, &w));
    assert_true(w.calls > 1);
    assert_int_equal(w.last, SAMPLES); /* the end is told, too */
    memset(&w, 0, sizeof w);           /* stops at the first call */
    assert_fails(PTQ_CANCELLED, "", evaluate_watched(&c, 1, &w));
    assert_int_equal(w.calls, 1);
    /* With more threads the calling one may find nothing left to do, and then never asks. */
    memset(&w, 0, sizeof w);
    status = evaluate_watched(&c, 3, &w);
    assert_int_equal(status, w.calls ? PTQ_CANCELLED : PTQ_OK);
    close_counter(&c);
}

static void threads_change_nothing(void **state) {
    uint8_t *bytes = make_records(0, 50);
    ptq_model *model = random_resnet8(32, 4, 10, 3, NULL);
    ptq_cifar10 *data = NULL;
    ptq_plan *plan = NULL;
    ptq_evaluate_options o;
    ptq_evaluation one, three;

    (void)state;
    assert_ok(ptq_cifar10_parse(bytes, 50 * RECORD, NULL, &data, &err));
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    memset(&o, 0, sizeof o);
    assert_ok(ptq_evaluate(plan, ptq_cifar10_dataset(data), &o, &one, &err));
    o.work.threads = 3;
    assert_ok(ptq_evaluate(plan, ptq_cifar10_dataset(data), &o, &three, &err));
    assert_int_equal(one.total, 50);
    assert_int_equal(one.correct, three.correct);
    assert_memory_equal(one.logits, three.logits, 50 * 10 * sizeof *one.logits);
    assert_memory_equal(one.confusion, three.confusion, 100 * sizeof *one.confusion);
    assert_memory_equal(one.label, three.label, 50 * sizeof *one.label);
    assert_memory_equal(one.prediction, three.prediction, 50 * sizeof *one.prediction);
    ptq_release(&one.memory);
    ptq_release(&three.memory);
    o.work.threads = 200; /* more than images */
    o.limit = 5;
    assert_ok(ptq_evaluate(plan, ptq_cifar10_dataset(data), &o, &one, &err));
    assert_int_equal(one.total, 5);
    ptq_release(&one.memory);
    ptq_plan_free(plan);
    ptq_cifar10_free(data);
    ptq_model_free(model);
    free(bytes);
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_from_memory),
        cmocka_unit_test(damaged_records),
        IN_DIRECTORY(one_file_or_a_directory),
        IN_DIRECTORY(damaged_files_are_named),
        IN_DIRECTORY(wrong_directories),
        IN_DIRECTORY(a_single_file_of_another_kind),
        IN_DIRECTORY(names_of_classes),
        IN_DIRECTORY(damaged_names),
        IN_DIRECTORY(reader_runs_out_of_memory),
        cmocka_unit_test(pcg32_reference_values),
        cmocka_unit_test(random_numbers_in_range),
        cmocka_unit_test(sampling_is_stratified_and_repeatable),
        cmocka_unit_test(too_few_images_of_a_class),
        cmocka_unit_test(samples_without_labels),
        cmocka_unit_test(sampling_runs_out_of_memory),
        cmocka_unit_test(subsets),
        cmocka_unit_test(evaluation_counts),
        cmocka_unit_test(evaluation_of_the_first_images),
        cmocka_unit_test(evaluation_of_real_numbers),
        cmocka_unit_test(evaluation_refuses),
        cmocka_unit_test(evaluation_reports_and_cancels),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
