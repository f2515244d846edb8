/* The program of src/ in C: the same sounds, the same calls, the same text and bits. src/ describes
 * it and has the checks.
 *
 * No C library, no heap. The compiler must not contract a * b + c to an FMA (-ffp-contract=off),
 * as rustc never does. */

#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "sdpa.h"

enum { FRAMES = 160, SAMPLES = 64, BANDS = 16, WINDOW = 48 };
enum { BLOCKS = (WINDOW + SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 };
static const float SCALE = 16;

static float storage[SDPA_CACHE_FLOATS(BANDS, BANDS, BLOCKS)];
static float workspace[SDPA_ATTENTION_WORKSPACE(BANDS, BANDS)];
static float filters[SAMPLES][2 * BANDS];
static float frames[FRAMES][BANDS]; /* for the weights shown; the cache does not need it */

/* ---- A simulated microphone. ---- */

/* The phase step of one period per frame, in 2^-16 of a turn per sample. */
enum { PERIOD = 0x10000 / SAMPLES };

static float sine(uint16_t turn) {
    const float half_turns = (float)(int16_t)turn / 32768;
    return 4 * half_turns * (1 - (half_turns < 0 ? -half_turns : half_turns));
}

static void make_filters(void) {
    for (unsigned sample = 0; sample < SAMPLES; sample++) {
        for (unsigned band = 0; band < BANDS; band++) {
            const uint16_t turn = (uint16_t)(sample * (band + 1) * PERIOD);
            filters[sample][2 * band] = sine((uint16_t)(turn + 0x4000)) * (2.0f / SAMPLES);
            filters[sample][2 * band + 1] = sine(turn) * (2.0f / SAMPLES);
        }
    }
}

static void record(unsigned frame, float samples[SAMPLES]) {
    static uint16_t turn;
    static uint32_t noise;
    const unsigned moment = frame % 40;
    float loud = 0;
    unsigned pitch = 0, glide = 0;

    if (moment >= 4 && moment < 10) { /* a chirp, which rises by one band per frame */
        loud = 0.9f;
        pitch = (moment + 1) * PERIOD - PERIOD / 2;
        glide = PERIOD / SAMPLES;
    } else if ((moment >= 16 && moment < 22) || (moment >= 28 && moment < 34)) { /* tones */
        loud = 0.9f;
        pitch = (moment < 22 ? 3 + 1 : 12 + 1) * PERIOD;
    }
    for (unsigned i = 0; i < SAMPLES; i++) {
        turn = (uint16_t)(turn + pitch);
        pitch += glide;
        noise = noise * 1664525 + 1013904223;
        samples[i] = loud * sine(turn) + 0.1f * ((float)(noise >> 16) / 65536 - 0.5f);
    }
}

static sdpa_status powers(const float samples[SAMPLES], float out[BANDS]) {
    float parts[2 * BANDS];
    const sdpa_matrix x = {samples, 1, SAMPLES, 0, 0};
    const sdpa_matrix w = {&filters[0][0], SAMPLES, 2 * BANDS, 0, 0};
    const sdpa_status status =
        sdpa_project(x, w, NULL, (sdpa_matrix_mut){parts, 1, 2 * BANDS, 0, 0});

    for (int band = 0; band < BANDS && status == SDPA_OK; band++) {
        const float *const part = parts + 2 * band;
        out[band] = part[0] * part[0] + part[1] * part[1];
    }
    return status;
}

/* ---- One line per frame. ---- */

static char *put_text(char *at, const char *text) {
    while (*text != 0) {
        *at++ = *text++;
    }
    return at;
}

static char *put_number(char *at, unsigned number, int width) {
    for (int i = width - 1; i >= 0; i--, number /= 10) {
        at[i] = number == 0 && i < width - 1 ? ' ' : (char)('0' + number % 10);
    }
    return at + width;
}

static char *put_hex(char *at, uint32_t number) {
    for (int shift = 28; shift >= 0; shift -= 4) {
        *at++ = "0123456789abcdef"[number >> shift & 15];
    }
    return at;
}

static char shade(float weight) {
    return weight < 0.5f ? ' ' : weight < 2 ? '.' : weight < 6 ? ':' : weight < 18 ? '+' : '#';
}

static uint32_t hash(const float output[BANDS]) {
    uint32_t hash = 0x811c9dc5;
    for (int band = 0; band < BANDS; band++) {
        const union {
            float value;
            uint32_t bits;
        } x = {output[band]};
        hash = (hash ^ x.bits) * 0x01000193;
    }
    return hash;
}

static void print_line(unsigned newest, const float *weights, unsigned seen,
                       const float output[BANDS]) {
    char line[128], *at = line;
    unsigned loudest = 0;
    for (unsigned band = 1; band < BANDS; band++) {
        loudest = output[band] > output[loudest] ? band : loudest;
    }
    at = put_text(put_number(at, newest, 3), " |");
    for (unsigned i = seen; i < WINDOW; i++) {
        *at++ = ' ';
    }
    for (unsigned i = 0; i < seen; i++) {
        *at++ = shade(weights[i] * (float)seen);
    }
    at = put_number(put_text(at, "| band "), loudest, 2);
    at = put_number(put_text(at, " "), (unsigned)(100 * output[loudest]), 3);
    at = put_text(put_hex(put_text(at, " % "), hash(output)), "\n");
    *at = 0;
    board_print(line);
}

/* ---- The loop. ---- */

static sdpa_status hear(sdpa_cache *cache, unsigned newest) {
    const sdpa_options options = {
        .flags = SDPA_CAUSAL | SDPA_WINDOW, .scale = SCALE, .window_left = WINDOW - 1};
    const sdpa_options everything = {.scale = SCALE};
    const unsigned first = newest + 1 < WINDOW ? 0 : newest + 1 - WINDOW;
    const unsigned seen = newest + 1 - first;
    const sdpa_matrix frame = {frames[newest], 1, BANDS, 0, 0};
    const sdpa_matrix window = {frames[first], seen, BANDS, 0, 0};
    float samples[SAMPLES], output[BANDS], weights[WINDOW];
    const sdpa_matrix_mut out = {output, 1, BANDS, 0, 0}, column = {weights, seen, 1, 0, 0};
    sdpa_status status;

    record(newest, samples);
    if ((status = powers(samples, frames[newest])) == SDPA_OK &&
        (status = sdpa_cache_append(cache, frame, frame)) == SDPA_OK &&
        (status = sdpa_cache_attend(cache, frame, &options, out, NULL, workspace,
                                    SDPA_COUNT(workspace))) == SDPA_OK &&
        (status = sdpa_cache_slide(cache, WINDOW - 1)) == SDPA_OK &&
        (status = sdpa_pattern(frame, window, &everything, column)) == SDPA_OK) {
        print_line(newest, weights, seen, output);
    }
    return status;
}

int main(void) {
    sdpa_cache cache;
    sdpa_status status = sdpa_cache_init(&cache, BANDS, BANDS, storage, SDPA_COUNT(storage));

    make_filters();
    for (unsigned newest = 0; newest < FRAMES && status == SDPA_OK; newest++) {
        status = hear(&cache, newest);
    }
    if (status != SDPA_OK) {
        board_print("FAILED: ");
        board_print(sdpa_status_string(status));
        board_print("\n");
    }
    return status != SDPA_OK;
}
