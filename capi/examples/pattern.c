/* Prints the attention pattern of one trained head, from embeddings: the table of the Rust example
 * attention_pattern.
 *
 *     cc pattern.c $(pkg-config --cflags --libs sdpa-attention) && ./a.out FOLDER
 *
 * FOLDER holds embeddings.npy, w_query.npy and so on: examples/data/minilm-l2h1. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdpa.h"

enum { WORDS = 8, INPUTS = 384, DIM = 32 };

static const char *const words[WORDS] = {"a",      "fluffy", "blue",    "creature",
                                         "roamed", "the",    "verdant", "forest"};

static float embeddings[WORDS * INPUTS], weights[INPUTS * DIM], bias[DIM];
static float queries[WORDS * DIM], keys[WORDS * DIM], pattern[WORDS * WORDS];

/* Reads `n` floats of a .npy file (version 1, little endian, as this machine). */
static void read_floats(const char *folder, const char *name, float *to, size_t n) {
    char path[4096];
    unsigned char start[10];
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(start, 1, sizeof start, file) != sizeof start ||
        memcmp(start, "\x93NUMPY\x01", 7) != 0 ||
        fseek(file, start[8] + 256L * start[9], SEEK_CUR) != 0 ||
        fread(to, sizeof *to, n, file) != n) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    fclose(file);
}

static void check(sdpa_status status) {
    if (status != SDPA_OK) {
        fprintf(stderr, "%s\n", sdpa_status_string(status));
        exit(1);
    }
}

static void project(const char *folder, const char *what, float *to) {
    char name[16];
    const sdpa_matrix x = {embeddings, WORDS, INPUTS, 0, 0}, w = {weights, INPUTS, DIM, 0, 0};
    const sdpa_matrix_mut out = {to, WORDS, DIM, 0, 0};
    snprintf(name, sizeof name, "w_%s", what);
    read_floats(folder, name, weights, SDPA_COUNT(weights));
    name[0] = 'b';
    read_floats(folder, name, bias, SDPA_COUNT(bias));
    check(sdpa_project(x, w, bias, out));
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : "examples/data/minilm-l2h1";
    read_floats(folder, "embeddings", embeddings, SDPA_COUNT(embeddings));
    project(folder, "query", queries);
    project(folder, "key", keys);

    const sdpa_matrix q = {queries, WORDS, DIM, 0, 0}, k = {keys, WORDS, DIM, 0, 0};
    const sdpa_matrix_mut grid = {pattern, WORDS, WORDS, 0, 0}; /* keys x queries */
    check(sdpa_pattern(q, k, NULL, grid));

    printf("key\\query");
    for (int query = 0; query < WORDS; query++) {
        printf("  %5s", words[query]);
    }
    for (int key = 0; key < WORDS; key++) {
        printf("\n%-9s", words[key]);
        for (int query = 0; query < WORDS; query++) {
            const int wide = (int)strlen(words[query]);
            printf("  %*.3f", wide > 5 ? wide : 5, (double)pattern[key * WORDS + query]);
        }
    }
    printf("\n");
    return 0;
}
