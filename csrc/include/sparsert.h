/* sparsert: sparse inference for pruned neural networks. The C interface.
 *
 * A model is loaded from a .sprt file or its bytes; a plan makes it ready for one set of input
 * shapes; a run computes the outputs into the caller's buffers, using an arena that the caller
 * supplies. Nothing here prints, aborts or keeps global state; a run allocates nothing. Explained
 * with examples in docs/c_api.md.
 *
 * Calls that can fail return SRT_OK or another code; those with an `error` also fill it with a text
 * then, unless it is NULL. An index that nothing has is SRT_INVALID_ARGUMENT.
 *
 * Threads: a model and its plans may be used from many threads at once, with one arena per run.
 * Making plans of one model is serialised inside. Freeing is the caller's duty: plans first, then
 * the model, then the bytes and the budget, none of them in use any more.
 */
#ifndef SPARSERT_H_
#define SPARSERT_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SRT_API
#else
#define SRT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of the structures and functions below, one more whenever one of them changes. A program runs with
 * a library of the version that it was compiled for; srt_options says which one that is. */
#define SRT_ABI_VERSION 3
#define SRT_MAX_RANK 8

typedef struct srt_model srt_model;
typedef struct srt_plan srt_plan;
typedef struct srt_budget srt_budget;

enum {
  SRT_OK = 0,
  SRT_INVALID_ARGUMENT = 1,
  SRT_MODEL_FORMAT = 2,
  SRT_SHAPE = 3,
  SRT_UNSUPPORTED = 4,
  SRT_OUT_OF_MEMORY = 5,
  SRT_INTERNAL = 6,
  SRT_FILE = 7 /* a file cannot be opened or mapped, or is empty */
};

/* Tensor element types, numbered as in ONNX. */
enum {
  SRT_F32 = 1,
  SRT_U8 = 2,
  SRT_I8 = 3,
  SRT_U16 = 4,
  SRT_I16 = 5,
  SRT_I32 = 6,
  SRT_I64 = 7,
  SRT_BOOL = 9,
  SRT_F16 = 10,
  SRT_F64 = 11,
  SRT_U32 = 12,
  SRT_U64 = 13
};

/* Filled by a call that returns something else than SRT_OK. `text` is one line, terminated. */
typedef struct {
  int32_t code;
  char text[508];
} srt_error;

/* Memory for everything that loading and planning need; `allocate` returns NULL when it has none.
 */
typedef struct {
  void* (*allocate)(void* context, size_t bytes, size_t alignment);
  void (*release)(void* context, void* memory, size_t bytes);
  void* context;
} srt_allocator;

enum { SRT_TUNE_OFF = 0, SRT_TUNE_AUTO = 1, SRT_TUNE_FULL = 2 };

typedef struct {
  uint32_t struct_bytes;          /* sizeof(srt_options) */
  int32_t threads;                /* of one run, the caller's included; 0: srt_usable_cores() */
  const char* isa;                /* NULL: $SPARSERT_ISA, else the best of this machine */
  int32_t tune;                   /* SRT_TUNE_... */
  int32_t allow_empty;            /* 1: inputs may have dimensions of size 0 */
  const srt_allocator* allocator; /* NULL: the C library's; copied */
  srt_budget* budget;             /* NULL: a run counts no cores; else it outlives the model */
  /* 1: the file's bytes are a read-only mapping of a file, whose pages leave memory once they are
   * packed; they are read again when another plan is made. srt_model_load_file() sets it. */
  int32_t is_mapped;
  int32_t abi_version; /* SRT_ABI_VERSION */
} srt_options;

/* What NULL options stand for, to be changed field by field. */
#define SRT_OPTIONS_INIT \
  {sizeof(srt_options), 0, NULL, SRT_TUNE_AUTO, 0, NULL, NULL, 0, SRT_ABI_VERSION}

typedef struct {
  int32_t rank;
  int64_t dims[SRT_MAX_RANK]; /* in a model: negative -(s + 1) stands for symbol s */
} srt_shape;

typedef struct {
  const char* name; /* not terminated by a zero byte */
  size_t name_bytes;
  int32_t dtype;
  srt_shape shape;
} srt_tensor_info;

/* One level of a model. */
typedef struct {
  uint64_t weights;      /* elements of the weight tensors of all layers */
  uint64_t nonzeros;     /* of these */
  uint64_t file_bytes;   /* of the constants that this level alone needs; of the first: the rest */
  uint64_t packed_bytes; /* in memory, without what all levels share; 0: not in use */
} srt_level_info;

/* One node of the graph as the plan runs it. Texts are terminated; they live as long as the plan.
 */
typedef struct {
  const char* name; /* not terminated */
  size_t name_bytes;
  const char* op;
  srt_shape output_shape;
  uint64_t weights; /* elements of the weight tensor; 0 without one */
  uint64_t nonzeros;
  uint64_t storage_bytes; /* of the weights in the file */
  uint64_t packed_bytes;  /* of the weights in memory */
  const char* storage_format;
  const char* compute_format;
  const char* kernel;
  const char* isa;
  const char* reason;
  double predicted_ns; /* 0: no choice was to be made */
  double measured_ns;  /* at plan time; 0: not measured */
  uint32_t first_step;
  uint32_t step_count;
} srt_node_info;

/* One way to compute a matrix layer that the planner considered. Times are of one thread; when the
 * batch runs in slices (srt_plan_slices), of one slice. */
typedef struct {
  const char* format; /* as compute_format of the node that chose it */
  const char* kernel;
  double predicted_ns;  /* by the cost model */
  double measured_ns;   /* at plan time, the weights cold; 0: not measured */
  int32_t tiles;        /* that a row of output columns is cut into */
  int32_t tile_columns; /* of the widest tile */
  int32_t block_depth;  /* weights of a row that are computed at a time; 0: all */
} srt_candidate;

/* The caller's memory for a run. Sizes are in bytes. */
typedef struct {
  uint32_t struct_bytes; /* sizeof(srt_run) */
  int32_t input_count;
  void* arena; /* at least srt_plan_arena_bytes(), 64-byte aligned */
  size_t arena_bytes;
  const void* const* inputs; /* [input_count] */
  const size_t* input_bytes; /* [input_count], just srt_plan_input_bytes() */
  void* const* outputs;      /* [output_count] */
  const size_t* output_bytes;
  int32_t output_count;
  int32_t step_count;
  uint64_t* step_ns; /* NULL, or [step_count] for the time of each step */
} srt_run;

/* SRT_ABI_VERSION of the library; "1.2.3". */
SRT_API int32_t srt_abi_version(void);
SRT_API const char* srt_version(void);

/* "invalid argument", ...: what a code means, in general. */
SRT_API const char* srt_status_text(int32_t code);

/* Bytes of an element; 0 for an unknown type. */
SRT_API size_t srt_dtype_bytes(int32_t dtype);

/* "avx512", ...: what this build and machine can run; NULL behind the last `index`. */
SRT_API const char* srt_isa_name(int32_t index);

/* Cores that the calling thread's process may keep busy, at least 1: the physical cores of its CPU
 * mask, or fewer if the CPU quota of its cgroup, or of one above it, is less. */
SRT_API int32_t srt_usable_cores(void);

/* The cores that the runs of several models share; the models that were loaded with one budget. A
 * run counts its calling thread, which never waits, and takes as many of its model's other threads
 * as there are cores left, anew before every step. So threads that run at once are no more than
 * `cores`, or than calling threads if those are more; while a caller has only just begun, until
 * others end their step, one more for each. May be used from many threads at once.
 * `cores`: 0 for srt_usable_cores(). `allocator`: NULL for the C library's; copied. */
SRT_API int32_t srt_budget_make(int32_t cores, const srt_allocator* allocator, srt_budget** budget,
                                srt_error* error);
/* After the models that use it. */
SRT_API void srt_budget_free(srt_budget* budget);
SRT_API int32_t srt_budget_cores(const srt_budget* budget);
/* `cores`: at least 1; smaller numbers count as 1. */
SRT_API void srt_budget_set_cores(srt_budget* budget, int32_t cores);
/* Threads that are running now, and the most that ran at once. */
SRT_API int32_t srt_budget_busy(const srt_budget* budget);
SRT_API int32_t srt_budget_peak(const srt_budget* budget);
/* In the child of a fork, before its models are told: no thread runs. */
SRT_API void srt_budget_after_fork(srt_budget* budget);

/* `bytes` (64-byte aligned, [size]) must stay readable and unchanged until the model is freed. With
 * srt_options.is_mapped they must lie in a file's mapping that is only read: the contents of other
 * memory would be lost. */
SRT_API int32_t srt_model_load(const void* bytes, size_t size, const srt_options* options,
                               srt_model** model, srt_error* error);
/* The same from a file, which is mapped until the model is freed: nobody may write to it or cut it
 * meanwhile. (Replacing it by another file under its name is no problem.) */
SRT_API int32_t srt_model_load_file(const char* path, const srt_options* options, srt_model** model,
                                    srt_error* error);
SRT_API void srt_model_free(srt_model* model);

SRT_API int32_t srt_model_input_count(const srt_model* model);
SRT_API int32_t srt_model_output_count(const srt_model* model);
SRT_API int32_t srt_model_input(const srt_model* model, int32_t index, srt_tensor_info* info);
SRT_API int32_t srt_model_output(const srt_model* model, int32_t index, srt_tensor_info* info);
/* 1 when a plan depends on the value of an input, such as a shape or axes (srt_plan_make_valued).
 */
SRT_API int32_t srt_model_needs_value(const srt_model* model, int32_t index);
SRT_API int32_t srt_model_symbol(const srt_model* model, int32_t symbol, const char** name,
                                 size_t* name_bytes);
SRT_API const char* srt_model_isa(const srt_model* model);
SRT_API int32_t srt_model_threads(const srt_model* model);
/* Bytes of decoded and packed weights held in memory, over all plans. */
SRT_API uint64_t srt_model_weight_bytes(const srt_model* model);

/* A file may hold a network several times, with more and more zeros: its levels, the densest first.
 * 0: it has no levels. srt_model_level_info() reads the weights of a level, the first time. */
SRT_API int32_t srt_model_level_count(const srt_model* model);
/* `name` is not terminated by a zero byte. */
SRT_API int32_t srt_model_level_name(const srt_model* model, int32_t index, const char** name,
                                     size_t* name_bytes);
SRT_API int32_t srt_model_level_info(const srt_model* model, int32_t index, srt_level_info* info);
/* The index of the level that plans are made for; at first 0. */
SRT_API int32_t srt_model_level(const srt_model* model);
/* Plans that are made from now on are of the level `name`; those that exist stay of theirs, and may
 * be running. A level packs its weights when its first plan is made. */
SRT_API int32_t srt_model_set_level(srt_model* model, const char* name, srt_error* error);
/* Frees what was packed for a level, as soon as none of its plans is left. */
SRT_API int32_t srt_model_drop_level(srt_model* model, const char* name, srt_error* error);

/* In the child of a fork, before anything else: the model's threads are gone and are made anew. */
SRT_API int32_t srt_model_after_fork(srt_model* model, srt_error* error);

/* `shapes`: one per input; `count` says how many. */
SRT_API int32_t srt_plan_make(srt_model* model, const srt_shape* shapes, int32_t count,
                              srt_plan** plan, srt_error* error);
/* The same with measured choices of an earlier plan (srt_plan_tuning) of the same model, shapes and
 * options on the same kind of machine: layers that they decide are not measured again. `tuning`
 * (any alignment, read during the call only) is not trusted: bytes that are corrupt, or that were
 * made for something else, count as absent, as a whole or layer by layer. SRT_TUNE_OFF ignores
 * them. */
SRT_API int32_t srt_plan_make_tuned(srt_model* model, const srt_shape* shapes, int32_t count,
                                    const void* tuning, size_t tuning_bytes, srt_plan** plan,
                                    srt_error* error);
/* The same for a graph with inputs that srt_model_needs_value() names. `values`: one row-major
 * buffer per input, NULL for those that no plan depends on, aligned to its element size;
 * `value_bytes`: their sizes. Read during the call only. The plan is good for runs on these values.
 */
SRT_API int32_t srt_plan_make_valued(srt_model* model, const srt_shape* shapes, int32_t count,
                                     const void* const* values, const size_t* value_bytes,
                                     const void* tuning, size_t tuning_bytes, srt_plan** plan,
                                     srt_error* error);
/* Writes the plan's measured choices to `buffer` if they fit into `size` bytes (NULL, 0: asks for
 * the size). Returns their size; 0 when nothing was measured. */
SRT_API size_t srt_plan_tuning(const srt_plan* plan, void* buffer, size_t size);
SRT_API void srt_plan_free(srt_plan* plan);
SRT_API uint64_t srt_plan_arena_bytes(const srt_plan* plan);
/* Bytes that the plan itself holds until it is freed. */
SRT_API uint64_t srt_plan_memory_bytes(const srt_plan* plan);
SRT_API int32_t srt_plan_input_shape(const srt_plan* plan, int32_t index, srt_shape* shape);
SRT_API int32_t srt_plan_output_shape(const srt_plan* plan, int32_t index, srt_shape* shape);
SRT_API int32_t srt_plan_input_bytes(const srt_plan* plan, int32_t index, size_t* bytes);
SRT_API int32_t srt_plan_output_bytes(const srt_plan* plan, int32_t index, size_t* bytes);
SRT_API int32_t srt_plan_node_count(const srt_plan* plan);
SRT_API int32_t srt_plan_node(const srt_plan* plan, int32_t index, srt_node_info* info);
/* The candidates of a node: the chosen one first, the others by predicted time. None for nodes that
 * leave no choice. */
SRT_API int32_t srt_plan_candidate_count(const srt_plan* plan, int32_t node);
SRT_API int32_t srt_plan_candidate(const srt_plan* plan, int32_t node, int32_t index,
                                   srt_candidate* candidate);
/* A large batch may run some images at a time. Returns the number of slices, 1 if it does not;
 * `images` gets the images of one, 0 if it does not. The last layers may have larger slices. */
SRT_API int32_t srt_plan_slices(const srt_plan* plan, int64_t* images);
SRT_API int32_t srt_plan_step_count(const srt_plan* plan);

/* `run->arena` is used by this run alone; zero before the first one, or left-over bytes that are
 * denormal numbers may slow it down. `inputs`, `outputs`: row-major buffers of the plan's shapes,
 * one per input and output, each aligned to its element size; an output overlaps nothing else.
 * SRT_INVALID_ARGUMENT, and nothing is written, when a count, a size or an alignment is wrong, a
 * pointer is NULL or an output overlaps. SRT_INVALID_ARGUMENT also when an input leads to an index
 * outside of its dimension, such as a token that the embedding lacks; the text says of which node,
 * and which index, and the outputs hold nothing of use. Fails in no other way. */
SRT_API int32_t srt_plan_run(const srt_plan* plan, const srt_run* run, srt_error* error);
/* The same from pointers alone, for callers who have made sure of all of that: nothing is checked
 * but indices. */
SRT_API int32_t srt_plan_run_unchecked(const srt_plan* plan, void* arena, const void* const* inputs,
                                       void* const* outputs, uint64_t* step_ns, srt_error* error);

#ifdef __cplusplus
}
#endif

#endif /* SPARSERT_H_ */
