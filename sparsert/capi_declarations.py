"""csrc/include/sparsert.h for cffi: without comments and what only a compiler needs.

A test compares them.
"""

from __future__ import annotations

ABI_VERSION = 3
DECLARATIONS = """
#define SRT_ABI_VERSION 3
#define SRT_MAX_RANK 8
typedef struct srt_model srt_model;
typedef struct srt_plan srt_plan;
typedef struct srt_budget srt_budget;
enum {
  SRT_OK = 0, SRT_INVALID_ARGUMENT = 1, SRT_MODEL_FORMAT = 2, SRT_SHAPE = 3, SRT_UNSUPPORTED = 4,
  SRT_OUT_OF_MEMORY = 5, SRT_INTERNAL = 6, SRT_FILE = 7
};
enum {
  SRT_F32 = 1, SRT_U8 = 2, SRT_I8 = 3, SRT_U16 = 4, SRT_I16 = 5, SRT_I32 = 6, SRT_I64 = 7,
  SRT_BOOL = 9, SRT_F16 = 10, SRT_F64 = 11, SRT_U32 = 12, SRT_U64 = 13
};
typedef struct {
  int32_t code;
  char text[508];
} srt_error;
typedef struct {
  void* (*allocate)(void* context, size_t bytes, size_t alignment);
  void (*release)(void* context, void* memory, size_t bytes);
  void* context;
} srt_allocator;
enum { SRT_TUNE_OFF = 0, SRT_TUNE_AUTO = 1, SRT_TUNE_FULL = 2 };
typedef struct {
  uint32_t struct_bytes;
  int32_t threads;
  const char* isa;
  int32_t tune;
  int32_t allow_empty;
  const srt_allocator* allocator;
  srt_budget* budget;
  int32_t is_mapped;
  int32_t abi_version;
} srt_options;
typedef struct {
  int32_t rank;
  int64_t dims[SRT_MAX_RANK];
} srt_shape;
typedef struct {
  const char* name;
  size_t name_bytes;
  int32_t dtype;
  srt_shape shape;
} srt_tensor_info;
typedef struct {
  uint64_t weights; uint64_t nonzeros; uint64_t file_bytes; uint64_t packed_bytes;
} srt_level_info;
typedef struct {
  const char* name;
  size_t name_bytes;
  const char* op;
  srt_shape output_shape;
  uint64_t weights;
  uint64_t nonzeros;
  uint64_t storage_bytes;
  uint64_t packed_bytes;
  const char* storage_format;
  const char* compute_format;
  const char* kernel;
  const char* isa;
  const char* reason;
  double predicted_ns;
  double measured_ns;
  uint32_t first_step;
  uint32_t step_count;
} srt_node_info;
typedef struct {
  const char* format;
  const char* kernel;
  double predicted_ns;
  double measured_ns;
  int32_t tiles;
  int32_t tile_columns;
  int32_t block_depth;
} srt_candidate;
typedef struct {
  uint32_t struct_bytes;
  int32_t input_count;
  void* arena;
  size_t arena_bytes;
  const void* const* inputs;
  const size_t* input_bytes;
  void* const* outputs;
  const size_t* output_bytes;
  int32_t output_count;
  int32_t step_count;
  uint64_t* step_ns;
} srt_run;
int32_t srt_abi_version(void);
const char* srt_version(void);
const char* srt_status_text(int32_t code);
size_t srt_dtype_bytes(int32_t dtype);
const char* srt_isa_name(int32_t index);
int32_t srt_usable_cores(void);
int32_t srt_budget_make(int32_t cores, const srt_allocator* allocator, srt_budget** budget,
    srt_error* error);
void srt_budget_free(srt_budget* budget);
int32_t srt_budget_cores(const srt_budget* budget);
void srt_budget_set_cores(srt_budget* budget, int32_t cores);
int32_t srt_budget_busy(const srt_budget* budget);
int32_t srt_budget_peak(const srt_budget* budget);
void srt_budget_after_fork(srt_budget* budget);
int32_t srt_model_load(const void* bytes, size_t size, const srt_options* options,
    srt_model** model, srt_error* error);
int32_t srt_model_load_file(const char* path, const srt_options* options, srt_model** model,
    srt_error* error);
void srt_model_free(srt_model* model);
int32_t srt_model_input_count(const srt_model* model);
int32_t srt_model_output_count(const srt_model* model);
int32_t srt_model_input(const srt_model* model, int32_t index, srt_tensor_info* info);
int32_t srt_model_output(const srt_model* model, int32_t index, srt_tensor_info* info);
int32_t srt_model_needs_value(const srt_model* model, int32_t index);
int32_t srt_model_symbol(const srt_model* model, int32_t symbol, const char** name,
    size_t* name_bytes);
const char* srt_model_isa(const srt_model* model);
int32_t srt_model_threads(const srt_model* model);
uint64_t srt_model_weight_bytes(const srt_model* model);
int32_t srt_model_level_count(const srt_model* model);
int32_t srt_model_level_name(const srt_model* model, int32_t index, const char** name,
    size_t* name_bytes);
int32_t srt_model_level_info(const srt_model* model, int32_t index, srt_level_info* info);
int32_t srt_model_level(const srt_model* model);
int32_t srt_model_set_level(srt_model* model, const char* name, srt_error* error);
int32_t srt_model_drop_level(srt_model* model, const char* name, srt_error* error);
int32_t srt_model_after_fork(srt_model* model, srt_error* error);
int32_t srt_plan_make(srt_model* model, const srt_shape* shapes, int32_t count,
    srt_plan** plan, srt_error* error);
int32_t srt_plan_make_tuned(srt_model* model, const srt_shape* shapes, int32_t count,
    const void* tuning, size_t tuning_bytes, srt_plan** plan,
    srt_error* error);
int32_t srt_plan_make_valued(srt_model* model, const srt_shape* shapes, int32_t count,
    const void* const* values, const size_t* value_bytes,
    const void* tuning, size_t tuning_bytes, srt_plan** plan,
    srt_error* error);
size_t srt_plan_tuning(const srt_plan* plan, void* buffer, size_t size);
void srt_plan_free(srt_plan* plan);
uint64_t srt_plan_arena_bytes(const srt_plan* plan);
uint64_t srt_plan_memory_bytes(const srt_plan* plan);
int32_t srt_plan_input_shape(const srt_plan* plan, int32_t index, srt_shape* shape);
int32_t srt_plan_output_shape(const srt_plan* plan, int32_t index, srt_shape* shape);
int32_t srt_plan_input_bytes(const srt_plan* plan, int32_t index, size_t* bytes);
int32_t srt_plan_output_bytes(const srt_plan* plan, int32_t index, size_t* bytes);
int32_t srt_plan_node_count(const srt_plan* plan);
int32_t srt_plan_node(const srt_plan* plan, int32_t index, srt_node_info* info);
int32_t srt_plan_candidate_count(const srt_plan* plan, int32_t node);
int32_t srt_plan_candidate(const srt_plan* plan, int32_t node, int32_t index,
    srt_candidate* candidate);
int32_t srt_plan_slices(const srt_plan* plan, int64_t* images);
int32_t srt_plan_step_count(const srt_plan* plan);
int32_t srt_plan_run(const srt_plan* plan, const srt_run* run, srt_error* error);
int32_t srt_plan_run_unchecked(const srt_plan* plan, void* arena, const void* const* inputs,
    void* const* outputs, uint64_t* step_ns, srt_error* error);
"""
