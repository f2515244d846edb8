/* Every pointer of every function, misaligned and into unmapped memory: SDPA_ERROR_POINTER, and no fault.
 * Runs on the host and, without a C library, on a board. */

#include "sdpa.h"

#if __STDC_HOSTED__
#include <stdio.h>
#define NOWHERE 64 /* the first page is unmapped */
#else
#define NOWHERE 0x30000000 /* the boards have no memory here */
#endif

enum { N = 4 };

static int failed;

static void check(int is_right, int line) {
    if (!is_right && failed == 0) {
        failed = line;
    }
}
#define CHECK(condition) check(condition, __LINE__)

/* Calls a function and its _on variant. */
#define BOTH(status, name, ...)                                                     \
    do {                                                                            \
        CHECK(name(__VA_ARGS__) == (status));                                       \
        CHECK(name##_on(0, __VA_ARGS__) == (status));                               \
    } while (0)

/* Sets `pointer` to each misaligned address, and then back. */
#define EACH(pointer, then)                                                         \
    do {                                                                            \
        const uintptr_t was = (uintptr_t)(pointer);                                 \
        for (uintptr_t beside = 1; beside < sizeof(float); beside++) {              \
            (pointer) = (void *)(NOWHERE + beside);                                 \
            then;                                                                   \
        }                                                                           \
        (pointer) = (void *)was;                                                    \
    } while (0)
#define BESIDE(pointer, name, ...) EACH(pointer, BOTH(SDPA_ERROR_POINTER, name, __VA_ARGS__))

static float floats[N * N], weights[N * N], others[N * N], result[N * N], sums[N];
static float span[N * SDPA_STATE_FLOATS(N)], *states = span;
static float space[SDPA_ELEMENTS_WORKSPACE(N, N)], storage[SDPA_CACHE_FLOATS(N, N, 1)];
static const float three = 3;

static const float *a = floats, *b = weights;
static float *out = result;

static void of_slices(void) {
    BOTH(SDPA_OK, sdpa_dot, a, b, N, out);
    BESIDE(a, sdpa_dot, a, b, N, out);
    BESIDE(b, sdpa_dot, a, b, N, out);
    BESIDE(out, sdpa_dot, a, b, N, out);
    BESIDE(a, sdpa_dot, a, b, 0, out); /* without elements too */
    BOTH(SDPA_OK, sdpa_softmax, a, N, out);
    BESIDE(a, sdpa_softmax, a, N, out);
    BESIDE(out, sdpa_softmax, a, N, out);
}

static sdpa_matrix x = {floats, N, N, 0, 0}, w = {weights, N, N, 0, 0}, v = {others, N, N, 0, 0};
static sdpa_matrix_mut o = {result, N, N, 0, 0};
static const float *added = others;
static float *lse = sums;
static sdpa_array array = {weights, SDPA_I8, 0, N, N, 0, 0, 0, others, 0, 0};
static sdpa_array more = {others, SDPA_F32, 1, N, N, 0, 0, 0, NULL, 0, 0};
static void *to = result;

static void of_matrices(void) {
    BOTH(SDPA_OK, sdpa_softmax_rows, x, o);
    BESIDE(x.data, sdpa_softmax_rows, x, o);
    BESIDE(o.data, sdpa_softmax_rows, x, o);
    BOTH(SDPA_OK, sdpa_softmax_columns, x, o);
    BESIDE(x.data, sdpa_softmax_columns, x, o);
    BESIDE(o.data, sdpa_softmax_columns, x, o);
    BOTH(SDPA_OK, sdpa_project, x, w, added, o);
    BESIDE(x.data, sdpa_project, x, w, added, o);
    BESIDE(w.data, sdpa_project, x, w, added, o);
    BESIDE(added, sdpa_project, x, w, added, o);
    BESIDE(o.data, sdpa_project, x, w, added, o);
    BOTH(SDPA_OK, sdpa_scores, x, w, 0, o);
    BESIDE(x.data, sdpa_scores, x, w, 0, o);
    BESIDE(w.data, sdpa_scores, x, w, 0, o);
    BESIDE(o.data, sdpa_scores, x, w, 0, o);
    BOTH(SDPA_OK, sdpa_weighted_sum, x, w, o);
    BESIDE(x.data, sdpa_weighted_sum, x, w, o);
    BESIDE(w.data, sdpa_weighted_sum, x, w, o);
    BESIDE(o.data, sdpa_weighted_sum, x, w, o);
    BOTH(SDPA_OK, sdpa_project_elements, x, array, added, o);
    BESIDE(x.data, sdpa_project_elements, x, array, added, o);
    BESIDE(array.scales, sdpa_project_elements, x, array, added, o);
    BESIDE(added, sdpa_project_elements, x, array, added, o);
    BESIDE(o.data, sdpa_project_elements, x, array, added, o);
    array.format = SDPA_F32;
    BESIDE(array.data, sdpa_project_elements, x, array, added, o);
    array.format = SDPA_I8;
    CHECK(sdpa_narrow(x, SDPA_F32, to, lse) == SDPA_OK);
    EACH(x.data, CHECK(sdpa_narrow(x, SDPA_F32, to, lse) == SDPA_ERROR_POINTER));
    EACH(to, CHECK(sdpa_narrow(x, SDPA_F32, to, lse) == SDPA_ERROR_POINTER));
    EACH(lse, CHECK(sdpa_narrow(x, SDPA_I8, to, lse) == SDPA_ERROR_POINTER));
    BOTH(SDPA_OK, sdpa_merge, o, lse, x, added);
    BESIDE(o.data, sdpa_merge, o, lse, x, added);
    BESIDE(lse, sdpa_merge, o, lse, x, added);
    BESIDE(x.data, sdpa_merge, o, lse, x, added);
    BESIDE(added, sdpa_merge, o, lse, x, added);
}

static sdpa_rotary rotary;
static const sdpa_rotary *table = &rotary;
static sdpa_rotary *into = &rotary;
static float factors[2 * N * N / 2], *factor = factors;
static const float *each = weights;
static sdpa_heads rows = {floats, 1, N, N, 0, 0, 0};
static sdpa_heads_mut turned = {result, 1, N, N, 0, 0, 0};

static void of_rotations(void) {
    const size_t count = SDPA_COUNT(factors);
#define INIT sdpa_rotary_init(into, 0, each, N / 2, 3, N, factor, count)
    CHECK(INIT == SDPA_OK);
    EACH(into, CHECK(INIT == SDPA_ERROR_POINTER));
    EACH(each, CHECK(INIT == SDPA_ERROR_POINTER));
    EACH(factor, CHECK(INIT == SDPA_ERROR_POINTER));
    BOTH(SDPA_OK, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
    BESIDE(rows.data, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
    BESIDE(table, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
    BESIDE(turned.data, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
    BESIDE(rotary.cosines.data, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
    BESIDE(rotary.sines.data, sdpa_rotate, rows, table, 3, SDPA_HALVES, turned);
}

static sdpa_options all;
static const sdpa_options *options = &all;

static float *workspace = space;
static const size_t len = SDPA_COUNT(space);
static const float *sinks = weights;
static sdpa_heads q = {floats, 1, N, N, 0, 0, 0}, k = {weights, 1, N, N, 0, 0, 0};
static sdpa_heads values = {others, 1, N, N, 0, 0, 0};
static sdpa_heads_mut ho = {result, 1, N, N, 0, 0, 0};
static const int32_t starts[] = {0, 1, N}, *cu_q = starts, *cu_k = starts;

/* The pointers that attention calls share, with these arguments. */
#define BESIDE_OF_ATTENTION(queries, to, name, ...)                                 \
    do {                                                                            \
        BOTH(SDPA_OK, name, __VA_ARGS__);                                           \
        BESIDE(queries.data, name, __VA_ARGS__);                                    \
        BESIDE(to.data, name, __VA_ARGS__);                                         \
        BESIDE(lse, name, __VA_ARGS__);                                             \
        BESIDE(workspace, name, __VA_ARGS__);                                       \
        BESIDE(options, name, __VA_ARGS__);                                         \
        BESIDE(all.bias.data, name, __VA_ARGS__);                                   \
        BESIDE(all.slopes, name, __VA_ARGS__);                                      \
    } while (0)

static void of_attention(void) {
    all.bias = v;
    all.slopes = weights;
    all.sink = &three;
    BOTH(SDPA_OK, sdpa_pattern, x, w, options, o);
    BESIDE(x.data, sdpa_pattern, x, w, options, o);
    BESIDE(w.data, sdpa_pattern, x, w, options, o);
    BESIDE(o.data, sdpa_pattern, x, w, options, o);
    BESIDE(options, sdpa_pattern, x, w, options, o);
    BESIDE(all.bias.data, sdpa_pattern, x, w, options, o);
    BESIDE(all.sink, sdpa_pattern, x, w, options, o);
    BESIDE(all.slopes, sdpa_pattern, x, w, options, o);

    BESIDE_OF_ATTENTION(x, o, sdpa_attention, x, w, v, options, o, lse, workspace, len);
    BESIDE(w.data, sdpa_attention, x, w, v, options, o, lse, workspace, len);
    BESIDE(v.data, sdpa_attention, x, w, v, options, o, lse, workspace, len);
    BESIDE(all.sink, sdpa_attention, x, w, v, options, o, lse, workspace, len);

    all.sink = NULL;
    all.slopes = NULL;
    all.bias.data = NULL;
#define PLAIN(pointer)                                                                                      \
    EACH(pointer, CHECK(sdpa_attention_plain(x, w, v, options, o, workspace, len) == SDPA_ERROR_POINTER))
    CHECK(sdpa_attention_plain(x, w, v, options, o, workspace, len) == SDPA_OK);
    PLAIN(x.data);
    PLAIN(w.data);
    PLAIN(v.data);
    PLAIN(options);
    PLAIN(o.data);
    PLAIN(workspace);
#define PLAIN_HEADS(pointer)                                                                                     \
    EACH(pointer, CHECK(sdpa_attention_heads_plain(q, k, values, options, ho, workspace, len) == SDPA_ERROR_POINTER))
    CHECK(sdpa_attention_heads_plain(q, k, values, options, ho, workspace, len) == SDPA_OK);
    PLAIN_HEADS(q.data);
    PLAIN_HEADS(k.data);
    PLAIN_HEADS(values.data);
    PLAIN_HEADS(options);
    PLAIN_HEADS(ho.data);
    PLAIN_HEADS(workspace);
    all.bias = v;
    all.slopes = weights;
#define BESIDE_OF_PATTERN(to, name, ...)                                            \
    do {                                                                            \
        BOTH(SDPA_OK, name, __VA_ARGS__);                                           \
        BESIDE(q.data, name, __VA_ARGS__);                                          \
        BESIDE(options, name, __VA_ARGS__);                                         \
        BESIDE(all.bias.data, name, __VA_ARGS__);                                   \
        BESIDE(all.slopes, name, __VA_ARGS__);                                      \
        BESIDE(sinks, name, __VA_ARGS__);                                           \
        BESIDE(to.data, name, __VA_ARGS__);                                         \
    } while (0)
    BESIDE_OF_PATTERN(ho, sdpa_pattern_heads, q, k, options, sinks, ho);
    BESIDE(k.data, sdpa_pattern_heads, q, k, options, sinks, ho);
    BESIDE_OF_PATTERN(o, sdpa_pattern_mean, q, k, options, sinks, o, workspace, len);
    BESIDE(k.data, sdpa_pattern_mean, q, k, options, sinks, o, workspace, len);
    BESIDE(workspace, sdpa_pattern_mean, q, k, options, sinks, o, workspace, len);
    BESIDE_OF_ATTENTION(q, ho, sdpa_attention_heads, q, k, values, options, sinks, ho, lse, workspace, len);
    BESIDE(k.data, sdpa_attention_heads, q, k, values, options, sinks, ho, lse, workspace, len);
    BESIDE(values.data, sdpa_attention_heads, q, k, values, options, sinks, ho, lse, workspace, len);
    BESIDE(sinks, sdpa_attention_heads, q, k, values, options, sinks, ho, lse, workspace, len);
    BESIDE_OF_PATTERN(ho, sdpa_pattern_elements, q, array, options, sinks, ho, workspace, len);
    BESIDE(array.scales, sdpa_pattern_elements, q, array, options, sinks, ho, workspace, len);
    BESIDE(workspace, sdpa_pattern_elements, q, array, options, sinks, ho, workspace, len);
    BESIDE_OF_PATTERN(o, sdpa_pattern_mean_elements, q, array, options, sinks, o, workspace, len);
    BESIDE(array.scales, sdpa_pattern_mean_elements, q, array, options, sinks, o, workspace, len);
    BESIDE(workspace, sdpa_pattern_mean_elements, q, array, options, sinks, o, workspace, len);
#define PACKED cu_q, cu_k, 2, options, sinks, ho, lse, workspace, len
    BESIDE_OF_ATTENTION(q, ho, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE(k.data, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE(values.data, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE(cu_q, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE(cu_k, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE(sinks, sdpa_attention_packed, q, k, values, PACKED);
    BESIDE_OF_ATTENTION(q, ho, sdpa_attention_packed_elements, q, array, more, PACKED);
    BESIDE(array.scales, sdpa_attention_packed_elements, q, array, more, PACKED);
    BESIDE(more.data, sdpa_attention_packed_elements, q, array, more, PACKED);
    BESIDE(cu_q, sdpa_attention_packed_elements, q, array, more, PACKED);
    BESIDE(cu_k, sdpa_attention_packed_elements, q, array, more, PACKED);
    BESIDE_OF_ATTENTION(q, ho, sdpa_attention_elements, q, array, more, options, sinks, ho, lse, workspace, len);
    BESIDE(array.scales, sdpa_attention_elements, q, array, more, options, sinks, ho, lse, workspace, len);
    BESIDE(more.data, sdpa_attention_elements, q, array, more, options, sinks, ho, lse, workspace, len);
    BESIDE(sinks, sdpa_attention_elements, q, array, more, options, sinks, ho, lse, workspace, len);
}

/* The pointers that the calls with states share, with these arguments. */
#define BESIDE_OF_STATES(queries, name, ...)                                        \
    do {                                                                            \
        BOTH(SDPA_OK, name, __VA_ARGS__);                                           \
        BESIDE(queries.data, name, __VA_ARGS__);                                    \
        BESIDE(states, name, __VA_ARGS__);                                          \
        BESIDE(workspace, name, __VA_ARGS__);                                       \
        BESIDE(options, name, __VA_ARGS__);                                         \
        BESIDE(all.bias.data, name, __VA_ARGS__);                                   \
        BESIDE(all.slopes, name, __VA_ARGS__);                                      \
        BESIDE(all.sink, name, __VA_ARGS__);                                        \
    } while (0)
#define STATES states, SDPA_COUNT(span)

static void of_states(void) {
    all.sink = &three;
    BESIDE_OF_STATES(x, sdpa_attention_states, x, w, v, options, 0, STATES, workspace, len);
    BESIDE(w.data, sdpa_attention_states, x, w, v, options, 0, STATES, workspace, len);
    BESIDE(v.data, sdpa_attention_states, x, w, v, options, 0, STATES, workspace, len);
    BESIDE_OF_STATES(q, sdpa_attention_states_heads, q, k, values, options, 0, STATES, workspace, len);
    BESIDE(k.data, sdpa_attention_states_heads, q, k, values, options, 0, STATES, workspace, len);
    BESIDE(values.data, sdpa_attention_states_heads, q, k, values, options, 0, STATES, workspace, len);

    BESIDE_OF_STATES(q, sdpa_attention_states_elements, q, array, more, options, 0, STATES, workspace, len);
    BESIDE(array.scales, sdpa_attention_states_elements, q, array, more, options, 0, STATES, workspace, len);
    BESIDE(more.data, sdpa_attention_states_elements, q, array, more, options, 0, STATES, workspace, len);

    BOTH(SDPA_OK, sdpa_join, STATES, options, o, lse);
    BESIDE(states, sdpa_join, STATES, options, o, lse);
    BESIDE(options, sdpa_join, STATES, options, o, lse);
    BESIDE(all.sink, sdpa_join, STATES, options, o, lse);
    BESIDE(o.data, sdpa_join, STATES, options, o, lse);
    BESIDE(lse, sdpa_join, STATES, options, o, lse);
    all.sink = NULL;
    BOTH(SDPA_OK, sdpa_join_heads, STATES, options, sinks, ho, lse);
    BESIDE(states, sdpa_join_heads, STATES, options, sinks, ho, lse);
    BESIDE(options, sdpa_join_heads, STATES, options, sinks, ho, lse);
    BESIDE(sinks, sdpa_join_heads, STATES, options, sinks, ho, lse);
    BESIDE(ho.data, sdpa_join_heads, STATES, options, sinks, ho, lse);
    BESIDE(lse, sdpa_join_heads, STATES, options, sinks, ho, lse);
}

static float *held = storage;
static sdpa_cache made, *cache = &made;

static void of_caches(void) {
    EACH(cache, CHECK(sdpa_cache_init_at(cache, N, N, held, SDPA_COUNT(storage), 9) == SDPA_ERROR_POINTER));
    EACH(held, CHECK(sdpa_cache_init_at(cache, N, N, held, SDPA_COUNT(storage), 9) == SDPA_ERROR_POINTER));
    EACH(cache, CHECK(sdpa_cache_init(cache, N, N, held, SDPA_COUNT(storage)) == SDPA_ERROR_POINTER));
    EACH(held, CHECK(sdpa_cache_init(cache, N, N, held, SDPA_COUNT(storage)) == SDPA_ERROR_POINTER));
    CHECK(sdpa_cache_init(cache, N, N, held, SDPA_COUNT(storage)) == SDPA_OK);
    EACH(cache, CHECK(sdpa_cache_append(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(made.storage, CHECK(sdpa_cache_append(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(x.data, CHECK(sdpa_cache_append(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(w.data, CHECK(sdpa_cache_append(cache, x, w) == SDPA_ERROR_POINTER));
    CHECK(sdpa_cache_append(cache, x, w) == SDPA_OK);
    EACH(cache, CHECK(sdpa_cache_truncate(cache, N) == SDPA_ERROR_POINTER));
    EACH(made.storage, CHECK(sdpa_cache_truncate(cache, N) == SDPA_ERROR_POINTER));
    EACH(cache, CHECK(sdpa_cache_keep_first(cache, N) == SDPA_ERROR_POINTER));
    EACH(cache, CHECK(sdpa_cache_slide(cache, N) == SDPA_ERROR_POINTER));
    EACH(made.storage, CHECK(sdpa_cache_slide(cache, N) == SDPA_ERROR_POINTER));

    all.sink = &three;
    BESIDE_OF_ATTENTION(x, o, sdpa_cache_attend, cache, x, options, o, lse, workspace, len);
    BESIDE(cache, sdpa_cache_attend, cache, x, options, o, lse, workspace, len);
    BESIDE(made.storage, sdpa_cache_attend, cache, x, options, o, lse, workspace, len);
    BESIDE(all.sink, sdpa_cache_attend, cache, x, options, o, lse, workspace, len);

    all.sink = NULL;
    BESIDE_OF_ATTENTION(q, ho, sdpa_cache_attend_heads, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(cache, sdpa_cache_attend_heads, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(made.storage, sdpa_cache_attend_heads, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(sinks, sdpa_cache_attend_heads, cache, q, options, sinks, ho, lse, workspace, len);
#define PLAIN_CACHE(pointer)                                                                                 \
    EACH(pointer, CHECK(sdpa_cache_attend_heads_plain(cache, q, NULL, ho, workspace, len) == SDPA_ERROR_POINTER))
    CHECK(sdpa_cache_attend_heads_plain(cache, q, NULL, ho, workspace, len) == SDPA_OK);
    PLAIN_CACHE(cache);
    PLAIN_CACHE(made.storage);
    PLAIN_CACHE(q.data);
    PLAIN_CACHE(ho.data);
    PLAIN_CACHE(workspace);

    all.sink = &three;
    BESIDE_OF_STATES(x, sdpa_cache_states, cache, x, options, STATES, workspace, len);
    BESIDE(cache, sdpa_cache_states, cache, x, options, STATES, workspace, len);
    BESIDE(made.storage, sdpa_cache_states, cache, x, options, STATES, workspace, len);
    BESIDE_OF_STATES(q, sdpa_cache_states_heads, cache, q, options, STATES, workspace, len);
    BESIDE(cache, sdpa_cache_states_heads, cache, q, options, STATES, workspace, len);
    BESIDE(made.storage, sdpa_cache_states_heads, cache, q, options, STATES, workspace, len);
}

/* Makes a cache of two formats. */
#define MADE sdpa_cache_init_elements(cache, N, N, SDPA_I8, SDPA_F16, held, SDPA_COUNT(storage), 9)

static void of_caches_of_elements(void) {
    EACH(cache, CHECK(MADE == SDPA_ERROR_POINTER));
    EACH(held, CHECK(MADE == SDPA_ERROR_POINTER));
    CHECK(MADE == SDPA_OK);
    EACH(cache, CHECK(sdpa_cache_append_elements(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(made.storage, CHECK(sdpa_cache_append_elements(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(x.data, CHECK(sdpa_cache_append_elements(cache, x, w) == SDPA_ERROR_POINTER));
    EACH(w.data, CHECK(sdpa_cache_append_elements(cache, x, w) == SDPA_ERROR_POINTER));
    CHECK(sdpa_cache_append_elements(cache, x, w) == SDPA_OK);
    EACH(made.storage, CHECK(sdpa_cache_slide(cache, N) == SDPA_ERROR_POINTER));

    all.sink = NULL;
    BESIDE_OF_ATTENTION(q, ho, sdpa_cache_attend_elements, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(cache, sdpa_cache_attend_elements, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(made.storage, sdpa_cache_attend_elements, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE(sinks, sdpa_cache_attend_elements, cache, q, options, sinks, ho, lse, workspace, len);
    BESIDE_OF_PATTERN(ho, sdpa_cache_pattern_heads, cache, q, options, sinks, ho, workspace, len);
    BESIDE(cache, sdpa_cache_pattern_heads, cache, q, options, sinks, ho, workspace, len);
    BESIDE(made.storage, sdpa_cache_pattern_heads, cache, q, options, sinks, ho, workspace, len);
    BESIDE(workspace, sdpa_cache_pattern_heads, cache, q, options, sinks, ho, workspace, len);
    BESIDE_OF_PATTERN(o, sdpa_cache_pattern_mean, cache, q, options, sinks, o, workspace, len);
    BESIDE(cache, sdpa_cache_pattern_mean, cache, q, options, sinks, o, workspace, len);
    BESIDE(made.storage, sdpa_cache_pattern_mean, cache, q, options, sinks, o, workspace, len);
    BESIDE(workspace, sdpa_cache_pattern_mean, cache, q, options, sinks, o, workspace, len);
    all.sink = &three;
    BESIDE_OF_STATES(q, sdpa_cache_states_elements, cache, q, options, STATES, workspace, len);
    BESIDE(cache, sdpa_cache_states_elements, cache, q, options, STATES, workspace, len);
    BESIDE(made.storage, sdpa_cache_states_elements, cache, q, options, STATES, workspace, len);
}

int main(void) {
    of_slices();
    of_matrices();
    of_rotations();
    of_attention();
    of_states();
    of_caches();
    of_caches_of_elements();
#ifdef READ_NOWHERE /* the fault that the library does not make */
    failed = *(volatile const int *)NOWHERE;
#endif
#if __STDC_HOSTED__
    if (failed) {
        printf("pointers.c:%d\n", failed);
    } else {
        puts("pointers: passed");
    }
#endif
    return failed != 0;
}
