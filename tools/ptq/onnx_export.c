#include "onnx.h"
int export_onnx(const char *m,const char*o,const char*f){(void)m,(void)o,(void)f;return 1;}
