/* Classifies an image with a .sprt file, in C99 over sparsert.h alone.
 *
 *   cc -std=c99 classify.c $(pkg-config --cflags --libs sparsert) -o classify
 *   ./classify model.sprt image.raw [--profile]
 *
 * The image is the model's input as raw bytes: its elements in row-major order (channels, rows,
 * columns), as NumPy's tofile() writes them. For a model of floats it may also have a byte for each
 * element, from 0 to 255, which stands for 0 to 1. Prints the five best classes and their scores.
 */
#include <sparsert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kBest = 5 };

static int Fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

/* Memory at a 64-byte boundary, of zeros; `block` is what to free. C99 has no aligned_alloc. */
static void* AlignedZeros(size_t bytes, void** block) {
  char* memory = calloc(bytes + 64, 1);
  *block = memory;
  return memory == NULL ? NULL : memory + (64 - (uintptr_t)memory % 64) % 64;
}

/* Fills `input` [bytes] from the file. */
static int ReadImage(const char* path, int32_t dtype, void* input, size_t bytes) {
  const size_t elements = bytes / srt_dtype_bytes(dtype);
  unsigned char* data = malloc(bytes + 1);
  FILE* file = fopen(path, "rb");
  size_t size = 0;
  size_t i;
  int status = 0;
  if (data != NULL && file != NULL) size = fread(data, 1, bytes + 1, file);
  if (data == NULL) {
    status = Fail(path, "out of memory");
  } else if (file == NULL) {
    status = Fail(path, "cannot be opened");
  } else if (size == bytes) {
    memcpy(input, data, bytes);
  } else if (size == elements && dtype == SRT_F32) {
    for (i = 0; i < elements; ++i) ((float*)input)[i] = (float)data[i] / 255.0f;
  } else {
    fprintf(stderr, "%s: has %lu bytes or more, the model's input %lu in %lu elements\n", path,
            (unsigned long)size, (unsigned long)bytes, (unsigned long)elements);
    status = 1;
  }
  if (file != NULL) fclose(file);
  free(data);
  return status;
}

static void PrintBest(const float* scores, size_t count) {
  size_t best[kBest];
  size_t found = 0;
  size_t i, at;
  for (i = 0; i < count; ++i) {
    for (at = found; at > 0 && scores[best[at - 1]] < scores[i]; --at) {
      if (at < kBest) best[at] = best[at - 1];
    }
    if (at < kBest) best[at] = i;
    if (at < kBest && found < kBest) ++found;
  }
  for (i = 0; i < found; ++i) printf("%lu %.9g\n", (unsigned long)best[i], (double)scores[best[i]]);
}

static void PrintProfile(const srt_plan* plan, const uint64_t* step_ns) {
  srt_node_info node;
  int32_t i;
  uint32_t step;
  for (i = 0; srt_plan_node(plan, i, &node) == SRT_OK; ++i) {
    uint64_t ns = 0;
    for (step = 0; step < node.step_count; ++step) ns += step_ns[node.first_step + step];
    printf("%10.3f us  %.*s (%s) %s\n", (double)ns / 1e3, (int)node.name_bytes, node.name, node.op,
           node.kernel);
  }
}

/* Runs the plan on the image; `run` has room for one input and one output. */
static int Classify(const srt_plan* plan, int32_t dtype, const char* image, int with_profile) {
  size_t input_bytes = 0, output_bytes = 0;
  const size_t arena_bytes = (size_t)srt_plan_arena_bytes(plan);
  const int32_t step_count = srt_plan_step_count(plan);
  void *input_block, *output_block, *arena_block;
  void *input, *output;
  uint64_t* step_ns = calloc((size_t)step_count + 1, sizeof(*step_ns));
  srt_run run;
  srt_error error;
  int status = 0;
  memset(&run, 0, sizeof(run));
  run.struct_bytes = sizeof(run);
  srt_plan_input_bytes(plan, 0, &input_bytes);
  srt_plan_output_bytes(plan, 0, &output_bytes);
  input = AlignedZeros(input_bytes, &input_block);
  output = AlignedZeros(output_bytes, &output_block);
  run.arena = AlignedZeros(arena_bytes, &arena_block);
  if (step_ns == NULL || input == NULL || output == NULL || run.arena == NULL) {
    status = Fail("run", "out of memory");
  } else if (ReadImage(image, dtype, input, input_bytes) != 0) {
    status = 1;
  } else {
    const void* inputs[1];
    void* outputs[1];
    inputs[0] = input;
    outputs[0] = output;
    run.arena_bytes = arena_bytes;
    run.input_count = 1;
    run.inputs = inputs;
    run.input_bytes = &input_bytes;
    run.output_count = 1;
    run.outputs = outputs;
    run.output_bytes = &output_bytes;
    run.step_ns = with_profile ? step_ns : NULL;
    run.step_count = step_count;
    if (srt_plan_run(plan, &run, &error) != SRT_OK) {
      status = Fail("run", error.text);
    } else {
      PrintBest(output, output_bytes / sizeof(float));
      if (with_profile) PrintProfile(plan, step_ns);
    }
  }
  free(input_block);
  free(output_block);
  free(arena_block);
  free(step_ns);
  return status;
}

int main(int argc, char** argv) {
  srt_options options = SRT_OPTIONS_INIT;
  srt_model* model = NULL;
  srt_plan* plan = NULL;
  srt_tensor_info input, output;
  srt_error error;
  int status = 0;
  int32_t d;
  const int with_profile = argc == 4 && strcmp(argv[3], "--profile") == 0;
  if (argc != 3 && !with_profile) return Fail("usage", "classify MODEL.sprt IMAGE.raw [--profile]");

  options.threads = 1;
  options.tune = SRT_TUNE_OFF; /* the same kernels each time, and no measuring for one image */
  if (srt_model_load_file(argv[1], &options, &model, &error) != SRT_OK) {
    return Fail("load", error.text);
  }
  if (srt_model_input_count(model) != 1 || srt_model_output_count(model) != 1 ||
      srt_model_input(model, 0, &input) != SRT_OK ||
      srt_model_output(model, 0, &output) != SRT_OK || output.dtype != SRT_F32) {
    status = Fail(argv[1], "is not a model of one input and one output of floats");
  } else {
    /* One image: the symbolic dimensions, such as the batch, are 1. */
    for (d = 0; d < input.shape.rank; ++d) {
      if (input.shape.dims[d] < 0) input.shape.dims[d] = 1;
    }
    if (srt_plan_make(model, &input.shape, 1, &plan, &error) != SRT_OK) {
      status = Fail("plan", error.text);
    } else {
      status = Classify(plan, input.dtype, argv[2], with_profile);
    }
  }
  srt_plan_free(plan);
  srt_model_free(model);
  return status;
}
