/* Invalid calls: the status, and that nothing was written. */

#include <float.h>
#include <math.h>

#include "check.h"

enum { KEYS = 5, QUERIES = 3, DIM = 4, WIDTH = 2 };

static float queries[QUERIES * DIM], keys[KEYS * DIM], values[KEYS * WIDTH];
static float out[64], lse[8], workspace[SDPA_ATTENTION_WORKSPACE(DIM, WIDTH)];
static float storage[SDPA_CACHE_FLOATS(DIM, WIDTH, 2)], big[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];
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
    fill_canaries(out, SDPA_COUNT(out));
    fill_canaries(lse, SDPA_COUNT(lse));
    fill_canaries(workspace, SDPA_COUNT(workspace));
}

/* The call returns `status` and leaves every output alone. */
#define REFUSED(status, call)                                                   \
    do {                                                                        \
        reset();                                                                \
        CHECK((call) == (status));                                              \
        CHECK(is_untouched(out, SDPA_COUNT(out)));                                     \
        CHECK(is_untouched(lse, SDPA_COUNT(lse)));                                     \
        CHECK(is_untouched(workspace, SDPA_COUNT(workspace)));                         \
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
            sdpa_attention(q(), no, v(), NULL, o(), lse, workspace, SDPA_COUNT(workspace)));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_attention(q(), k(), v(), NULL, o(), lse, NULL, 1 << 20));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_attention(q(), k(), v(), NULL, dense_mut(NULL, QUERIES, WIDTH), lse, workspace,
                           SDPA_COUNT(workspace)));
    const float *const other = values;
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), NULL, dense(keys, QUERIES, WIDTH), other));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), lse, dense(keys, QUERIES, WIDTH), NULL));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_merge(o(), lse, dense(NULL, QUERIES, WIDTH), other));
    REFUSED(SDPA_ERROR_NULL_POINTER,
            sdpa_merge(dense_mut(NULL, QUERIES, WIDTH), lse, dense(keys, QUERIES, WIDTH), other));
    CHECK(sdpa_merge(dense_mut(NULL, 0, WIDTH), NULL, dense(NULL, 0, WIDTH), NULL) == SDPA_OK);
    /* Without elements NULL is valid. */
    CHECK(sdpa_softmax(NULL, 0, NULL) == SDPA_OK);
    CHECK(sdpa_softmax_rows(dense(NULL, 0, 3), dense_mut(NULL, 0, 3)) == SDPA_OK);
    CHECK(sdpa_softmax_columns(dense(NULL, 3, 0), dense_mut(NULL, 3, 0)) == SDPA_OK);
    float dot = 1;
    CHECK(sdpa_dot(NULL, NULL, 0, &dot) == SDPA_OK && dot == 0);
    /* SIZE_MAX heads without queries. */
    const sdpa_heads none = {NULL, SIZE_MAX, 0, DIM, 0, DIM, 1}, same = {keys, SIZE_MAX, KEYS, DIM, 0, DIM, 1};
    const sdpa_heads_mut nowhere = {NULL, SIZE_MAX, 0, DIM, 0, DIM, 1};
    static float space[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];
    CHECK(sdpa_attention_heads(none, same, same, NULL, NULL, nowhere, NULL, space, SDPA_COUNT(space)) == SDPA_OK);
    reset();
    CHECK(sdpa_attention(dense(NULL, 0, DIM), k(), v(), NULL, dense_mut(NULL, 0, WIDTH), lse,
                         workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(is_untouched(lse, SDPA_COUNT(lse)));
}

/* What sdpa_attention_plain refuses; the rest as sdpa_attention. */
static void plain_attention(void) {
    static const float one = 1;
    const size_t n = SDPA_COUNT(workspace);
    sdpa_options options[7] = {{0}};
    sdpa_matrix strided = k();
    strided.row_stride = DIM;
    strided.col_stride = 1;
    REFUSED(SDPA_ERROR_STRIDE, sdpa_attention_plain(q(), strided, v(), NULL, o(), workspace, n));
    const size_t many = SIZE_MAX / 8;
    REFUSED(SDPA_ERROR_STRIDE,
            sdpa_attention_plain(q(), dense(keys, many, DIM), dense(values, many, WIDTH), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_attention_plain(dense(queries, QUERIES, 0), dense(keys, KEYS, 0), v(), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_KEYS,
            sdpa_attention_plain(q(), dense(keys, KEYS, DIM - 1), v(), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_VALUES,
            sdpa_attention_plain(q(), dense(keys, KEYS - 1, DIM), v(), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_OUT,
            sdpa_attention_plain(q(), k(), v(), NULL, dense_mut(out, QUERIES, 1), workspace, n));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention_plain(q(), k(), v(), NULL, o(), workspace, 1));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_attention_plain(q(), k(), v(), NULL, o(), NULL, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention_plain(q(), k(), dense(workspace, KEYS, WIDTH), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention_plain(dense(out, QUERIES, DIM), k(), v(), NULL, o(), workspace, n));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_attention_plain(q(), k(), v(), NULL, dense_mut(workspace, QUERIES, WIDTH), workspace, n));
    options[0].flags = 4;
    options[1].window_right = 1;
    options[2].softcap = 1;
    options[3].bias = dense(keys, KEYS, QUERIES);
    options[4].keep = (const uint8_t *)keys;
    options[5].sink = &one;
    options[6].slopes = &one;
    for (size_t i = 0; i < SDPA_COUNT(options); i++) {
        REFUSED(SDPA_ERROR_OPTION, sdpa_attention_plain(q(), k(), v(), &options[i], o(), workspace, n));
    }
    reset();
    const sdpa_matrix_mut nothing = dense_mut(NULL, 0, WIDTH);
    CHECK(sdpa_attention_plain(dense(NULL, 0, DIM), k(), v(), NULL, nothing, workspace, n) == SDPA_OK);
    CHECK(sdpa_attention_plain(q(), k(), v(), NULL, o(), workspace, n) == SDPA_OK);

    /* Of heads, and over a cache. */
    const sdpa_heads hq = heads_of(q(), 1), hk = heads_of(k(), 1), hv = heads_of(v(), 1);
    const sdpa_heads_mut ho = heads_mut_of(o(), 1);
    static float held[SDPA_CACHE_FLOATS(DIM, WIDTH, 2)];
    sdpa_cache cache;
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, held, SDPA_COUNT(held)) == SDPA_OK);
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
    for (size_t i = 0; i < SDPA_COUNT(options); i++) {
        REFUSED(SDPA_ERROR_OPTION, sdpa_attention_heads_plain(hq, hk, hv, &options[i], ho, workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_cache_attend_heads_plain(&cache, hq, &options[i], ho, workspace, n));
    }
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention_heads_plain(hq, hk, hv, NULL, ho, workspace, 1));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_cache_attend_heads_plain(&cache, hq, NULL, ho, workspace, 1));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention_heads_plain(hq, heads_of(dense(workspace, KEYS, DIM), 1), hv, NULL, ho,
                                                         workspace, n));
    reset();
    CHECK(sdpa_attention_heads_plain(hq, hk, hv, NULL, ho, workspace, n) == SDPA_OK);
    CHECK(sdpa_cache_attend_heads_plain(&cache, hq, NULL, ho, workspace, n) == SDPA_OK);
}

static void shapes(void) {
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_softmax_rows(k(), dense_mut(out, KEYS, DIM - 1)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_softmax_columns(k(), dense_mut(out, KEYS - 1, DIM)));
    const sdpa_matrix_mut two = dense_mut(out, QUERIES, 2);
    REFUSED(SDPA_ERROR_SHAPE_X, sdpa_project(dense(queries, QUERIES, 0), dense(keys, 0, 2), NULL, two));
    REFUSED(SDPA_ERROR_SHAPE_W, sdpa_project(q(), dense(keys, DIM - 1, 2), NULL, two));
    REFUSED(SDPA_ERROR_SHAPE_W, sdpa_project(q(), dense(keys, DIM, 0), NULL, dense_mut(out, QUERIES, 0)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_project(q(), dense(keys, DIM, 2), NULL, dense_mut(out, QUERIES, 1)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_project(q(), dense(keys, DIM, 2), NULL, dense_mut(out, 1, 2)));
    REFUSED(SDPA_ERROR_SHAPE_KEYS, sdpa_scores(dense(keys, KEYS, 0), dense(queries, QUERIES, 0), 0, grid()));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES, sdpa_scores(k(), dense(queries, 4, 3), 0, dense_mut(out, KEYS, 4)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_scores(k(), q(), 0, dense_mut(out, QUERIES, KEYS)));
    const sdpa_matrix pattern = dense(keys, KEYS, QUERIES);
    REFUSED(SDPA_ERROR_SHAPE_VALUES, sdpa_weighted_sum(dense(keys, KEYS - 1, QUERIES), v(), o()));
    REFUSED(SDPA_ERROR_SHAPE_VALUES,
            sdpa_weighted_sum(pattern, dense(values, KEYS, 0), dense_mut(out, QUERIES, 0)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_weighted_sum(pattern, v(), dense_mut(out, QUERIES, WIDTH + 1)));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_weighted_sum(pattern, v(), dense_mut(out, QUERIES - 1, WIDTH)));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_pattern(dense(queries, QUERIES, 0), dense(keys, KEYS, 0), NULL, grid()));
    REFUSED(SDPA_ERROR_SHAPE_KEYS, sdpa_pattern(q(), dense(keys, KEYS, DIM - 1), NULL, grid()));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_pattern(q(), k(), NULL, dense_mut(out, QUERIES, KEYS)));
    REFUSED(SDPA_ERROR_SHAPE_OTHER_OUT, sdpa_merge(o(), lse, dense(keys, QUERIES, WIDTH + 1), values));
    REFUSED(SDPA_ERROR_SHAPE_OTHER_OUT, sdpa_merge(o(), lse, dense(keys, QUERIES + 1, WIDTH), values));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_merge(dense_mut(out, 2, 0), lse, dense(keys, 2, 0), values));
    const size_t n = SDPA_COUNT(workspace);
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_attention(dense(queries, QUERIES, 0), dense(keys, KEYS, 0), v(), NULL, o(), lse,
                           workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_KEYS,
            sdpa_attention(q(), dense(keys, KEYS, DIM - 1), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_VALUES,
            sdpa_attention(q(), dense(keys, KEYS - 1, DIM), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_VALUES,
            sdpa_attention(q(), k(), dense(values, KEYS, 0), NULL, dense_mut(out, QUERIES, 0), lse,
                           workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_OUT,
            sdpa_attention(q(), k(), v(), NULL, dense_mut(out, QUERIES, 1), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_OUT,
            sdpa_attention(q(), k(), v(), NULL, dense_mut(out, QUERIES - 1, WIDTH), lse, workspace, n));
    plain_attention();
    sdpa_options options = {0};
    options.bias = dense(keys, QUERIES, KEYS);
    REFUSED(SDPA_ERROR_SHAPE_BIAS, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_BIAS, sdpa_pattern(q(), k(), &options, grid()));
    /* Two KV heads and three query heads; then numbers of heads that disagree. */
    const sdpa_heads three = heads_of(dense(queries, 1, DIM), 3), none = heads_of(dense(queries, 1, 0), 3);
    const sdpa_heads two_keys = heads_of(dense(keys, 2, DIM), 2), two_values = heads_of(dense(values, 2, WIDTH), 2);
    const sdpa_heads three_keys = heads_of(dense(keys, 1, DIM), 3);
    const sdpa_heads three_values = heads_of(dense(values, 1, WIDTH), 3);
    const sdpa_heads_mut to = heads_mut_of(dense_mut(out, 1, WIDTH), 3);
    const sdpa_heads_mut to_two = heads_mut_of(dense_mut(out, 1, WIDTH), 2);
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_attention_heads(none, three_keys, three_values, NULL, NULL, to, lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_KEYS,
            sdpa_attention_heads(three, two_keys, two_values, NULL, NULL, to, lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_KEYS,
            sdpa_attention_heads(three, heads_of(k(), 0), heads_of(v(), 0), NULL, NULL, to, lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_VALUES,
            sdpa_attention_heads(three, three_keys, two_values, NULL, NULL, to, lse, workspace, n));
    REFUSED(SDPA_ERROR_SHAPE_OUT,
            sdpa_attention_heads(three, three_keys, three_values, NULL, NULL, to_two, lse, workspace, n));
}

/* Patterns of heads, and their mean. */
static void patterns(void) {
    enum { HEADS = 2, NEED = KEYS * QUERIES };
    static float qs[HEADS * QUERIES * DIM];
    const sdpa_heads q = {qs, HEADS, QUERIES, DIM, 0, 0, 0}, k_one = heads_of(k(), 1), none = {qs, 0, QUERIES, DIM, 0, 0, 0};
    const sdpa_heads no_dim = {qs, HEADS, QUERIES, 0, 0, 0, 0}, narrow = heads_of(dense(keys, KEYS, DIM - 1), 1);
    const sdpa_heads three = heads_of(dense(keys, 1, DIM), 3), no_keys = heads_of(k(), 0), lost = {NULL, 1, KEYS, DIM, 0, 0, 0};
    const sdpa_heads stuck = {keys, 1, KEYS, DIM, 0, DIM, 0}, far = {keys, 1, KEYS, DIM, 0, SIZE_MAX / 8, 1};
    const sdpa_heads inside = {out + 3, 1, KEYS, DIM, 0, 0, 0}, in_space = {workspace + 3, 1, KEYS, DIM, 0, 0, 0};
    const sdpa_heads_mut to = {out, HEADS, KEYS, QUERIES, 0, 0, 0}, nowhere = {NULL, HEADS, KEYS, QUERIES, 0, 0, 0};
    const sdpa_heads_mut turned = {out, HEADS, QUERIES, KEYS, 0, 0, 0}, one = {out, 1, KEYS, QUERIES, 0, 0, 0};
    const sdpa_heads_mut folded = {out, HEADS, KEYS, QUERIES, 1, QUERIES, 1};
    const float sink = 1, wrong = NAN, sinks[HEADS] = {0};
    const sdpa_options sunk = {.sink = &sink}, unknown = {.flags = 4}, biased = {.bias = dense(keys, QUERIES, KEYS)};
    const struct {
        sdpa_status status;
        sdpa_heads queries, keys;
        const sdpa_options *options;
        const float *sinks;
    } each[] = {
        {SDPA_ERROR_SHAPE_QUERIES, no_dim, narrow, NULL, NULL}, {SDPA_ERROR_SHAPE_KEYS, q, narrow, NULL, NULL},
        {SDPA_ERROR_SHAPE_KEYS, q, three, NULL, NULL}, {SDPA_ERROR_SHAPE_KEYS, q, no_keys, NULL, NULL},
        {SDPA_ERROR_NULL_POINTER, q, lost, NULL, NULL}, {SDPA_ERROR_STRIDE, q, stuck, NULL, NULL},
        {SDPA_ERROR_STRIDE, q, far, NULL, NULL}, {SDPA_ERROR_ALIAS, q, inside, NULL, NULL},
        {SDPA_ERROR_ALIAS, q, k_one, NULL, out + 1}, {SDPA_ERROR_OPTION, q, k_one, &sunk, sinks},
        {SDPA_ERROR_OPTION, q, k_one, &unknown, NULL}, {SDPA_ERROR_OPTION, heads_of(dense(qs, QUERIES, DIM), 1), k_one, NULL, &wrong},
        {SDPA_ERROR_SHAPE_BIAS, q, k_one, &biased, NULL},
    };
    float space[NEED];
    for (size_t i = 0; i < SDPA_COUNT(each); i++) {
        const sdpa_heads_mut of = each[i].queries.heads == 1 ? one : to;
        REFUSED(each[i].status, sdpa_pattern_heads(each[i].queries, each[i].keys, each[i].options, each[i].sinks, of));
        REFUSED(each[i].status, sdpa_pattern_mean(each[i].queries, each[i].keys, each[i].options, each[i].sinks, grid(),
                                                  space, NEED));
    }
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_pattern_heads(q, k_one, NULL, NULL, turned));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_pattern_heads(q, k_one, NULL, NULL, one));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_pattern_heads(q, k_one, NULL, NULL, nowhere));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern_heads(q, k_one, NULL, NULL, folded));
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_pattern_mean(q, k_one, NULL, NULL, dense_mut(out, QUERIES, KEYS), space, NEED));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES, sdpa_pattern_mean(none, k_one, NULL, NULL, grid(), space, NEED));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_pattern_mean(q, k_one, NULL, NULL, grid(), space, NEED - 1));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_pattern_mean(q, k_one, NULL, NULL, grid(), NULL, 0));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_pattern_mean(q, k_one, NULL, NULL, grid(), NULL, NEED));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern_mean(q, k_one, NULL, NULL, grid(), out + NEED - 1, NEED));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern_mean(q, in_space, NULL, NULL, grid(), workspace, NEED));
    reset();
    CHECK(sdpa_pattern_heads(none, k_one, NULL, NULL, heads_mut_of(grid(), 0)) == SDPA_OK);
    CHECK(sdpa_pattern_heads(q, k_one, NULL, NULL, to) == SDPA_OK);
    CHECK(is_untouched(out + HEADS * NEED, 1) && !is_untouched(out + HEADS * NEED - 1, 1));
    CHECK(sdpa_pattern_mean(q, k_one, NULL, NULL, grid(), workspace, SIZE_MAX) == SDPA_OK);
    CHECK(!is_untouched(workspace + NEED - 1, 1) && is_untouched(workspace + NEED, SDPA_COUNT(workspace) - NEED));
}

/* Patterns over elements and from a cache, and their means. */
static void other_patterns(void) {
    enum { BLOCK = SDPA_KEY_BLOCK * DIM, CELLS = KEYS * QUERIES };
    static float room[BLOCK + CELLS], held[SDPA_CACHE_FLOATS_OF(DIM, WIDTH, 64 / SDPA_KEY_BLOCK, SDPA_I8, SDPA_F32)];
    static const int8_t of_keys[KEYS * DIM] = {0};
    static const float scales[KEYS] = {1, 1, 1, 1, 1};
    const sdpa_array k8 = {of_keys, SDPA_I8, 1, KEYS, DIM, 0, 0, 0, scales, 0, 0};
    const sdpa_heads one = heads_of(q(), 1), narrow = heads_of(dense(queries, QUERIES, DIM - 1), 1);
    const sdpa_heads_mut to = heads_mut_of(grid(), 1), turned = heads_mut_of(dense_mut(out, QUERIES, KEYS), 1);
    const sdpa_matrix_mut mean = grid(), other = dense_mut(out, QUERIES, KEYS);
    const sdpa_options unknown = {.flags = 4}, biased = {.bias = dense(keys, QUERIES, KEYS)};
    sdpa_cache cache;
    CHECK(sdpa_cache_init_elements(&cache, DIM, WIDTH, SDPA_I8, SDPA_F32, held, SDPA_COUNT(held), 0) == SDPA_OK);
    CHECK(sdpa_cache_append_elements(&cache, k(), v()) == SDPA_OK);
#define EACH(status, queries, options, to, mean, space, n, n_of_mean)                                             \
    do {                                                                                                          \
        REFUSED(status, sdpa_pattern_elements(queries, k8, options, NULL, to, space, n));                         \
        REFUSED(status, sdpa_cache_pattern_heads(&cache, queries, options, NULL, to, space, n));                  \
        REFUSED(status, sdpa_pattern_mean_elements(queries, k8, options, NULL, mean, space, n_of_mean));          \
        REFUSED(status, sdpa_cache_pattern_mean(&cache, queries, options, NULL, mean, space, n_of_mean));         \
    } while (0)
    EACH(SDPA_ERROR_WORKSPACE, one, NULL, to, mean, room, BLOCK - 1, BLOCK + CELLS - 1);
    EACH(SDPA_ERROR_WORKSPACE, one, NULL, to, mean, NULL, 0, 0);
    EACH(SDPA_ERROR_NULL_POINTER, one, NULL, to, mean, NULL, BLOCK, BLOCK + CELLS);
    EACH(SDPA_ERROR_ALIAS, one, NULL, to, mean, out + CELLS - 1, BLOCK, BLOCK + CELLS);
    EACH(SDPA_ERROR_OPTION, one, &unknown, to, mean, room, BLOCK, BLOCK + CELLS);
    EACH(SDPA_ERROR_SHAPE_BIAS, one, &biased, to, mean, room, BLOCK, BLOCK + CELLS);
    EACH(SDPA_ERROR_SHAPE_OUT, one, NULL, turned, other, room, BLOCK, BLOCK + CELLS);
#undef EACH
    REFUSED(SDPA_ERROR_SHAPE_KEYS, sdpa_pattern_elements(narrow, k8, NULL, NULL, to, room, SDPA_COUNT(room)));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES, sdpa_cache_pattern_heads(&cache, narrow, NULL, NULL, to, room, SDPA_COUNT(room)));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_pattern_mean_elements(heads_of(q(), 0), k8, NULL, NULL, mean, room, SDPA_COUNT(room)));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_cache_pattern_mean(&cache, heads_of(q(), 0), NULL, NULL, mean, room, SDPA_COUNT(room)));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_pattern_heads(&cache, one, NULL, NULL, to, held, BLOCK));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_cache_pattern_heads(NULL, one, NULL, NULL, to, room, BLOCK));
    reset();
    CHECK(sdpa_cache_pattern_mean(&cache, one, NULL, NULL, mean, room, SIZE_MAX) == SDPA_OK);
    CHECK(sdpa_pattern_elements(one, k8, NULL, NULL, to, room, BLOCK) == SDPA_OK);
    CHECK(!is_untouched(out + CELLS - 1, 1) && is_untouched(out + CELLS, 1));
    /* Floats need no workspace. */
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
    CHECK(sdpa_cache_pattern_heads(&cache, one, NULL, NULL, to, NULL, 0) == SDPA_OK);
}

/* Sequences that lie one after another, of floats and of elements. */
static void packed(void) {
    enum { SEQUENCES = 2 };
    static float room[SDPA_ELEMENTS_WORKSPACE(DIM, WIDTH)];
    const size_t n = SDPA_COUNT(room);
    const sdpa_heads hq = heads_of(q(), 1), hk = heads_of(k(), 1), hv = heads_of(v(), 1);
    const sdpa_array ak = {keys, SDPA_F32, 1, KEYS, DIM, 0, 0, 0, NULL, 0, 0};
    const sdpa_array av = {values, SDPA_F32, 1, KEYS, WIDTH, 0, 0, 0, NULL, 0, 0};
    const sdpa_array few = {values, SDPA_F32, 1, KEYS - 1, WIDTH, 0, 0, 0, NULL, 0, 0};
    const sdpa_heads_mut to = heads_mut_of(o(), 1);
    const int32_t of_q[] = {0, 1, QUERIES}, of_k[] = {0, 2, KEYS};
#define PACKED(status, cu_q, cu_k, sequences, options, to, lse, room, n)                                    \
    do {                                                                                                    \
        REFUSED(status, sdpa_attention_packed(hq, hk, hv, cu_q, cu_k, sequences, options, NULL, to, lse,    \
                                              room, n));                                                    \
        REFUSED(status, sdpa_attention_packed_elements(hq, ak, av, cu_q, cu_k, sequences, options, NULL,    \
                                                       to, lse, room, n));                                  \
    } while (0)
    const int32_t wrong[][SEQUENCES + 1] = {
        {0, 1, QUERIES - 1}, {0, 1, QUERIES + 1}, {1, 1, QUERIES}, {-1, 1, QUERIES}, {0, QUERIES + 1, QUERIES},
        {0, -1, QUERIES}, {0, INT32_MIN, QUERIES}, {0, INT32_MAX, INT32_MIN}, {1, 2, QUERIES + 1}, {0, 0, 0},
    };
    for (size_t i = 0; i < SDPA_COUNT(wrong); i++) {
        PACKED(SDPA_ERROR_SHAPE_CU_SEQLENS, wrong[i], of_k, SEQUENCES, NULL, to, lse, room, n);
        PACKED(SDPA_ERROR_SHAPE_CU_SEQLENS, of_q, wrong[i], SEQUENCES, NULL, to, lse, room, n);
    }
    PACKED(SDPA_ERROR_SHAPE_CU_SEQLENS, of_q, of_k, SEQUENCES - 1, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_SHAPE_CU_SEQLENS, of_q, of_k, 0, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_STRIDE, of_q, of_k, SIZE_MAX, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_STRIDE, of_q, of_k, SIZE_MAX / 4, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_NULL_POINTER, NULL, of_k, SEQUENCES, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_NULL_POINTER, of_q, NULL, SEQUENCES, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_NULL_POINTER, of_q, of_k, SEQUENCES, NULL, to, lse, NULL, n);
    PACKED(SDPA_ERROR_WORKSPACE, of_q, of_k, SEQUENCES, NULL, to, lse, room, SDPA_COUNT(workspace) - 1);
    PACKED(SDPA_ERROR_SHAPE_OUT, of_q, of_k, SEQUENCES, NULL, heads_mut_of(dense_mut(out, QUERIES, 1), 1), lse, room, n);
    PACKED(SDPA_ERROR_ALIAS, (const int32_t *)(const void *)(out + 4), of_k, SEQUENCES, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_ALIAS, of_q, (const int32_t *)(const void *)(lse + 2), SEQUENCES, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_ALIAS, of_q, (const int32_t *)(const void *)(room + 1), SEQUENCES, NULL, to, lse, room, n);
    PACKED(SDPA_ERROR_ALIAS, of_q, of_k, SEQUENCES, NULL, to, out + 5, room, n);
    const sdpa_options biased = {.bias = dense(keys, QUERIES, KEYS)}, unknown = {.flags = 4};
    PACKED(SDPA_ERROR_SHAPE_BIAS, of_q, of_k, SEQUENCES, &biased, to, lse, room, n);
    PACKED(SDPA_ERROR_OPTION, of_q, of_k, SEQUENCES, &unknown, to, lse, room, n);
#undef PACKED
    REFUSED(SDPA_ERROR_SHAPE_KEYS, sdpa_attention_packed(hq, hv, hv, of_q, of_k, SEQUENCES, NULL, NULL, to, lse, room, n));
    REFUSED(SDPA_ERROR_SHAPE_VALUES, sdpa_attention_packed_elements(hq, ak, few, of_q, of_k,
                                                                    SEQUENCES, NULL, NULL, to, lse, room, n));
    reset();
    CHECK(sdpa_attention_packed(hq, hk, hv, of_q, of_k, SEQUENCES, NULL, NULL, to, NULL, workspace, SIZE_MAX) == SDPA_OK);
    CHECK(sdpa_attention_packed_elements(hq, ak, av, of_q, of_k, SEQUENCES, NULL, NULL, to, lse, room, n) == SDPA_OK);
    CHECK(!is_untouched(out + QUERIES * WIDTH - 1, 1) && is_untouched(out + QUERIES * WIDTH, 1));
    CHECK(!is_untouched(lse + QUERIES - 1, 1) && is_untouched(lse + QUERIES, 1));
    /* No sequence. */
    const int32_t none[] = {0};
    const sdpa_heads no_q = heads_of(dense(NULL, 0, DIM), 1), no_v = heads_of(dense(NULL, 0, WIDTH), 1);
    CHECK(sdpa_attention_packed(no_q, no_q, no_v, none, none, 0, NULL, NULL, heads_mut_of(dense_mut(NULL, 0, WIDTH), 1), NULL,
                                room, n) == SDPA_OK);
}

static void strides(void) {
    const size_t huge = SIZE_MAX / 2 + 1;
    const size_t pairs[][2] = {{SIZE_MAX, 1}, {1, SIZE_MAX}, {huge, 1}, {1, huge},
                               {SIZE_MAX / 4, SIZE_MAX / 4}, {SIZE_MAX / 8, 1}};
    for (size_t i = 0; i < SDPA_COUNT(pairs); i++) {
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
                sdpa_attention(q(), in, v(), NULL, o(), lse, workspace, SDPA_COUNT(workspace)));
        sdpa_options options = {0};
        options.bias = in;
        options.bias.cols = QUERIES;
        REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), k(), &options, grid()));
        if (i < 5) { /* an element of keep has one byte: a stride may be four times as large */
            sdpa_options kept = {0};
            kept.keep = keep;
            kept.keep_row_stride = pairs[i][0];
            kept.keep_col_stride = pairs[i][1];
            REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), k(), &kept, grid()));
        }
        if (pairs[i][0] != 1) {
            const size_t n = SDPA_COUNT(workspace);
            const sdpa_heads two = heads_of(dense(queries, 1, DIM), 2), hk = heads_of(k(), 1), hv = heads_of(v(), 1);
            const sdpa_heads_mut to_two = heads_mut_of(dense_mut(out, 1, WIDTH), 2);
            sdpa_options biased = {.bias_head_stride = pairs[i][0]}, kept = {.keep_head_stride = pairs[i][0]};
            biased.bias = dense(keys, KEYS, 1);
            REFUSED(SDPA_ERROR_STRIDE, sdpa_attention_heads(two, hk, hv, &biased, NULL, to_two, lse, workspace, n));
            if (i < 4) {
                kept.keep = keep;
                REFUSED(SDPA_ERROR_STRIDE, sdpa_attention_heads(two, hk, hv, &kept, NULL, to_two, lse, workspace, n));
            }
        }
        sdpa_heads heads = heads_of(k(), 2);
        heads.head_stride = pairs[i][0];
        heads.row_stride = DIM;
        heads.col_stride = pairs[i][1];
        REFUSED(SDPA_ERROR_STRIDE,
                sdpa_attention_heads(heads, heads, heads, NULL, NULL, heads_mut_of(o(), 2), NULL,
                                     workspace, SDPA_COUNT(workspace)));
    }
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(dense(keys, SIZE_MAX, SIZE_MAX),
                                                 dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(dense(keys, SIZE_MAX / 2, 4),
                                                 dense_mut(out, SIZE_MAX / 2, 4)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_dot(keys, keys, SIZE_MAX, out));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax(keys, SIZE_MAX / 4, out));
    /* Repeated columns are an error except in masks; rows and heads may be repeated. */
    const sdpa_matrix stuck_keys = {keys, KEYS, DIM, DIM, 0}, stuck_queries = {queries, QUERIES, DIM, DIM, 0};
    const sdpa_matrix stuck_values = {values, KEYS, WIDTH, WIDTH, 0};
    const size_t n = SDPA_COUNT(workspace);
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_rows(stuck_keys, dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_softmax_columns(stuck_keys, dense_mut(out, KEYS, DIM)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_project(stuck_queries, dense(keys, DIM, 2), NULL, dense_mut(out, QUERIES, 2)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_project(q(), stuck_keys, NULL, dense_mut(out, QUERIES, DIM)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_scores(stuck_keys, q(), 0, grid()));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_scores(k(), stuck_queries, 0, grid()));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_weighted_sum(stuck_keys, v(), dense_mut(out, DIM, WIDTH)));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_weighted_sum(dense(keys, KEYS, QUERIES), stuck_values, o()));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_merge(dense_mut(out, KEYS, WIDTH), lse, stuck_values, values));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(stuck_queries, k(), NULL, grid()));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_pattern(q(), stuck_keys, NULL, grid()));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_attention(stuck_queries, k(), v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_attention(q(), stuck_keys, v(), NULL, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_STRIDE, sdpa_attention(q(), k(), stuck_values, NULL, o(), lse, workspace, n));
    const sdpa_heads one_query = heads_of(q(), 1), one_key = heads_of(k(), 1), one_value = heads_of(v(), 1);
    const sdpa_heads_mut one_out = heads_mut_of(o(), 1);
    const sdpa_heads stuck[] = {{queries, 1, QUERIES, DIM, 0, DIM, 0}, {keys, 1, KEYS, DIM, 1, 0, 0},
                                {values, 1, KEYS, WIDTH, 0, WIDTH, 0}};
    REFUSED(SDPA_ERROR_STRIDE,
            sdpa_attention_heads(stuck[0], one_key, one_value, NULL, NULL, one_out, lse, workspace, n));
    REFUSED(SDPA_ERROR_STRIDE,
            sdpa_attention_heads(one_query, stuck[1], one_value, NULL, NULL, one_out, lse, workspace, n));
    REFUSED(SDPA_ERROR_STRIDE,
            sdpa_attention_heads(one_query, one_key, stuck[2], NULL, NULL, one_out, lse, workspace, n));
    sdpa_options shown = {0};
    const sdpa_matrix by_key = {keys, KEYS, QUERIES, 1, 0}, by_query = {keys, KEYS, QUERIES, 0, 1};
    for (int i = 0; i < 2; i++) {
        shown.bias = i == 0 ? by_key : by_query;
        CHECK(sdpa_attention(q(), k(), v(), &shown, o(), lse, workspace, n) == SDPA_OK);
        CHECK(sdpa_pattern(q(), k(), &shown, grid()) == SDPA_OK);
    }
    const sdpa_matrix one_row = {keys, KEYS, DIM, 0, 1}, one_column = {keys, KEYS, 1, 1, 0};
    CHECK(sdpa_attention(q(), one_row, v(), NULL, o(), lse, workspace, n) == SDPA_OK);
    CHECK(sdpa_softmax_rows(one_column, dense_mut(out, KEYS, 1)) == SDPA_OK);
    const sdpa_heads one_head = {keys, 2, KEYS, DIM, 0, DIM, 1};
    CHECK(sdpa_attention_heads(one_head, one_head, one_head, NULL, NULL,
                               heads_mut_of(dense_mut(out, KEYS, DIM), 2), NULL, big, SDPA_COUNT(big)) == SDPA_OK);
    /* The stride of an axis with one element may be anything. */
    const sdpa_matrix one = {keys, 1, DIM, SIZE_MAX, 1};
    CHECK(sdpa_softmax_rows(one, dense_mut(out, 1, DIM)) == SDPA_OK);
}

static void overlaps(void) {
    /* An output that overlaps itself. */
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
                                 folded_heads, lse, workspace, SDPA_COUNT(workspace)));
    /* An output that overlaps an input, except softmax in place. */
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
    const size_t n = SDPA_COUNT(workspace);
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
    options.bias.data = NULL;
    options.slopes = out + 1;
    REFUSED(SDPA_ERROR_ALIAS, sdpa_attention(q(), k(), v(), &options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_pattern(q(), k(), &options, grid()));
    /* Interleaved, but not disjoint modulo any stride: 0, 3, 6, 9 and 1, 5, 7, 11. */
    const sdpa_matrix threes = {out, 1, 4, 0, 3};
    const sdpa_matrix_mut others = {out + 1, 2, 2, 6, 4};
    REFUSED(SDPA_ERROR_ALIAS, sdpa_weighted_sum(threes, dense(values, 1, 2), others));
}

static void workspaces(void) {
    for (size_t n = 0; n < SDPA_COUNT(workspace); n += SDPA_COUNT(workspace) / 3) {
        REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, n));
    }
    REFUSED(SDPA_ERROR_WORKSPACE,
            sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, SDPA_COUNT(workspace) - 1));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_attention(q(), k(), v(), NULL, o(), lse, NULL, 0));
    REFUSED(SDPA_ERROR_WORKSPACE,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), NULL, NULL,
                                 heads_mut_of(o(), 1), lse, workspace, SDPA_COUNT(workspace) - 1));
    CHECK(sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(sdpa_attention(q(), k(), v(), NULL, o(), lse, workspace, SIZE_MAX) == SDPA_OK);
}

static void refused_options(const sdpa_options *options) {
    const size_t n = SDPA_COUNT(workspace);
    REFUSED(SDPA_ERROR_OPTION, sdpa_pattern(q(), k(), options, grid()));
    REFUSED(SDPA_ERROR_OPTION, sdpa_attention(q(), k(), v(), options, o(), lse, workspace, n));
    REFUSED(SDPA_ERROR_OPTION,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), options, NULL,
                                 heads_mut_of(o(), 1), lse, workspace, n));
    sdpa_cache cache;
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
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
    for (size_t i = 0; i < SDPA_COUNT(not_finite); i++) {
        const sdpa_options scale = {.scale = not_finite[i]}, cap = {.softcap = not_finite[i]};
        refused_options(&scale);
        refused_options(&cap);
        REFUSED(SDPA_ERROR_OPTION, sdpa_scores(k(), q(), not_finite[i], grid()));
    }
    const sdpa_options negative = {.softcap = -1}, left = {.window_left = 4}, right = {.window_right = SIZE_MAX};
    const sdpa_options causal = {.flags = SDPA_CAUSAL, .window_left = 1};
    refused_options(&negative);
    refused_options(&left); /* without SDPA_WINDOW */
    refused_options(&right);
    refused_options(&causal);
    const float sinks[] = {NAN, INFINITY};
    for (size_t i = 0; i < SDPA_COUNT(sinks); i++) {
        const sdpa_options sink = {.sink = &sinks[i]};
        refused_options(&sink);
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), NULL,
                                     &sinks[i], heads_mut_of(o(), 1), lse, workspace, SDPA_COUNT(workspace)));
    }
    const float slopes[] = {NAN, INFINITY, -INFINITY, 2e29f, -2e29f};
    for (size_t i = 0; i < SDPA_COUNT(slopes); i++) {
        const sdpa_options slope = {.slopes = &slopes[i]};
        refused_options(&slope);
    }
    /* One sink for all heads, and one per head. */
    const float one = 1;
    const sdpa_options both = {.sink = &one};
    REFUSED(SDPA_ERROR_OPTION,
            sdpa_attention_heads(heads_of(q(), 1), heads_of(k(), 1), heads_of(v(), 1), &both, &one,
                                 heads_mut_of(o(), 1), lse, workspace, SDPA_COUNT(workspace)));
}

static void caches(void) {
    sdpa_cache cache, before;
    memset(&cache, 0xa5, sizeof cache);
    before = cache;
    const size_t n = SDPA_COUNT(storage);
    fill_canaries(storage, n);
    CHECK(sdpa_cache_init(&cache, 0, WIDTH, storage, n) == SDPA_ERROR_SHAPE_DIM);
    CHECK(sdpa_cache_init(&cache, DIM, 0, storage, n) == SDPA_ERROR_SHAPE_VALUE_DIM);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, NULL, n) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_init(NULL, DIM, WIDTH, storage, n) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, n / 2 - 1) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_init(&cache, SIZE_MAX / 2, WIDTH, storage, n) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SIZE_MAX) == SDPA_ERROR_STRIDE);
    // Larger than any array by less than one block, which rounding down to whole blocks would hide.
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
    CHECK(sdpa_cache_append(&cache, k(), dense(values, KEYS - 1, WIDTH)) == SDPA_ERROR_SHAPE_VALUES);
    CHECK(sdpa_cache_append(&cache, k(), dense(values, KEYS, WIDTH - 1)) == SDPA_ERROR_SHAPE_VALUES);
    CHECK(sdpa_cache_append(&cache, dense(keys, KEYS, DIM - 1), v()) == SDPA_ERROR_SHAPE_KEYS);
    const sdpa_matrix stuck = {keys, KEYS, DIM, DIM, 0}, stuck_values = {values, KEYS, WIDTH, WIDTH, 0};
    CHECK(sdpa_cache_append(&cache, stuck, v()) == SDPA_ERROR_STRIDE);
    CHECK(sdpa_cache_append(&cache, k(), stuck_values) == SDPA_ERROR_STRIDE);
    CHECK(sdpa_cache_append(&cache, dense(many, 129, DIM), dense(many, 129, WIDTH)) == SDPA_ERROR_CAPACITY);
    const sdpa_matrix endless = {keys, SIZE_MAX, DIM, 0, 1}, endless_values = {keys, SIZE_MAX, WIDTH, 0, 1};
    CHECK(sdpa_cache_append(&cache, endless, endless_values) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_append(&cache, dense(storage + 9, KEYS, DIM), v()) == SDPA_ERROR_ALIAS);
    CHECK(sdpa_cache_keep_first(NULL, 1) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_slide(NULL, 1) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_truncate(NULL, 1) == SDPA_ERROR_NULL_POINTER);
    CHECK(memcmp(&cache, &before, sizeof cache) == 0);

    const size_t w = SDPA_COUNT(workspace);
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_cache_attend(NULL, q(), NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_SHAPE_OUT,
            sdpa_cache_attend(&cache, q(), NULL, dense_mut(out, QUERIES, WIDTH - 1), lse, workspace, w));
    sdpa_options biased = {0};
    biased.bias = dense(keys, KEYS - 1, QUERIES);
    REFUSED(SDPA_ERROR_SHAPE_BIAS, sdpa_cache_attend(&cache, q(), &biased, o(), lse, workspace, w));
    const sdpa_matrix stuck_queries = {queries, QUERIES, DIM, DIM, 0};
    REFUSED(SDPA_ERROR_STRIDE, sdpa_cache_attend(&cache, stuck_queries, NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_SHAPE_QUERIES,
            sdpa_cache_attend(&cache, dense(queries, QUERIES, DIM - 1), NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_WORKSPACE, sdpa_cache_attend(&cache, q(), NULL, o(), lse, workspace, w - 1));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_cache_attend(&cache, q(), NULL, dense_mut(storage + 4, QUERIES, WIDTH), lse, workspace, w));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend(&cache, q(), NULL, o(), storage, workspace, w));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend(&cache, q(), NULL, o(), lse, storage, SDPA_COUNT(storage)));
    REFUSED(SDPA_ERROR_ALIAS,
            sdpa_cache_attend(&cache, q(), NULL, o(), (float *)(void *)&cache, workspace, w));
    CHECK(memcmp(copy, storage, sizeof copy) == 0 && memcmp(&cache, &before, sizeof cache) == 0);

    /* A cache that was not initialized, or whose fields were changed. */
    const sdpa_cache zero = {0};
    sdpa_cache odd = zero;
    CHECK(sdpa_cache_append(&odd, k(), v()) == SDPA_ERROR_SHAPE_CACHE && memcmp(&odd, &zero, sizeof odd) == 0);
    REFUSED(SDPA_ERROR_SHAPE_CACHE, sdpa_cache_attend(&zero, q(), NULL, o(), lse, workspace, w));
    odd = cache;
    odd.dropped = odd.appended + 1;
    REFUSED(SDPA_ERROR_SHAPE_CACHE, sdpa_cache_attend(&odd, q(), NULL, o(), lse, workspace, w));
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

/* States go to `out`: QUERIES rows of WIDTH + 4 floats. */
static void states(void) {
    const size_t n = QUERIES * SDPA_STATE_FLOATS(WIDTH), w = SDPA_COUNT(workspace);
    const sdpa_heads hq = heads_of(q(), 1), hk = heads_of(k(), 1), hv = heads_of(v(), 1);
#define EITHER(status, queries, keys, values, ...)                                                          \
    do {                                                                                                    \
        REFUSED(status, sdpa_attention_states(queries, keys, values, __VA_ARGS__));                         \
        REFUSED(status, sdpa_attention_states_heads(heads_of(queries, 1), heads_of(keys, 1),                \
                                                    heads_of(values, 1), __VA_ARGS__));                     \
    } while (0)
    CHECK(sdpa_state_floats(WIDTH) == SDPA_STATE_FLOATS(WIDTH) && sdpa_state_floats(SIZE_MAX) == SIZE_MAX);
    EITHER(SDPA_ERROR_NULL_POINTER, dense(NULL, QUERIES, DIM), k(), v(), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_NULL_POINTER, q(), dense(NULL, KEYS, DIM), v(), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_NULL_POINTER, q(), k(), dense(NULL, KEYS, WIDTH), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_NULL_POINTER, q(), k(), v(), NULL, 0, NULL, n, workspace, w);
    EITHER(SDPA_ERROR_NULL_POINTER, q(), k(), v(), NULL, 0, out, n, NULL, w);
    EITHER(SDPA_ERROR_SHAPE_STATES, q(), k(), v(), NULL, 0, out, n - 1, workspace, w);
    EITHER(SDPA_ERROR_SHAPE_STATES, q(), k(), v(), NULL, 0, out, 2 * n, workspace, w);
    EITHER(SDPA_ERROR_SHAPE_STATES, q(), dense(keys, 0, DIM), dense(values, 0, WIDTH), NULL, 0, out, n,
           workspace, w);
    EITHER(SDPA_ERROR_SHAPE_QUERIES, dense(queries, QUERIES, 0), k(), v(), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_SHAPE_KEYS, q(), dense(keys, KEYS, DIM - 1), v(), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_SHAPE_VALUES, q(), k(), dense(values, KEYS - 1, WIDTH), NULL, 0, out, n, workspace, w);
    EITHER(SDPA_ERROR_WORKSPACE, q(), k(), v(), NULL, 0, out, n, workspace, w - 1);
    EITHER(SDPA_ERROR_POSITION, q(), k(), v(), NULL, 64, out, n, workspace, w);
    EITHER(SDPA_ERROR_POSITION, q(), k(), v(), NULL, SDPA_SPAN + 1, out, n, workspace, w);
    EITHER(SDPA_ERROR_POSITION, q(), k(), v(), NULL, UINT64_MAX, out, n, workspace, w);
    EITHER(SDPA_ERROR_ALIAS, q(), k(), v(), NULL, 0, keys, n, workspace, w);
    EITHER(SDPA_ERROR_ALIAS, q(), k(), v(), NULL, 0, values, n, workspace, w);
    EITHER(SDPA_ERROR_ALIAS, q(), k(), v(), NULL, 0, workspace + 4, n, workspace, w);
    sdpa_options options = {0};
    options.bias = dense(keys, KEYS - 1, QUERIES);
    EITHER(SDPA_ERROR_SHAPE_BIAS, q(), k(), v(), &options, 0, out, n, workspace, w);
    options.bias.data = NULL;
    options.scale = INFINITY;
    EITHER(SDPA_ERROR_OPTION, q(), k(), v(), &options, 0, out, n, workspace, w);
    CHECK(sdpa_attention_states(q(), k(), v(), NULL, 0, out, n, workspace, w) == SDPA_OK);
    CHECK(sdpa_attention_states_heads(hq, hk, hv, NULL, SDPA_SPAN, out, n, workspace, w) == SDPA_OK);

    sdpa_cache cache;
    CHECK(sdpa_cache_init_at(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage), 5 * SDPA_SPAN - 2) == SDPA_OK);
    CHECK(cache.appended == 5 * SDPA_SPAN - 2 && cache.dropped == cache.appended);
    CHECK(sdpa_cache_states(&cache, q(), NULL, NULL, 0, workspace, w) == SDPA_OK);
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
#define FROM_CACHE(status, cache, queries, ...)                                                             \
    do {                                                                                                    \
        REFUSED(status, sdpa_cache_states(cache, queries, __VA_ARGS__));                                    \
        REFUSED(status, sdpa_cache_states_heads(cache, heads_of(queries, 1), __VA_ARGS__));                 \
    } while (0)
    FROM_CACHE(SDPA_ERROR_NULL_POINTER, NULL, q(), NULL, out, 2 * n, workspace, w);
    FROM_CACHE(SDPA_ERROR_NULL_POINTER, &cache, q(), NULL, NULL, 2 * n, workspace, w);
    FROM_CACHE(SDPA_ERROR_SHAPE_STATES, &cache, q(), NULL, out, n, workspace, w);
    FROM_CACHE(SDPA_ERROR_SHAPE_QUERIES, &cache, dense(queries, QUERIES, DIM - 1), NULL, out, 2 * n, workspace, w);
    FROM_CACHE(SDPA_ERROR_WORKSPACE, &cache, q(), NULL, out, 2 * n, workspace, w - 1);
    FROM_CACHE(SDPA_ERROR_ALIAS, &cache, q(), NULL, storage, 2 * n, workspace, w);
    FROM_CACHE(SDPA_ERROR_OPTION, &cache, q(), &options, out, 2 * n, workspace, w);
    CHECK(sdpa_cache_states(&cache, q(), NULL, out, 2 * n, workspace, w) == SDPA_OK);
    CHECK(out[1] == 4 && out[n + 1] == 5);

    static float held[2 * QUERIES * SDPA_STATE_FLOATS(WIDTH)];
    memcpy(held, out, sizeof held);
    const sdpa_matrix_mut none = dense_mut(out, QUERIES, 0);
    options.sink = &values[0]; /* the rest of the options is not read */
#define JOINED(status, states, len, options, to, log_sum_exp)                                               \
    do {                                                                                                    \
        REFUSED(status, sdpa_join(states, len, options, to, log_sum_exp));                                  \
        REFUSED(status, sdpa_join_heads(states, len, options, NULL, heads_mut_of(to, 1), log_sum_exp));     \
    } while (0)
    JOINED(SDPA_ERROR_NULL_POINTER, NULL, n, NULL, o(), lse);
    JOINED(SDPA_ERROR_NULL_POINTER, held, n, NULL, dense_mut(NULL, QUERIES, WIDTH), lse);
    JOINED(SDPA_ERROR_SHAPE_STATES, held, n - 1, NULL, o(), lse);
    JOINED(SDPA_ERROR_SHAPE_STATES, held, 2 * n - QUERIES, NULL, o(), lse);
    JOINED(SDPA_ERROR_SHAPE_OUT, held, n, NULL, none, lse);
    JOINED(SDPA_ERROR_ALIAS, held, n, NULL, dense_mut(held + 2, QUERIES, WIDTH), lse);
    JOINED(SDPA_ERROR_ALIAS, held, n, NULL, o(), held);
    JOINED(SDPA_ERROR_ALIAS, held, n, NULL, o(), out + 1);
    REFUSED(SDPA_ERROR_OPTION, sdpa_join_heads(held, n, &options, values, heads_mut_of(o(), 1), lse));
    held[n + 1] = 4;
    JOINED(SDPA_ERROR_POSITION, held, 2 * n, NULL, o(), lse);
    held[n + 1] = 4.5f;
    JOINED(SDPA_ERROR_POSITION, held, 2 * n, NULL, o(), lse);
    for (size_t row = 0; row < QUERIES; row++) {
        held[n + row * SDPA_STATE_FLOATS(WIDTH) + 1] = 3;
    }
    CHECK(sdpa_join(held, 2 * n, &options, o(), lse) == SDPA_OK);
    CHECK(sdpa_join(NULL, 0, NULL, o(), lse) == SDPA_OK && out[0] == 0 && lse[0] == -INFINITY);
    const float sink = NAN;
    options.sink = &sink;
    JOINED(SDPA_ERROR_OPTION, held, n, &options, o(), lse);
#undef EITHER
#undef FROM_CACHE
#undef JOINED
}

static uint16_t halves[KEYS * DIM + 1];
static int8_t bytes[KEYS * DIM];
static float scales[KEYS];

static sdpa_array array(const void *data, sdpa_format format, size_t rows, size_t cols) {
    sdpa_array a = {0};
    a.data = data;
    a.format = format;
    a.rows = rows;
    a.cols = cols;
    a.scales = format == SDPA_I8 ? scales : NULL;
    return a;
}

/* Of formats: rounding, and weights. */
static void elements(void) {
    const sdpa_matrix one = dense(keys, 1, DIM);
#define NARROWED(status, floats, format, to, scales)                                                        \
    do {                                                                                                    \
        REFUSED(status, sdpa_narrow(floats, format, to, scales));                                           \
        for (size_t i = 0; i < SDPA_COUNT(halves); i++) {                                                   \
            CHECK(halves[i] == 0);                                                                          \
        }                                                                                                   \
    } while (0)
    NARROWED(SDPA_ERROR_FORMAT, one, 4, halves, NULL);
    NARROWED(SDPA_ERROR_FORMAT, one, UINT32_MAX, halves, NULL);
    NARROWED(SDPA_ERROR_NULL_POINTER, one, SDPA_F16, NULL, NULL);
    NARROWED(SDPA_ERROR_NULL_POINTER, dense(NULL, 1, DIM), SDPA_F16, halves, NULL);
    NARROWED(SDPA_ERROR_NULL_POINTER, one, SDPA_I8, halves, NULL);
    NARROWED(SDPA_ERROR_POINTER, one, SDPA_BF16, (char *)halves + 1, NULL);
    NARROWED(SDPA_ERROR_POINTER, one, SDPA_F32, (char *)scales + 2, NULL);
    NARROWED(SDPA_ERROR_POINTER, one, SDPA_I8, halves, (float *)(void *)((char *)scales + 1));
    NARROWED(SDPA_ERROR_STRIDE, dense(keys, SIZE_MAX, SIZE_MAX), SDPA_F16, halves, NULL);
    NARROWED(SDPA_ERROR_STRIDE, dense(keys, SIZE_MAX / 4, 3), SDPA_I8, halves, out);
    NARROWED(SDPA_ERROR_ALIAS, one, SDPA_F16, keys, NULL);
    NARROWED(SDPA_ERROR_ALIAS, dense(out, 1, DIM), SDPA_I8, halves, out + DIM - 1);
    NARROWED(SDPA_ERROR_ALIAS, one, SDPA_I8, (char *)scales + 3, scales);
    float wide[2 * DIM] = {0};
    const float refused[] = {65520, -65520, 3.4e38f, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < SDPA_COUNT(refused); i++) {
        wide[2 * DIM - 1] = refused[i];
        const int is_finite = isfinite(refused[i]);
        const sdpa_matrix two = dense(wide, 2, DIM);
        if (is_finite) {
            NARROWED(SDPA_ERROR_RANGE, two, SDPA_F16, halves, NULL);
        } else {
            NARROWED(SDPA_ERROR_RANGE, two, SDPA_I8, halves, out);
        }
    }
    wide[2 * DIM - 1] = FLT_MAX;
    NARROWED(SDPA_ERROR_RANGE, dense(wide, 2, DIM), SDPA_BF16, halves, NULL);
#undef NARROWED
    CHECK(sdpa_narrow(dense(NULL, 0, DIM), SDPA_I8, NULL, NULL) == SDPA_OK);
    CHECK(sdpa_narrow(one, SDPA_F32, out, NULL) == SDPA_OK);

    const sdpa_matrix_mut two = dense_mut(out, QUERIES, 2);
    const sdpa_array good = array(halves, SDPA_F16, DIM, 2);
#define PROJECTED(status, x, w, bias, to)                                                                   \
    do {                                                                                                    \
        REFUSED(status, sdpa_project_elements(x, w, bias, to));                                             \
        REFUSED(status, sdpa_project_elements_on(0, x, w, bias, to));                                       \
    } while (0)
    sdpa_array wrong = array(halves, 4, DIM, 2);
    PROJECTED(SDPA_ERROR_FORMAT, q(), wrong, NULL, two);
    PROJECTED(SDPA_ERROR_SHAPE_X, dense(queries, QUERIES, 0), array(halves, SDPA_F16, 0, 2), NULL, two);
    PROJECTED(SDPA_ERROR_SHAPE_W, q(), array(halves, SDPA_F16, DIM - 1, 2), NULL, two);
    PROJECTED(SDPA_ERROR_SHAPE_W, q(), array(bytes, SDPA_I8, DIM - 1, 2), NULL, two);
    PROJECTED(SDPA_ERROR_SHAPE_W, q(), array(keys, SDPA_F32, DIM - 1, 2), NULL, two);
    PROJECTED(SDPA_ERROR_SHAPE_W, q(), array(halves, SDPA_F16, DIM, 0), NULL, dense_mut(out, QUERIES, 0));
    PROJECTED(SDPA_ERROR_SHAPE_OUT, q(), good, NULL, dense_mut(out, QUERIES, 1));
    PROJECTED(SDPA_ERROR_NULL_POINTER, q(), array(NULL, SDPA_BF16, DIM, 2), NULL, two);
    PROJECTED(SDPA_ERROR_NULL_POINTER, dense(NULL, QUERIES, DIM), good, NULL, two);
    PROJECTED(SDPA_ERROR_NULL_POINTER, q(), good, NULL, dense_mut(NULL, QUERIES, 2));
    PROJECTED(SDPA_ERROR_POINTER, q(), array((char *)halves + 1, SDPA_F16, DIM, 2), NULL, two);
    PROJECTED(SDPA_ERROR_ALIAS, q(), array((char *)out + 46, SDPA_F16, DIM, 2), NULL, dense_mut(out + 8, QUERIES, 2));
    PROJECTED(SDPA_ERROR_ALIAS, q(), good, out + 5, two);
    wrong = array(bytes, SDPA_I8, DIM, 2);
    wrong.scales = NULL;
    PROJECTED(SDPA_ERROR_NULL_POINTER, q(), wrong, NULL, two);
    wrong.scales = out + 5;
    PROJECTED(SDPA_ERROR_ALIAS, q(), wrong, NULL, two);
    wrong.scales = (const float *)(const void *)((const char *)scales + 1);
    PROJECTED(SDPA_ERROR_POINTER, q(), wrong, NULL, two);
    wrong = array(bytes, SDPA_I8, DIM, 2);
    wrong.scale_row_stride = 1;
    PROJECTED(SDPA_ERROR_STRIDE, q(), wrong, NULL, two);
    wrong = good;
    wrong.heads = 2;
    PROJECTED(SDPA_ERROR_SHAPE_W, q(), wrong, NULL, two);
    wrong = good;
    wrong.row_stride = 2; /* one column, again and again */
    PROJECTED(SDPA_ERROR_STRIDE, q(), wrong, NULL, two);
    wrong.col_stride = SIZE_MAX / 2;
    PROJECTED(SDPA_ERROR_STRIDE, q(), wrong, NULL, two);
    CHECK(sdpa_project_elements(q(), good, NULL, two) == SDPA_OK);
#undef PROJECTED
}

static float room[SDPA_ELEMENTS_WORKSPACE(DIM, WIDTH)];

/* Attention over elements, and the states of its spans. */
static void attention_of_elements(void) {
    const size_t n = SDPA_COUNT(room), len = QUERIES * SDPA_STATE_FLOATS(WIDTH);
    const sdpa_heads hq = heads_of(q(), 1), narrow = heads_of(dense(queries, QUERIES, DIM - 1), 1);
    const sdpa_heads_mut ho = heads_mut_of(o(), 1);
    const sdpa_array k = array(halves, SDPA_BF16, KEYS, DIM), v = array(bytes, SDPA_I8, KEYS, WIDTH);
    const sdpa_array fewer = array(halves, SDPA_F16, KEYS - 1, DIM);
    CHECK(n == sdpa_elements_workspace(DIM, WIDTH));
    CHECK(sdpa_elements_workspace(SIZE_MAX, 1) == SIZE_MAX && sdpa_elements_workspace(1, SIZE_MAX) == SIZE_MAX);
#define ATTENDED(status, q, k, v, options, n)                                                               \
    do {                                                                                                    \
        fill_canaries(room, SDPA_COUNT(room));                                                              \
        REFUSED(status, sdpa_attention_elements(q, k, v, options, NULL, ho, lse, room, n));                 \
        REFUSED(status, sdpa_attention_elements_on(0, q, k, v, options, NULL, ho, lse, room, n));           \
        REFUSED(status, sdpa_attention_states_elements(q, k, v, options, 0, out, len, room, n));            \
        REFUSED(status, sdpa_attention_states_elements_on(0, q, k, v, options, 0, out, len, room, n));      \
        CHECK(is_untouched(room, SDPA_COUNT(room)));                                                        \
    } while (0)
    sdpa_array wrong = array(halves, 4, KEYS, DIM);
    ATTENDED(SDPA_ERROR_FORMAT, hq, wrong, v, NULL, n);
    wrong = array(bytes, UINT32_MAX, KEYS, WIDTH);
    ATTENDED(SDPA_ERROR_FORMAT, hq, k, wrong, NULL, n);
    ATTENDED(SDPA_ERROR_NULL_POINTER, hq, array(NULL, SDPA_F16, KEYS, DIM), v, NULL, n);
    ATTENDED(SDPA_ERROR_NULL_POINTER, hq, k, array(NULL, SDPA_I8, KEYS, WIDTH), NULL, n);
    ATTENDED(SDPA_ERROR_NULL_POINTER, heads_of(dense(NULL, QUERIES, DIM), 1), k, v, NULL, n);
    ATTENDED(SDPA_ERROR_POINTER, hq, array((char *)halves + 1, SDPA_F16, KEYS, DIM), v, NULL, n);
    ATTENDED(SDPA_ERROR_POINTER, hq, array((char *)keys + 2, SDPA_F32, KEYS, DIM), v, NULL, n);
    ATTENDED(SDPA_ERROR_SHAPE_QUERIES, heads_of(dense(queries, QUERIES, 0), 1), array(halves, SDPA_F16, KEYS, 0), v,
             NULL, n);
    ATTENDED(SDPA_ERROR_SHAPE_KEYS, narrow, k, v, NULL, n);
    wrong = array(halves, SDPA_F16, 1, DIM);
    wrong.heads = 2; /* for one query head */
    ATTENDED(SDPA_ERROR_SHAPE_KEYS, hq, wrong, v, NULL, n);
    ATTENDED(SDPA_ERROR_SHAPE_VALUES, hq, fewer, v, NULL, n);
    ATTENDED(SDPA_ERROR_SHAPE_VALUES, hq, k, array(bytes, SDPA_I8, KEYS, 0), NULL, n);
    ATTENDED(SDPA_ERROR_WORKSPACE, hq, k, v, NULL, n - 1);
    ATTENDED(SDPA_ERROR_ALIAS, hq, array((char *)out + 2, SDPA_BF16, KEYS, DIM), v, NULL, n);
    ATTENDED(SDPA_ERROR_ALIAS, hq, k, array((char *)room + n, SDPA_I8, KEYS, WIDTH), NULL, n);
    /* Strides: too far for their format, and a column again and again. */
    wrong = k;
    wrong.row_stride = SIZE_MAX / 16;
    wrong.col_stride = 1;
    ATTENDED(SDPA_ERROR_STRIDE, hq, wrong, v, NULL, n);
    wrong.row_stride = DIM;
    wrong.col_stride = 0;
    ATTENDED(SDPA_ERROR_STRIDE, hq, wrong, v, NULL, n);
    wrong = array(bytes, SDPA_I8, SIZE_MAX, 2);
    wrong.row_stride = wrong.col_stride = 1;
    ATTENDED(SDPA_ERROR_STRIDE, hq, k, wrong, NULL, n);
    /* Scales. */
    wrong = v;
    wrong.scales = NULL;
    ATTENDED(SDPA_ERROR_NULL_POINTER, hq, k, wrong, NULL, n);
    wrong.scales = (const float *)(const void *)((const char *)scales + 2);
    ATTENDED(SDPA_ERROR_POINTER, hq, k, wrong, NULL, n);
    wrong.scales = out;
    ATTENDED(SDPA_ERROR_ALIAS, hq, k, wrong, NULL, n);
    wrong.scales = scales;
    wrong.scale_row_stride = SIZE_MAX / 4;
    ATTENDED(SDPA_ERROR_STRIDE, hq, k, wrong, NULL, n);
    const float refused[] = {NAN, INFINITY, -INFINITY};
    const sdpa_array scaled_keys = array(bytes, SDPA_I8, KEYS, DIM);
    for (size_t i = 0; i < SDPA_COUNT(refused); i++) {
        scales[KEYS - 1] = refused[i];
        ATTENDED(SDPA_ERROR_RANGE, hq, k, v, NULL, n);
        ATTENDED(SDPA_ERROR_RANGE, hq, scaled_keys, array(halves, SDPA_F16, KEYS, WIDTH), NULL, n);
        scales[KEYS - 1] = 0;
    }
    sdpa_options options = {0};
    options.bias = dense(keys, KEYS - 1, QUERIES);
    ATTENDED(SDPA_ERROR_SHAPE_BIAS, hq, k, v, &options, n);
    options.bias = dense(room, KEYS, QUERIES);
    ATTENDED(SDPA_ERROR_ALIAS, hq, k, v, &options, n);
    options.bias.data = NULL;
    options.softcap = -1;
    ATTENDED(SDPA_ERROR_OPTION, hq, k, v, &options, n);
#undef ATTENDED
    REFUSED(SDPA_ERROR_SHAPE_OUT, sdpa_attention_elements(hq, k, v, NULL, NULL,
                                                          heads_mut_of(dense_mut(out, QUERIES, 1), 1), lse, room, n));
    REFUSED(SDPA_ERROR_SHAPE_STATES, sdpa_attention_states_elements(hq, k, v, NULL, 0, out, len - 1, room, n));
    REFUSED(SDPA_ERROR_POSITION, sdpa_attention_states_elements(hq, k, v, NULL, 64, out, len, room, n));
    CHECK(sdpa_attention_elements(hq, k, v, NULL, NULL, ho, lse, room, n) == SDPA_OK);
    CHECK(sdpa_attention_states_elements(hq, k, v, NULL, 0, out, len, room, n) == SDPA_OK);
    /* Formats without scales do not read them. */
    sdpa_array unread = k;
    unread.scales = out;
    unread.scale_row_stride = SIZE_MAX;
    CHECK(sdpa_attention_elements(hq, unread, v, NULL, NULL, ho, lse, room, n) == SDPA_OK);
}

/* Caches of elements; and functions that are for floats alone. */
static void caches_of_elements(void) {
    enum { FLOATS = SDPA_CACHE_FLOATS_OF(DIM, WIDTH, 1, SDPA_F16, SDPA_I8) };
    static float held[FLOATS], before[FLOATS];
    const size_t n = SDPA_COUNT(room), len = QUERIES * SDPA_STATE_FLOATS(WIDTH);
    const sdpa_heads hq = heads_of(q(), 1);
    const sdpa_heads_mut ho = heads_mut_of(o(), 1);
    sdpa_cache cache, was;
    memset(&cache, 0xa5, sizeof cache);
    was = cache;
    fill_canaries(held, FLOATS);
    CHECK(FLOATS == DIM * 32 + WIDTH * 16 + 64);
    CHECK(sdpa_cache_floats_of(DIM, WIDTH, 1, SDPA_F16, SDPA_I8) == FLOATS);
    CHECK(sdpa_cache_floats_of(DIM, WIDTH, 2, 0, 0) == sdpa_cache_floats(DIM, WIDTH, 2));
    CHECK(sdpa_cache_floats_of(DIM, WIDTH, 1, 4, 0) == SIZE_MAX);
    CHECK(sdpa_cache_floats_of(SIZE_MAX, 1, 1, SDPA_I8, 0) == SIZE_MAX);
#define MADE(status, cache, dim, width, keys, values, at, len)                                              \
    do {                                                                                                    \
        CHECK(sdpa_cache_init_elements(cache, dim, width, keys, values, at, len, 0) == (status));           \
        CHECK(memcmp(&was, cache, sizeof was) == 0 && is_untouched(held, FLOATS));                          \
    } while (0)
    MADE(SDPA_ERROR_FORMAT, &cache, DIM, WIDTH, 4, SDPA_I8, held, FLOATS);
    MADE(SDPA_ERROR_FORMAT, &cache, DIM, WIDTH, SDPA_F16, UINT32_MAX, held, FLOATS);
    MADE(SDPA_ERROR_SHAPE_DIM, &cache, 0, WIDTH, SDPA_F16, SDPA_I8, held, FLOATS);
    MADE(SDPA_ERROR_SHAPE_VALUE_DIM, &cache, DIM, 0, SDPA_F16, SDPA_I8, held, FLOATS);
    MADE(SDPA_ERROR_CAPACITY, &cache, DIM, WIDTH, SDPA_F16, SDPA_I8, held, FLOATS - 1);
    MADE(SDPA_ERROR_CAPACITY, &cache, SIZE_MAX, WIDTH, SDPA_I8, SDPA_I8, held, FLOATS);
    MADE(SDPA_ERROR_NULL_POINTER, &cache, DIM, WIDTH, SDPA_F16, SDPA_I8, NULL, FLOATS);
    MADE(SDPA_ERROR_POINTER, &cache, DIM, WIDTH, SDPA_F16, SDPA_I8, (float *)(void *)((char *)held + 2), FLOATS);
#undef MADE
    CHECK(sdpa_cache_init_elements(NULL, DIM, WIDTH, 1, 3, held, FLOATS, 0) == SDPA_ERROR_NULL_POINTER);
    CHECK(sdpa_cache_init_elements((sdpa_cache *)(void *)held, DIM, WIDTH, 1, 3, held, FLOATS, 0) == SDPA_ERROR_ALIAS);
    CHECK(sdpa_cache_init_elements(&cache, DIM, WIDTH, SDPA_F16, SDPA_I8, held, FLOATS, 7) == SDPA_OK);
    CHECK(cache.blocks == 1 && cache.appended == 7 && cache.dropped == 7 && held[0] == 0 && held[FLOATS - 1] == 0);

    float wide[DIM] = {0};
    const sdpa_matrix one = dense(wide, 1, DIM), value = dense(values, 1, WIDTH);
    CHECK(sdpa_cache_append_elements(&cache, k(), v()) == SDPA_OK && cache.appended == 7 + KEYS);
    was = cache;
    memcpy(before, held, sizeof held);
#define SAME(status, call)                                                                                  \
    do {                                                                                                    \
        CHECK((call) == (status));                                                                          \
        CHECK(memcmp(&was, &cache, sizeof was) == 0 && memcmp(before, held, sizeof held) == 0);             \
    } while (0)
    wide[DIM - 1] = 65520;
    SAME(SDPA_ERROR_RANGE, sdpa_cache_append_elements(&cache, one, value));
    wide[DIM - 1] = 1;
    const float refused[] = {NAN, INFINITY};
    for (size_t i = 0; i < SDPA_COUNT(refused); i++) {
        const float pair[WIDTH] = {0, refused[i]};
        SAME(SDPA_ERROR_RANGE, sdpa_cache_append_elements(&cache, one, dense(pair, 1, WIDTH)));
    }
    SAME(SDPA_ERROR_NULL_POINTER, sdpa_cache_append_elements(NULL, one, value));
    SAME(SDPA_ERROR_SHAPE_KEYS, sdpa_cache_append_elements(&cache, dense(keys, 1, DIM - 1), value));
    SAME(SDPA_ERROR_SHAPE_VALUES, sdpa_cache_append_elements(&cache, one, dense(values, 2, WIDTH)));
    SAME(SDPA_ERROR_ALIAS, sdpa_cache_append_elements(&cache, dense(held, 1, DIM), value));
    const sdpa_matrix many = {keys, 60, DIM, 0, 1}, many_values = {keys, 60, WIDTH, 0, 1};
    SAME(SDPA_ERROR_CAPACITY, sdpa_cache_append_elements(&cache, many, many_values));
    SAME(SDPA_ERROR_POSITION, sdpa_cache_truncate(&cache, KEYS + 1));
    SAME(SDPA_ERROR_POSITION, sdpa_cache_truncate_to(&cache, 6));
    /* For floats alone. */
    const size_t w = SDPA_COUNT(workspace);
    SAME(SDPA_ERROR_FORMAT, sdpa_cache_append(&cache, one, value));
    REFUSED(SDPA_ERROR_FORMAT, sdpa_cache_attend(&cache, q(), NULL, o(), lse, workspace, w));
    REFUSED(SDPA_ERROR_FORMAT, sdpa_cache_attend_heads(&cache, hq, NULL, NULL, ho, lse, workspace, w));
    REFUSED(SDPA_ERROR_FORMAT, sdpa_cache_states(&cache, q(), NULL, out, len, workspace, w));
    REFUSED(SDPA_ERROR_FORMAT, sdpa_cache_states_heads(&cache, hq, NULL, out, len, workspace, w));
#define ATTENDED(status, cache, q, options, n)                                                              \
    do {                                                                                                    \
        fill_canaries(room, SDPA_COUNT(room));                                                              \
        REFUSED(status, sdpa_cache_attend_elements(cache, q, options, NULL, ho, lse, room, n));             \
        REFUSED(status, sdpa_cache_states_elements(cache, q, options, out, len, room, n));                  \
        CHECK(is_untouched(room, SDPA_COUNT(room)));                                                        \
    } while (0)
    ATTENDED(SDPA_ERROR_NULL_POINTER, NULL, hq, NULL, n);
    ATTENDED(SDPA_ERROR_SHAPE_QUERIES, &cache, heads_of(dense(queries, QUERIES, DIM - 1), 1), NULL, n);
    ATTENDED(SDPA_ERROR_WORKSPACE, &cache, hq, NULL, n - 1);
    sdpa_options options = {0};
    options.bias = dense(keys, KEYS - 1, QUERIES);
    ATTENDED(SDPA_ERROR_SHAPE_BIAS, &cache, hq, &options, n);
    options.bias = dense(room, KEYS, QUERIES);
    ATTENDED(SDPA_ERROR_ALIAS, &cache, hq, &options, n);
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend_elements(&cache, hq, NULL, NULL, ho, held + FLOATS - 1, room, n));
    REFUSED(SDPA_ERROR_ALIAS, sdpa_cache_attend_elements(&cache, hq, NULL, NULL, ho, (float *)(void *)&cache, room, n));
    REFUSED(SDPA_ERROR_SHAPE_STATES, sdpa_cache_states_elements(&cache, hq, NULL, out, len - 1, room, n));
    /* Fields that no function has written. */
    sdpa_cache spoilt = cache;
    spoilt.key_format = 4;
    ATTENDED(SDPA_ERROR_FORMAT, &spoilt, hq, NULL, n);
    CHECK(sdpa_cache_append_elements(&spoilt, one, value) == SDPA_ERROR_FORMAT);
    CHECK(sdpa_cache_slide(&spoilt, 1) == SDPA_ERROR_FORMAT);
    spoilt = cache;
    spoilt.appended = cache.dropped + 129;
    ATTENDED(SDPA_ERROR_CAPACITY, &spoilt, hq, NULL, n);
    CHECK(sdpa_cache_append_elements(&spoilt, one, value) == SDPA_ERROR_CAPACITY);
    CHECK(sdpa_cache_truncate(&spoilt, 1) == SDPA_ERROR_CAPACITY);
    spoilt = cache;
    spoilt.blocks = 0;
    ATTENDED(SDPA_ERROR_SHAPE_CACHE, &spoilt, hq, NULL, n);
    CHECK(sdpa_cache_slide(&spoilt, 1) == SDPA_ERROR_SHAPE_CACHE);
    spoilt = cache;
    spoilt.dropped = spoilt.appended + 1;
    ATTENDED(SDPA_ERROR_SHAPE_CACHE, &spoilt, hq, NULL, n);
    SAME(SDPA_OK, sdpa_cache_attend_elements(&cache, hq, NULL, NULL, ho, lse, room, n));
    SAME(SDPA_OK, sdpa_cache_states_elements(&cache, hq, NULL, out, len, room, n));
#undef ATTENDED
#undef SAME
    CHECK(sdpa_cache_slide(&cache, 2) == SDPA_OK && cache.dropped == 7 + KEYS - 2);
    CHECK(sdpa_cache_truncate(&cache, 1) == SDPA_OK && cache.appended == 7 + KEYS - 1);
    CHECK(sdpa_cache_truncate_to(&cache, 7 + KEYS - 2) == SDPA_OK && cache.appended == cache.dropped);
    /* Every function for elements takes a cache of floats. */
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    CHECK(sdpa_cache_append_elements(&cache, k(), v()) == SDPA_OK && sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
    CHECK(sdpa_cache_attend_elements(&cache, hq, NULL, NULL, ho, lse, room, n) == SDPA_OK);
}

/* Rotations: a table of 5 positions from 7 on, of 2 pairs. */
static void rotations(void) {
    enum { POSITIONS = 5, PAIRS = 2, FACTORS = 2 * POSITIONS * PAIRS };
    static float factors[FACTORS + 4];
    static const float given[] = {1, -0.5f}, not_finite[] = {1, INFINITY};
    const uint64_t end = (uint64_t)1 << 53;
    sdpa_rotary table;
    /* The storage is in out. */
#define INIT(base, frequencies, pairs, first, positions, len)                   \
    sdpa_rotary_init(&table, base, frequencies, pairs, first, positions, out, len)
    memset(&table, 0x5a, sizeof table);
    const sdpa_rotary before = table;
    REFUSED(SDPA_ERROR_OPTION, INIT(0, NULL, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_OPTION, INIT(0.5, NULL, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_OPTION, INIT(NAN, NULL, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_OPTION, INIT(INFINITY, NULL, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_OPTION, INIT(1e4, given, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_OPTION, INIT(0, not_finite, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_SHAPE_TABLE, INIT(1e4, NULL, PAIRS, 7, POSITIONS, FACTORS - 1));
    REFUSED(SDPA_ERROR_SHAPE_TABLE, INIT(1e4, NULL, 0, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_SHAPE_TABLE, INIT(0, given, 0, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_SHAPE_TABLE, INIT(1e4, NULL, SIZE_MAX / 2, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_SHAPE_TABLE, INIT(1e4, NULL, SIZE_MAX, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_POSITION, INIT(1e4, NULL, PAIRS, end - 4, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_POSITION, INIT(1e4, NULL, PAIRS, UINT64_MAX, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_ALIAS, INIT(0, out + 3, PAIRS, 7, POSITIONS, FACTORS));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_rotary_init(NULL, 1e4, NULL, PAIRS, 7, POSITIONS, out, FACTORS));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_rotary_init(&table, 1e4, NULL, PAIRS, 7, POSITIONS, NULL, FACTORS));
    CHECK(memcmp(&table, &before, sizeof table) == 0);
    CHECK(INIT(1e4, NULL, PAIRS, end - 5, POSITIONS, FACTORS) == SDPA_OK);
    CHECK(sdpa_rotary_init(&table, 1e4, NULL, PAIRS, 7, POSITIONS, factors, SDPA_COUNT(factors)) == SDPA_OK);
    CHECK(table.cosines.rows == POSITIONS && table.sines.cols == PAIRS && table.first == 7);
    CHECK(sdpa_rotary_floats(POSITIONS, PAIRS) == FACTORS && sdpa_rotary_floats(SIZE_MAX, 2) == SIZE_MAX);

    const sdpa_heads x = heads_of(dense(queries, QUERIES, DIM), 1);
    const sdpa_heads_mut to = heads_mut_of(dense_mut(out, QUERIES, DIM), 1);
#define ROTATE(x, to, position) sdpa_rotate(x, &table, position, SDPA_INTERLEAVED, to)
    REFUSED(SDPA_ERROR_POSITION, ROTATE(x, to, 6));
    REFUSED(SDPA_ERROR_POSITION, ROTATE(x, to, 10));
    REFUSED(SDPA_ERROR_POSITION, ROTATE(x, to, UINT64_MAX));
    REFUSED(SDPA_ERROR_OPTION, sdpa_rotate(x, &table, 7, 2, to));
    REFUSED(SDPA_ERROR_OPTION, sdpa_rotate(x, &table, 7, UINT32_MAX, to));
    REFUSED(SDPA_ERROR_NULL_POINTER, sdpa_rotate(x, NULL, 7, SDPA_HALVES, to));
    REFUSED(SDPA_ERROR_NULL_POINTER, ROTATE(heads_of(dense(NULL, QUERIES, DIM), 1), to, 7));
    REFUSED(SDPA_ERROR_NULL_POINTER, ROTATE(x, heads_mut_of(dense_mut(NULL, QUERIES, DIM), 1), 7));
    const sdpa_heads narrow = heads_of(dense(queries, QUERIES, DIM - 1), 1);
    REFUSED(SDPA_ERROR_SHAPE_X, ROTATE(narrow, heads_mut_of(dense_mut(out, QUERIES, DIM - 1), 1), 7));
    REFUSED(SDPA_ERROR_SHAPE_OUT, ROTATE(x, heads_mut_of(dense_mut(out, QUERIES, DIM + 1), 1), 7));
    REFUSED(SDPA_ERROR_SHAPE_OUT, ROTATE(x, heads_mut_of(dense_mut(out, QUERIES - 1, DIM), 1), 7));
    REFUSED(SDPA_ERROR_SHAPE_OUT, ROTATE(x, heads_mut_of(dense_mut(out, QUERIES, DIM), 2), 7));
    REFUSED(SDPA_ERROR_ALIAS, ROTATE(heads_of(dense(out + 1, QUERIES, DIM), 1), to, 7));
    REFUSED(SDPA_ERROR_ALIAS, ROTATE(heads_of(dense(out, QUERIES, DIM + 1), 1), to, 7));
    sdpa_heads_mut stuck = to;
    stuck.row_stride = 1;
    stuck.col_stride = 1;
    REFUSED(SDPA_ERROR_ALIAS, ROTATE(x, stuck, 7));
    const sdpa_rotary good = table;
    table.sines.rows -= 1;
    REFUSED(SDPA_ERROR_SHAPE_TABLE, ROTATE(x, to, 7));
    table = good;
    table.cosines.cols = table.sines.cols = 0;
    REFUSED(SDPA_ERROR_SHAPE_TABLE, ROTATE(x, to, 7));
    table = good;
    table.sines.data = NULL;
    REFUSED(SDPA_ERROR_NULL_POINTER, ROTATE(x, to, 7));
    table = good;
    table.cosines.col_stride = 0;
    REFUSED(SDPA_ERROR_STRIDE, ROTATE(x, to, 7));
    table = good;
    table.cosines.data = out + 2;
    REFUSED(SDPA_ERROR_ALIAS, ROTATE(x, to, 7));
    table = good;
    table.first = UINT64_MAX - 3;
    REFUSED(SDPA_ERROR_POSITION, ROTATE(x, to, UINT64_MAX - 3));
    table = good;
    /* In place, with strides that say the same in two ways. */
    memcpy(out, queries, sizeof queries);
    const sdpa_heads there = {out, 1, QUERIES, DIM, 99, DIM, 1};
    CHECK(ROTATE(there, to, 7) == SDPA_OK && ROTATE(there, to, 9) == SDPA_OK);
    /* No tokens, no heads. */
    CHECK(ROTATE(heads_of(dense(NULL, 0, DIM), 1), heads_mut_of(dense_mut(NULL, 0, DIM), 1), 12) == SDPA_OK);
    CHECK(ROTATE(heads_of(dense(NULL, QUERIES, DIM), 0), heads_mut_of(dense_mut(NULL, QUERIES, DIM), 0), 7) == SDPA_OK);
    REFUSED(SDPA_ERROR_OPTION, sdpa_rotate_on(-1, x, &table, 7, SDPA_HALVES, to));
    REFUSED(SDPA_ERROR_OPTION, sdpa_rotate_on(INT32_MAX, x, &table, 7, SDPA_HALVES, to));
#undef INIT
#undef ROTATE
}

/* An invalid handle. */
static void back_ends(void) {
    size_t count = 0;
    while (sdpa_backend_at(count) >= 0) {
        const char *name = sdpa_backend_name(sdpa_backend_at(count));
        CHECK(sdpa_backend_by_name(name) == sdpa_backend_at(count) && strcmp(name, "none") != 0);
        count++;
    }
    CHECK(count >= 1 && sdpa_backend_by_name("scalar") >= 0 && sdpa_backend_by_name(sdpa_backend()) >= 0);
    CHECK(sdpa_backend_by_name("none") < 0 && sdpa_backend_by_name("") < 0 && sdpa_backend_by_name(NULL) < 0);
    sdpa_cache cache;
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    CHECK(sdpa_cache_append(&cache, k(), v()) == SDPA_OK);
    const sdpa_backend_t wrong[] = {-1, INT32_MIN, (sdpa_backend_t)count, INT32_MAX};
    const size_t n = SDPA_COUNT(workspace);
    const sdpa_heads one_query = heads_of(q(), 1), one_key = heads_of(k(), 1), one_value = heads_of(v(), 1);
    const sdpa_heads_mut one_out = heads_mut_of(o(), 1);
    for (size_t i = 0; i < SDPA_COUNT(wrong); i++) {
        const sdpa_backend_t on = wrong[i];
        CHECK(strcmp(sdpa_backend_name(on), "none") == 0);
        REFUSED(SDPA_ERROR_OPTION, sdpa_dot_on(on, keys, keys, 3, out));
        REFUSED(SDPA_ERROR_OPTION, sdpa_softmax_on(on, keys, 3, out));
        REFUSED(SDPA_ERROR_OPTION, sdpa_softmax_rows_on(on, k(), dense_mut(out, KEYS, DIM)));
        REFUSED(SDPA_ERROR_OPTION, sdpa_softmax_columns_on(on, k(), dense_mut(out, KEYS, DIM)));
        REFUSED(SDPA_ERROR_OPTION, sdpa_project_on(on, q(), dense(keys, DIM, 2), NULL, dense_mut(out, QUERIES, 2)));
        REFUSED(SDPA_ERROR_OPTION, sdpa_project_elements_on(on, q(), array(halves, SDPA_F16, DIM, 2), NULL,
                                                            dense_mut(out, QUERIES, 2)));
        REFUSED(SDPA_ERROR_OPTION, sdpa_scores_on(on, k(), q(), 0, grid()));
        REFUSED(SDPA_ERROR_OPTION, sdpa_weighted_sum_on(on, dense(keys, KEYS, QUERIES), v(), o()));
        REFUSED(SDPA_ERROR_OPTION, sdpa_pattern_on(on, q(), k(), NULL, grid()));
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_pattern_heads_on(on, one_query, one_key, NULL, NULL, heads_mut_of(grid(), 1)));
        REFUSED(SDPA_ERROR_OPTION, sdpa_pattern_mean_on(on, one_query, one_key, NULL, NULL, grid(), workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_attention_on(on, q(), k(), v(), NULL, o(), lse, workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_merge_on(on, o(), lse, dense(keys, QUERIES, WIDTH), values));
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_attention_heads_on(on, one_query, one_key, one_value, NULL, NULL, one_out, lse, workspace, n));
        const size_t len = QUERIES * SDPA_STATE_FLOATS(WIDTH);
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_attention_states_on(on, q(), k(), v(), NULL, 0, out, len, workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_attention_states_heads_on(on, one_query, one_key, one_value, NULL, 0,
                                                                  out, len, workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_join_on(on, NULL, 0, NULL, o(), lse));
        REFUSED(SDPA_ERROR_OPTION, sdpa_join_heads_on(on, NULL, 0, NULL, NULL, one_out, lse));
        REFUSED(SDPA_ERROR_OPTION, sdpa_cache_states_on(on, &cache, q(), NULL, out, len, workspace, n));
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_cache_states_heads_on(on, &cache, one_query, NULL, out, len, workspace, n));
        REFUSED(SDPA_ERROR_OPTION, sdpa_cache_attend_on(on, &cache, q(), NULL, o(), lse, workspace, n));
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_cache_attend_heads_on(on, &cache, one_query, NULL, NULL, one_out, lse, workspace, n));
        const sdpa_array keys_of = array(halves, SDPA_F16, KEYS, DIM), values_of = array(bytes, SDPA_I8, KEYS, WIDTH);
        const size_t m = SDPA_COUNT(room);
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_attention_elements_on(on, one_query, keys_of, values_of, NULL, NULL, one_out, lse, room, m));
        REFUSED(SDPA_ERROR_OPTION, sdpa_attention_states_elements_on(on, one_query, keys_of, values_of, NULL, 0, out,
                                                                     len, room, m));
        REFUSED(SDPA_ERROR_OPTION,
                sdpa_cache_attend_elements_on(on, &cache, one_query, NULL, NULL, one_out, lse, room, m));
        REFUSED(SDPA_ERROR_OPTION, sdpa_cache_states_elements_on(on, &cache, one_query, NULL, out, len, room, m));
    }
}

int main(void) {
    null_pointers();
    shapes();
    patterns();
    other_patterns();
    packed();
    strides();
    overlaps();
    workspaces();
    options();
    caches();
    states();
    elements();
    attention_of_elements();
    caches_of_elements();
    rotations();
    back_ends();
    if (failures == 0) {
        puts("status: passed");
    }
    return failures != 0;
}
