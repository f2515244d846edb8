/* The floating-point environment, on every back end: masked keys and empty states leave no exception flag
 * raised, and in other rounding modes the softmax stays near the exact result. */

#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"

enum { QUERIES = 5, KEYS = 70, DIM = 6, WIDTH = 9, LONGEST = 130 };

static const int RAISED = FE_INVALID | FE_DIVBYZERO;

static float queries[QUERIES * DIM], keys[KEYS * DIM], values[KEYS * WIDTH];
static float out[KEYS * QUERIES + QUERIES * WIDTH], log_sum_exp[QUERIES];
static float workspace[SDPA_ATTENTION_WORKSPACE(DIM, WIDTH)];
static float storage[SDPA_CACHE_FLOATS(DIM, WIDTH, 3)];

/* Pseudo-random numbers in [-2, 2). */
static void fill(float *to, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        to[i] = (float)(seed >> 8) / (float)(1 << 22) - 2;
    }
}

static void fill_all(void) {
    fill(queries, SDPA_COUNT(queries), 1);
    fill(keys, SDPA_COUNT(keys), 2);
    fill(values, SDPA_COUNT(values), 3);
}

/* Masked keys, outputs of empty states and workspaces may contain any of these. */
static float any(size_t i) {
    const float all[] = {NAN, INFINITY, -INFINITY, FLT_MAX, 0.0f};
    return all[i % SDPA_COUNT(all)];
}

static void attend(sdpa_backend_t on, const sdpa_options *options, float any_float) {
    const sdpa_matrix q = dense(queries, QUERIES, DIM), k = dense(keys, KEYS, DIM);
    for (size_t i = 0; i < SDPA_COUNT(workspace); i++) {
        workspace[i] = any_float;
    }
    feclearexcept(FE_ALL_EXCEPT);
    CHECK(sdpa_attention_on(on, q, k, dense(values, KEYS, WIDTH), options, dense_mut(out, QUERIES, WIDTH),
                            log_sum_exp, workspace, SDPA_COUNT(workspace)) == SDPA_OK);
    CHECK(!fetestexcept(RAISED));
    CHECK(sdpa_pattern_on(on, q, k, options, dense_mut(out, KEYS, QUERIES)) == SDPA_OK);
    CHECK(!fetestexcept(RAISED));
}

/* Masks every second key or every key. Masked keys, their values and the workspace contain anything. */
static void masked_keys(sdpa_backend_t on, size_t every) {
    static uint8_t keep[KEYS];
    static float bias[KEYS];
    for (size_t i = 0; i < 5; i++) {
        sdpa_options options = {0};
        fill_all();
        for (size_t key = 0; key < KEYS; key++) {
            keep[key] = key % every != 0;
            bias[key] = keep[key] ? 0.5f : -INFINITY;
            for (size_t c = 0; c < DIM && !keep[key]; c++) {
                keys[key * DIM + c] = any(i);
            }
            for (size_t c = 0; c < WIDTH && !keep[key]; c++) {
                values[key * WIDTH + c] = any(i);
            }
        }
        options.softcap = i % 2 == 0 ? 0.0f : 3.0f;
        options.keep = keep;
        options.keep_row_stride = 1;
        attend(on, &options, any(i));
        options.keep = NULL;
        options.keep_row_stride = 0;
        options.bias.data = bias;
        options.bias.rows = KEYS;
        options.bias.cols = QUERIES;
        options.bias.row_stride = 1;
        attend(on, &options, any(i));
    }
    fill_all();
}

static void positions(sdpa_backend_t on) {
    const ptrdiff_t offsets[] = {0, 3, KEYS, -1000, 1000};
    for (size_t i = 0; i < SDPA_COUNT(offsets); i++) {
        sdpa_options options = {0};
        options.flags = SDPA_CAUSAL | SDPA_WINDOW;
        options.window_left = 4;
        options.query_offset = offsets[i];
        attend(on, &options, any(i));
    }
}

/* A new cache, and one whose keys were dropped down to 2 and to 1. */
static void empty_caches(sdpa_backend_t on) {
    const sdpa_matrix q = dense(queries, QUERIES, DIM);
    sdpa_cache cache;
    CHECK(sdpa_cache_init(&cache, DIM, WIDTH, storage, SDPA_COUNT(storage)) == SDPA_OK);
    feclearexcept(FE_ALL_EXCEPT);
    for (size_t keep = 3; keep-- > 0;) {
        CHECK(sdpa_cache_attend_on(on, &cache, q, NULL, dense_mut(out, QUERIES, WIDTH), log_sum_exp, workspace,
                                   SDPA_COUNT(workspace)) == SDPA_OK);
        CHECK(sdpa_cache_append(&cache, dense(keys, KEYS, DIM), dense(values, KEYS, WIDTH)) == SDPA_OK);
        CHECK(sdpa_cache_slide(&cache, keep) == SDPA_OK);
    }
    CHECK(!fetestexcept(RAISED));
}

static void empty_states(sdpa_backend_t on) {
    for (size_t i = 0; i < 20; i++) {
        static float other_out[QUERIES * WIDTH], other_log_sum_exp[QUERIES];
        fill(out, QUERIES * WIDTH, 4);
        fill(other_out, QUERIES * WIDTH, 5);
        for (size_t query = 0; query < QUERIES; query++) {
            const int is_empty[] = {(i + query) % 2 == 0, (i / 2 + query) % 2 == 0};
            log_sum_exp[query] = is_empty[0] ? -INFINITY : (float)query * 100;
            other_log_sum_exp[query] = is_empty[1] ? -INFINITY : 1e6f;
            for (size_t c = 0; c < WIDTH; c++) {
                float *const at[] = {&out[query * WIDTH + c], &other_out[query * WIDTH + c]};
                *at[0] = is_empty[0] ? any(i) : *at[0];
                *at[1] = is_empty[1] ? any(i) : *at[1];
            }
        }
        feclearexcept(FE_ALL_EXCEPT);
        CHECK(sdpa_merge_on(on, dense_mut(out, QUERIES, WIDTH), log_sum_exp, dense(other_out, QUERIES, WIDTH),
                            other_log_sum_exp) == SDPA_OK);
        CHECK(!fetestexcept(RAISED));
    }
}

static float scores[LONGEST], weights[LONGEST];

/* Scores of -infinity: all, every second, and none. */
static void softmax(sdpa_backend_t on) {
    for (size_t n = 0; n <= LONGEST; n++) {
        for (size_t every = 1; every < 4; every++) {
            fill(scores, n, (uint32_t)n);
            for (size_t i = 0; i < n; i++) {
                scores[i] = every < 3 && i % every == 0 ? -INFINITY : 40 * scores[i];
            }
            feclearexcept(FE_ALL_EXCEPT);
            CHECK(sdpa_softmax_on(on, scores, n, weights) == SDPA_OK);
            CHECK(sdpa_softmax_columns_on(on, dense(scores, 1, n), dense_mut(weights, 1, n)) == SDPA_OK);
            CHECK(sdpa_softmax_columns_on(on, dense(scores, n, 1), dense_mut(weights, n, 1)) == SDPA_OK);
            CHECK(sdpa_softmax_rows_on(on, dense(scores, n, 1), dense_mut(weights, n, 1)) == SDPA_OK);
            CHECK(!fetestexcept(RAISED));
        }
    }
}

/* The largest error in ULP of the weights of at least 2^-125, for a softmax of n scores. */
static double worst_weight(size_t n) {
    double sum = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)scores[i]);
    }
    for (size_t i = 0; i < n; i++) {
        const double want = exp((double)scores[i]) / sum;
        int exponent;
        frexp(want, &exponent);
        CHECK(weights[i] >= 0 && weights[i] <= 1.0001f);
        if (want < ldexp(1, -125)) {
            continue;
        }
        worst = fmax(worst, fabs((double)weights[i] - want) / ldexp(1, exponent - FLT_MANT_DIG));
    }
    return worst;
}

/* Other rounding modes are tested, not promised. They widen the interval of the polynomial for exp, at
 * whose end its error is 286 * 2^-24. */
static void rounding_modes(sdpa_backend_t on) {
    const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    const double allowed[] = {6, 300, 300, 300};
    for (size_t mode = 0; mode < SDPA_COUNT(modes); mode++) {
        double worst = 0;
        for (size_t n = 1; n <= LONGEST; n++) {
            fill(scores, n, (uint32_t)n + 7);
            for (size_t i = 0; i < n; i++) {
                scores[i] *= n % 3 == 0 ? 40.0f : 1.0f;
            }
            const size_t shapes[][2] = {{1, n}, {n, 1}};
            for (size_t shape = 0; shape < 2; shape++) {
                const size_t rows = shapes[shape][0], cols = shapes[shape][1];
                fesetround(modes[mode]);
                const sdpa_status status =
                    shape == 0
                        ? sdpa_softmax_rows_on(on, dense(scores, rows, cols), dense_mut(weights, rows, cols))
                        : sdpa_softmax_columns_on(on, dense(scores, rows, cols), dense_mut(weights, rows, cols));
                fesetround(FE_TONEAREST);
                CHECK(status == SDPA_OK);
                worst = fmax(worst, worst_weight(n));
            }
        }
        CHECK(worst <= allowed[mode]);
        printf("%s, rounding mode %d: %.1f ULP\n", sdpa_backend_name(on), (int)mode, worst);
    }
}

int main(void) {
    sdpa_backend_t on;
    for (size_t i = 0; (on = sdpa_backend_at(i)) >= 0; i++) {
        fill_all();
        masked_keys(on, 2);
        masked_keys(on, 1);
        positions(on);
        empty_caches(on);
        empty_states(on);
        softmax(on);
        rounding_modes(on);
    }
    if (failures == 0) {
        puts("environment: passed");
    }
    return failures != 0;
}
