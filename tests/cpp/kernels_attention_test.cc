// Attention against a double reference on every ISA: strides, masks, shared heads, many blocks.
#include "kernel_harness.h"
#include "kernels/attention/attention.h"

namespace sparsert {
namespace test {
namespace {

struct Sizes {
  int64_t batch, heads, group, queries, keys, size, value_size;
};

// Operands [batch, heads, tokens, size], stored with tokens next to each other or features.
Tensor Operand(int64_t batch, int64_t heads, int64_t tokens, int64_t size, bool token_last) {
  Tensor t(DType::kF32, {batch, heads, tokens, size});
  if (token_last) {
    t.desc.strides[2] = 1;
    t.desc.strides[3] = tokens;
  }
  return t;
}

AttentionStrides StridesOf(const Tensor& t) {
  const int64_t* s = t.desc.strides;
  return {s[0], s[1], s[2], s[3]};
}

enum class MaskKind { kNone, kKeys, kAll };

void CheckAttention(const Sizes& z, bool token_last, MaskKind kind, bool hide_first, Isa isa) {
  context = "attention of " + std::to_string(z.queries) + " to " + std::to_string(z.keys) +
            " mask " + std::to_string(static_cast<int>(kind)) + (token_last ? " turned" : "") +
            " isa " + std::to_string(static_cast<int>(isa));
  Random random(static_cast<uint64_t>(z.queries + 3 * z.keys));
  const int64_t kv_heads = z.heads / z.group;
  Tensor q = Operand(z.batch, z.heads, z.queries, z.size, token_last);
  Tensor k = Operand(z.batch, kv_heads, z.keys, z.size, token_last);
  Tensor v = Operand(z.batch, kv_heads, z.keys, z.value_size, token_last);
  Tensor y = Operand(z.batch, z.heads, z.queries, z.value_size, token_last);
  q.FillUniform(&random, -3, 3);
  k.FillUniform(&random, -3, 3);
  v.FillUniform(&random, -1, 1);
  const bool all = kind == MaskKind::kAll;
  Tensor mask = Operand(all ? z.batch : 1, all ? z.heads : 1, all ? z.queries : 1, z.keys, all);
  mask.FillUniform(&random, -4, 0);
  // Whole blocks of keys that count for nothing, before others that do.
  for (int64_t i = 0; i < mask.elements(); ++i) {
    if (hide_first && i % z.keys < z.keys - 1) mask.F(i) = -INFINITY;
  }
  AttentionArgs args = {};
  args.batch = z.batch;
  args.heads = z.heads;
  args.head_group = z.group;
  args.queries = z.queries;
  args.keys = z.keys;
  args.size = z.size;
  args.value_size = z.value_size;
  args.q = StridesOf(q);
  args.k = StridesOf(k);
  args.v = StridesOf(v);
  args.y = StridesOf(y);
  args.mask = all ? StridesOf(mask) : AttentionStrides{0, 0, 0, mask.desc.strides[3]};
  args.alpha = 0.5f;
  Kernel kernel;
  Expect(SelectAttention(args, isa, &kernel) && kernel.isa == isa, "no kernel");
  Run(kernel, &args,
      {q.data(), k.data(), v.data(), kind == MaskKind::kNone ? nullptr : mask.data(), y.data()},
      AttentionItems(args), AttentionScratch(args));
  std::vector<double> want;
  std::vector<double> scores(static_cast<size_t>(z.keys));
  for (int64_t row = 0; row < z.batch * z.heads * z.queries; ++row) {
    const int64_t head = row / z.queries;
    const int64_t shared = head / z.heads * kv_heads + head % z.heads / z.group;
    double max = -INFINITY;
    for (int64_t t = 0; t < z.keys; ++t) {
      double s = 0;
      for (int64_t d = 0; d < z.size; ++d) {
        s += static_cast<double>(q.F(row * z.size + d)) *
             static_cast<double>(k.F((shared * z.keys + t) * z.size + d));
      }
      s *= 0.5;
      if (kind != MaskKind::kNone) s += static_cast<double>(mask.F(all ? row * z.keys + t : t));
      scores[static_cast<size_t>(t)] = s;
      max = std::fmax(max, s);
    }
    double sum = 0;
    for (double& s : scores) sum += s = std::exp(s - max);
    for (int64_t d = 0; d < z.value_size; ++d) {
      double total = 0;
      for (int64_t t = 0; t < z.keys; ++t) {
        total += scores[static_cast<size_t>(t)] *
                 static_cast<double>(v.F((shared * z.keys + t) * z.value_size + d));
      }
      want.push_back(total / sum);
    }
  }
  ExpectNear(y, want, 2e-5, 5e-6);
}

void TestAttention() {
  const Sizes sizes[] = {{1, 1, 1, 1, 1, 1, 1},    {1, 2, 1, 3, 5, 4, 6},
                         {2, 4, 2, 16, 16, 8, 8},  {1, 2, 2, 65, 127, 7, 3},
                         {2, 1, 1, 64, 128, 5, 5}, {1, 1, 1, 70, 300, 3, 17},
                         {0, 2, 1, 3, 4, 2, 2}};
  for (const Isa isa : Isas()) {
    for (const Sizes& z : sizes) {
      for (int mode = 0; mode < 12; ++mode) {
        const MaskKind kind = static_cast<MaskKind>(mode / 2 % 3);
        CheckAttention(z, mode % 2 != 0, kind, mode >= 6, isa);
      }
    }
  }
}

// A query to which every key is hidden has no softmax.
void TestNothingToSee() {
  for (const Isa isa : Isas()) {
    context = "nothing to see";
    Tensor one(DType::kF32, {1, 1, 2, 1});
    Tensor mask(DType::kF32, {1, 1, 2, 2});
    Tensor y(DType::kF32, {1, 1, 2, 1});
    one.F(0) = one.F(1) = 1;
    for (int64_t i = 0; i < 4; ++i) mask.F(i) = i < 2 ? -INFINITY : 0;
    AttentionArgs args = {};
    args.batch = args.heads = args.head_group = args.size = args.value_size = 1;
    args.queries = args.keys = 2;
    args.q = args.k = args.v = args.y = {2, 2, 1, 1};
    // Stored by keys: the first key is hidden from both, then the second one from the first query.
    args.mask = {4, 4, 2, 1};
    args.alpha = 1;
    Tensor turned(DType::kF32, {1, 1, 2, 2});
    for (int64_t i = 0; i < 4; ++i) turned.F(i % 2 * 2 + i / 2) = mask.F(i);
    args.mask = {4, 4, 1, 2};
    Kernel kernel;
    Expect(SelectAttention(args, isa, &kernel), "no kernel");
    Run(kernel, &args, {one.data(), one.data(), one.data(), turned.data(), y.data()},
        AttentionItems(args), AttentionScratch(args));
    ExpectNear(y, {NAN, 1}, 1e-6, 0);
    args.zero_nan = true;
    Run(kernel, &args, {one.data(), one.data(), one.data(), turned.data(), y.data()},
        AttentionItems(args), AttentionScratch(args));
    ExpectNear(y, {0, 1}, 1e-6, 0);
    // A score that is NaN.
    turned.F(1) = NAN;
    Run(kernel, &args, {one.data(), one.data(), one.data(), turned.data(), y.data()},
        AttentionItems(args), AttentionScratch(args));
    ExpectNear(y, {0, 0}, 1e-6, 0);
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  sparsert::test::TestAttention();
  sparsert::test::TestNothingToSee();
  return sparsert::test::Finish("kernels_attention_test");
}
