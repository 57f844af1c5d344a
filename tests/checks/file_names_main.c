/* Names of files in UTF-8, and files that exist already. Needs nothing but the header, so that it
   runs under Wine as well; check_all.sh prepares the folder and looks at it afterwards. */
#define PTQ_IMPLEMENTATION
#include "ptq.h"

#define MODEL "Gr\xc3\xb6\xc3\x9f\x65 \xe6\xa8\xa1\xe5\x9e\x8b.txt"
#define FOLDER "Bilder \xe5\x9b\xbe\xe7\x89\x87"
#ifdef _WIN32
#define RECORDS FOLDER "\\test_batch.bin"
#else
#define RECORDS FOLDER "/test_batch.bin"
#endif

static int check(int good, const char *what, const ptq_error *err) {
    if (!good)
        printf("%s: %s\n", what, err->text);
    return !good;
}

/* One record, whose folder names the classes. */
static int check_records(const char *path, const char *what) {
    ptq_cifar10 *data = NULL;
    ptq_error err = {PTQ_OK, ""};
    int bad;
    if (check(!ptq_cifar10_open(path, PTQ_SPLIT_TEST, NULL, &data, &err), what, &err))
        return 1;
    bad = check(ptq_cifar10_dataset(data)->count == 1 &&
                    !strcmp(ptq_cifar10_dataset(data)->class_name[0], "Gr\xc3\xb6\xc3\x9f\x65"),
                what, &err);
    ptq_cifar10_free(data);
    return bad;
}

int main(void) {
    ptq_error err = {PTQ_OK, ""};
    void *bytes = NULL;
    size_t size = 0;
    int bad = check(!ptq_file_write(MODEL, "old bytes", 9, &err), "writing", &err) ||
              check(!ptq_file_write(MODEL, "new", 3, &err), "replacing", &err) ||
              check(!ptq_file_read(MODEL, 0, NULL, &bytes, &size, &err), "reading", &err) ||
              check(size == 3 && !memcmp(bytes, "new", 3), "what was replaced", &err) ||
              check_records(FOLDER, "a folder") || check_records(RECORDS, "a file in a folder");
    free(bytes);
    return bad || check(ptq_file_read("\xff\xfe.bin", 0, NULL, &bytes, &size, &err) == PTQ_IO_ERROR,
                        "a name that is not UTF-8", &err);
}
