/* The layers of ImageNet networks that are timed: X(name, rows and columns of the input, its
   channels, those of the output, rows and columns of the kernel, stride, groups). */
#ifndef PTQ_BENCH_LAYERS_H
#define PTQ_BENCH_LAYERS_H

#define BENCH_LAYERS(X)                                                                            \
    X("7x7/2 3-64 at 224", 224, 3, 64, 7, 2, 1)                                                    \
    X("3x3 64-64 at 56", 56, 64, 64, 3, 1, 1)                                                      \
    X("3x3 128-128 at 28", 28, 128, 128, 3, 1, 1)                                                  \
    X("3x3 256-256 at 14", 14, 256, 256, 3, 1, 1)                                                  \
    X("3x3 512-512 at 7", 7, 512, 512, 3, 1, 1)                                                    \
    X("1x1 64-256 at 56", 56, 64, 256, 1, 1, 1)                                                    \
    X("1x1 512-128 at 28", 28, 512, 128, 1, 1, 1)                                                  \
    X("1x1 256-1024 at 14", 14, 256, 1024, 1, 1, 1)                                                \
    X("1x1 2048-512 at 7", 7, 2048, 512, 1, 1, 1)                                                  \
    X("depthwise 32 at 112", 112, 32, 32, 3, 1, 32)                                                \
    X("depthwise/2 128 at 56", 56, 128, 128, 3, 2, 128)                                            \
    X("depthwise 512 at 14", 14, 512, 512, 3, 1, 512)

#endif
