/* A program in two files: classifier.c holds the implementation of ptq.h and the network, this one
   includes the header for the data alone. It may be compiled again and again in no time.

       build/09_two_files [MODEL.safetensors CIFAR-10-FOLDER]

   By hand: cc -O2 examples/09_two_files/main.c examples/09_two_files/classifier.c -lm
*/
#include <stdio.h>

#include "../../ptq.h"

#include "classifier.h"

enum { SHOWN = 10 };

int main(int argc, char **argv) {
    const char *model = argc == 3 ? argv[1] : "build/models/resnet8-shapes10-int8.safetensors";
    const char *folder = argc == 3 ? argv[2] : "build/shapes10-data";
    char reason[PTQ_ERROR_SIZE];
    classifier *c = classifier_open(model, reason, sizeof reason);
    ptq_cifar10 *file = NULL;
    ptq_dataset data;
    ptq_error err;
    uint8_t pixels[32 * 32 * 3];
    size_t i, right = 0;
    int label, answer;

    if (!c)
        return fprintf(stderr, "%s\n", reason), 1;
    if (ptq_cifar10_open(folder, PTQ_SPLIT_TEST, NULL, &file, &err)) {
        classifier_close(c);
        return fprintf(stderr, "%s\n", err.text), 1;
    }
    data = *ptq_cifar10_dataset(file);
    for (i = 0; i < data.count; i++) {
        if (data.get(data.user, i, pixels, &label, &err))
            break;
        answer = classifier_run(c, pixels);
        right += answer == label;
        if (i < SHOWN && answer >= 0)
            printf("image %zu, %-9s answer: %s\n", i, data.class_name[label],
                   data.class_name[answer]);
    }
    printf("... %zu of %zu right, by version %s of the library\n", right, i, ptq_version());
    ptq_cifar10_free(file);
    classifier_close(c);
    return i < data.count;
}
