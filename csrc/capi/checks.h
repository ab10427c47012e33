// Checks of what a C program hands in. They touch none of the memory that a run is given.
#pragma once

#include "capi/handles.h"

namespace sparsert {

// The error of a NULL pointer.
Status NullArgument(const char* what);

// Size and ABI version of the structure, and its allocator.
Status CheckOptions(const srt_options& options);

// Bytes of a graph input or output in a run of the plan.
size_t TensorBytes(const srt_plan* plan, uint32_t tensor);

// Counts, sizes and alignments; that no pointer is NULL, and that what is written overlaps nothing.
Status CheckRun(const srt_plan* plan, const srt_run& run);

// Values that a plan is made for: as many bytes as the shapes of the inputs say.
Status CheckValues(const srt_model* model, Span<Shape> shapes, const void* const* values,
                   const size_t* value_bytes);

}  // namespace sparsert
