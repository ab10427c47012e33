// The steps of recurrent layers for groups of sequences: a lane is a sequence, a row an element of
// the state or of a gate. Inputs and outputs are sequence by sequence: they are transposed in
// squares of vectors on the way.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/recurrent/sequences.h"
#include "simd/square.h"

namespace sparsert {
namespace SRT_ISA {

// A vector of sequences at one step.
struct RecurrentLanes {
  // [gates][hidden], or an input with a projection; nullptr: no sequence, or it has ended.
  const float* x[Vec::kLanes];
  const float* projected;  // rows [gates][hidden], if there is one
  float* y[Vec::kLanes];   // [hidden]; nullptr: no sequence
  Mask active;             // those with an x
  bool all_active;
  float* h;        // rows of columns, as are the next two
  float* c;        // LSTM: the cell; GRU: the state after the reset
  float* product;  // [gates][hidden]
};

// Elements [at, at + lanes) of every sequence's x, as rows of sequences.
static void LoadSquare(const RecurrentLanes& lanes, int64_t at, Mask elements, Square* s) {
#pragma GCC unroll 16
  for (int l = 0; l < Vec::kLanes; ++l) {
    s->rows[l] = lanes.x[l] == nullptr ? Zero() : LoadMask(lanes.x[l] + at, elements);
  }
  Transpose(s);
}

// The new states of rows j and on go to y.
static void StoreSquare(const RecurrentLanes& lanes, int64_t j, Mask elements, Square* s) {
  Transpose(s);
  for (int l = 0; l < Vec::kLanes; ++l) {
    if (lanes.y[l] != nullptr) StoreMask(lanes.y[l] + j, elements, s->rows[l]);
  }
}

// The state at row `at` becomes `h` where sequences are active; returns what y gets.
static Vec RenewState(const RecurrentLanes& lanes, float* at, Vec h) {
  if (lanes.all_active) {
    StoreU(at, h);
    return h;
  }
  StoreU(at, Select(lanes.active, h, LoadU(at)));
  return Select(lanes.active, h, Zero());
}

// What a gate gets from the inputs, for elements j and on: rows of sequences.
template <bool kProjected>
class GateInputs {
 public:
  GateInputs(const RecurrentArgs& args, const RecurrentLanes& lanes, int64_t at, Mask elements)
      : row_(args.projection_row) {
    if constexpr (kProjected) {
      projected_ = lanes.projected + at * row_;
    } else {
      LoadSquare(lanes, at, elements, &square_);
    }
  }
  Vec Row(int i) const {
    if constexpr (kProjected) return LoadU(projected_ + i * row_);
    return square_.rows[i];
  }

 private:
  const int64_t row_;
  const float* projected_ = nullptr;
  Square square_;
};

// Rows of what is left of `hidden` behind row j.
static int RowsAt(int64_t j, int64_t hidden) {
  return static_cast<int>(hidden - j < Vec::kLanes ? hidden - j : Vec::kLanes);
}

template <bool kUsual, bool kProjected>
static void StepLstmLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  Peepholes see = {Zero(), Zero(), Zero()};
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    const GateInputs<kProjected> x[4] = {{args, lanes, j, elements},
                                         {args, lanes, hidden + j, elements},
                                         {args, lanes, 2 * hidden + j, elements},
                                         {args, lanes, 3 * hidden + j, elements}};
    Square y;
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      Vec gate[4];
      for (int g = 0; g < 4; ++g) {
        gate[g] = Add(x[g].Row(i), LoadU(lanes.product + (g * hidden + j + i) * row));
      }
      if (args.peephole != nullptr) {
        const float* peephole = args.peephole + j + i;
        see = {Set1(peephole[0]), Set1(peephole[hidden]), Set1(peephole[2 * hidden])};
      }
      float* c = lanes.c + (j + i) * row;
      Vec cell = LoadU(c);
      const Vec h = LstmCell(fn, gate, see, &cell);
      RenewState(lanes, c, cell);
      y.rows[i] = RenewState(lanes, lanes.h + (j + i) * row, h);
    }
    for (int i = rows; i < Vec::kLanes; ++i) y.rows[i] = Zero();
    StoreSquare(lanes, j, elements, &y);
  }
}

// Of a GRU that resets first: the state after the reset.
template <bool kUsual, bool kProjected>
static void ResetLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const GateInputs<kProjected> x(args, lanes, hidden + j, LanesAt(j, hidden));
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const int64_t at = (j + i) * row;
      const Vec reset = fn.F(Add(x.Row(i), LoadU(lanes.product + hidden * row + at)));
      StoreU(lanes.c + at, Mul(reset, LoadU(lanes.h + at)));
    }
  }
}

template <bool kUsual, bool kProjected>
static void StepGruLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  const bool reset_first = args.candidate.run != nullptr;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    const GateInputs<kProjected> update(args, lanes, j, elements);
    const GateInputs<kProjected> reset(args, lanes, hidden + j, elements);
    const GateInputs<kProjected> candidate(args, lanes, 2 * hidden + j, elements);
    Square y;
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const float* sums = lanes.product + (j + i) * row;
      Vec product = LoadU(sums + 2 * hidden * row);
      if (!reset_first) {
        product = Mul(fn.F(Add(reset.Row(i), LoadU(sums + hidden * row))), product);
      }
      float* h = lanes.h + (j + i) * row;
      const Vec next =
          GruCell(fn, Add(update.Row(i), LoadU(sums)), Add(candidate.Row(i), product), LoadU(h));
      y.rows[i] = RenewState(lanes, h, next);
    }
    for (int i = rows; i < Vec::kLanes; ++i) y.rows[i] = Zero();
    StoreSquare(lanes, j, elements, &y);
  }
}

template <bool kUsual, bool kProjected>
static void StepRnnLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    const GateInputs<kProjected> x(args, lanes, j, elements);
    Square y;
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const int64_t at = (j + i) * row;
      const Vec h = fn.F(Add(x.Row(i), LoadU(lanes.product + at)));
      y.rows[i] = RenewState(lanes, lanes.h + at, h);
    }
    for (int i = rows; i < Vec::kLanes; ++i) y.rows[i] = Zero();
    StoreSquare(lanes, j, elements, &y);
  }
}

template <bool kUsual, bool kProjected>
static void StepLanes(const RecurrentArgs& args, const RecurrentLanes& lanes, bool resets) {
  if (resets) {
    ResetLanes<kUsual, kProjected>(args, lanes);
  } else if (args.cell == Cell::kLstm) {
    StepLstmLanes<kUsual, kProjected>(args, lanes);
  } else if (args.cell == Cell::kGru) {
    StepGruLanes<kUsual, kProjected>(args, lanes);
  } else {
    StepRnnLanes<kUsual, kProjected>(args, lanes);
  }
}

// One vector of sequences; `resets`: only the state after the reset.
static void StepLanes(const RecurrentArgs& args, const RecurrentLanes& lanes, bool resets) {
  if (args.projection.run != nullptr) {
    IsUsual(args) ? StepLanes<true, true>(args, lanes, resets)
                  : StepLanes<false, true>(args, lanes, resets);
  } else {
    IsUsual(args) ? StepLanes<true, false>(args, lanes, resets)
                  : StepLanes<false, false>(args, lanes, resets);
  }
}

// The sequences of one group, and its memory.
class RecurrentGroup {
 public:
  RecurrentGroup(const RecurrentArgs& args, void* const* io, int64_t item, float* scratch)
      : args_(args), io_(io), first_(item * args.group) {
    count_ = args.batch - first_ < args.group ? args.batch - first_ : args.group;
    const int64_t rows = args.hidden * args.column_row;
    h_ = scratch;
    c_ = h_ + rows;
    product_ = c_ + rows;
    inputs_ = product_ + GatesOf(args.cell) * rows;
    projected_ = inputs_ + args.width * args.projection_row;
    scratch_ = projected_ + GatesOf(args.cell) * args.hidden * args.projection_row;
    for (int64_t n = 0; n < count_; ++n) {
      const int64_t steps = StepsOf(args, io[3], first_ + n);
      steps_ = steps > steps_ ? steps : steps_;
    }
  }

  void Run() {
    Begin(io_[1], h_);
    Begin(io_[2], c_);
    const bool resets_first = args_.candidate.run != nullptr;
    const int64_t reset_product = 2 * args_.hidden * args_.column_row;
    for (int64_t step = 0; step < args_.steps; ++step) {
      const bool any = step < steps_;
      if (any && args_.projection.run != nullptr && step % args_.chunk_steps == 0) Project(step);
      if (any) Multiply(args_.state, step, h_, product_);
      if (any && resets_first) {
        for (int64_t n = 0; n < count_; n += Vec::kLanes) {
          const RecurrentLanes lanes = At(step, n);
          StepLanes(args_, lanes, true);
        }
        Multiply(args_.candidate, step, c_, product_ + reset_product);
      }
      for (int64_t n = 0; n < count_; n += Vec::kLanes) {
        const RecurrentLanes lanes = At(step, n);
        if (!any) {
          for (float* y : lanes.y) {
            if (y != nullptr) CopyState(nullptr, y, args_.hidden);
          }
        } else {
          StepLanes(args_, lanes, false);
        }
      }
    }
    End(h_, io_[5]);
    End(c_, io_[6]);
  }

 private:
  // Sequences beside the group's own, up to whole vectors, start at zero too.
  void Begin(const void* initial, float* columns) const {
    for (int64_t j = 0; j < args_.hidden; ++j) {
      for (int64_t n = 0; n < args_.column_row; ++n) {
        const bool is_given = initial != nullptr && n < count_ &&
                              (io_[3] == nullptr || StepsOf(args_, io_[3], first_ + n) > 0);
        columns[j * args_.column_row + n] =
            is_given ? static_cast<const float*>(initial)[(first_ + n) * args_.hidden + j] : 0.0f;
      }
    }
  }
  void End(const float* columns, void* last) const {
    if (last == nullptr) return;
    for (int64_t n = 0; n < count_; ++n) {
      float* to = static_cast<float*>(last) + (first_ + n) * args_.hidden;
      for (int64_t j = 0; j < args_.hidden; ++j) to[j] = columns[j * args_.column_row + n];
    }
  }

  // The inputs of steps `first` and on become columns, and those the sums of the gates.
  void Project(int64_t first) const {
    for (int64_t s = 0; s < args_.chunk_steps && first + s < args_.steps; ++s) {
      for (int64_t n = 0; n < count_; n += Vec::kLanes) {
        const RecurrentLanes lanes = At(first + s, n);
        const Mask sequences = LanesAt(n, count_);
        for (int64_t j = 0; j < args_.width; j += Vec::kLanes) {
          Square x;
          LoadSquare(lanes, j, LanesAt(j, args_.width), &x);
          float* to = inputs_ + j * args_.projection_row + s * args_.group + n;
          const int rows = RowsAt(j, args_.width);
          for (int i = 0; i < rows; ++i) {
            StoreMask(to + i * args_.projection_row, sequences, x.rows[i]);
          }
        }
      }
    }
    Multiply(args_.projection, 0, inputs_, projected_);
  }

  // Every other step begins where the one before has ended: of a matrix larger than the cache, that
  // is still there.
  void Multiply(const StateProduct& product, int64_t step, float* columns, float* result) const {
    void* const io[] = {columns, nullptr, result};
    const int64_t items = SpmmItems(*product.columns);
    for (int64_t i = 0; i < items; ++i) {
      const int64_t item = step % 2 == 0 ? i : items - 1 - i;
      product.run(product.columns, io, item, item + 1, scratch_);
    }
  }

  // The vector of sequences n and on of the group.
  RecurrentLanes At(int64_t step, int64_t n) const {
    const bool projects = args_.projection.run != nullptr;
    const int64_t x_row = projects ? args_.width : GatesOf(args_.cell) * args_.hidden;
    RecurrentLanes lanes;
    lanes.projected = projects ? projected_ + step % args_.chunk_steps * args_.group + n : nullptr;
    lanes.h = h_ + n;
    lanes.c = c_ + n;
    lanes.product = product_ + n;
    uint32_t active = 0;
    for (int l = 0; l < Vec::kLanes; ++l) {
      lanes.x[l] = nullptr;
      lanes.y[l] = nullptr;
      if (n + l >= count_) continue;
      const int64_t item = first_ + n + l;
      const int64_t length = StepsOf(args_, io_[3], item);
      const bool ended = step >= length;
      const int64_t at = (args_.reverse && !ended ? length - 1 - step : step) * args_.batch + item;
      lanes.y[l] = static_cast<float*>(io_[4]) + at * args_.hidden;
      if (ended) continue;
      lanes.x[l] = static_cast<const float*>(io_[0]) + at * x_row;
      active |= 1u << l;
    }
    lanes.active = MaskFromBits(active);
    lanes.all_active = active == (1u << (Vec::kLanes - 1)) * 2 - 1;
    return lanes;
  }

  const RecurrentArgs& args_;
  void* const* io_;
  int64_t first_;
  int64_t count_ = 0;
  int64_t steps_ = 0;  // of the longest sequence
  float* h_;
  float* c_;
  float* product_;
  float* inputs_;     // of the projection
  float* projected_;  // what it gives
  float* scratch_;
};

}  // namespace SRT_ISA
}  // namespace sparsert
