/* A plugin for QEMU's user-mode emulators: how often each block of code runs in a region.
 *
 * The region lies between two functions of the program: it begins when `begin` is entered and ends
 * when `end` is. Both are given as addresses, for the program is linked to fixed ones. Prints a line
 * "address instructions executions" per block when the program ends. Blocks are those of the
 * translator: straight code, entered at its first instruction. A program with one thread only.
 *
 *   gcc -O2 -shared -fPIC -o count_blocks.so count_blocks.c
 *   qemu-aarch64 -plugin ./count_blocks.so,begin=0x400910,end=0x400914 -d plugin -D counts program
 *
 * The declarations are those of version 1 of the plugin interface (QEMU 6 to 8); Debian has no
 * header for it.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct qemu_plugin_tb qemu_plugin_tb;
typedef struct qemu_plugin_insn qemu_plugin_insn;
typedef uint64_t plugin_id;
enum { NO_REGISTERS = 0 };

size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb* block);
uint64_t qemu_plugin_tb_vaddr(const qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*callback)(plugin_id, qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(qemu_plugin_tb* block, void (*callback)(unsigned, void*),
                                          int registers, void* data);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void*), void* data);
void qemu_plugin_outs(const char* text);

EXPORT int qemu_plugin_version = 1;

/* Every block that was translated; one may be translated several times. */
typedef struct Block {
  uint64_t address;
  uint64_t instructions;
  uint64_t executions;
  struct Block* next;
} Block;

static Block* blocks;
static uint64_t begin_address, end_address;
static int counts;

static void on_block(unsigned cpu, void* data) {
  Block* block = data;
  (void)cpu;
  if (block->address == begin_address) counts = 1;
  if (block->address == end_address) counts = 0;
  block->executions += counts;
}

static void on_translation(plugin_id id, qemu_plugin_tb* translated) {
  Block* block = calloc(1, sizeof(Block));
  (void)id;
  if (block == NULL) abort();
  block->address = qemu_plugin_tb_vaddr(translated);
  block->instructions = qemu_plugin_tb_n_insns(translated);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_block, NO_REGISTERS, block);
}

static void print_counts(plugin_id id, void* data) {
  (void)id;
  (void)data;
  for (const Block* block = blocks; block != NULL; block = block->next) {
    char line[80];
    if (block->executions == 0) continue;
    snprintf(line, sizeof(line), "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", block->address,
             block->instructions, block->executions);
    qemu_plugin_outs(line);
  }
}

EXPORT int qemu_plugin_install(plugin_id id, const void* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "begin=", 6) == 0) begin_address = strtoull(argv[i] + 6, NULL, 0);
    if (strncmp(argv[i], "end=", 4) == 0) end_address = strtoull(argv[i] + 4, NULL, 0);
  }
  if (begin_address == 0 || end_address == 0) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, print_counts, NULL);
  return 0;
}
