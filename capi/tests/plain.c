/* Calls of sdpa_attention that sdpa.h makes plain: without options, and with constant ones that need no code of their
 * own. gate.sh links it. */

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

int main(void) {
    const sdpa_matrix m = {floats, N, N, 0, 0};
    const sdpa_matrix_mut o = {out, N, N, 0, 0};
    sdpa_status status = sdpa_attention(m, m, m, NULL, o, NULL, workspace, SDPA_COUNT(workspace));
    for (int frame = 0; frame < 3; frame++) {
        status |= sdpa_attention(m, m, m, &options, o, NULL, workspace, SDPA_COUNT(workspace));
    }
    return status != SDPA_OK;
}
