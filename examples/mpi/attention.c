/* Attention over the ranks of an MPI job, with the bits of one call on one machine:
 *
 *   - decoding: each rank holds a range of a long KV cache. The states of its spans are gathered and joined.
 *   - prefill, context-parallel (ring attention): each rank holds the queries, keys and values of a range of
 *     tokens. Keys and values travel round the ring of ranks while each rank attends to those that it has.
 *
 *     mpicc attention.c $(pkg-config --cflags --libs sdpa-attention) -o attention
 *     mpirun -n 3 ./attention 3
 *
 * The arguments: the number of ranks, because the mpirun of another MPI starts so many jobs of one rank; "time" to
 * print times, or "state", "key" or "die" to break the last rank, upon which the job must fail; how many tokens the
 * cache and the prompt have. */

#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sdpa.h>

enum { HEADS = 8, KV_HEADS = 2, GROUP = HEADS / KV_HEADS, DIM = 64, QUERIES = 4 };

static const sdpa_options causal = {.flags = SDPA_CAUSAL};
static float workspace[SDPA_ATTENTION_WORKSPACE(DIM, DIM)];
static int rank, ranks;
static const char *mode;

/* Ends the job on all ranks, with a status that each mpirun passes on. */
static void fail(const char *why) {
    fprintf(stderr, "rank %d: %s\n", rank, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static void check(sdpa_status status) {
    if (status != SDPA_OK) {
        fail(sdpa_status_string(status));
    }
}

static float *floats(size_t count) {
    float *memory = calloc(count > 8 ? count : 8, sizeof(float));
    if (memory == NULL) {
        fail("out of memory");
    }
    return memory;
}

/* MPI counts in int. */
static int count_of(size_t count) {
    if (count > INT32_MAX) {
        fail("a message of more than 2^31 floats");
    }
    return (int)count;
}

enum { QUERY, KEY, VALUE };

/* Stands for the projections of a model: a number in [-1, 1), the same on every rank. */
static float number(uint32_t of, size_t head, size_t token, size_t column) {
    uint32_t x = (uint32_t)token * 0x9e3779b9u + (uint32_t)(head * DIM + column) * 0x85ebca6bu + of * 0xc2b2ae35u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return (float)((x ^ (x >> 16)) >> 8) / (float)(1 << 23) - 1;
}

/* Writes [heads][tokens][DIM], from head `head` and token `first` on. */
static void project(float *out, uint32_t of, size_t head, size_t heads, size_t first, size_t tokens) {
    for (size_t h = head; h < head + heads; h++) {
        for (size_t t = first; t < first + tokens; t++) {
            for (size_t c = 0; c < DIM; c++) {
                *out++ = number(of, h, t, c);
            }
        }
    }
}

static sdpa_matrix matrix(const float *data, size_t rows) { return (sdpa_matrix){data, rows, DIM, 0, 0}; }

static sdpa_heads stacked(const float *data, size_t heads, size_t tokens) {
    return (sdpa_heads){data, heads, tokens, DIM, 0, 0, 0};
}

/* [tokens][HEADS][DIM]: the outputs of spans follow one another. */
static sdpa_heads_mut interleaved(float *data, size_t tokens) {
    return (sdpa_heads_mut){data, HEADS, tokens, DIM, DIM, (size_t)HEADS * DIM, 1};
}

/* The part of the cache that a rank holds: whole spans, but for the end of the last. With more ranks than spans some
 * have none. */
typedef struct {
    size_t first, tokens, first_span, spans;
} share;

static share share_of(int of_rank, size_t tokens) {
    const size_t spans = (tokens + SDPA_SPAN - 1) / SDPA_SPAN, n = (size_t)ranks, r = (size_t)of_rank;
    const size_t from = spans * r / n, to = spans * (r + 1) / n;
    const size_t end = to * SDPA_SPAN < tokens ? to * SDPA_SPAN : tokens;
    const size_t first = from * SDPA_SPAN < end ? from * SDPA_SPAN : end;
    return (share){first, end - first, from, to - from};
}

/* Whether rank 0 has seen other bits than one call's. The job then goes on to its end: what is written before an
   abort can be lost. */
static int differs;

/* Prints the digest of outputs (FNV-1a), and whether those of one call differ. */
static void compare(const char *what, const float *out, const float *one_call, size_t count) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    printf("%s %08x%08x\n", what, (unsigned)(hash >> 32), (unsigned)hash);
    fflush(stdout);
    if (memcmp(out, one_call, count * sizeof *out) != 0) {
        puts("other bits than one call");
        fflush(stdout);
        differs = 1;
    }
}

static int is_mode(const char *name) { return strcmp(mode, name) == 0; }

/* In the mode `name` the last rank changes a bit of x. */
static void break_bit(const char *name, float *x) {
    if (is_mode(name) && rank == ranks - 1) {
        uint32_t bits;
        memcpy(&bits, x, sizeof bits);
        bits ^= 1u << 10;
        memcpy(x, &bits, sizeof bits);
    }
}

static void print_time(const char *what, double seconds) {
    double longest = 0;
    MPI_Reduce(&seconds, &longest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (is_mode("time") && rank == 0) {
        printf("  %-24s %9.3f ms\n", what, 1e3 * longest);
    }
}

/* The newest QUERIES tokens attend to a cache of `tokens` tokens. Every rank gets the outputs. */
static void decode(size_t tokens) {
    const share mine = share_of(rank, tokens);
    const size_t head_state = (size_t)GROUP * QUERIES * SDPA_STATE_FLOATS(DIM), state = KV_HEADS * head_state;
    const size_t blocks = mine.tokens / SDPA_KEY_BLOCK + 1, spans = (tokens + SDPA_SPAN - 1) / SDPA_SPAN;
    const size_t held = SDPA_CACHE_FLOATS(DIM, DIM, blocks), outputs = (size_t)QUERIES * HEADS * DIM;

    /* Every rank has the queries, and its range of the cache of each KV head. */
    float *q = floats(outputs), *k = floats(mine.tokens * DIM), *v = floats(mine.tokens * DIM);
    sdpa_cache caches[KV_HEADS];
    project(q, QUERY, 0, HEADS, tokens - QUERIES, QUERIES);
    for (size_t h = 0; h < KV_HEADS; h++) {
        check(sdpa_cache_init_at(&caches[h], DIM, DIM, floats(held), held, mine.first));
        project(k, KEY, h, 1, mine.first, mine.tokens);
        project(v, VALUE, h, 1, mine.first, mine.tokens);
        check(sdpa_cache_append(&caches[h], matrix(k, mine.tokens), matrix(v, mine.tokens)));
    }

    int *counts = malloc(sizeof(int) * (size_t)ranks), *starts = malloc(sizeof(int) * (size_t)ranks);
    for (int r = 0; r < ranks; r++) {
        const share other = share_of(r, tokens);
        counts[r] = count_of(other.spans * head_state);
        starts[r] = count_of(other.first_span * head_state);
    }

    /* [KV_HEADS][spans][GROUP][QUERIES][4 + DIM]: the states of a KV head are one message of each rank. */
    float *states = floats(spans * state), *local = floats(mine.spans * state), *out = floats(outputs);
    sdpa_options options = causal;
    options.query_offset = (ptrdiff_t)(tokens - (mine.first + mine.tokens)); /* newer keys are elsewhere */
    double compute = 1e9, gather = 1e9, join = 1e9;
    for (int repeat = 0; repeat < (is_mode("time") ? 100 : 1); repeat++) {
        MPI_Barrier(MPI_COMM_WORLD);
        const double start = MPI_Wtime();
        for (size_t h = 0; h < KV_HEADS; h++) {
            check(sdpa_cache_states_heads(&caches[h], stacked(q + h * GROUP * QUERIES * DIM, GROUP, QUERIES), &options,
                                          local + h * mine.spans * head_state, mine.spans * head_state, workspace,
                                          SDPA_COUNT(workspace)));
        }
        const double computed = MPI_Wtime();
        break_bit("state", &local[4]);
        for (size_t h = 0; h < KV_HEADS; h++) {
            MPI_Allgatherv(local + h * mine.spans * head_state, counts[rank], MPI_FLOAT,
                           states + h * spans * head_state, counts, starts, MPI_FLOAT, MPI_COMM_WORLD);
        }
        const double gathered = MPI_Wtime();
        for (size_t h = 0; h < KV_HEADS; h++) {
            const sdpa_heads_mut group = {out + h * GROUP * DIM, GROUP, QUERIES, DIM, DIM, (size_t)HEADS * DIM, 1};
            check(sdpa_join_heads(states + h * spans * head_state, spans * head_state, NULL, NULL, group, NULL));
        }
        const double joined = MPI_Wtime();
        compute = computed - start < compute ? computed - start : compute;
        gather = gathered - computed < gather ? gathered - computed : gather;
        join = joined - gathered < join ? joined - gathered : join;
    }
    print_time("decoding: states", compute);
    print_time("decoding: gather", gather);
    print_time("decoding: join", join);

    if (rank == 0) {
        const size_t keys = KV_HEADS * tokens * DIM;
        float *all_k = floats(keys), *all_v = floats(keys), *one = floats(outputs);
        project(all_k, KEY, 0, KV_HEADS, 0, tokens);
        project(all_v, VALUE, 0, KV_HEADS, 0, tokens);
        options.query_offset = (ptrdiff_t)(tokens - QUERIES);
        check(sdpa_attention_heads(stacked(q, HEADS, QUERIES), stacked(all_k, KV_HEADS, tokens),
                                   stacked(all_v, KV_HEADS, tokens), &options, NULL, interleaved(one, QUERIES), NULL,
                                   workspace, SDPA_COUNT(workspace)));
        compare("decoding", out, one, outputs);
        free(all_k), free(all_v), free(one);
    }
    for (size_t h = 0; h < KV_HEADS; h++) {
        free(caches[h].storage);
    }
    free(q), free(k), free(v), free(counts), free(starts), free(states), free(local), free(out);
}

/* The spans of a prompt go to the ranks to and fro: 0, 1, 2, 2, 1, 0, 0, ... So the ranks have as much to do under the
 * causal mask. */
static int rank_of(size_t span) {
    const size_t n = (size_t)ranks, at = span % (2 * n);
    return (int)(at < n ? at : 2 * n - 1 - at);
}

static size_t spans_of(int of_rank, size_t spans) {
    size_t count = 0;
    for (size_t span = 0; span < spans; span++) {
        count += rank_of(span) == of_rank;
    }
    return count;
}

/* A prompt of `tokens` tokens, causal. Each rank gets the outputs of its tokens. */
static void prefill(size_t tokens) {
    const size_t spans = (tokens + SDPA_SPAN - 1) / SDPA_SPAN, last_rows = tokens - (spans - 1) * SDPA_SPAN;
    const size_t mine = spans_of(rank, spans), most = (spans + (size_t)ranks - 1) / (size_t)ranks + 1;
    /* Of one span: queries, [HEADS][rows][DIM], and keys, then values, both [KV_HEADS][rows][DIM]. */
    const size_t q_len = (size_t)HEADS * SDPA_SPAN * DIM, k_len = (size_t)KV_HEADS * SDPA_SPAN * DIM;
    const size_t kv_len = 2 * k_len;
    float *q = floats(mine * q_len), *out = floats(mine * q_len);
    float *here = floats(most * kv_len), *arriving = floats(most * kv_len);
    /* Of each span of this rank: the states of all spans up to it. */
    float **states = malloc(sizeof(float *) * (mine + 1));
    for (size_t span = 0, at = 0; span < spans; span++) {
        if (rank_of(span) == rank) {
            const size_t first = span * SDPA_SPAN, rows = span + 1 < spans ? SDPA_SPAN : last_rows;
            project(q + at * q_len, QUERY, 0, HEADS, first, rows);
            project(here + at * kv_len, KEY, 0, KV_HEADS, first, rows);
            project(here + at * kv_len + k_len, VALUE, 0, KV_HEADS, first, rows);
            states[at++] = floats((span + 1) * HEADS * rows * SDPA_STATE_FLOATS(DIM));
        }
    }

    MPI_Barrier(MPI_COMM_WORLD);
    const double start = MPI_Wtime();
    for (int step = 0; step < ranks; step++) {
        /* This rank has the keys and values of `owner`; those of the rank before that arrive. */
        const int owner = (rank - step + ranks) % ranks, coming = (owner - 1 + ranks) % ranks;
        const int next = (rank + 1) % ranks, before = (rank - 1 + ranks) % ranks;
        break_bit("key", here);
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        MPI_Status statuses[2];
        if (step < ranks - 1) {
            MPI_Irecv(arriving, count_of(spans_of(coming, spans) * kv_len), MPI_FLOAT, before, step, MPI_COMM_WORLD,
                      &requests[0]);
            MPI_Isend(here, count_of(spans_of(owner, spans) * kv_len), MPI_FLOAT, next, step, MPI_COMM_WORLD,
                      &requests[1]);
        }
        for (size_t span = 0, at = 0; span < spans; span++) {
            if (rank_of(span) != rank) {
                continue;
            }
            /* No query sees the keys of a later span: it has no state. */
            for (size_t key_span = 0, key_at = 0; key_span <= span; key_span++) {
                if (rank_of(key_span) != owner) {
                    continue;
                }
                const size_t rows = span + 1 < spans ? SDPA_SPAN : last_rows;
                const size_t keys = key_span + 1 < spans ? SDPA_SPAN : last_rows;
                const size_t state = HEADS * rows * SDPA_STATE_FLOATS(DIM);
                const float *k = here + key_at++ * kv_len;
                sdpa_options options = causal;
                options.query_offset = (ptrdiff_t)(span * SDPA_SPAN);
                check(sdpa_attention_states_heads(stacked(q + at * q_len, HEADS, rows), stacked(k, KV_HEADS, keys),
                                                  stacked(k + k_len, KV_HEADS, keys), &options, key_span * SDPA_SPAN,
                                                  states[at] + key_span * state, state, workspace,
                                                  SDPA_COUNT(workspace)));
                /* MPI moves a long message only inside its calls. */
                int arrived;
                MPI_Testall(2, requests, &arrived, statuses);
            }
            at++;
        }
        if (is_mode("die") && rank == ranks - 1) {
            exit(7);
        }
        MPI_Waitall(2, requests, statuses);
        float *swap = here;
        here = arriving, arriving = swap;
    }
    size_t outputs = 0;
    for (size_t span = 0, at = 0; span < spans; span++) {
        if (rank_of(span) == rank) {
            const size_t rows = span + 1 < spans ? SDPA_SPAN : last_rows;
            check(sdpa_join_heads(states[at], (span + 1) * HEADS * rows * SDPA_STATE_FLOATS(DIM), NULL, NULL,
                                  interleaved(out + outputs, rows), NULL));
            outputs += rows * HEADS * DIM;
            free(states[at++]);
        }
    }
    print_time("prefill", MPI_Wtime() - start);

    /* To check them, rank 0 gathers the outputs, span by span of each rank. */
    const size_t all = tokens * HEADS * DIM;
    float *gathered = floats(rank == 0 ? all : 0);
    MPI_Request sent = MPI_REQUEST_NULL;
    for (size_t span = 0, at = 0; span < spans; span++) {
        const int length = count_of((span + 1 < spans ? SDPA_SPAN : last_rows) * HEADS * DIM);
        if (rank_of(span) == rank) {
            MPI_Isend(out + at++ * q_len, length, MPI_FLOAT, 0, 0, MPI_COMM_WORLD, &sent);
        }
        if (rank == 0) {
            MPI_Recv(gathered + span * q_len, length, MPI_FLOAT, rank_of(span), 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        MPI_Wait(&sent, MPI_STATUS_IGNORE);
    }
    if (rank == 0) {
        const size_t keys = KV_HEADS * tokens * DIM;
        float *all_q = floats(all), *all_k = floats(keys), *all_v = floats(keys), *one = floats(all);
        project(all_q, QUERY, 0, HEADS, 0, tokens);
        project(all_k, KEY, 0, KV_HEADS, 0, tokens);
        project(all_v, VALUE, 0, KV_HEADS, 0, tokens);
        const double one_start = MPI_Wtime();
        check(sdpa_attention_heads(stacked(all_q, HEADS, tokens), stacked(all_k, KV_HEADS, tokens),
                                   stacked(all_v, KV_HEADS, tokens), &causal, NULL, interleaved(one, tokens), NULL,
                                   workspace, SDPA_COUNT(workspace)));
        if (is_mode("time")) {
            printf("  %-24s %9.3f ms\n", "prefill: one call", 1e3 * (MPI_Wtime() - one_start));
        }
        compare("prefill", gathered, one, all);
        free(all_q), free(all_k), free(all_v), free(one);
    }
    free(q), free(out), free(here), free(arriving), free(states), free(gathered);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (argc < 2 || atoi(argv[1]) != ranks) {
        fail("the first argument is not the number of ranks");
    }
    mode = argc > 2 ? argv[2] : "";
    decode(argc > 3 ? strtoul(argv[3], NULL, 10) : 9000);
    for (int repeat = 0; repeat < (is_mode("time") ? 15 : 1); repeat++) {
        prefill(argc > 4 ? strtoul(argv[4], NULL, 10) : 4500);
    }
    if (rank == 0 && !differs) {
        printf("ok %d ranks\n", ranks);
    }
    MPI_Finalize();
    return differs;
}
