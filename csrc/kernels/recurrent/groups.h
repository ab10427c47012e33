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
  const float* x[Vec::kLanes];  // [gates][hidden]; nullptr: no sequence, or it has ended
  float* y[Vec::kLanes];        // [hidden]; nullptr: no sequence
  Mask active;                  // those with an x
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

// Rows of what is left of `hidden` behind row j.
static int RowsAt(int64_t j, int64_t hidden) {
  return static_cast<int>(hidden - j < Vec::kLanes ? hidden - j : Vec::kLanes);
}

template <bool kUsual>
static void StepLstmLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  Peepholes see = {Zero(), Zero(), Zero()};
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    Square x[4], y;
    for (int g = 0; g < 4; ++g) LoadSquare(lanes, g * hidden + j, elements, &x[g]);
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      Vec gate[4];
      for (int g = 0; g < 4; ++g) {
        gate[g] = Add(x[g].rows[i], LoadU(lanes.product + (g * hidden + j + i) * row));
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
template <bool kUsual>
static void ResetLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    Square x;
    LoadSquare(lanes, hidden + j, LanesAt(j, hidden), &x);
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const int64_t at = (j + i) * row;
      const Vec reset = fn.F(Add(x.rows[i], LoadU(lanes.product + hidden * row + at)));
      StoreU(lanes.c + at, Mul(reset, LoadU(lanes.h + at)));
    }
  }
}

template <bool kUsual>
static void StepGruLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  const bool reset_first = args.candidate.run != nullptr;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    Square update, reset, candidate, y;
    LoadSquare(lanes, j, elements, &update);
    if (!reset_first) LoadSquare(lanes, hidden + j, elements, &reset);
    LoadSquare(lanes, 2 * hidden + j, elements, &candidate);
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const float* sums = lanes.product + (j + i) * row;
      Vec product = LoadU(sums + 2 * hidden * row);
      if (!reset_first) {
        product = Mul(fn.F(Add(reset.rows[i], LoadU(sums + hidden * row))), product);
      }
      float* h = lanes.h + (j + i) * row;
      const Vec next =
          GruCell(fn, Add(update.rows[i], LoadU(sums)), Add(candidate.rows[i], product), LoadU(h));
      y.rows[i] = RenewState(lanes, h, next);
    }
    for (int i = rows; i < Vec::kLanes; ++i) y.rows[i] = Zero();
    StoreSquare(lanes, j, elements, &y);
  }
}

template <bool kUsual>
static void StepRnnLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  const int64_t row = args.column_row;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask elements = LanesAt(j, hidden);
    Square x, y;
    LoadSquare(lanes, j, elements, &x);
    const int rows = RowsAt(j, hidden);
    for (int i = 0; i < rows; ++i) {
      const int64_t at = (j + i) * row;
      const Vec h = fn.F(Add(x.rows[i], LoadU(lanes.product + at)));
      y.rows[i] = RenewState(lanes, lanes.h + at, h);
    }
    for (int i = rows; i < Vec::kLanes; ++i) y.rows[i] = Zero();
    StoreSquare(lanes, j, elements, &y);
  }
}

template <bool kUsual>
static void StepLanes(const RecurrentArgs& args, const RecurrentLanes& lanes) {
  if (args.cell == Cell::kLstm) {
    StepLstmLanes<kUsual>(args, lanes);
  } else if (args.cell == Cell::kGru) {
    StepGruLanes<kUsual>(args, lanes);
  } else {
    StepRnnLanes<kUsual>(args, lanes);
  }
}

// The sequences of one group, and its memory.
class RecurrentGroup {
 public:
  RecurrentGroup(const RecurrentArgs& args, void* const* io, int64_t item, float* scratch)
      : args_(args), io_(io), first_(item * args.group), usual_(IsUsual(args)) {
    count_ = args.batch - first_ < args.group ? args.batch - first_ : args.group;
    const int64_t rows = args.hidden * args.column_row;
    h_ = scratch;
    c_ = h_ + rows;
    product_ = c_ + rows;
    scratch_ = product_ + GatesOf(args.cell) * rows;
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
      if (any) Multiply(args_.state, step, h_, product_);
      if (any && resets_first) {
        for (int64_t n = 0; n < count_; n += Vec::kLanes) {
          const RecurrentLanes lanes = At(step, n);
          usual_ ? ResetLanes<true>(args_, lanes) : ResetLanes<false>(args_, lanes);
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
          usual_ ? StepLanes<true>(args_, lanes) : StepLanes<false>(args_, lanes);
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
    const int64_t gates = GatesOf(args_.cell) * args_.hidden;
    RecurrentLanes lanes;
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
      lanes.x[l] = static_cast<const float*>(io_[0]) + at * gates;
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
  bool usual_;
  float* h_;
  float* c_;
  float* product_;
  float* scratch_;
};

}  // namespace SRT_ISA
}  // namespace sparsert
