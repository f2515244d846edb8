/* Decodes token by token with a KV cache: two query heads share one KV head and see the last eight tokens
 * (sliding window). No heap, and no library but this.
 *
 *     cc decode.c $(pkg-config --cflags --libs sdpa-attention) && ./a.out */

#include <stdio.h>

#include "sdpa.h"

enum { TOKENS = 200, HEADS = 2, DIM = 16, LEFT = 7, BLOCKS = 2 };

static float storage[SDPA_CACHE_FLOATS(DIM, DIM, BLOCKS)];
static float workspace[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];
static float query[HEADS * DIM], key[DIM], value[DIM], out[HEADS * DIM];

/* Stands for the projections of a model. */
static void project(int token) {
    for (int i = 0; i < DIM; i++) {
        key[i] = (float)((token * 7 + i * 3) % 11 - 5) / 4;
        value[i] = (float)token;
    }
    for (int i = 0; i < HEADS * DIM; i++) {
        query[i] = (float)((token * 5 + i) % 13 - 6) / 4;
    }
}

int main(void) {
    const sdpa_options options = {.flags = SDPA_CAUSAL | SDPA_WINDOW, .window_left = LEFT};
    const sdpa_matrix k = {key, 1, DIM, 0, 0}, v = {value, 1, DIM, 0, 0};
    const sdpa_heads q = {query, HEADS, 1, DIM, 0, 0, 0};
    const sdpa_heads_mut o = {out, HEADS, 1, DIM, 0, 0, 0};
    sdpa_cache cache;
    sdpa_status status = sdpa_cache_init(&cache, DIM, DIM, storage, SDPA_COUNT(storage));

    for (int token = 0; token < TOKENS && status == SDPA_OK; token++) {
        project(token);
        status = sdpa_cache_append(&cache, k, v);
        if (status == SDPA_OK) {
            status = sdpa_cache_attend_heads(&cache, q, &options, NULL, o, NULL, workspace,
                                             SDPA_COUNT(workspace));
        }
        if (status == SDPA_OK) {
            status = sdpa_cache_slide(&cache, LEFT + 1); /* drops what no later token sees */
        }
        if (token % 25 == 0 || token == TOKENS - 1) {
            printf("token %3d looks at %7.3f and %7.3f\n", token, (double)out[0], (double)out[DIM]);
        }
    }
    puts(sdpa_status_string(status));
    return status != SDPA_OK;
}
