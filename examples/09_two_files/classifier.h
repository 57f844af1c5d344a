/* What the rest of a program sees of a network: no type of ptq.h, so that nothing else depends on
   it. */
#ifndef CLASSIFIER_H
#define CLASSIFIER_H

#include <stddef.h>

typedef struct classifier classifier;

/* NULL on failure, with the reason in `reason`. */
classifier *classifier_open(const char *model, char *reason, size_t size);
void classifier_close(classifier *c);

/* The class of an image of 32 x 32 x 3 bytes, R G B R G B ...; -1 on failure. */
int classifier_run(classifier *c, const unsigned char *pixels);

#endif
