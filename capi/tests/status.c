/* What is refused: the status, and that nothing was written. */

#include <float.h>
#include <math.h>

#include "check.h"

enum { KEYS = 5, QUERIES = 3, DIM = 4, WIDTH = 2 };

static float queries[QUERIES * DIM], keys[KEYS * DIM], values[KEYS * WIDTH];
static float out[64], lse[8], workspace[SDPA_ATTENTION_WORKSPACE(DIM, WIDTH)];
static float storage[SDPA_CACHE_FLOATS(DIM, WIDTH, 2)];
static uint8_t keep[KEYS * QUERIES];

static sdpa_matrix q(void) { return dense(queries, QUERIES, DIM); }
static sdpa_matrix k(void) { return dense(keys, KEYS, DIM); }
static sdpa_matrix v(void) { return dense(values, KEYS, WIDTH); }
static sdpa_matrix_mut o(void) { return dense_mut(out, QUERIES, WIDTH); }
static sdpa_matrix_mut grid(void) { return dense_mut(out, KEYS, QUERIES); }

static sdpa_heads heads_of(sdpa_matrix m, size_t heads) {
    const sdpa_heads h = {m.data, heads, m.rows, m.cols, 0, m.row_stride, m.col_stride};
    return h;
}

static sdpa_heads_mut heads_mut_of(sdpa_matrix_mut m, size_t heads) {
    const sdpa_heads_mut h = {m.data, heads, m.rows, m.cols, 0, m.row_stride, m.col_stride};
    return h;
}

static void reset(void) {
    fill_canaries(out, LEN(out));
    fill_canaries(lse, LEN(lse));
    fill_canaries(workspace, LEN(workspace));
}

/* The call returns `status` and leaves every output alone. */
#define REFUSED(status, call)                                                   \
    do {                                                                        \
        reset();                                                                \
        CHECK((call) == (status));                                              \
        CHECK(is_untouched(out, LEN(out)));                                     \
        CHECK(is_untouched(lse, LEN(lse)));                                     \
        CHECK(is_untouched(workspace, LEN(workspace)));                         \
    } while (0)

static void null_pointers(void) {
    const sdpa_matrix no = dense(NULL, KEYS, DIM);
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_dot(NULL, keys, 2, out));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_dot(keys, NULL, 2, out));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_dot(keys, keys, 2, NULL));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax(NULL, 2, out));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax(keys, 2, NULL));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax(NULL, 2, NULL));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax_rows(no, dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax_rows(k(), dense_mut(NULL, KEYS, DIM)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax_columns(no, dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_softmax_columns(k(), dense_mut(NULL, KEYS, DIM)));
    const sdpa_matrix w = dense(keys, DIM, WIDTH);
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_project(no, w, NULL, dense_mut(out, KEYS, WIDTH)));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_project(q(), dense(NULL, DIM, WIDTH), NULL, dense_mut(out, QUERIES, WIDTH)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_project(q(), w, NULL, dense_mut(NULL, QUERIES, WIDTH)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_scores(no, q(), 0, grid()));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_scores(k(), q(), 0, dense_mut(NULL, KEYS, QUERIES)));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_weighted_sum(dense(NULL, KEYS, QUERIES), v(), o()));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_weighted_sum(dense(keys, KEYS, QUERIES), v(), dense_mut(NULL, QUERIES, WIDTH)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_pattern(q(), no, NULL, grid()));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_attention(q(), no, v(), NULL, o(), lse, workspace, LEN(workspace)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_attention(q(), k(), v(), NULL, o(), lse, NULL, 1 << 20));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_attention(q(), k(), v(), NULL, dense_mut(NULL, QUERIES, WIDTH), lse, workspace,
                           LEN(workspace)));
    const float *const other = values;
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), NULL, dense(keys, QUERIES, WIDTH), other));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), lse, dense(keys, QUERIES, WIDTH), NULL));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), lse, dense(NULL, QUERIES, WIDTH), other));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_merge(dense_mut(NULL, QUERIES, WIDTH), lse, dense(keys, QUERIES, WIDTH), other));
    CHECK(sdpa_merge(dense_mut(NULL, 0, WIDTH), NULL, dense(NULL, 0, WIDTH), NULL) == SDPA_OK);
    /* Without elements NULL is as good as anything. */
    CHECK(sdpa_softmax(NULL, 0, NULL) == SDPA_OK);
    CHECK(sdpa_softmax_rows(dense(NULL, 0, 3), dense_mut(NULL, 0, 3)) == SDPA_OK);
    CHECK(sdpa_softmax_columns(dense(NULL, 3, 0), dense_mut(NULL, 3, 0)) == SDPA_OK);
    float dot = 1;
    CHECK(sdpa_dot(NULL, NULL, 0, &dot) == SDPA_OK && dot == 0);
    /* As many heads as can be counted, of no queries. */
    const sdpa_heads none = {NULL, SIZE_MAX, 0, DIM, 0, DIM, 1}, same = {keys, SIZE_MAX, KEYS, DIM, 0, DIM, 1};
    const sdpa_heads_mut nowhere = {NULL, SIZE_MAX, 0, DIM, 0, DIM, 1};
    static float space[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];
    CHECK(sdpa_attention_heads(none, same, same, NULL, NULL, nowhere, NULL, space, LEN(space)) == SDPA_OK);
    reset();
    CHECK(sdpa_attention(dense(NULL, 0, DIM), k(), v(), NULL, dense_mut(NULL, 0, WIDTH), lse,
                         workspace, LEN(workspace)) == SDPA_OK);
    CHECK(is_untouched(lse, LEN(lse)));
}

static void shapes(void) {
    REFUSED(SDPA_ERROR_SHAPE, sdpa_softmax_rows(k(), dense_mut(out, KEYS, DIM - 1)));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_softmax_columns(k(), dense_mut(out, KEYS - 1, DIM)));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_project(q(), dense(keys, DIM - 1, 2), NULL, dense_mut(out, QUERIES, 2)));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_project(q(), dense(keys, DIM, 0), NULL, dense_mut(out, QUERIES, 0)));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_scores(k(), dense(queries, 4, 3), 0, dense_mut(out, KEYS, 4)));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_scores(k(), q(), 0, dense_mut(out, QUERIES, KEYS)));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_scores(dense(keys, KEYS, 0), dense(queries, QUERIES, 0), 0, grid()));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_weighted_sum(dense(keys, KEYS - 1, QUERIES), v(), o()));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_pattern(q(), k(), NULL, dense_mut(out, QUERIES, KEYS)));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_merge(o(), lse, dense(keys, QUERIES, WIDTH + 1), values));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_merge(o(), lse, dense(keys, QUERIES + 1, WIDTH), values));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_merge(dense_mut(out, 2, 0), lse, dense(keys, 2, 0), values));
    const size_t n = LEN(workspace);
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention(q(), dense(keys, KEYS, DIM - 1), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention(q(), dense(keys, KEYS - 1, DIM), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention(q(), k(), v(), NULL, dense_mut(out, QUERIES, 1), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention(dense(queries, QUERIES, 0), dense(keys, KEYS, 0), v(), NULL, o(), lse,
                           workspace, n));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention(q(), k(), dense(values, KEYS, 0), NULL, dense_mut(out, QUERIES, 0), lse,
                           workspace, n));
    sdpa_options options = {0};
    options.bias = dense(keys, QUERIES, KEYS);
    REFUSED(SDPA_ERROR_SHAPE, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE, sdpa_pattern(q(), k(), &options, grid()));
    /* Two key heads, and three query heads. */
    const sdpa_heads three = heads_of(dense(queries, 1, DIM), 3);
    const sdpa_heads two = heads_of(dense(keys, 2, DIM), 2), of_two = heads_of(dense(values, 2, WIDTH), 2);
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention_heads(three, two, of_two, NULL, NULL,
                                 heads_mut_of(dense_mut(out, 1, WIDTH), 3), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_attention_heads(three, heads_of(dense(keys, 1, DIM), 3), of_two, NULL, NULL,
                                 heads_mut_of(dense_mut(out, 1, WIDTH), 3), lse, workspace, n));
}

static void strides(void) {
    const size_t huge = SIZE_MAX / 2 + 1;
    const size_t pairs[][2] = {{SIZE_MAX, 1}, {1, SIZE_MAX}, {huge, 1}, {1, huge},
                               {SIZE_MAX / 4, SIZE_MAX / 4}, {SIZE_MAX / 8, 1}};
    for (size_t i = 0; i < LEN(pairs); i++) {
        const sdpa_matrix in = {keys, KEYS, DIM, pairs[i][0], pairs[i][1]};
        const sdpa_matrix_mut to = {out, KEYS, DIM, pairs[i][0], pairs[i][1]};
        REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(in, dense_mut(out, KEYS, DIM)));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_columns(k(), to));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_scores(in, q(), 0, grid()));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_project(in, dense(queries, DIM, 1), NULL, dense_mut(out, KEYS, 1)));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_weighted_sum(dense(keys, KEYS, DIM), in, dense_mut(out, DIM, DIM)));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_merge(dense_mut(out, KEYS, DIM), lse, in, values));
        REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), in, NULL, grid()));
        REFUSED(SDPA_ERROR_STRIDE,
                sdpa_attention(q(), in, v(), NULL, o(), lse, workspace, LEN(workspace)));
        sdpa_options options = {0};
        options.bias = in;
        options.bias.cols = QUERIES;
        REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), k(), &options, grid()));
        if (i < 5) { /* bytes reach four times as far */
            sdpa_options kept = {0};
            kept.keep = keep;
            kept.keep_row_stride = pairs[i][0];
            kept.keep_col_stride = pairs[i][1];
            REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), k(), &kept, grid()));
        }
        sdpa_heads heads = heads_of(k(), 2);
        heads.head_stride = pairs[i][0];
        heads.row_stride = DIM;
        heads.col_stride = pairs[i][1];
        REFUSED(SDPA_ERROR_STRIDE,
                sdpa_attention_heads(heads, heads, heads, NULL, NULL, heads_mut_of(o(), 2), lse,
                                     workspace, LEN(workspace)));
    }
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(dense(keys, SIZE_MAX, SIZE_MAX),
                                                 dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(dense(keys, SIZE_MAX / 2, 4),
                                                 dense_mut(out, SIZE_MAX / 2, 4)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_dot(keys, keys, SIZE_MAX, out));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax(keys, SIZE_MAX / 4, out));
    /* A stride that is never taken may be anything. */
    const sdpa_matrix one = {keys, 1, DIM, SIZE_MAX, 1};
    CHECK(sdpa_softmax_rows(one, dense_mut(out, 1, DIM)) == SDPA_OK);
}

static void overlaps(void) {
    /* An output over itself. */
    const sdpa_matrix_mut folded = {out, KEYS, DIM, 2, 1}, repeated = {out, KEYS, DIM, 0, 1};
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax_rows(k(), folded));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax_columns(k(), repeated));
    const sdpa_matrix_mut folded_grid = {out, KEYS, QUERIES, 1, 1};
    REFUSED(SDPA_ERROR_ALIAS, sdpa_scores(k(), q(), 0, folded_grid));
    const sdpa_heads_mut folded_heads = {out, 2, QUERIES, WIDTH, 1, WIDTH, 1};
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_attention_heads(heads_of(dense(keys, QUERIES, DIM), 1),
                                 heads_of(dense(keys, QUERIES, DIM), 1),
                                 heads_of(dense(values, QUERIES, WIDTH), 1), NULL, NULL,
                                 folded_heads, lse, workspace, LEN(workspace)));
    /* An output over an input, but for softmax in place. */
    REFUSED(SDPA_ERROR_ALIAS, sdpa_dot(out, keys, 3, out + 2));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_dot(keys, out, 3, out));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax(out, 8, out + 1));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax(out + 1, 8, out));
    const sdpa_matrix across = {out, 4, 4, 1, 4};
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax_rows(across, dense_mut(out, 4, 4)));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_softmax_columns(dense(out + 1, 4, 4), dense_mut(out, 4, 4)));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_scores(dense(out, KEYS, DIM), q(), 0, grid()));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_weighted_sum(dense(out, KEYS, QUERIES), v(), o()));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_project(q(), dense(keys, DIM, WIDTH), out + 1, o()));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern(dense(out + 14, QUERIES, DIM), k(), NULL, grid()));
    const size_t n = LEN(workspace);
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_attention(dense(out, QUERIES, DIM), k(), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), NULL, o(), out + 5, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), NULL, o(), workspace + 3, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_attention(q(), k(), dense(workspace, KEYS, WIDTH), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_merge(o(), lse, dense(out, QUERIES, WIDTH), values));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_merge(o(), lse, dense(keys, QUERIES, WIDTH), lse));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_merge(o(), out + 2, dense(keys, QUERIES, WIDTH), values));
    sdpa_options options = {0};
    options.sink = out;
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern(q(), k(), &options, grid()));
    options.sink = NULL;
    options.keep = (const uint8_t *)(out + 3);
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    options.keep = NULL;
    options.bias = dense(workspace + 7, KEYS, QUERIES);
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    /* Interleaved without a stride that keeps them apart: 0, 3, 6, 9 and 1, 5, 7, 11. */
    const sdpa_matrix threes = {out, 1, 4, 0, 3};
    const sdpa_matrix_mut others = {out + 1, 2, 2, 6, 4};
    REFUSED(SDPA_ERROR_ALIAS, sdpa_weighted_sum(threes, dense(values, 1, 2), others));
}

static void workspaces(void) {
    for (size_t n = 0; n < LEN(workspace); n += LEN(workspace) / 3) {
        REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, n));
    }
    REFUSED(SDPA_ERROR_WORKSPACE,
            sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, LEN(workspace) - 1));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention(q(), k(), v(), NULL, o(), lse, NULL, 0));
    REFUSED(SDPA_ERROR_WORKSPACE,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), NULL, NULL,
                                 heads_mut_of(o(), 1), lse, workspace, LEN(workspace) - 1));
    CHECK(sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, LEN(workspace)) == SDPA_OK);
    CHECK(sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, SIZE_MAX) == SDPA_OK);
}

static void refused_options(const sdpa_options *options) {
    const size_t n = LEN(workspace);
    REFUSED(SDPA_ERROR_OPTION, sdpa_pattern(q(), k(), options, grid()));
    REFUSED(SDPA_ERROR_OPTION, sdpa_attention(q(), k(), v(), options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_OPTION,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), options, NULL,
                                 heads_mut_of(o(), 1), lse, workspace, n));
    sdpa_cache cache;
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, LEN(storage)) == SDPA_OK);
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
    REFUSED(SDPA_ERROR_OPTION, sdpa_cache_attend(&cache, q(), options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_OPTION,
            sdpa_cache_attend_heads(&cache, heads_of(q(), 1), options, NULL, heads_mut_of(o(), 1),
                                    lse, workspace, n));
}

static void options(void) {
    for (uint32_t bit = 4; bit != 0; bit <<= 1) {
        const sdpa_options unknown = {.flags = bit | SDPA_CAUSAL};
        refused_options(&unknown);
    }
    const float not_finite[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < LEN(not_finite); i++) {
        const sdpa_options scale = {.scale = not_finite[i]}, cap = {.softcap = not_finite[i]};
        refused_options(&scale);
        refused_options(&cap);
        REFUSED(SDPA_ERROR_OPTION, sdpa_scores(k(), q(), not_finite[i], grid()));
    }
    const sdpa_options negative = {.softcap = -1};
    refused_options(&negative);
    const float sinks[] = {NAN, INFINITY};
    for (size_t i = 0; i < LEN(sinks); i++) {
        const sdpa_options sink = {.sink = &sinks[i]};
        refused_options(&sink);
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), NULL,
                                     &sinks[i], heads_mut_of(o(), 1), lse, workspace, LEN(workspace)));
    }
    /* One sink for all, and one for each. */
    const float one = 1;
    const sdpa_options both = {.sink = &one};
    REFUSED(SDPA_ERROR_OPTION,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), &both, &one,
                                 heads_mut_of(o(), 1), lse, workspace, LEN(workspace)));
}

static void caches(void) {
    sdpa_cache cache, before;
    memset(&cache, 0xa5, sizeof cache);
    before = cache;
    const size_t n = LEN(storage);
    fill_canaries(storage, n);
    CHECK(sdpa_cache_init(&cache, 0, WIDTH, storage, n) == SDPA_ERROR_SHAPE);
    CHECK(sdpa_cache_init(&cache, DIM, 0, storage, n) == SDPA_ERROR_SHAPE);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, NULL, n) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_init(NULL, DIM, WIDTH, storage, n) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, n / 2 - 1) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_init(&cache, SIZE_MAX / 2, WIDTH, storage, n) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SIZE_MAX) == SDPA_ERROR_STRIDE);
    // More than an array can be by less than a block, which the cache would round off.
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SIZE_MAX / 8 + 1) == SDPA_ERROR_STRIDE);
    CHECK(sdpa_cache_init((sdpa_cache *)(void *)(storage + 2), DIM, WIDTH, storage, n) == SDPA_ERROR_ALIAS);
    CHECK(memcmp(&cache, &before, sizeof cache) == 0 && is_untouched(storage, n));

    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, n) == SDPA_OK && cache.blocks == 2);
    for (size_t i = 0; i < n; i++) {
        CHECK(storage[i] == 0);
    }
    static float many[129 * DIM], copy[SDPA_CACHE_FLOATS(DIM, WIDTH, 2)];
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK && cache.appended == KEYS);
    before = cache;
    memcpy(copy, storage, sizeof copy);
    CHECK(sdpa_cache_append(NULL, k(), v()) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_append(&cache, dense(NULL, KEYS, DIM), v()) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_append(&cache, k(), dense(values, KEYS - 1, WIDTH)) == SDPA_ERROR_SHAPE);
    CHECK(sdpa_cache_append(&cache, dense(keys, KEYS, DIM - 1), v()) == SDPA_ERROR_SHAPE);
    CHECK(sdpa_cache_append(&cache, dense(many, 129, DIM), dense(many, 129, WIDTH)) == SDPA_ERROR_CAPACITY);
    const sdpa_matrix endless = {keys, SIZE_MAX, DIM, 0, 1}, endless_values = {keys, SIZE_MAX, WIDTH, 0, 1};
    CHECK(sdpa_cache_append(&cache, endless, endless_values) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_append(&cache, dense(storage + 9, KEYS, DIM), v()) == SDPA_ERROR_ALIAS);
    CHECK(sdpa_cache_slide(NULL, 1) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_truncate(NULL, 1) == SDPA_ERROR_NULL_POINTER);
    CHECK(memcmp(&cache, &before, sizeof cache) == 0);

    const size_t w = LEN(workspace);
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_cache_attend(NULL, q(), NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_SHAPE,
            sdpa_cache_attend(&cache, dense(queries, QUERIES, DIM - 1), NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_cache_attend(&cache, q(), NULL, o(), lse, workspace, w - 1));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_cache_attend(&cache, q(), NULL, dense_mut(storage + 4, QUERIES, WIDTH), lse, workspace, w));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend(&cache, q(), NULL, o(), storage, workspace, w));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend(&cache, q(), NULL, o(), lse, storage, LEN(storage)));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_cache_attend(&cache, q(), NULL, o(), (float *)(void *)&cache, workspace, w));
    CHECK(memcmp(copy, storage, sizeof copy) == 0 && memcmp(&cache, &before, sizeof cache) == 0);

    /* A cache that nobody made, or that somebody changed. */
    const sdpa_cache zero = {0};
    sdpa_cache odd = zero;
    CHECK(sdpa_cache_append(&odd, k(), v()) != SDPA_OK && memcmp(&odd, &zero, sizeof odd) == 0);
    REFUSED(SDPA_ERROR_SHAPE, sdpa_cache_attend(&zero, q(), NULL, o(), lse, workspace, w));
    odd = cache;
    odd.dropped = odd.appended + 1;
    REFUSED(SDPA_ERROR_SHAPE, sdpa_cache_attend(&odd, q(), NULL, o(), lse, workspace, w));
    odd = cache;
    odd.appended = 129;
    REFUSED(SDPA_ERROR_CAPACITY, sdpa_cache_attend(&odd, q(), NULL, o(), lse, workspace, w));
    odd = cache;
    odd.blocks = SIZE_MAX / 2;
    REFUSED(SDPA_ERROR_STRIDE, sdpa_cache_attend(&odd, q(), NULL, o(), lse, workspace, w));
    odd = cache;
    odd.storage = NULL;
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_cache_attend(&odd, q(), NULL, o(), lse, workspace, w));
}

int main(void) {
    null_pointers();
    shapes();
    strides();
    overlaps();
    workspaces();
    options();
    caches();
    if (failures == 0) {
        puts("status: passed");
    }
    return failures != 0;
}
