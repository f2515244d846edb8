/* Makes random calls on each back end and prints a digest of all results. examples/calls.rs makes the same
 * calls to the Rust crate and must print the same. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdpa.h"

/* The handle of the back end; negative: the functions without _on. */
static sdpa_backend_t on = -1;

#define ON(name, ...) (on < 0 ? name(__VA_ARGS__) : name##_on(on, __VA_ARGS__))

static uint64_t state, digest;

/* SplitMix64. */
static uint64_t bits(void) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(uint64_t end) { return (size_t)(((bits() >> 32) * end) >> 32); }

static int one_in(uint64_t n) { return below(n) == 0; }

/* In [-2, 2), exactly. */
static float value(void) { return (float)(bits() >> 40) * (1.0f / 4194304) - 2; }

/* FNV-1a, one word at a time. */
static void note(uint64_t word) { digest = (digest ^ word) * 0x100000001b3u; }

static void note_float(float x) {
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    note(x == x ? word : 0x7fc00000u);
}

static float arena[1 << 18];
static size_t used;

static float *take(size_t n) {
    float *floats = arena + used;
    used += n;
    if (used > SDPA_COUNT(arena)) {
        abort();
    }
    for (size_t i = 0; i < n; i++) {
        floats[i] = value();
    }
    return floats;
}

/* A matrix with padding, transposed or not. */
static sdpa_matrix_mut matrix(size_t rows, size_t cols) {
    sdpa_matrix_mut m = {NULL, rows, cols, 1, 1};
    if (one_in(3)) {
        m.col_stride = rows + below(3);
        m.data = take(cols * m.col_stride);
    } else {
        m.row_stride = cols + below(3);
        m.data = take(rows * m.row_stride);
    }
    return m;
}

static sdpa_matrix input(size_t rows, size_t cols) {
    const sdpa_matrix_mut m = matrix(rows, cols);
    const sdpa_matrix in = {m.data, m.rows, m.cols, m.row_stride, m.col_stride};
    return in;
}

static void note_matrix(sdpa_matrix_mut m) {
    for (size_t row = 0; row < m.rows; row++) {
        for (size_t col = 0; col < m.cols; col++) {
            note_float(m.data[row * m.row_stride + col * m.col_stride]);
        }
    }
}

static uint8_t keep[1 << 12];
static float sink, workspace[SDPA_ELEMENTS_WORKSPACE(70, 40)];

static sdpa_options options(size_t keys, size_t queries) {
    sdpa_options o = {0};
    o.flags = (uint32_t)below(4);
    o.scale = one_in(2) ? 0 : value();
    o.softcap = one_in(4) ? 2.5f + value() : 0;
    o.query_offset = (ptrdiff_t)below(80) - 40;
    if (o.flags & SDPA_WINDOW) {
        o.window_left = below(50);
        o.window_right = below(50);
    }
    if (one_in(3)) {
        o.bias = input(keys, queries);
    }
    if (one_in(3)) {
        o.keep = keep;
        for (size_t i = 0; i < keys * queries; i++) {
            keep[i] = !one_in(4);
        }
    }
    if (one_in(3)) {
        sink = value();
        o.sink = &sink;
    }
    return o;
}

/* Room for all of them, whatever the size of a block, which is another on boards. */
static void cache(void) {
    const size_t dim = 1 + below(20), width = 1 + below(20);
    const size_t len = SDPA_CACHE_FLOATS(dim, width, 192 / SDPA_KEY_BLOCK);
    sdpa_cache held;
    note((uint64_t)sdpa_cache_init(&held, dim, width, take(len), len));
    for (int step = 0; step < 8; step++) {
        const size_t n = 1 + below(30), count = 1 + below(3);
        const sdpa_matrix keys = input(n, dim), values = input(n, width);
        note((uint64_t)sdpa_cache_append(&held, keys, values));
        note((uint64_t)sdpa_cache_slide(&held, 10 + below(60)));
        const sdpa_matrix queries = input(count, dim);
        const sdpa_matrix_mut out = matrix(count, width);
        const sdpa_options causal = {.flags = SDPA_CAUSAL};
        float *lse = take(count);
        note((uint64_t)ON(sdpa_cache_attend, &held, queries, &causal, out, lse, workspace, SDPA_COUNT(workspace)));
        note_matrix(out);
        for (size_t i = 0; i < count; i++) {
            note_float(lse[i]);
        }
    }
}

static void heads(void) {
    const size_t groups = 1 + below(3), key_heads = 1 + below(2), count = groups * key_heads;
    const size_t keys = 1 + below(40), tokens = 1 + below(9), dim = 1 + below(20), width = 1 + below(20);
    const sdpa_heads q = {take(tokens * count * dim), count, tokens, dim, dim, count * dim, 1};
    const sdpa_heads k = {take(keys * key_heads * dim), key_heads, keys, dim, 0, 0, 0};
    const sdpa_heads v = {take(keys * key_heads * width), key_heads, keys, width, 0, 0, 0};
    const sdpa_heads_mut out = {take(tokens * count * width), count, tokens, width, width, count * width, 1};
    sdpa_options o = options(keys, tokens);
    const float *sinks = NULL;
    if (one_in(2)) {
        sinks = take(count);
        o.sink = NULL;
    }
    if (one_in(2)) {
        o.slopes = take(count);
    }
    if (one_in(3)) { /* a bias and a keep per head */
        const sdpa_matrix bias = {take(count * keys * tokens), keys, tokens, 0, 0};
        o.bias = bias;
        o.bias_head_stride = keys * tokens;
        o.keep = keep;
        o.keep_head_stride = keys * tokens;
        for (size_t i = 0; i < count * keys * tokens; i++) {
            keep[i] = !one_in(4);
        }
    }
    float *lse = take(count * tokens);
    note((uint64_t)ON(sdpa_attention_heads, q, k, v, &o, sinks, out, lse, workspace, SDPA_COUNT(workspace)));
    for (size_t i = 0; i < tokens * count * width; i++) {
        note_float(out.data[i]);
    }
    for (size_t i = 0; i < count * tokens; i++) {
        note_float(lse[i]);
    }
    /* The same tokens as two sequences. */
    const int32_t of_q[] = {0, (int32_t)below(tokens + 1), (int32_t)tokens};
    const int32_t of_k[] = {0, (int32_t)below(keys + 1), (int32_t)keys};
    note((uint64_t)ON(sdpa_attention_packed, q, k, v, of_q, of_k, 2, &o, sinks, out, lse, workspace, SDPA_COUNT(workspace)));
    for (size_t i = 0; i < tokens * count * width; i++) {
        note_float(out.data[i]);
    }
    for (size_t i = 0; i < count * tokens; i++) {
        note_float(lse[i]);
    }
}

/* Rows of random floats, rounded to a format. */
static sdpa_array narrowed(sdpa_format format, size_t rows, size_t cols, void *to, float *scales) {
    const float *floats = take(rows * cols);
    const sdpa_matrix from = {floats, rows, cols, 0, 0};
    const sdpa_array array = {to, format, 1, rows, cols, 0, 0, 0, scales, 0, 0};
    note((uint64_t)sdpa_narrow(from, format, to, scales));
    return array;
}

static void note_out(const float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        note_float(out[i]);
    }
}

/* Formats: attention, its states, a cache and a projection. */
static void elements(void) {
    static float storage[SDPA_CACHE_FLOATS(20, 20, 64 / SDPA_KEY_BLOCK)], of_keys[40 * 20], of_values[40 * 20], scales[2][40];
    const sdpa_format key_format = (sdpa_format)below(4), value_format = (sdpa_format)below(4);
    const size_t n = 1 + below(40), tokens = 1 + below(9), dim = 1 + below(20), width = 1 + below(20);
    const sdpa_array k = narrowed(key_format, n, dim, of_keys, scales[0]);
    const sdpa_array v = narrowed(value_format, n, width, of_values, scales[1]);
    const sdpa_heads q = {take(tokens * dim), 1, tokens, dim, 0, 0, 0};
    const sdpa_heads_mut out = {take(tokens * width), 1, tokens, width, 0, 0, 0};
    const sdpa_options causal = {.flags = SDPA_CAUSAL, .query_offset = 7};
    const size_t space = SDPA_COUNT(workspace), len = tokens * SDPA_STATE_FLOATS(width);
    float *lse = take(tokens), *states = take(len);
    note((uint64_t)ON(sdpa_attention_elements, q, k, v, &causal, NULL, out, lse, workspace, space));
    note_out(out.data, tokens * width);
    note_out(lse, tokens);
    const int32_t of_q[] = {0, 1, (int32_t)tokens}, of_k[] = {0, (int32_t)n / 2, (int32_t)n};
    note((uint64_t)ON(sdpa_attention_packed_elements, q, k, v, of_q, of_k, 2, &causal, NULL, out, lse, workspace, space));
    note_out(out.data, tokens * width);
    note_out(lse, tokens);
    note((uint64_t)ON(sdpa_attention_states_elements, q, k, v, &causal, 0, states, len, workspace, space));
    note_out(states, len);

    const sdpa_matrix keys = {take(n * dim), n, dim, 0, 0}, values = {take(n * width), n, width, 0, 0};
    sdpa_cache held;
    note((uint64_t)sdpa_cache_init_elements(&held, dim, width, key_format, value_format, storage,
                                            SDPA_COUNT(storage), 3));
    /* Room for 64 keys: 3 that do not exist, up to 40 and up to 21. */
    for (int step = 0; step < 2; step++) {
        const size_t count = step == 0 || n < 21 ? n : 21;
        const sdpa_matrix some_keys = {keys.data, count, dim, 0, 0}, some_values = {values.data, count, width, 0, 0};
        note((uint64_t)sdpa_cache_append_elements(&held, some_keys, some_values));
        note((uint64_t)ON(sdpa_cache_attend_elements, &held, q, &causal, NULL, out, lse, workspace, space));
        note_out(out.data, tokens * width);
        note_out(lse, tokens);
        note((uint64_t)sdpa_cache_slide(&held, below(25)));
    }

    sdpa_array w = narrowed(key_format, width, dim, of_keys, scales[0]);
    const sdpa_matrix x = {q.data, tokens, dim, 0, 0};
    const sdpa_matrix_mut to = {out.data, tokens, width, 0, 0};
    w.rows = dim;
    w.cols = width;
    w.row_stride = 1;
    w.col_stride = dim;
    note((uint64_t)ON(sdpa_project_elements, x, w, one_in(2) ? take(width) : NULL, to));
    note_out(out.data, tokens * width);
}

static void rotation(size_t tokens, size_t dim) {
    const size_t pairs = 1 + below(dim / 2), positions = tokens + below(3);
    const uint64_t first = (uint64_t)1 << below(53);
    const uint32_t layout = (uint32_t)below(2);
    const sdpa_matrix_mut x = matrix(tokens, dim), to = matrix(tokens, dim);
    float *const storage = take(sdpa_rotary_floats(positions, pairs));
    const float *const frequencies = one_in(2) ? take(pairs) : NULL;
    const sdpa_heads from = {x.data, 1, tokens, dim, 0, x.row_stride, x.col_stride};
    const sdpa_heads_mut there = {x.data, 1, tokens, dim, 0, x.row_stride, x.col_stride};
    const sdpa_heads_mut out = {to.data, 1, tokens, dim, 0, to.row_stride, to.col_stride};
    sdpa_rotary table;
    note((uint64_t)sdpa_rotary_init(&table, frequencies == NULL ? 1e4 : 0, frequencies, pairs, first, positions, storage,
                                    2 * positions * pairs));
    const uint64_t position = first + positions - tokens;
    note((uint64_t)ON(sdpa_rotate, from, &table, position, layout, out));
    note_matrix(to);
    note((uint64_t)ON(sdpa_rotate, from, &table, position, layout, there));
    note_matrix(x);
}

static void call(void) {
    const size_t op = below(14), rows = 1 + below(40), cols = 1 + below(40), depth = 1 + below(70);
    used = 0;
    if (op < 2) {
        const size_t n = below(300);
        const float *a = take(n), *b = take(n);
        float *out = take(n + 1);
        note((uint64_t)(op == 0 ? ON(sdpa_dot, a, b, n, out) : ON(sdpa_softmax, a, n, out)));
        for (size_t i = 0; i < (op == 0 ? 1 : n); i++) {
            note_float(out[i]);
        }
    } else if (op < 4) {
        const sdpa_matrix x = input(rows, cols);
        const sdpa_matrix_mut out = matrix(rows, cols);
        note((uint64_t)(op == 2 ? ON(sdpa_softmax_rows, x, out) : ON(sdpa_softmax_columns, x, out)));
        note_matrix(out);
    } else if (op == 4) {
        const sdpa_matrix x = input(rows, depth), w = input(depth, cols);
        const float *bias = one_in(2) ? take(cols) : NULL;
        const sdpa_matrix_mut out = matrix(rows, cols);
        note((uint64_t)ON(sdpa_project, x, w, bias, out));
        note_matrix(out);
    } else if (op == 5) {
        const sdpa_matrix keys = input(rows, depth), queries = input(cols, depth);
        const float scale = one_in(2) ? 0 : value();
        const sdpa_matrix_mut out = matrix(rows, cols);
        note((uint64_t)ON(sdpa_scores, keys, queries, scale, out));
        note_matrix(out);
    } else if (op == 6) {
        const sdpa_matrix pattern = input(rows, cols), values = input(rows, depth);
        const sdpa_matrix_mut out = matrix(cols, depth);
        note((uint64_t)ON(sdpa_weighted_sum, pattern, values, out));
        note_matrix(out);
    } else if (op < 9) {
        const sdpa_matrix queries = input(cols, depth), keys = input(rows, depth);
        const sdpa_options o = options(rows, cols);
        if (op == 7) {
            const sdpa_matrix_mut out = matrix(rows, cols);
            note((uint64_t)ON(sdpa_pattern, queries, keys, &o, out));
            note_matrix(out);
        } else {
            const size_t width = 1 + below(40);
            const sdpa_matrix values = input(rows, width);
            const sdpa_matrix_mut out = matrix(cols, width);
            float *lse = take(cols);
            note((uint64_t)ON(sdpa_attention, queries, keys, values, &o, out, lse, workspace, SDPA_COUNT(workspace)));
            note_matrix(out);
            for (size_t i = 0; i < cols; i++) {
                note_float(lse[i]);
            }
        }
    } else if (op == 9) {
        heads();
    } else if (op == 10) {
        const sdpa_matrix_mut out = matrix(rows, cols);
        float *lse = take(rows);
        const sdpa_matrix other = input(rows, cols);
        note((uint64_t)ON(sdpa_merge, out, lse, other, take(rows)));
        note_matrix(out);
        for (size_t i = 0; i < rows; i++) {
            note_float(lse[i]);
        }
    } else if (op == 11) {
        cache();
    } else if (op == 12) {
        rotation(rows, 1 + depth);
    } else {
        elements();
    }
}

static void calls(const char *name) {
    state = 2017;
    digest = 0xcbf29ce484222325u;
    for (int i = 0; i < 1000; i++) {
        call();
    }
    printf("1000 calls on %s: %08lx%08lx\n", name, (unsigned long)(digest >> 32),
           (unsigned long)(digest & 0xffffffffu));
}

int main(void) {
    calls("the best");
    for (size_t i = 0; sdpa_backend_at(i) >= 0; i++) {
        on = sdpa_backend_at(i);
        calls(sdpa_backend_name(on));
    }
    return 0;
}
