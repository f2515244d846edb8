/* Results: small cases computed by hand, and different calls that must agree. */

#include <math.h>
#include <stdlib.h>

#include "check.h"

static int near(float got, double want) { return fabs((double)got - want) <= 1e-6; }

static int all_near(const float *a, const float *b, size_t n) {
    size_t i = 0;
    while (i < n && near(a[i], b[i])) {
        i++;
    }
    return i == n;
}

static int same(const float *a, const float *b, size_t n) { return memcmp(a, b, n * sizeof *a) == 0; }

/* Pseudo-random numbers in [-2, 2). */
static void fill(float *to, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        to[i] = (float)(seed >> 8) / (float)(1 << 22) - 2;
    }
}

static void about(void) {
    char version[32];
    sprintf(version, "%d.%d.%d", SDPA_VERSION_MAJOR, SDPA_VERSION_MINOR, SDPA_VERSION_PATCH);
    CHECK(strcmp(sdpa_version(), version) == 0 && strcmp(sdpa_version(), SDPA_VERSION) == 0);
    const char *names[] = {"avx512", "avx2", "neon", "portable", "scalar"};
    int known = 0;
    for (size_t i = 0; i < SDPA_COUNT(names); i++) {
        known += strcmp(sdpa_backend(), names[i]) == 0;
    }
    CHECK(known == 1);
    for (sdpa_status status = SDPA_OK; status <= SDPA_ERROR_FORMAT; status++) {
        CHECK(strcmp(sdpa_status_string(status), sdpa_status_string(-1)) != 0);
    }
    CHECK(strcmp(sdpa_status_string(SDPA_ERROR_SHAPE_KEYS), "wrong shape: keys") == 0);
    CHECK(strcmp(sdpa_status_string(12), sdpa_status_string(-1)) == 0);
}

/* The macros are constant expressions, and agree with the functions. */
static float one_workspace[SDPA_ATTENTION_WORKSPACE(64, 64)];
static float one_cache[SDPA_CACHE_FLOATS(64, 32, 3)];

static void sizes(void) {
    CHECK(SDPA_COUNT(one_workspace) == sdpa_attention_workspace(64, 64));
    CHECK(SDPA_COUNT(one_cache) == sdpa_cache_floats(64, 32, 3));
    for (size_t dim = 0; dim < 200; dim++) {
        for (size_t width = 0; width < 200; width += 7) {
            CHECK(SDPA_ATTENTION_WORKSPACE(dim, width) == sdpa_attention_workspace(dim, width));
            CHECK(SDPA_CACHE_FLOATS(dim, width, dim) == sdpa_cache_floats(dim, width, dim));
            CHECK(SDPA_ELEMENTS_WORKSPACE(dim, width) == sdpa_elements_workspace(dim, width));
            for (sdpa_format of = SDPA_F32; of <= SDPA_I8; of++) {
                CHECK(SDPA_CACHE_FLOATS_OF(dim, width, dim, of, SDPA_I8 - of) ==
                      sdpa_cache_floats_of(dim, width, dim, of, SDPA_I8 - of));
            }
        }
    }
    CHECK(sdpa_attention_workspace(SIZE_MAX, 1) == SIZE_MAX);
    CHECK(sdpa_cache_floats(SIZE_MAX / 2, 1, 64) == SIZE_MAX);
}

static void by_hand(void) {
    const float a[] = {1, 2, 3}, b[] = {4, 5, 6};
    float dot = 0;
    CHECK(sdpa_dot(a, b, 3, &dot) == SDPA_OK && dot == 32);

    const float x[] = {0.7f, -0.93f, -0.24f, -5};
    const double weights[] = {0.628969, 0.123234, 0.245693, 0.002105};
    float out[12], again[12];
    CHECK(sdpa_softmax(x, 4, out) == SDPA_OK);
    memcpy(again, x, sizeof x);
    CHECK(sdpa_softmax(again, 4, again) == SDPA_OK && same(out, again, 4));
    for (int i = 0; i < 4; i++) {
        CHECK(near(out[i], weights[i]));
    }
    /* Rows and columns, contiguous and transposed, also in place. */
    const float grid[] = {0, -INFINITY, 1, 0, 5, 1};
    CHECK(sdpa_softmax_columns(dense(grid, 2, 3), dense_mut(out, 2, 3)) == SDPA_OK);
    CHECK(out[0] == 0.5f && out[3] == 0.5f && out[1] == 0 && out[4] == 1 && out[2] == 0.5f);
    const sdpa_matrix_mut across = {again, 3, 2, 1, 3};
    memcpy(again, grid, sizeof grid);
    const sdpa_matrix across_in = {again, 3, 2, 1, 3};
    CHECK(sdpa_softmax_rows(across_in, across) == SDPA_OK);
    for (int i = 0; i < 6; i++) {
        CHECK(near(again[i], out[i]));
    }
    memcpy(again, grid, sizeof grid);
    CHECK(sdpa_softmax_columns(dense(again, 2, 3), dense_mut(again, 2, 3)) == SDPA_OK);
    CHECK(same(again, out, 6));

    const float w[] = {1, 0, -1, 0.5f, 1, 0}, bias[] = {0, 10, 0};
    CHECK(sdpa_project(dense(a, 1, 2), dense(w, 2, 3), bias, dense_mut(out, 1, 3)) == SDPA_OK);
    CHECK(out[0] == 2 && out[1] == 12 && out[2] == -1);
    CHECK(sdpa_project(dense(a, 1, 2), dense(w, 2, 3), NULL, dense_mut(out, 1, 3)) == SDPA_OK);
    CHECK(out[0] == 2 && out[1] == 2 && out[2] == -1);

    const float keys[] = {1, 0, 0, 2, 1, 1}, query[] = {3, 4};
    CHECK(sdpa_scores(dense(keys, 3, 2), dense(query, 1, 2), 1, dense_mut(out, 3, 1)) == SDPA_OK);
    CHECK(out[0] == 3 && out[1] == 8 && out[2] == 7);
    CHECK(sdpa_scores(dense(keys, 3, 2), dense(query, 1, 2), 0, dense_mut(out, 3, 1)) == SDPA_OK);
    CHECK(near(out[0], 3 / sqrt(2)) && near(out[2], 7 / sqrt(2)));

    const float pattern[] = {0.25f, 0.75f}, values[] = {4, 0, 8, 0, 4, 8};
    CHECK(sdpa_weighted_sum(dense(pattern, 2, 1), dense(values, 2, 3), dense_mut(out, 1, 3)) == SDPA_OK);
    CHECK(out[0] == 1 && out[1] == 3 && out[2] == 8);
}

enum { TOKENS = 70, HEADS = 4, KEY_HEADS = 2, DIM = 12, WIDTH = 6 };

static float queries[HEADS * TOKENS * DIM], keys[KEY_HEADS * TOKENS * DIM];
static float values[KEY_HEADS * TOKENS * WIDTH], out[HEADS * TOKENS * WIDTH];
static float want[HEADS * TOKENS * WIDTH], lse[HEADS * TOKENS], want_lse[HEADS * TOKENS];
static float grid[TOKENS * TOKENS], workspace[SDPA_ATTENTION_WORKSPACE(DIM, WIDTH)];

static sdpa_matrix q(void) { return dense(queries, TOKENS, DIM); }
static sdpa_matrix k(void) { return dense(keys, TOKENS, DIM); }
static sdpa_matrix v(void) { return dense(values, TOKENS, WIDTH); }

static sdpa_status attention(const sdpa_options *options, float *to, float *logarithms) {
    return sdpa_attention(q(), k(), v(), options, dense_mut(to, TOKENS, WIDTH), logarithms,
                          workspace, SDPA_COUNT(workspace));
}

/* The attention call equals the pattern times the values, and its log-sum-exp is that of the scores. */
static void agrees_with_the_pattern(const sdpa_options *options) {
    CHECK(sdpa_pattern(q(), k(), options, dense_mut(grid, TOKENS, TOKENS)) == SDPA_OK);
    CHECK(sdpa_weighted_sum(dense(grid, TOKENS, TOKENS), v(), dense_mut(want, TOKENS, WIDTH)) == SDPA_OK);
    CHECK(attention(options, out, lse) == SDPA_OK);
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        CHECK(near(out[i], want[i]));
    }
    memcpy(want, out, sizeof out);
    CHECK(attention(options, out, NULL) == SDPA_OK && same(out, want, TOKENS * WIDTH));
    for (int i = 0; i < TOKENS; i++) {
        CHECK(isfinite(lse[i]) || lse[i] == -INFINITY);
    }
}

static uint8_t keep[TOKENS * TOKENS], padding[TOKENS];
static float bias[TOKENS * TOKENS];

static void option_by_option(void) {
    const float sink = 0.5f;
    const sdpa_options none = {0};
    agrees_with_the_pattern(NULL);
    agrees_with_the_pattern(&none);
    const sdpa_options each[] = {
        {.flags = SDPA_CAUSAL},
        {.flags = SDPA_CAUSAL, .query_offset = -3},
        {.flags = SDPA_WINDOW, .window_left = 4, .window_right = 2},
        {.flags = SDPA_WINDOW, .window_left = SIZE_MAX, .window_right = SIZE_MAX},
        {.flags = SDPA_CAUSAL | SDPA_WINDOW, .window_left = 0},
        {.query_offset = 7, .softcap = 30},
        {.scale = -0.3f, .softcap = 2, .sink = &sink},
        {.bias = dense(bias, TOKENS, TOKENS)},
        {.bias = {bias, TOKENS, TOKENS, 1, TOKENS}, .keep = keep},
        {.keep = keep, .keep_row_stride = 1, .keep_col_stride = TOKENS},
        {.keep = padding, .keep_row_stride = 1},
        {.keep = padding, .keep_col_stride = 1},
    };
    for (size_t i = 0; i < SDPA_COUNT(each); i++) {
        agrees_with_the_pattern(&each[i]);
    }
    /* Causal: the first query sees the first key only. A window of 0: each query sees its own key only. */
    CHECK(attention(&each[0], out, lse) == SDPA_OK && all_near(out, values, WIDTH));
    CHECK(attention(&each[4], out, lse) == SDPA_OK && all_near(out, values, TOKENS * WIDTH));
    CHECK(attention(&each[1], out, lse) == SDPA_OK);
    CHECK(out[0] == 0 && !signbit(out[0]) && lse[0] == -INFINITY && all_near(out + 3 * WIDTH, values, WIDTH));
    /* A padding mask equals the same mask written out for each query. */
    for (int i = 0; i < TOKENS * TOKENS; i++) {
        keep[i] = padding[i / TOKENS];
    }
    const sdpa_options drawn = {.keep = keep};
    CHECK(attention(&each[10], out, lse) == SDPA_OK && attention(&drawn, want, want_lse) == SDPA_OK);
    CHECK(same(out, want, TOKENS * WIDTH) && same(lse, want_lse, TOKENS));
    /* The content of a masked key does not reach the output. */
    for (int key = 0; key < TOKENS; key++) {
        if (!padding[key]) {
            keys[key * DIM] = NAN;
            values[key * WIDTH] = INFINITY;
        }
    }
    CHECK(attention(&each[10], out, lse) == SDPA_OK);
    CHECK(same(out, want, TOKENS * WIDTH) && same(lse, want_lse, TOKENS));
    /* All keys masked: output 0, and log-sum-exp -INFINITY or the sink. */
    memset(keep, 0, sizeof keep);
    const sdpa_options masked = {.keep = keep}, sunk = {.keep = keep, .sink = &sink};
    CHECK(attention(&masked, out, lse) == SDPA_OK && out[5] == 0 && lse[2] == -INFINITY);
    CHECK(attention(&sunk, out, lse) == SDPA_OK && out[5] == 0 && near(lse[2], sink));
}

static sdpa_heads heads_of(const float *data, size_t heads, size_t cols) {
    const sdpa_heads all = {data, heads, TOKENS, cols, 0, 0, 0};
    return all;
}

static void heads(void) {
    const sdpa_heads q_heads = heads_of(queries, HEADS, DIM);
    const sdpa_heads k_heads = heads_of(keys, KEY_HEADS, DIM), v_heads = heads_of(values, KEY_HEADS, WIDTH);
    const sdpa_heads_mut o_heads = {out, HEADS, TOKENS, WIDTH, 0, 0, 0};
    const float sinks[HEADS] = {0, -1, -INFINITY, 2};
    const sdpa_options causal = {.flags = SDPA_CAUSAL};
    CHECK(sdpa_attention_heads(q_heads, k_heads, v_heads, &causal, sinks, o_heads, lse, workspace,
                               SDPA_COUNT(workspace)) == SDPA_OK);
    for (size_t head = 0; head < HEADS; head++) {
        const size_t shared = head / (HEADS / KEY_HEADS);
        sdpa_options one = causal;
        one.sink = &sinks[head];
        CHECK(sdpa_attention(dense(queries + head * TOKENS * DIM, TOKENS, DIM),
                             dense(keys + shared * TOKENS * DIM, TOKENS, DIM),
                             dense(values + shared * TOKENS * WIDTH, TOKENS, WIDTH), &one,
                             dense_mut(want, TOKENS, WIDTH), want_lse, workspace,
                             SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(same(out + head * TOKENS * WIDTH, want, TOKENS * WIDTH));
        CHECK(same(lse + head * TOKENS, want_lse, TOKENS));
    }
    /* [token][query, key, value, output]: all four interleaved in one buffer, in one call. */
    enum { PITCH = 3 * DIM + WIDTH };
    static float buffer[TOKENS * PITCH];
    for (size_t token = 0; token < TOKENS; token++) {
        memcpy(buffer + token * PITCH, queries + token * DIM, DIM * sizeof(float));
        memcpy(buffer + token * PITCH + DIM, keys + token * DIM, DIM * sizeof(float));
        memcpy(buffer + token * PITCH + 2 * DIM, values + token * WIDTH, WIDTH * sizeof(float));
    }
    const sdpa_matrix parts[] = {{buffer, TOKENS, DIM, PITCH, 1},
                                 {buffer + DIM, TOKENS, DIM, PITCH, 1},
                                 {buffer + 2 * DIM, TOKENS, WIDTH, PITCH, 1}};
    const sdpa_matrix_mut to = {buffer + 3 * DIM, TOKENS, WIDTH, PITCH, 1};
    CHECK(attention(NULL, want, NULL) == SDPA_OK);
    CHECK(sdpa_attention(parts[0], parts[1], parts[2], NULL, to, NULL, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    for (size_t token = 0; token < TOKENS; token++) {
        CHECK(same(buffer + token * PITCH + 3 * DIM, want + token * WIDTH, WIDTH));
    }
    /* Moved one float to the left, they overlap. */
    const sdpa_matrix_mut touching = {buffer + 3 * DIM - WIDTH - 1, TOKENS, WIDTH, PITCH, 1};
    CHECK(sdpa_attention(parts[0], parts[1], parts[2], NULL, touching, NULL, workspace,
                         SDPA_COUNT(workspace)) == SDPA_ERROR_ALIAS);
    /* Every second float, and ranges of columns. */
    float pairs[16] = {1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0};
    const sdpa_matrix even = {pairs, 2, 4, 8, 2};
    const sdpa_matrix_mut odd = {pairs + 1, 2, 4, 8, 2};
    CHECK(sdpa_softmax_rows(even, odd) == SDPA_OK && pairs[0] == 1 && near(pairs[7], 0.643914));
}

/* Each head as in a call of its own; the mean is their sum in the order of the heads, divided by their number. */
static void patterns_of_heads(void) {
    static float grids[HEADS * TOKENS * TOKENS], mean[TOKENS * TOKENS], biases[HEADS * TOKENS * TOKENS];
    static float space[TOKENS * TOKENS + 1];
    const sdpa_heads q_heads = heads_of(queries, HEADS, DIM), k_heads = heads_of(keys, KEY_HEADS, DIM);
    const sdpa_heads_mut to = {grids, HEADS, TOKENS, TOKENS, 0, 0, 0};
    const float sinks[HEADS] = {0, -1, -INFINITY, 2}, slopes[HEADS] = {0.5f, 0, -0.1f, 0.25f};
    const size_t cells = TOKENS * TOKENS;
    fill(biases, SDPA_COUNT(biases), 11);
    fill_canaries(space, SDPA_COUNT(space));
    sdpa_options all = {.flags = SDPA_CAUSAL, .query_offset = 3, .bias = dense(biases, TOKENS, TOKENS),
                        .bias_head_stride = TOKENS * TOKENS, .slopes = slopes};
    CHECK(sdpa_pattern_heads(q_heads, k_heads, &all, sinks, to) == SDPA_OK);
    CHECK(sdpa_pattern_mean(q_heads, k_heads, &all, sinks, dense_mut(mean, TOKENS, TOKENS), space, SIZE_MAX) == SDPA_OK);
    CHECK(is_untouched(space + cells, 1));
    memset(want, 0, sizeof want);
    for (size_t head = 0; head < HEADS; head++) {
        sdpa_options one = all;
        one.bias = dense(biases + head * cells, TOKENS, TOKENS);
        one.slopes = slopes + head;
        one.sink = sinks + head;
        CHECK(sdpa_pattern(dense(queries + head * TOKENS * DIM, TOKENS, DIM),
                           dense(keys + head / (HEADS / KEY_HEADS) * TOKENS * DIM, TOKENS, DIM), &one,
                           dense_mut(grid, TOKENS, TOKENS)) == SDPA_OK);
        CHECK(same(grids + head * cells, grid, cells));
        CHECK(head == 0 || !same(grids + head * cells, grids, cells));
        for (size_t i = 0; i < cells; i++) {
            space[i] = head == 0 ? grid[i] : space[i] + grid[i];
        }
    }
    for (size_t i = 0; i < cells; i++) {
        space[i] /= HEADS;
    }
    CHECK(same(mean, space, cells));
    /* Heads and grids of any strides: [token][head][column], and keys that follow the query. */
    static float turned[HEADS * TOKENS * TOKENS];
    const sdpa_heads_mut across = {turned, HEADS, TOKENS, TOKENS, 1, HEADS, HEADS * TOKENS};
    CHECK(sdpa_pattern_heads(q_heads, k_heads, &all, sinks, across) == SDPA_OK);
    for (size_t i = 0; i < SDPA_COUNT(turned); i++) {
        const size_t head = i % HEADS, key = i / HEADS % TOKENS, query = i / HEADS / TOKENS;
        CHECK(same(turned + i, grids + head * cells + key * TOKENS + query, 1));
    }
}

/* The attention over two halves of the keys, merged, equals that over all keys. */
static void merged(void) {
    enum { HALF = TOKENS / 2 };
    static float other[TOKENS * WIDTH], other_lse[TOKENS];
    CHECK(attention(NULL, want, want_lse) == SDPA_OK);
    CHECK(sdpa_attention(q(), dense(keys, HALF, DIM), dense(values, HALF, WIDTH), NULL,
                         dense_mut(out, TOKENS, WIDTH), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(sdpa_attention(q(), dense(keys + HALF * DIM, HALF, DIM), dense(values + HALF * WIDTH, HALF, WIDTH),
                         NULL, dense_mut(other, TOKENS, WIDTH), other_lse, workspace,
                         SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(sdpa_merge(dense_mut(out, TOKENS, WIDTH), lse, dense(other, TOKENS, WIDTH), other_lse) == SDPA_OK);
    CHECK(all_near(out, want, TOKENS * WIDTH));
    for (int i = 0; i < TOKENS; i++) {
        CHECK(fabs(lse[i] - want_lse[i]) < 2e-6);
        other_lse[i] = -INFINITY;
        other[i * WIDTH] = NAN;
    }
    memcpy(want, out, sizeof out);
    CHECK(sdpa_merge(dense_mut(out, TOKENS, WIDTH), lse, dense(other, TOKENS, WIDTH), other_lse) == SDPA_OK);
    CHECK(same(out, want, TOKENS * WIDTH));
}

static float storage[SDPA_CACHE_FLOATS(DIM, WIDTH, 2)];

/* Token by token: each result has the bits of one call over all tokens. */
static void cache(void) {
    sdpa_cache held;
    const sdpa_options causal = {.flags = SDPA_CAUSAL};
    sdpa_options window = {.flags = SDPA_CAUSAL | SDPA_WINDOW, .window_left = 9};
    CHECK(attention(&causal, want, want_lse) == SDPA_OK);
    CHECK(sdpa_cache_init(&held, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    for (size_t token = 0; token < TOKENS; token++) {
        const sdpa_matrix key = dense(keys + token * DIM, 1, DIM), value = dense(values + token * WIDTH, 1, WIDTH);
        CHECK(sdpa_cache_append(&held, key, value) == SDPA_OK && held.appended == token + 1);
        CHECK(sdpa_cache_attend(&held, dense(queries + token * DIM, 1, DIM), &causal,
                                dense_mut(out, 1, WIDTH), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(same(out, want + token * WIDTH, WIDTH) && same(lse, want_lse + token, 1));
    }
    CHECK(sdpa_cache_truncate(&held, 20) == SDPA_OK && held.appended == 20 && held.dropped == 0);
    CHECK(sdpa_cache_append(&held, dense(keys + 20 * DIM, 50, DIM), dense(values + 20 * WIDTH, 50, WIDTH)) == SDPA_OK);
    CHECK(sdpa_cache_attend(&held, q(), &causal, dense_mut(out, TOKENS, WIDTH), lse, workspace,
                            SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(same(out, want, TOKENS * WIDTH) && same(lse, want_lse, TOKENS));
    /* A sliding window over many more tokens than the cache holds. */
    CHECK(sdpa_cache_init(&held, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    CHECK(attention(&window, want, want_lse) == SDPA_OK);
    for (size_t round = 0; round < 5; round++) {
        for (size_t token = 0; token < TOKENS; token++) {
            CHECK(sdpa_cache_append(&held, dense(keys + token * DIM, 1, DIM), dense(values + token * WIDTH, 1, WIDTH)) == SDPA_OK);
            CHECK(sdpa_cache_slide(&held, 10) == SDPA_OK);
            CHECK(sdpa_cache_attend(&held, dense(queries + token * DIM, 1, DIM), &window,
                                    dense_mut(out, 1, WIDTH), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
            CHECK(round > 0 || same(out, want + token * WIDTH, WIDTH));
        }
    }
    CHECK(held.appended == 5 * TOKENS && held.dropped == 5 * TOKENS - 10);
    /* Heads that share the cache: each as in a call of its own; keep has one row per key in the cache. */
    const sdpa_heads newest = {queries, HEADS, 2, DIM, TOKENS * DIM, DIM, 1};
    const sdpa_heads_mut to = {out, HEADS, 2, WIDTH, 0, 0, 0};
    const float sinks[HEADS] = {0, 1, 2, -3};
    memset(keep, 1, sizeof keep);
    keep[4] = 0;
    sdpa_options kept = {.flags = SDPA_CAUSAL, .keep = keep};
    CHECK(sdpa_cache_attend_heads(&held, newest, &kept, sinks, to, lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    for (size_t head = 0; head < HEADS; head++) {
        kept.sink = &sinks[head];
        CHECK(sdpa_cache_attend(&held, dense(queries + head * TOKENS * DIM, 2, DIM), &kept,
                                dense_mut(want, 2, WIDTH), want_lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(same(out + head * 2 * WIDTH, want, 2 * WIDTH) && same(lse + head * 2, want_lse, 2));
    }
}

/* Kept keys: a window over all keys, and a cache that keeps its first ones, as the plain call with the others masked. */
static void kept_keys(void) {
    enum { KEPT = 3, HELD = 9 };
    static float long_storage[SDPA_CACHE_FLOATS(DIM, WIDTH, 256 / SDPA_KEY_BLOCK)];
    sdpa_cache held;
    CHECK(sdpa_cache_init(&held, DIM, WIDTH, long_storage, SDPA_COUNT(long_storage)) == SDPA_OK);
    CHECK(sdpa_cache_keep_first(&held, 257) == SDPA_ERROR_CAPACITY && held.kept == 0);
    CHECK(sdpa_cache_keep_first(&held, KEPT) == SDPA_OK && held.kept == KEPT);
    for (size_t n = 0; n < TOKENS; n++) {
        const sdpa_matrix query = dense(queries + n * DIM, 1, DIM);
        CHECK(sdpa_cache_append(&held, dense(keys + n * DIM, 1, DIM), dense(values + n * WIDTH, 1, WIDTH)) == SDPA_OK);
        CHECK(sdpa_cache_slide(&held, KEPT + HELD) == SDPA_OK);
        const sdpa_options newest = {.keep_first = n % 2 ? KEPT : 0};
        CHECK(sdpa_cache_attend(&held, query, &newest, dense_mut(out, 1, WIDTH), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
        memset(keep, 1, sizeof keep);
        for (size_t key = KEPT; key + HELD <= n; key++) {
            keep[key] = 0;
        }
        const sdpa_options masked = {.keep = keep, .keep_row_stride = 1};
        const sdpa_matrix all_keys = dense(keys, n + 1, DIM), all_values = dense(values, n + 1, WIDTH);
        CHECK(sdpa_attention(query, all_keys, all_values, &masked, dense_mut(want, 1, WIDTH), want_lse, workspace,
                             SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(same(out, want, WIDTH) && same(lse, want_lse, 1));
        const sdpa_options window = {.flags = SDPA_CAUSAL | SDPA_WINDOW, .window_left = HELD - 1, .keep_first = KEPT,
                                     .query_offset = (ptrdiff_t)n};
        CHECK(sdpa_attention(query, all_keys, all_values, &window, dense_mut(out, 1, WIDTH), lse, workspace,
                             SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(same(out, want, WIDTH) && same(lse, want_lse, 1));
    }
    CHECK(held.dropped == TOKENS - HELD && held.kept == KEPT);
    const sdpa_options other = {.keep_first = KEPT + 1};
    CHECK(sdpa_cache_attend(&held, dense(queries, 1, DIM), &other, dense_mut(out, 1, WIDTH), NULL, workspace,
                            SDPA_COUNT(workspace)) == SDPA_ERROR_OPTION);
    CHECK(sdpa_cache_keep_first(&held, KEPT + 1) == SDPA_ERROR_POSITION);
    held.kept = (size_t)held.dropped;
    CHECK(sdpa_cache_slide(&held, 1) == SDPA_ERROR_POSITION);
}

/* A stream that begins at a large position has the bits of one that begins at 0. */
static void far_caches(void) {
    const uint64_t starts[] = {0, (UINT64_C(1) << 31) - 128, (UINT64_C(1) << 32) - 128, (UINT64_C(1) << 63) - 128,
                               UINT64_MAX - 255};
    const sdpa_options window = {.flags = SDPA_CAUSAL | SDPA_WINDOW, .window_left = 9, .query_offset = -1};
    for (size_t i = 0; i < SDPA_COUNT(starts); i++) {
        sdpa_cache held;
        const uint64_t start = starts[i];
        CHECK(sdpa_cache_init(&held, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
        held.appended = held.dropped = start;
        for (size_t n = 0; n < 3 * TOKENS; n++) {
            const size_t token = n % TOKENS;
            float *const at = start == 0 ? want : out;
            CHECK(sdpa_cache_append(&held, dense(keys + token * DIM, 1, DIM), dense(values + token * WIDTH, 1, WIDTH)) == SDPA_OK);
            CHECK(sdpa_cache_slide(&held, 11) == SDPA_OK && held.appended == start + n + 1);
            CHECK(sdpa_cache_attend(&held, dense(queries + token * DIM, 1, DIM), &window,
                                    dense_mut(&at[token * WIDTH], 1, WIDTH), lse, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
        }
        CHECK(start == 0 || same(out, want, TOKENS * WIDTH));
        CHECK(sdpa_cache_truncate_to(&held, held.appended + 1) == SDPA_ERROR_POSITION);
        CHECK(sdpa_cache_truncate_to(&held, held.dropped - 1) == SDPA_ERROR_POSITION);
        CHECK(sdpa_cache_truncate(&held, 12) == SDPA_ERROR_POSITION);
        CHECK(sdpa_cache_truncate_to(&held, held.appended - 2) == SDPA_OK && held.appended == start + 3 * TOKENS - 2);
        if (start == UINT64_MAX - 255) {
            CHECK(sdpa_cache_append(&held, dense(keys, 48, DIM), dense(values, 48, WIDTH)) == SDPA_ERROR_POSITION);
            CHECK(sdpa_cache_append(&held, dense(keys, 47, DIM), dense(values, 47, WIDTH)) == SDPA_OK);
            CHECK(held.appended == UINT64_MAX);
        }
    }
}

/* Queries at both ends of ptrdiff_t and beyond: query i sees the keys from 30 + i on, and up to 20 + i. */
static void far_queries(void) {
    const size_t end = PTRDIFF_MAX;
    const sdpa_options far[] = {
        {.flags = SDPA_WINDOW | SDPA_CAUSAL, .window_left = end - 40, .query_offset = PTRDIFF_MAX - 10},
        {.flags = SDPA_WINDOW, .window_left = SIZE_MAX, .window_right = end + 21, .query_offset = PTRDIFF_MIN},
    };
    for (size_t i = 0; i < SDPA_COUNT(far); i++) {
        CHECK(sdpa_pattern(q(), k(), &far[i], dense_mut(grid, TOKENS, TOKENS)) == SDPA_OK);
        for (size_t key = 0; key < TOKENS; key++) {
            for (size_t query = 0; query < TOKENS; query++) {
                const int is_seen = i == 0 ? key >= 30 + query : key <= 20 + query;
                CHECK((grid[key * TOKENS + query] > 0) == is_seen);
            }
        }
        agrees_with_the_pattern(&far[i]);
    }
}

int main(void) {
    about();
    sizes();
    by_hand();
    fill(queries, SDPA_COUNT(queries), 1);
    fill(keys, SDPA_COUNT(keys), 2);
    fill(values, SDPA_COUNT(values), 3);
    fill(bias, SDPA_COUNT(bias), 4);
    for (int i = 0; i < TOKENS * TOKENS; i++) {
        keep[i] = (uint8_t)(i * 7 % 5);
        bias[i] = i % 11 == 0 ? -INFINITY : bias[i];
        padding[i % TOKENS] = i % TOKENS % 3 != 1;
    }
    heads();
    patterns_of_heads();
    merged();
    cache();
    kept_keys();
    far_caches();
    far_queries();
    for (int i = 0; i < TOKENS * TOKENS; i++) {
        keep[i] = (uint8_t)(i * 7 % 5);
    }
    option_by_option();
    if (failures == 0) {
        puts("numbers: passed");
    }
    return failures != 0;
}
