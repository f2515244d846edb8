/* Includes the header twice and uses every macro, as C90 and with every kind of integer. */

#include "sdpa.h"
#include "sdpa.h"

static float workspace[SDPA_ATTENTION_WORKSPACE(64, 64)], storage[SDPA_CACHE_FLOATS(64, 64, 2)];

size_t all(int i, size_t n, unsigned u);

size_t all(int i, size_t n, unsigned u) {
    const char *const version = SDPA_VERSION;
    static sdpa_options options;
    options.flags = SDPA_CAUSAL | SDPA_WINDOW;
    workspace[0] = storage[0];
    return SDPA_ATTENTION_WORKSPACE(i, n) + SDPA_ATTENTION_WORKSPACE(n, u) + SDPA_CACHE_FLOATS(n, i, u) +
           SDPA_CACHE_FLOATS(n, n, n) + SDPA_COUNT(workspace) + SDPA_COUNT(storage) + SDPA_SIZE(i) +
           SDPA_QUERY_BLOCK + SDPA_QUERY_STATE + SDPA_KEY_BLOCK + SDPA_VERSION_MAJOR + SDPA_VERSION_MINOR +
           SDPA_VERSION_PATCH + SDPA_SPAN + SDPA_STATE_FLOATS(i) + SDPA_STATE_FLOATS(n) + SDPA_STATE_FLOATS(u) +
           SDPA_ELEMENTS_WORKSPACE(i, n) + SDPA_ELEMENTS_WORKSPACE(u, i) + SDPA_CACHE_FLOATS_OF(i, n, u, u, SDPA_BF16) +
           SDPA_CACHE_FLOATS_OF(u, i, n, SDPA_I8, SDPA_F32) + SDPA_CACHE_FLOATS_OF(n, u, i, SDPA_F16, i) +
           (version[0] == '0') + (options.sink != NULL);
}

int is_shape(sdpa_status status);

int is_shape(sdpa_status status) { return status % 100 == SDPA_ERROR_SHAPE && status != SDPA_ERROR_SHAPE_KEYS; }
