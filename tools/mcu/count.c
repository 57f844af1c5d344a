/* A plugin for QEMU that counts the instructions an emulated program executes, exactly, up to places
   that are named by their addresses:

       qemu-system-arm ... -plugin count.so,out=FILE,at=0x1234,at=0x1260

   writes a line "ADDRESS INSTRUCTIONS" each time an instruction at such an address is about to be
   executed; INSTRUCTIONS is how many were executed before it. For one processor core.

   QEMU's packages bring no header for plugins. What is declared here is of version 1 of the
   interface, which QEMU 4.2 to 8.2 load: include/qemu/qemu-plugin.h in their source. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb; /* a translated block: instructions that run one after the other */
struct qemu_plugin_insn;

enum { NO_REGISTERS = 0, ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*translated)(qemu_plugin_id_t id,
                                                              struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction,
                                            void (*executed)(unsigned cpu, void *user),
                                            int registers, void *user);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, int operation,
                                                void *at, uint64_t by);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
                                    void (*at_exit)(qemu_plugin_id_t id, void *user), void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);

#define EXPORTED __attribute__((visibility("default")))

EXPORTED extern const int qemu_plugin_version;
EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                 char **argv);
const int qemu_plugin_version = 1;

enum { MAX_PLACES = 256 };

static uint64_t executed;
static uint64_t place[MAX_PLACES];
static int places;
static FILE *out;

/* Comes before the instruction's own count: what is registered first runs first. */
static void reached(unsigned cpu, void *user) {
    (void)cpu;
    fprintf(out, "%" PRIx64 " %" PRIu64 "\n", *(const uint64_t *)user, executed);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);

        for (int k = 0; k < places; k++)
            if (place[k] == qemu_plugin_insn_vaddr(instruction))
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, reached, NO_REGISTERS,
                                                       &place[k]);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &executed, 1);
    }
}

static void at_exit(qemu_plugin_id_t id, void *user) {
    (void)id, (void)user;
    fclose(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
        else if (strncmp(argv[i], "at=", 3) == 0 && places < MAX_PLACES)
            place[places++] = strtoull(argv[i] + 3, NULL, 0);
        else
            return -1;
    }
    if (!out || !places)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
