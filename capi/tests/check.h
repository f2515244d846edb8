/* Shared by the C tests. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sdpa.h"

static int failures;

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);              \
            failures += 1;                                                      \
        }                                                                       \
    } while (0)

/* The content of an output before a call: a NaN with bits that no operation makes. */
#define CANARY 0x7fc5a5a5u

static inline void fill_canaries(float *to, size_t n) {
    const uint32_t canary = CANARY;
    for (size_t i = 0; i < n; i++) {
        memcpy(&to[i], &canary, sizeof canary);
    }
}

static inline int is_untouched(const float *at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &at[i], sizeof bits);
        if (bits != CANARY) {
            return 0;
        }
    }
    return 1;
}

static inline sdpa_matrix dense(const float *data, size_t rows, size_t cols) {
    const sdpa_matrix matrix = {data, rows, cols, 0, 0};
    return matrix;
}

static inline sdpa_matrix_mut dense_mut(float *data, size_t rows, size_t cols) {
    const sdpa_matrix_mut matrix = {data, rows, cols, 0, 0};
    return matrix;
}

#endif
