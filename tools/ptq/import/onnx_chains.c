/* Functions that a file spells as a chain of operators, such as x * Sigmoid(x): one node here.

   The spellings are many: x / 6 or x * 0.1667, Pow or Mul, the constants on either side. So none is
   looked for; instead what a chain makes of numbers is computed, from every tensor that it might
   begin with, and compared with the functions that there are. The last node of a chain that equals
   one is replaced by one that reads the chain's beginning; what only the chain needed is then needed
   no more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

enum {
    MOST_STEPS = 40,     /* operators of a chain, counted again where their result is read again */
    MOST_BEGINNINGS = 12 /* tensors */
};

struct chain {
    onnx_node node; /* in place of ... */
    onnx_node *original;
    size_t index; /* ... which is that of the graph */
    char *input;
    chain *next;
};

/* A chain at hand: what it makes of x, where it begins with a tensor. */
typedef struct trial {
    importer *im;
    const char *beginning;
    double x;
    int steps;
    const char *found[MOST_BEGINNINGS]; /* all tensors that it reads, on any way */
    int count;
} trial;

static const onnx_node *maker_of(const importer *im, const char *name) {
    const value *made = find_value(im, name);

    return made && made->maker ? im->graph->node[made->maker - 1] : NULL;
}

/* Constant nodes are looked at before their turn. */
static int is_number(importer *im, const char *name, double *out) {
    const onnx_node *maker = maker_of(im, name), *before = im->at;
    value *from = find_value(im, name);

    if (!from)
        return 0;
    if (from->state == STATE_UNKNOWN && maker && maker->n_output == 1 &&
        strcmp(text_or(maker->op_type, "?"), "Constant") == 0 && maker->n_attribute == 1 &&
        maker->attribute[0]->t) {
        im->at = maker;
        import_constant(im);
        im->at = before;
    }
    if (from->state != STATE_CONSTANT || from->codes.numbers || load_constant(im, from) ||
        from->constant.count != 1 || from->constant.type != ONNX_FLOAT)
        return 0;
    *out = (double)constant_float(&from->constant, 0);
    return 1;
}

static double trial_value(trial *t, const char *name);

static double operand(trial *t, const onnx_node *node, size_t i, double otherwise) {
    return has_input(node, i) ? trial_value(t, node->input[i]) : otherwise;
}

static double attribute(trial *t, const onnx_node *node, const char *name, double otherwise) {
    double number;

    t->im->at = node;
    number = (double)float_attribute(t->im, name, (float)otherwise);
    return number;
}

/* Of one operator; NAN where it is none that works element by element. */
static double apply(trial *t, const onnx_node *node) {
    const char *op = text_or(node->op_type, "?");
    double x = operand(t, node, 0, NAN), y;

    if (node->n_output != 1 || *text_or(node->domain, ""))
        return NAN;
    if (strcmp(op, "Sigmoid") == 0)
        return 1 / (1 + exp(-x));
    if (strcmp(op, "Tanh") == 0)
        return tanh(x);
    if (strcmp(op, "Erf") == 0)
        return erf(x);
    if (strcmp(op, "Relu") == 0)
        return x < 0 ? 0 : x;
    if (strcmp(op, "HardSigmoid") == 0) {
        y = attribute(t, node, "alpha", 0.2f) * x + attribute(t, node, "beta", 0.5);
        return y < 0 ? 0 : y > 1 ? 1 : y;
    }
    if (strcmp(op, "Clip") == 0) {
        double low = operand(t, node, 1, attribute(t, node, "min", -HUGE_VALF));
        double high = operand(t, node, 2, attribute(t, node, "max", HUGE_VALF));

        return x < low ? low : x > high ? high : x;
    }
    y = operand(t, node, 1, NAN);
    if (strcmp(op, "Add") == 0)
        return x + y;
    if (strcmp(op, "Sub") == 0)
        return x - y;
    if (strcmp(op, "Mul") == 0)
        return x * y;
    if (strcmp(op, "Div") == 0)
        return x / y;
    return strcmp(op, "Pow") == 0 ? pow(x, y) : NAN;
}

/* Notes the tensor, as it may be where the chain begins. */
static double trial_value(trial *t, const char *name) {
    const onnx_node *maker;
    double number;
    int known = 0;

    if (t->beginning && strcmp(name, t->beginning) == 0)
        return t->x;
    if (is_number(t->im, name, &number))
        return number;
    for (int i = 0; i < t->count; i++)
        known |= strcmp(t->found[i], name) == 0;
    if (!known && t->count < MOST_BEGINNINGS)
        t->found[t->count++] = name;
    maker = maker_of(t->im, name);
    return maker && t->steps++ < MOST_STEPS ? apply(t, maker) : NAN;
}

typedef double known_function(double x);

static double silu(double x) { return x / (1 + exp(-x)); }

static double hard_sigmoid(double x) { return x < -3 ? 0 : x > 3 ? 1 : x / 6 + 0.5; }

static double hard_swish(double x) { return x * hard_sigmoid(x); }

static double gelu(double x) { return x * (1 + erf(x * sqrt(0.5))) / 2; }

static double gelu_tanh(double x) {
    return silu(1.5957691216 * (x + 0.044715 * x * x * x)) /
           (1.5957691216 * (1 + 0.044715 * x * x));
}

static const struct {
    const char *op;
    known_function *compute;
} known[] = {{CHAIN_SILU, silu},
             {CHAIN_HARD_SIGMOID, hard_sigmoid},
             {CHAIN_HARD_SWISH, hard_swish},
             {CHAIN_GELU, gelu},
             {CHAIN_GELU_TANH, gelu_tanh}};

/* Whether the chain from one tensor on equals a function, everywhere where these differ. The two
   forms of gelu lie 0.0004 apart. */
static int equals(trial *t, const onnx_node *end, known_function *compute) {
    for (int i = -40; i <= 40; i++) {
        double wanted = compute(i / 4.0), got;

        t->x = i / 4.0;
        t->steps = 0;
        got = apply(t, end);
        if (!(fabs(got - wanted) <= 2e-5))
            return 0;
    }
    return 1;
}

static int replace_node(importer *im, size_t index, const char *op, const char *beginning) {
    chain *made = calloc(1, sizeof *made);

    if (!made)
        return fail("no memory for the graph");
    made->original = im->graph->node[index];
    made->index = index;
    made->node = *made->original;
    made->node.op_type = (char *)(uintptr_t)op;
    made->node.n_input = 1;
    made->node.n_attribute = 0;
    made->node.input = &made->input;
    made->input = (char *)(uintptr_t)beginning;
    made->next = im->chains;
    im->chains = made;
    im->graph->node[index] = &made->node;
    return 0;
}

/* Chains end in a product or a quotient. */
static int find_chain(importer *im, size_t index) {
    const onnx_node *end = im->graph->node[index];
    const char *op = text_or(end->op_type, "?");
    trial all = {.im = im};

    if ((strcmp(op, "Mul") != 0 && strcmp(op, "Div") != 0) || end->n_output != 1)
        return 0;
    apply(&all, end);
    for (int i = 0; i < all.count; i++)
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            trial t = {.im = im, .beginning = all.found[i]};

            if (equals(&t, end, known[k].compute))
                return replace_node(im, index, known[k].op, all.found[i]);
        }
    return 0;
}

int find_chains(importer *im) {
    int status = 0;

    for (size_t i = 0; i < im->graph->n_node && !status; i++)
        status = find_chain(im, i);
    im->at = NULL;
    return status;
}

void restore_chains(importer *im) {
    while (im->chains) {
        chain *gone = im->chains;

        im->graph->node[gone->index] = gone->original;
        im->chains = gone->next;
        free(gone);
    }
}

#endif
