/* Calls every function of the header with sizes unknown at compile time. gate.sh links it and checks what the
 * linker pulled in; on the target it also runs. */

#include "sdpa.h"

static float floats[SDPA_CACHE_FLOATS(4, 4, 1)], out[256], elements[4 * 4];
static float workspace[SDPA_ELEMENTS_WORKSPACE(4, 4)], states[2 * 4 * SDPA_STATE_FLOATS(4)];
volatile size_t zero = 0, two = 2, four = 4, wide = 7;
volatile float quarter = 0.25f;
volatile double base = 10000;
volatile int differ;
static const int32_t starts[] = {0, 1, 1, 4};

/* Calls a function and its _on variant; with PLAIN, the function alone. */
#ifdef PLAIN
#define BOTH(name, ...) (status |= name(__VA_ARGS__))
#else
#define BOTH(name, ...) (status |= name(__VA_ARGS__), status |= name##_on(sdpa_backend_at(zero), __VA_ARGS__))
#endif

/* Whether calls keep first keys: not on a microcontroller whose library was made without that. */
#if defined KEEP_FIRST
static const sdpa_status kept = SDPA_OK;
#else
static const sdpa_status kept = SDPA_KEY_BLOCK < 64 ? SDPA_ERROR_OPTION : SDPA_OK;
#endif

int main(void) {
    const sdpa_matrix m = {floats, four, four, two * two, 1};
    const sdpa_matrix_mut o = {out, four, four, two, wide};
    const sdpa_matrix dense = {floats, four, four, 0, 0};
    const sdpa_matrix_mut dense_mut = {out, four, four, 0, 0};
    const sdpa_heads h = {floats, two, four, four, 0, 0, 0};
    const sdpa_heads_mut ho = {out, two, four, four, 0, 0, 0};
    sdpa_options options = {0};
    static float storage[SDPA_CACHE_FLOATS(4, 4, 2)];
    sdpa_cache cache;
    float *const lse = out + 200;
    sdpa_status status = SDPA_OK;

    for (size_t i = 0; i < SDPA_COUNT(floats); i++) {
        floats[i] = quarter * (float)(i % wide);
    }
    options.flags = SDPA_CAUSAL | SDPA_WINDOW;
    options.window_left = wide;
    options.softcap = quarter;
    options.bias = m;
    options.keep = (const uint8_t *)floats;
    options.keep_col_stride = 1;
    options.slopes = floats;
    BOTH(sdpa_dot, floats, floats, wide, out);
    BOTH(sdpa_softmax, floats, wide, out);
    BOTH(sdpa_softmax_rows, m, o);
    BOTH(sdpa_softmax_columns, m, o);
    BOTH(sdpa_project, m, m, floats, o);
    for (sdpa_format format = SDPA_F32; format <= SDPA_I8; format++) {
        const sdpa_array a = {elements, format, 1, four, four, 0, 0, 0, floats, 0, 0};
        status |= sdpa_narrow(m, format, elements, out);
        BOTH(sdpa_project_elements, m, a, floats, o);
        BOTH(sdpa_attention_elements, h, a, a, &options, floats, ho, lse, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_attention_packed_elements, h, a, a, starts, starts, two + 1, &options, floats, ho, lse, workspace,
                                             SDPA_COUNT(workspace));
        BOTH(sdpa_pattern_elements, h, a, &options, floats, ho, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_pattern_mean_elements, h, a, &options, floats, o, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_attention_states_elements, h, a, a, &options, zero, states, SDPA_COUNT(states), workspace,
                                             SDPA_COUNT(workspace));
        status |= sdpa_cache_init_elements(&cache, four, four, format, format, storage, SDPA_COUNT(storage), two);
        status |= sdpa_cache_append_elements(&cache, m, m);
        BOTH(sdpa_cache_attend_elements, &cache, h, NULL, floats, ho, lse, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_cache_pattern_heads, &cache, h, NULL, floats, ho, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_cache_pattern_mean, &cache, h, NULL, floats, o, workspace, SDPA_COUNT(workspace));
        BOTH(sdpa_cache_states_elements, &cache, h, NULL, states, SDPA_COUNT(states), workspace,
                                         SDPA_COUNT(workspace));
        for (size_t dim = 0; dim < 9; dim++) {
            differ |= SDPA_CACHE_FLOATS_OF(dim, wide, two, format, SDPA_I8) !=
                      sdpa_cache_floats_of(dim, wide, two, format, SDPA_I8);
        }
    }
    {
        static float factors[64];
        sdpa_rotary rotary;
        status |= sdpa_rotary_init(&rotary, base, NULL, two, four, four, factors, SDPA_COUNT(factors));
        BOTH(sdpa_rotate, h, &rotary, four, SDPA_INTERLEAVED, ho);
        status |= sdpa_rotary_init(&rotary, 0, floats, two, four, four, factors, sdpa_rotary_floats(four, two));
        BOTH(sdpa_rotate, h, &rotary, four, SDPA_HALVES, ho);
    }
    BOTH(sdpa_scores, m, m, quarter, o);
    BOTH(sdpa_weighted_sum, m, m, o);
    BOTH(sdpa_pattern, m, m, &options, o);
    BOTH(sdpa_pattern_heads, h, h, &options, floats, ho);
    BOTH(sdpa_pattern_mean, h, h, &options, floats, o, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_attention, m, m, m, &options, o, lse, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_merge, o, lse, m, floats);
    status |= sdpa_attention_plain(dense, dense, dense, NULL, dense_mut, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_attention_heads, h, h, h, &options, floats, ho, lse, workspace,
                                   SDPA_COUNT(workspace));
    BOTH(sdpa_attention_packed, h, h, h, starts, starts, two + 1, &options, floats, ho, lse, workspace,
                                SDPA_COUNT(workspace));
    status |= sdpa_attention_heads_plain(h, h, h, NULL, ho, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_attention_states, m, m, m, &options, zero, states, SDPA_COUNT(states) / 2, workspace,
                                SDPA_COUNT(workspace));
    BOTH(sdpa_join, states, SDPA_COUNT(states) / 2, &options, o, lse);
    BOTH(sdpa_attention_states_heads, h, h, h, &options, zero, states, SDPA_COUNT(states), workspace,
                                      SDPA_COUNT(workspace));
    BOTH(sdpa_join_heads, states, SDPA_COUNT(states), &options, floats, ho, lse);
    status |= sdpa_cache_init_at(&cache, four, four, storage, SDPA_COUNT(storage), two);
    status |= sdpa_cache_init(&cache, four, four, storage, SDPA_COUNT(storage));
    status |= sdpa_cache_append(&cache, m, m);
    status |= sdpa_cache_truncate(&cache, four);
    status |= sdpa_cache_truncate_to(&cache, four);
    status |= sdpa_cache_keep_first(&cache, cache.kept);
    status |= sdpa_cache_slide(&cache, four);
    BOTH(sdpa_cache_attend, &cache, m, &options, o, lse, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_cache_attend_heads, &cache, h, NULL, floats, ho, lse, workspace,
                                      SDPA_COUNT(workspace));
    status |= sdpa_cache_attend_heads_plain(&cache, h, NULL, ho, workspace, SDPA_COUNT(workspace));
    BOTH(sdpa_cache_states, &cache, m, &options, states, SDPA_COUNT(states) / 2, workspace,
                            SDPA_COUNT(workspace));
    BOTH(sdpa_cache_states_heads, &cache, h, NULL, states, SDPA_COUNT(states), workspace,
                                  SDPA_COUNT(workspace));

    options.keep_first = two;
    differ |= sdpa_attention(m, m, m, &options, o, lse, workspace, SDPA_COUNT(workspace)) != kept;
    {
        static float longer[SDPA_CACHE_FLOATS(4, 4, 128 / SDPA_KEY_BLOCK)];
        status |= sdpa_cache_init(&cache, four, four, longer, SDPA_COUNT(longer));
        differ |= sdpa_cache_keep_first(&cache, two) != kept;
    }

    /* The macros agree with the functions on this target. */
    for (size_t dim = 0; dim < 99; dim++) {
        differ |= SDPA_ATTENTION_WORKSPACE(dim, wide) != sdpa_attention_workspace(dim, wide);
        differ |= SDPA_ELEMENTS_WORKSPACE(dim, wide) != sdpa_elements_workspace(dim, wide);
        differ |= SDPA_STATE_FLOATS(dim) != sdpa_state_floats(dim);
        differ |= SDPA_CACHE_FLOATS(dim, wide, two) != sdpa_cache_floats(dim, wide, two);
    }
    differ |= sdpa_version()[0] != '0' || sdpa_backend()[0] == 0 || sdpa_status_string(status)[0] != 'o';
#ifndef PLAIN
    differ |= sdpa_backend_by_name(sdpa_backend_name(sdpa_backend_at(zero))) != sdpa_backend_at(zero);
#endif
    return status != SDPA_OK || differ;
}
