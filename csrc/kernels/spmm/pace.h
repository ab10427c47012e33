// What shares out the work that the vector unit does beside the products of tile registers.
// Included once per instruction set, with SRT_ISA defined.
#pragma once

namespace sparsert {
namespace SRT_ISA {
namespace {

// Spreads work evenly over the calls of Due().
class Pace {
 public:
  void Set(int work, int calls) {
    rate_ = calls == 0 ? 0 : (work * 256 + calls - 1) / calls;
    credit_ = 0;
  }
  int Due() {
    credit_ += rate_;
    const int due = credit_ >> 8;
    credit_ &= 255;
    return due;
  }

 private:
  int rate_ = 0;
  int credit_ = 0;
};

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
