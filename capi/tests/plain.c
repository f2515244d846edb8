/* Calls of sdpa_attention that sdpa.h makes plain: without options, and with constant ones that need no code of their
 * own. With HEADS or CACHE, calls of sdpa_attention_heads or of sdpa_cache_attend. gate.sh links it. */

#include "sdpa.h"

enum { N = 8 };

static float floats[N * N], out[N * N], workspace[SDPA_ATTENTION_WORKSPACE(N, N)];

static const sdpa_options options = {
    .flags = SDPA_CAUSAL | SDPA_WINDOW,
    .window_left = 4,
    .scale = 0.5f,
#ifdef SOFTCAP
    .softcap = 30,
#endif
};

#if defined(HEADS)
#define ATTEND(options) sdpa_attention_heads(h, h, h, options, NULL, ho, NULL, workspace, SDPA_COUNT(workspace))
#elif defined(CACHE)
static float storage[SDPA_CACHE_FLOATS(N, N, 1)];
static sdpa_cache cache = {storage, N, N, 1, N, 0};
#define ATTEND(options)                                                                    \
    (sdpa_cache_attend_heads(&cache, h, options, NULL, ho, NULL, workspace, SDPA_COUNT(workspace)) | \
     sdpa_cache_attend(&cache, m, options, o, NULL, workspace, SDPA_COUNT(workspace)))
#else
#define ATTEND(options) sdpa_attention(m, m, m, options, o, NULL, workspace, SDPA_COUNT(workspace))
#endif

int main(void) {
    const sdpa_matrix m = {floats, N, N, 0, 0};
    const sdpa_matrix_mut o = {out, N, N, 0, 0};
    const sdpa_heads h = {floats, 2, N / 2, N, N, 2 * N, 1};
    const sdpa_heads_mut ho = {out, 2, N / 2, N, N, 2 * N, 1};
    (void)m, (void)o, (void)h, (void)ho;
    sdpa_status status = ATTEND(NULL);
    for (int frame = 0; frame < 3; frame++) {
        status |= ATTEND(&options);
    }
    return status != SDPA_OK;
}
