/* Metadata that mean something, versions of files, and the types of inputs in the graph text. */
#include "test.h"

/* Input -> dense layer with two classes. */
static ptq_model *two_classes(const char *input) {
    char text[200];
    ptq_model *model = NULL;

    snprintf(text, sizeof text,
             "ptq-graph 1\ninput input shape=1x2x1%s\nfc dense in=input channels=2\n", input);
    assert_ok(ptq_graph_parse(text, strlen(text), NULL, &model, &err));
    return model;
}

static void refuses_graph(const char *says, const char *node) {
    char text[200];
    ptq_model *model = NULL;

    snprintf(text, sizeof text, "ptq-graph 1\n%s\nfc dense in=input channels=2\n", node);
    assert_fails(PTQ_BAD_GRAPH, says, ptq_graph_parse(text, strlen(text), NULL, &model, &err));
}

static void types_of_inputs(void **state) {
    ptq_model *model = two_classes(" type=u8");
    char text[200];

    (void)state;
    assert_int_equal(model->node[0].real, 0);
    ptq_graph_write(model, text, sizeof text);
    assert_null(strstr(text, "type")); /* as ever */
    ptq_model_free(model);
    model = two_classes(" type=f32 mean=2 std=4");
    assert_int_equal(model->node[0].real, 1);
    ptq_graph_write(model, text, sizeof text);
    assert_string_equal(text, "ptq-graph 1\ninput input shape=1x2x1 type=f32 mean=2 std=4\n"
                              "fc dense in=input channels=2\n");
    ptq_model_free(model);
    refuses_graph("cannot use 'f64' as type", "input input shape=1x2x1 type=f64");
    refuses_graph("as type", "input input shape=1x2x1 type=");
    refuses_graph("as type", "input input shape=1x2x1 type=f32x");
    refuses_graph("does not take 'type'", "input input shape=1x2x1 type=f32 type=f32");
    refuses_graph("quantize node behind", "input input shape=1x2x1 type=f32 q=u8:8:1:0");
    refuses_graph("does not take 'type'", "input input shape=1x2x1\na relu in=input type=f32");
}

/* The file of a model with one digit of its version changed. */
static ptq_status parse_version(const ptq_model *model, char version, char *was) {
    static const char key[] = "\"format_version\":\"";
    ptq_model *read = NULL;
    ptq_status status;
    void *bytes;
    size_t size, i = 0;

    assert_ok(ptq_model_write(model, &bytes, &size, &err));
    while (memcmp((char *)bytes + i, key, sizeof key - 1) != 0)
        i++;
    i += sizeof key - 1;
    *was = ((char *)bytes)[i];
    if (version)
        ((char *)bytes)[i] = version;
    status = ptq_model_parse(bytes, size, NULL, &read, &err);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(read);
    return status;
}

static void versions(void **state) {
    ptq_model *pixels = two_classes(""), *reals = two_classes(" type=f32");
    char was;

    (void)state;
    assert_ok(parse_version(pixels, 0, &was));
    assert_int_equal(was, '1');
    assert_ok(parse_version(pixels, '2', &was)); /* says more than it needs */
    assert_ok(parse_version(reals, 0, &was));
    assert_int_equal(was, '2');
    assert_fails(PTQ_BAD_FILE, "format_version 1, the graph needs 2",
                 parse_version(reals, '1', &was));
    assert_fails(PTQ_BAD_FILE, "newer version", parse_version(reals, '3', &was));
    ptq_model_free(pixels);
    ptq_model_free(reals);
}

static void names_of_classes(void **state) {
    ptq_model *model = two_classes(""), *copy = NULL;
    char name[PTQ_CLASS_NAME_SIZE];

    (void)state;
    assert_int_equal(ptq_class_name(model, 0, name, sizeof name), 0);
    assert_string_equal(name, "");
    assert_ok(
        ptq_model_set_meta(model, "class_names", " [\"kite\", \"n\\u00e9e \\\"b\\\"\"] ", &err));
    assert_ok(ptq_model_check(model, &err));
    assert_ok(ptq_fuse(model, &copy, NULL, &err));
    assert_int_equal(ptq_class_name(copy, 0, name, sizeof name), 4);
    assert_string_equal(name, "kite");
    assert_int_equal(ptq_class_name(copy, 1, name, sizeof name), 8);
    assert_string_equal(name, "n\xc3\xa9"
                              "e \"b\"");
    assert_int_equal(ptq_class_name(copy, 0, name, 3), 4); /* as snprintf */
    assert_string_equal(name, "ki");
    assert_int_equal(ptq_class_name(copy, 0, NULL, 0), 4);
    assert_int_equal(ptq_class_name(copy, 2, name, sizeof name), 0);
    assert_int_equal(ptq_class_name(copy, -1, name, sizeof name), 0);
    assert_string_equal(name, "");
    ptq_model_free(copy);
    ptq_model_free(model);
}

/* What is neither refused when it is set, nor can be used: by a check, and in a file. */
static void metadata_that_are_wrong(void **state) {
    static const struct {
        const char *key, *value, *says;
    } wrong[] = {
        {"class_names", "kite,owl", "class_names: expected a list at byte 0"},
        {"class_names", "", "a list"},
        {"class_names", "[\"kite\",\"owl\"", "a comma"},
        {"class_names", "[\"kite\",\"owl\"]]", "the end"},
        {"class_names", "[\"kite\",2]", "a string"},
        {"class_names", "[\"kite\",[\"owl\"]]", "a string"},
        {"class_names", "{\"kite\":\"owl\"}", "a list"},
        {"class_names", "[\"kite\",\"o\\ud800wl\"]", "legal character"},
        {"class_names", "[\"kite\",\"o\\nwl\"]", "control characters"},
        {"class_names", "[\"kite\",\"\"]", "1 to 63 bytes"},
        {"class_names",
         "[\"kite\",\"0123456789012345678901234567890123456789012345678901234567890123\"]",
         "1 to 63 bytes"},
        {"class_names", "[]", "has 0 names, the model has 2 classes"},
        {"class_names", "[\"kite\"]", "has 1 names"},
        {"class_names", "[\"kite\",\"owl\",\"wren\"]", "has 3 names, the model has 2 classes"},
        {"resize", "zoom", "resize is 'zoom'; it must be crop or stretch"},
        {"resize", "", "crop or stretch"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ptq_model *model = two_classes(""), *read = NULL;
        ptq_tensor *weight = ptq_model_param(model, "fc.weight");
        ptq_tensor *bias = ptq_model_param(model, "fc.bias");
        ptq_archive *a = NULL;
        char graph[200];
        void *bytes;
        size_t size;

        assert_ok(ptq_model_set_meta(model, wrong[i].key, wrong[i].value, &err));
        assert_fails(PTQ_BAD_FILE, wrong[i].says, ptq_model_check(model, &err));
        assert_ok(ptq_archive_create(NULL, &a, &err));
        ptq_graph_write(model, graph, sizeof graph);
        assert_ok(ptq_archive_set_meta(a, "format", "ptq", &err));
        assert_ok(ptq_archive_set_meta(a, "format_version", "1", &err));
        assert_ok(ptq_archive_set_meta(a, "graph", graph, &err));
        assert_ok(ptq_archive_set_meta(a, wrong[i].key, wrong[i].value, &err));
        assert_ok(ptq_archive_add(a, "fc.weight", weight, &err));
        assert_ok(ptq_archive_add(a, "fc.bias", bias, &err));
        assert_ok(ptq_archive_write(a, &bytes, &size, &err));
        assert_fails(PTQ_BAD_FILE, wrong[i].says, ptq_model_parse(bytes, size, NULL, &read, &err));
        assert_null(read);
        ptq_bytes_free(bytes, NULL);
        ptq_archive_free(a);
        ptq_model_free(model);
    }
}

static void rules_for_pictures(void **state) {
    ptq_model *model = two_classes("");

    (void)state;
    assert_ok(ptq_model_set_meta(model, "resize", "crop", &err));
    assert_ok(ptq_model_check(model, &err));
    assert_ok(ptq_model_set_meta(model, "resize", "stretch", &err));
    assert_ok(ptq_model_check(model, &err));
    ptq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_of_inputs),    cmocka_unit_test(versions),
        cmocka_unit_test(names_of_classes),   cmocka_unit_test(metadata_that_are_wrong),
        cmocka_unit_test(rules_for_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
