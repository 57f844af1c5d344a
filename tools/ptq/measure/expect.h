/* Analytic bias correction: what rounding weights adds to a layer's results on average, computed
   without images. */
#ifndef PTQ_TOOL_EXPECT_H
#define PTQ_TOOL_EXPECT_H

#include "ptq.h"

/* Corrects the biases of every layer of `quantized` that runs on integers. `fused` is the float
   model that it was converted from, with rounding to nearest, and `calibration` that of the
   conversion; `original`, the float model before fusing, has the batch norms. PTQ_NOT_READY if the
   calibration saw no pixels, nor real inputs. */
ptq_status correct_biases(const ptq_model *fused, const ptq_model *original,
                          const ptq_calibration *calibration, ptq_model *quantized, ptq_error *err);

/* The same, with the original in a file. The metadata `scheme` say so behind the choices for single
   nodes. */
ptq_status correct_biases_of(const char *original, const ptq_model *fused,
                             const ptq_calibration *calibration, ptq_model *quantized,
                             ptq_error *err);

#endif
