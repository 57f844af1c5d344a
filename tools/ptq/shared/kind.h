/* What a file is, by its content: other programs' models are often given where ours belong. */
#ifndef PTQ_TOOL_KIND_H
#define PTQ_TOOL_KIND_H

typedef enum file_kind {
    KIND_OTHER, /* a model file, or nothing that is known here */
    KIND_ONNX,
    KIND_HDF5,
    KIND_STATE_DICT, /* PyTorch's tensors in a safetensors file without a graph */
    KIND_KERAS,
    KIND_TORCH,
    KIND_TFLITE,
    KIND_SAVED_MODEL,
    KIND_NPZ,
    KIND_NPY,
    KIND_PICTURE,
    KIND_ZIP,
    KIND_GZIP,
    KIND_JSON,
    KIND_GRAPH,
    KIND_DIRECTORY,
    KIND_EMPTY
} file_kind;

/* KIND_OTHER, too, for a file that is not there or cannot be read: who opens it says why. */
file_kind kind_of_file(const char *path);

/* Says what the file is, that it is not `wanted`, and how one is made of it: by ptq import, or by
   other programs first. Returns 1. */
int refuse_kind(const char *path, file_kind kind, const char *wanted);

/* Where a model file belongs: 0, or 1 after saying what the file is instead. */
int refuse_foreign(const char *path);

#endif
