// macros.c as C++, and what C++ adds: constant expressions of any integer type, SDPA_COUNT for arrays only.

#include "macros.c"

namespace {

enum { DIM = 64 };

constexpr int width = 32;
constexpr size_t blocks = 2;
static_assert(SDPA_ATTENTION_WORKSPACE(DIM, width) == (64 + 32 + SDPA_QUERY_STATE) * SDPA_QUERY_BLOCK, "");
static_assert(SDPA_CACHE_FLOATS(DIM, width, blocks) == (64 + 32) * 64 * 2, "");
static_assert(SDPA_CACHE_FLOATS_OF(DIM, width, blocks, SDPA_F16, SDPA_I8) == (64 * 32 + 32 * 16 + 64) * 2, "");
static_assert(SDPA_ELEMENTS_WORKSPACE(DIM, width) > SDPA_ATTENTION_WORKSPACE(DIM, width), "");

template <class A, class B> constexpr size_t both(A a, B b) {
    return SDPA_ATTENTION_WORKSPACE(a, b) + SDPA_CACHE_FLOATS(a, b, a);
}
static_assert(both(1, blocks) == both(1u, 2LL) && both(blocks, 2) == both('\2', static_cast<short>(2)), "");

template <class T> constexpr auto has_count(int) -> decltype(SDPA_COUNT(*static_cast<T *>(nullptr)), true) {
    return true;
}
template <class T> constexpr bool has_count(...) { return false; }
static_assert(has_count<float[3]>(0) && !has_count<float *>(0), "");

}  // namespace
