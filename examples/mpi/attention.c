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
    float *memory = malloc((count > 8 ? count : 8) * sizeof(float));
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

/* [tokens][HEADS][DIM]: the outputs of the ranks follow one another. */
static sdpa_heads_mut interleaved(float *data, size_t tokens) {
    return (sdpa_heads_mut){data, HEADS, tokens, DIM, DIM, (size_t)HEADS * DIM, 1};
}

/* The tokens of a rank begin with a span; there are none where there are more ranks than spans. */
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

/* Prints the digest of outputs (FNV-1a), and fails if those of one call differ. */
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
        fail("other bits than one call");
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
    for (int repeat = 0; repeat < (is_mode("time") ? 20 : 1); repeat++) {
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
            MPI_Allgatherv(local + h * mine.spans * head_state, counts[rank], MPI_FLOAT, states + h * spans * head_state,
                           counts, starts, MPI_FLOAT, MPI_COMM_WORLD);
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
        float *all_k = floats(KV_HEADS * tokens * DIM), *all_v = floats(KV_HEADS * tokens * DIM), *one = floats(outputs);
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

/* A prompt of `tokens` tokens, causal. Each rank gets the outputs of its tokens. */
static void prefill(size_t tokens) {
    const share mine = share_of(rank, tokens);
    const size_t state = (size_t)HEADS * mine.tokens * SDPA_STATE_FLOATS(DIM), visible = mine.first_span + mine.spans;
    size_t longest = 0;
    for (int r = 0; r < ranks; r++) {
        const share other = share_of(r, tokens);
        longest = other.tokens > longest ? other.tokens : longest;
    }

    /* Keys, then values, both [KV_HEADS][tokens][DIM]: those that are attended to, and those that arrive. */
    float *q = floats(HEADS * mine.tokens * DIM), *states = floats(visible * state);
    float *here = floats(2 * KV_HEADS * longest * DIM), *arriving = floats(2 * KV_HEADS * longest * DIM);
    project(q, QUERY, 0, HEADS, mine.first, mine.tokens);
    project(here, KEY, 0, KV_HEADS, mine.first, mine.tokens);
    project(here + KV_HEADS * mine.tokens * DIM, VALUE, 0, KV_HEADS, mine.first, mine.tokens);
    sdpa_options options = causal;
    options.query_offset = (ptrdiff_t)mine.first;

    MPI_Barrier(MPI_COMM_WORLD);
    const double start = MPI_Wtime();
    for (int step = 0; step < ranks; step++) {
        const int owner = (rank - step + ranks) % ranks, next = (rank + 1) % ranks, before = (rank - 1 + ranks) % ranks;
        const share theirs = share_of(owner, tokens), coming = share_of((owner - 1 + ranks) % ranks, tokens);
        break_bit("key", here);
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        MPI_Status statuses[2];
        if (step < ranks - 1) {
            MPI_Irecv(arriving, count_of(2 * KV_HEADS * coming.tokens * DIM), MPI_FLOAT, before, step, MPI_COMM_WORLD,
                      &requests[0]);
            MPI_Isend(here, count_of(2 * KV_HEADS * theirs.tokens * DIM), MPI_FLOAT, next, step, MPI_COMM_WORLD,
                      &requests[1]);
        }
        /* No query of this rank sees a later rank's keys. Their spans have no states. */
        for (size_t span = 0; owner <= rank && span < theirs.spans && mine.tokens > 0; span++) {
            const size_t from = span * SDPA_SPAN, rest = theirs.tokens - from;
            const size_t rows = rest < SDPA_SPAN ? rest : SDPA_SPAN, head_stride = theirs.tokens * DIM;
            const float *k = here + from * DIM, *v = k + KV_HEADS * head_stride;
            check(sdpa_attention_states_heads(
                stacked(q, HEADS, mine.tokens), (sdpa_heads){k, KV_HEADS, rows, DIM, head_stride, DIM, 1},
                (sdpa_heads){v, KV_HEADS, rows, DIM, head_stride, DIM, 1}, &options, theirs.first + from,
                states + (theirs.first_span + span) * state, state, workspace, SDPA_COUNT(workspace)));
            /* MPI moves a long message only inside its calls. */
            int arrived;
            MPI_Testall(2, requests, &arrived, statuses);
        }
        if (is_mode("die") && rank == ranks - 1) {
            exit(7);
        }
        MPI_Waitall(2, requests, statuses);
        float *swap = here;
        here = arriving, arriving = swap;
    }
    const size_t outputs = mine.tokens * HEADS * DIM;
    float *out = floats(outputs);
    check(sdpa_join_heads(states, visible * state, NULL, NULL, interleaved(out, mine.tokens), NULL));
    print_time("prefill", MPI_Wtime() - start);

    /* To check them, rank 0 gathers the outputs. */
    const size_t all = tokens * HEADS * DIM, keys = KV_HEADS * tokens * DIM;
    float *gathered = floats(rank == 0 ? all : 0);
    int *counts = malloc(sizeof(int) * (size_t)ranks), *starts = malloc(sizeof(int) * (size_t)ranks);
    for (int r = 0; r < ranks; r++) {
        const share other = share_of(r, tokens);
        counts[r] = count_of(other.tokens * HEADS * DIM);
        starts[r] = count_of(other.first * HEADS * DIM);
    }
    MPI_Gatherv(out, counts[rank], MPI_FLOAT, gathered, counts, starts, MPI_FLOAT, 0, MPI_COMM_WORLD);
    if (rank == 0) {
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
    free(q), free(states), free(here), free(arriving), free(out), free(gathered), free(counts), free(starts);
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
    prefill(argc > 4 ? strtoul(argv[4], NULL, 10) : 4500);
    if (rank == 0) {
        printf("ok %d ranks\n", ranks);
    }
    MPI_Finalize();
    return 0;
}
