/* The board's half of ../fit.py in C: prints the bits of every output for each golden input. */

#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "sdpa.h"
#include "weights.h"

enum {
    GOLDEN = SDPA_COUNT(golden_frames),
    FRAMES = SDPA_COUNT(golden_frames[0]),
    INPUTS = SDPA_COUNT(w_key),
    DIM = SDPA_COUNT(b_key),
    QUERIES = SDPA_COUNT(queries),
    KEYWORDS = SDPA_COUNT(b_out)
};

static float workspace[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];

static void print_bits(const float *floats, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const union {
            float value;
            uint32_t bits;
        } x = {floats[i]};
        char line[] = "00000000\n";
        for (int digit = 0; digit < 8; digit++) {
            line[digit] = "0123456789abcdef"[x.bits >> (28 - 4 * digit) & 15];
        }
        board_print(line);
    }
}

static sdpa_status classify(const float *frames, float *out, float *scores) {
    float keys[FRAMES * DIM], values[FRAMES * DIM];
    const sdpa_matrix x = {frames, FRAMES, INPUTS, 0, 0};
    sdpa_status status;

    if ((status = sdpa_project(x, (sdpa_matrix){&w_key[0][0], INPUTS, DIM, 0, 0}, b_key,
                               (sdpa_matrix_mut){keys, FRAMES, DIM, 0, 0})) == SDPA_OK &&
        (status = sdpa_project(x, (sdpa_matrix){&w_value[0][0], INPUTS, DIM, 0, 0}, b_value,
                               (sdpa_matrix_mut){values, FRAMES, DIM, 0, 0})) == SDPA_OK &&
        (status = sdpa_attention((sdpa_matrix){&queries[0][0], QUERIES, DIM, 0, 0},
                                 (sdpa_matrix){keys, FRAMES, DIM, 0, 0},
                                 (sdpa_matrix){values, FRAMES, DIM, 0, 0}, NULL,
                                 (sdpa_matrix_mut){out, QUERIES, DIM, 0, 0}, NULL, workspace,
                                 SDPA_COUNT(workspace))) == SDPA_OK) {
        status = sdpa_project((sdpa_matrix){out, 1, QUERIES * DIM, 0, 0},
                              (sdpa_matrix){&w_out[0][0], QUERIES * DIM, KEYWORDS, 0, 0}, b_out,
                              (sdpa_matrix_mut){scores, 1, KEYWORDS, 0, 0});
    }
    return status;
}

int main(void) {
    for (int i = 0; i < GOLDEN; i++) {
        float out[QUERIES * DIM], scores[KEYWORDS];
        const sdpa_status status = classify(&golden_frames[i][0][0], out, scores);
        if (status != SDPA_OK) {
            board_print("FAILED: ");
            board_print(sdpa_status_string(status));
            board_print("\n");
            return 1;
        }
        print_bits(out, SDPA_COUNT(out));
        print_bits(scores, SDPA_COUNT(scores));
    }
    return 0;
}
