/* Calibrating, and what a calibration warns of. */
#ifndef PTQ_TOOL_CALIBRATION_H
#define PTQ_TOOL_CALIBRATION_H

#include "data/images.h"
#include "ptq.h"
#include "shared/output.h"

int calibrate_on(const ptq_plan *plan, const image_sample *drawn, int threads,
                 ptq_calibration **out);

/* Fails if images of `data` were calibrated on. */
int refuse_overlap(const ptq_calibration *calibration, const ptq_dataset *data);

/* The warnings, one a line, to be freed; NULL without memory. */
char *calibration_warnings(const ptq_calibration *calibration);
void print_warnings(const ptq_calibration *calibration);

#ifdef PTQ_HAVE_jansson
/* As a list of sentences. */
json_t *json_warnings(const ptq_calibration *calibration);
#endif

#endif
