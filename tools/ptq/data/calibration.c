/* Calibrating, and what a calibration warns of. */
#include <stdlib.h>
#include <string.h>

#include "data/calibration.h"
#include "data/images.h"
#include "ptq.h"
#include "shared/output.h"
#include "shared/progress.h"

int calibrate_on(const ptq_plan *plan, const image_sample *drawn, int threads,
                 ptq_calibration **out) {
    ptq_calibrate_options options = {0};
    progress state = progress_start("calibrate");
    ptq_status status;
    ptq_error err;

    options.work.threads = threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_calibrate(plan, &drawn->subset.dataset, &options, out, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

int refuse_overlap(const ptq_calibration *calibration, const ptq_dataset *data) {
    size_t found = 0;
    ptq_error err;

    if (ptq_calibration_overlap(calibration, data, &found, &err))
        return fail("%s", err.text);
    if (!found)
        return 0;
    return fail("%zu of the %zu test images were calibrated on, so that their accuracy would say "
                "nothing; calibrate on training images alone",
                found, data->count);
}

char *calibration_warnings(const ptq_calibration *calibration) {
    size_t length = ptq_calibration_warnings(calibration, NULL, 0);
    char *text = malloc(length + 1);

    if (text)
        ptq_calibration_warnings(calibration, text, length + 1);
    return text;
}

void print_warnings(const ptq_calibration *calibration) {
    char *text = calibration_warnings(calibration);

    for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        warn("%s", line);
    free(text);
}

#ifdef PTQ_HAVE_jansson

json_t *json_warnings(const ptq_calibration *calibration) {
    json_t *list = json_array();
    char *text = calibration_warnings(calibration);

    for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        json_array_append_new(list, json_string(line));
    free(text);
    return list;
}

#endif
