/* Calls every function of the header with sizes that no compiler knows: gate.sh links it and
 * looks at what came along. On the target it also runs. */

#include "sdpa.h"

static float floats[SDPA_CACHE_FLOATS(4, 4, 1)], out[256];
static float workspace[SDPA_ATTENTION_WORKSPACE(4, 4)];
volatile size_t two = 2, four = 4, wide = 7;
volatile float quarter = 0.25f;
volatile int unlike;

int main(void) {
    const sdpa_matrix m = {floats, four, four, two * two, 1};
    const sdpa_matrix_mut o = {out, four, four, two, wide};
    const sdpa_heads h = {floats, two, four, four, 0, 0, 0};
    const sdpa_heads_mut ho = {out, two, four, four, 0, 0, 0};
    sdpa_options options = {0};
    static float storage[SDPA_CACHE_FLOATS(4, 4, 2)];
    sdpa_cache cache;
    float *const lse = out + 200;
    sdpa_status status = SDPA_OK;

    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        floats[i] = quarter * (float)(i % wide);
    }
    options.flags = SDPA_CAUSAL | SDPA_WINDOW;
    options.window_left = wide;
    options.softcap = quarter;
    options.bias = m;
    options.keep = (const uint8_t *)floats;
    options.keep_col_stride = 1;
    status |= sdpa_dot(floats, floats, wide, out);
    status |= sdpa_softmax(floats, wide, out);
    status |= sdpa_softmax_rows(m, o);
    status |= sdpa_softmax_columns(m, o);
    status |= sdpa_project(m, m, floats, o);
    status |= sdpa_scores(m, m, quarter, o);
    status |= sdpa_weighted_sum(m, m, o);
    status |= sdpa_pattern(m, m, &options, o);
    status |= sdpa_attention(m, m, m, &options, o, lse, workspace, sizeof workspace / sizeof *workspace);
    status |= sdpa_merge(o, lse, m, floats);
    status |= sdpa_attention_heads(h, h, h, &options, floats, ho, lse, workspace,
                                   sizeof workspace / sizeof *workspace);
    status |= sdpa_cache_init(&cache, four, four, storage, sizeof storage / sizeof *storage);
    status |= sdpa_cache_append(&cache, m, m);
    status |= sdpa_cache_truncate(&cache, four);
    status |= sdpa_cache_truncate_to(&cache, two);
    status |= sdpa_cache_slide(&cache, four);
    status |= sdpa_cache_attend(&cache, m, &options, o, lse, workspace, sizeof workspace / sizeof *workspace);
    status |= sdpa_cache_attend_heads(&cache, h, NULL, floats, ho, lse, workspace,
                                      sizeof workspace / sizeof *workspace);

    /* The macros have the numbers of this target. */
    for (size_t dim = 0; dim < 9; dim++) {
        unlike |= SDPA_ATTENTION_WORKSPACE(dim, wide) != sdpa_attention_workspace(dim, wide);
        unlike |= SDPA_CACHE_FLOATS(dim, wide, two) != sdpa_cache_floats(dim, wide, two);
    }
    unlike |= sdpa_version()[0] != '0' || sdpa_backend()[0] == 0 || sdpa_status_string(status)[0] != 'o';
    return status != SDPA_OK || unlike;
}
