// Lets a strided convolution of one element read its columns side by side.
#include "plan/subsample_columns.h"

#include <algorithm>
#include <cstring>

#include "plan/choose_layouts.h"
#include "plan/conv_operands.h"

#if !defined(SRT_ARM)  // see kHasTiledPlanes

namespace sparsert {
namespace {

int64_t ColumnOf(const Window& w, int64_t out) {
  return out / w.out[1] * w.stride[0] * w.in[1] + out % w.out[1] * w.stride[1];
}

// The piece that begins with output column `first`, which lies in these tiles.
SubsamplePiece PieceFrom(const Window& w, const PlaneColumns& in, int32_t in_tile,
                         const PlaneColumns& out, int32_t out_tile, int lanes, int64_t first) {
  SubsamplePiece piece = {};
  const int64_t begin = in.Begin(in_tile);
  piece.x_plane = in.Plane(in_tile);
  piece.y_plane = out.Plane(out_tile);
  // What is read lies in this plane or right behind it.
  const int64_t at =
      std::max<int64_t>(0, std::min(ColumnOf(w, first) - begin, piece.x_plane - kPieceFloats));
  piece.x = in.Offset(in_tile) + at;
  piece.y = out.Offset(out_tile) + first - out.Begin(out_tile);
  const int64_t x_end = std::min(in.Begin(in_tile + 1), begin + at + kPieceFloats);
  const int64_t y_end = std::min(out.Begin(out_tile + 1), w.out[0] * w.out[1]);
  for (int64_t y = first; piece.count < lanes && y < y_end && ColumnOf(w, y) < x_end; ++y) {
    piece.index[piece.count++] = static_cast<int32_t>(ColumnOf(w, y) - begin - at);
  }
  return piece;
}

}  // namespace

Status CutPieces(const Window& w, const PlaneColumns& in, const PlaneColumns& out, int lanes,
                 Array<SubsamplePiece>* pieces) {
  int32_t in_tile = 0;
  int32_t out_tile = 0;
  for (int64_t column = 0; column < w.out[0] * w.out[1];) {
    while (in.Begin(in_tile + 1) <= ColumnOf(w, column)) ++in_tile;
    while (out.Begin(out_tile + 1) <= column) ++out_tile;
    const SubsamplePiece piece = PieceFrom(w, in, in_tile, out, out_tile, lanes, column);
    SRT_RETURN_IF_ERROR(pieces->push_back(piece));
    column += piece.count;
  }
  return Status::Ok();
}

Status SubsampleColumns(PlanBuilder* b, int64_t channels, const Tiling* tiling, SpmmOperands* o) {
  SubsampleArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  Kernel kernel;
  int lanes = 0;
  if (!SelectSubsample(b->options.isa, &kernel, &lanes)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  const Window& w = o->window;
  const int64_t plane = PlaneStride(o->columns);
  const PlaneColumns in(w.in[0] * w.in[1], o->x_row, channels, tiling);
  const PlaneColumns out(o->columns, plane, channels, o->tiling);
  Array<SubsamplePiece> pieces(b->weights->allocator());
  SRT_RETURN_IF_ERROR(CutPieces(w, in, out, lanes, &pieces));
  auto* kept = b->plan->memory.Allocate<SubsamplePiece>(pieces.size());
  if (kept == nullptr) return Status::OutOfMemory("columns", pieces.size_bytes());
  if (!pieces.empty()) memcpy(kept, pieces.data(), pieces.size_bytes());
  args->pieces = kept;
  args->piece_count = static_cast<int32_t>(pieces.size());
  args->images = o->batch;
  args->planes = channels;
  args->x_image = o->x_image;
  args->y_image = plane * channels;
  IoRef y;
  const int64_t floats = args->images * args->y_image;
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(floats) * sizeof(float), &y));
  const IoRef io[] = {o->x, y};
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 2}, SubsampleItems(*args), 0,
                                 static_cast<double>(floats) * 0.2));
  o->x = y;
  o->x_row = plane;
  o->x_group = plane * (channels / o->key.groups);
  o->x_image = args->y_image;
  o->x_in_tiles = o->tiling != nullptr;
  o->may_be_direct = true;
  return Status::Ok();
}

}  // namespace sparsert

#endif
