/*
 * sdpa: scaled dot-product attention kernels.
 *
 *     embeddings E --W_Q--> queries Q \
 *                  --W_K--> keys    K --> scores S[key][query] = scale * K.Q
 *                  --W_V--> values  V          |  mask, bias
 *                                              v
 *                        pattern P = softmax of every COLUMN of S
 *                                              v
 *                        output[query] = sum over the keys of P[key][query] * V[key]
 *
 * The grid has a ROW PER KEY and a COLUMN PER QUERY.
 *
 * All floats are binary32; every length counts elements, never bytes. Structures that are all
 * zero mean the default, and fields that later versions add to them go behind the last. Nothing
 * allocates, nothing holds state between calls, nothing panics; every function may be called from
 * any thread and from an interrupt, at the same time as any other, on memory that nobody else
 * writes (or reads, where the call writes).
 *
 * A function returns SDPA_OK, or another status and has then written nothing at all. What it
 * checks: pointers, which are NULL or aligned for their type, and to something not NULL; sizes and
 * strides; overlap; options.
 *
 * Overlap. Inputs may overlap each other. An output must share no element with an input or
 * another output, but where its comment says that it may be the input itself. Elements may lie
 * interleaved where some stride of either keeps them apart: heads or slices of one
 * [token][head][dim] buffer, columns side by side, every other element. An interleaving
 * without such a stride is refused too (SDPA_ERROR_ALIAS).
 *
 * Numbers. The bounds of the crate's docs hold for
 *   - |scale * query| and every sum of |scale * query * key| below 2^128. Beyond, a score may be
 *     an infinity or NaN: the query is multiplied by the scale first.
 *   - twice the sum of the |value| of the keys that a query sees below 2^128. Beyond, an output
 *     may be an infinity or NaN: four keys of 3e38 give +infinity.
 *   - sdpa_merge of log-sum-exps that hold the logarithm of a count of keys. Those of scores near
 *     1e8 do not, as their ULP is 8: there one key weighs as much as three.
 *   - rounding to nearest, and subnormals kept. In other rounding modes the softmax was measured
 *     within 300 ULP, its weights in [0, 1.0001]: tested, not promised.
 * The output of a query that sees one key is within 1 ULP of that key's value. Positions are
 * whole numbers without end; a cache counts them in uint64_t on every target.
 *
 * Exception flags. No call leaves FE_INVALID or FE_DIVBYZERO raised where the visible keys and
 * values give finite products and sums: scores and masks of -infinity, masked keys of any content
 * and empty states included. Where an infinity makes a NaN it may be. Traps are left alone.
 *
 * Back ends. A function runs on the fastest that the machine has. Its twin, whose name ends in
 * _on, runs on the one that it is given, with the bits of that one: see sdpa_backend_by_name.
 */

#ifndef SDPA_H
#define SDPA_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header as a string; sdpa_version() is that of the library. */
#define SDPA_VERSION "0.1.0"

/*
 * How many queries a call works on at a time, and how many floats it keeps of each: a matter of the
 * target.
 */
#if defined(__arm__) || defined(_M_ARM) || (defined(__riscv) && __riscv_xlen == 32) || defined(__xtensa__)
#define SDPA_QUERY_BLOCK 4
#define SDPA_QUERY_STATE 5
#else
#define SDPA_QUERY_BLOCK 32
#define SDPA_QUERY_STATE 0
#endif

/*
 * How many floats of workspace an attention call needs, as a constant expression:
 *     static float workspace[SDPA_ATTENTION_WORKSPACE(64, 64)];
 * The same number as sdpa_attention_workspace(), for sizes that do not overflow.
 */
#define SDPA_ATTENTION_WORKSPACE(dim, value_dim)                                           \
    ((SDPA_SIZE(dim) + SDPA_SIZE(value_dim) + SDPA_KEY_BLOCK + SDPA_QUERY_STATE) * SDPA_QUERY_BLOCK)

/* How many floats of storage a cache takes, likewise: see sdpa_cache_init. */
#define SDPA_CACHE_FLOATS(dim, value_dim, blocks)                                          \
    ((SDPA_SIZE(dim) + SDPA_SIZE(value_dim)) * SDPA_KEY_BLOCK * SDPA_SIZE(blocks))

/* An integer as a size, and how many elements an array has; a pointer is none in C++. */
#ifdef __cplusplus
namespace sdpa_detail {
constexpr size_t size(size_t n) { return n; }
template <class T> constexpr size_t size(T n) { return static_cast<size_t>(n); }
template <class T, size_t N> constexpr size_t count(const T (&)[N]) { return N; }
} /* namespace sdpa_detail */
#define SDPA_SIZE(n) (::sdpa_detail::size(n))
#define SDPA_COUNT(array) (::sdpa_detail::count(array))
#else
#define SDPA_SIZE(n) ((size_t)(n))
#define SDPA_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The version of this header.
 */
#define SDPA_VERSION_MAJOR 0

/**
 * Minor versions add.
 */
#define SDPA_VERSION_MINOR 1

/**
 * Patches repair.
 */
#define SDPA_VERSION_PATCH 0

/**
 * A query sees the keys up to its own position.
 */
#define SDPA_CAUSAL 1

/**
 * A query at position p sees the keys from p - window_left to p + window_right.
 */
#define SDPA_WINDOW 2

/**
 * How many keys a block of a cache holds.
 */
#define SDPA_KEY_BLOCK 64

/**
 * What a call came to: SDPA_OK, or why it wrote nothing. Where several things are wrong,
 * one of them is told. status % 100 is the kind: SDPA_ERROR_SHAPE for each SDPA_ERROR_SHAPE_...,
 * which says in which argument.
 */
typedef int32_t sdpa_status;

/**
 * A back end of this machine, 0 or more; negative: none. Every operation has a twin that takes one,
 * sdpa_dot_on and so on, and returns SDPA_ERROR_OPTION where there is none of that handle.
 */
typedef int32_t sdpa_backend_t;

/**
 * A matrix that is read. Element (r, c) is data[r * row_stride + c * col_stride]: strides
 * count floats. Both strides 0 means dense, row after row (row_stride = cols, col_stride =
 * 1). A row_stride of 0 beside a col_stride repeats one row. A col_stride of 0 beside a row_stride
 * repeats one column in a bias; elsewhere it is SDPA_ERROR_STRIDE, where there are several columns.
 * What lies between the elements is not touched. Without elements data may be NULL.
 */
typedef struct {
    const float *data;
    size_t rows;
    size_t cols;
    size_t row_stride;
    size_t col_stride;
} sdpa_matrix;

/**
 * A matrix that is written: as sdpa_matrix, but no two elements may lie at one place.
 */
typedef struct {
    float *data;
    size_t rows;
    size_t cols;
    size_t row_stride;
    size_t col_stride;
} sdpa_matrix_mut;

/**
 * The options of attention. All zero, as NULL in its place, is the default: every query sees
 * every key, the scale is 1 / sqrt(dim). They are applied in the order scale, softcap, bias,
 * masks. Query i sits at position query_offset + i, key j at j; from a cache 0 is where the
 * newest queries sit. Fields that later versions add go behind the last, and 0 means what there was
 * before: set the whole structure to zero, then what is wanted.
 */
typedef struct {
    /**
     * SDPA_CAUSAL, SDPA_WINDOW; other bits are SDPA_ERROR_OPTION.
     */
    uint32_t flags;
    /**
     * Finite; 0: 1 / sqrt(dim).
     */
    float scale;
    /**
     * A score s becomes softcap * tanh(s / softcap): finite, not negative; 0: none.
     */
    float softcap;
    /**
     * The position of query 0 among the keys.
     */
    ptrdiff_t query_offset;
    /**
     * With SDPA_WINDOW: 4 shows five keys, the own one included. SIZE_MAX: no limit. Without that
     * flag 0, or it is SDPA_ERROR_OPTION.
     */
    size_t window_left;
    /**
     * The same to the right. With SDPA_CAUSAL no query sees beyond its own position.
     */
    size_t window_right;
    /**
     * Keys x queries, added to the scores; -INFINITY masks. data NULL: none.
     */
    sdpa_matrix bias;
    /**
     * Keys x queries, one byte each, 0: masked. NULL: none.
     */
    const uint8_t *keep;
    /**
     * In bytes; both strides 0: dense. A padding mask, one byte a key: 1 and 0.
     */
    size_t keep_row_stride;
    /**
     * See keep_row_stride.
     */
    size_t keep_col_stride;
    /**
     * ONE float for all queries: one more logit in the denominator, finite or -INFINITY.
     * NULL: none.
     */
    const float *sink;
} sdpa_options;

/**
 * Matrices of one shape that are read. Element (h, r, c) is data[h * head_stride + r *
 * row_stride + c * col_stride]. All three strides 0 means dense, [heads][rows][cols]; for
 * [rows][heads][cols] they are cols, heads * cols, 1. A head_stride or row_stride of 0 beside
 * others repeats one head or row; a col_stride of 0 is SDPA_ERROR_STRIDE, where there are several
 * columns.
 */
typedef struct {
    const float *data;
    size_t heads;
    size_t rows;
    size_t cols;
    size_t head_stride;
    size_t row_stride;
    size_t col_stride;
} sdpa_heads;

/**
 * Matrices that are written: as sdpa_heads, but the strides must nest: in some order of the
 * three, each reaches over all that the ones before it span.
 */
typedef struct {
    float *data;
    size_t heads;
    size_t rows;
    size_t cols;
    size_t head_stride;
    size_t row_stride;
    size_t col_stride;
} sdpa_heads_mut;

/**
 * The keys and values of one key head, in storage of the caller's: made by sdpa_cache_init,
 * changed by the functions below, read by anyone. It holds appended - dropped keys: those at
 * the positions dropped to appended - 1. Blocks form a ring: a cache that slides has room for
 * (blocks - 1) * SDPA_KEY_BLOCK + 1 keys whatever their positions. So for a window of left
 * and chunks of chunk tokens (append a chunk, attend, slide to left) take (left + chunk +
 * SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 blocks. Copying it does not copy what it holds.
 */
typedef struct {
    /**
     * SDPA_CACHE_FLOATS(dim, value_dim, blocks) floats.
     */
    float *storage;
    /**
     * The columns of a key.
     */
    size_t dim;
    /**
     * The columns of a value.
     */
    size_t value_dim;
    /**
     * For SDPA_KEY_BLOCK keys each.
     */
    size_t blocks;
    /**
     * How many keys it has been given in all: the position of the next.
     */
    uint64_t appended;
    /**
     * How many of them, the oldest, it has dropped: the position of the oldest it holds.
     */
    uint64_t dropped;
} sdpa_cache;

/**
 * Done.
 */
#define SDPA_OK 0

/**
 * A pointer to something that there is, is NULL.
 */
#define SDPA_ERROR_NULL_POINTER 1

/**
 * Sizes disagree, or one is 0 that must not be; those below say in which argument.
 */
#define SDPA_ERROR_SHAPE 2

/**
 * Sizes and strides reach further than memory does, or a col_stride is 0: see sdpa_matrix.
 */
#define SDPA_ERROR_STRIDE 3

/**
 * An output overlaps itself, an input or another output.
 */
#define SDPA_ERROR_ALIAS 4

/**
 * The workspace is too short.
 */
#define SDPA_ERROR_WORKSPACE 5

/**
 * The cache has no room for that many more keys, or the storage for one block.
 */
#define SDPA_ERROR_CAPACITY 6

/**
 * An option is outside its range, or no back end of this machine has that handle.
 */
#define SDPA_ERROR_OPTION 7

/**
 * A pointer is not aligned for its type.
 */
#define SDPA_ERROR_POINTER 8

/**
 * A position that the cache does not hold, or behind the last that can be counted.
 */
#define SDPA_ERROR_POSITION 9

/**
 * The shape of queries: a size is 0, or disagrees with the arguments before.
 */
#define SDPA_ERROR_SHAPE_QUERIES 102

/**
 * That of keys.
 */
#define SDPA_ERROR_SHAPE_KEYS 202

/**
 * That of values.
 */
#define SDPA_ERROR_SHAPE_VALUES 302

/**
 * That of out.
 */
#define SDPA_ERROR_SHAPE_OUT 402

/**
 * That of the bias of the options, which is keys x queries.
 */
#define SDPA_ERROR_SHAPE_BIAS 502

/**
 * That of x.
 */
#define SDPA_ERROR_SHAPE_X 602

/**
 * That of w.
 */
#define SDPA_ERROR_SHAPE_W 702

/**
 * That of other_out.
 */
#define SDPA_ERROR_SHAPE_OTHER_OUT 802

/**
 * That of a cache which sdpa_cache_init has not made, or somebody has changed.
 */
#define SDPA_ERROR_SHAPE_CACHE 902

/**
 * dim is 0.
 */
#define SDPA_ERROR_SHAPE_DIM 1002

/**
 * value_dim is 0.
 */
#define SDPA_ERROR_SHAPE_VALUE_DIM 1102

/**
 * The version of the library as it runs, "0.1.0". Never NULL, never freed.
 */
const char *sdpa_version(void);

/**
 * The words for a status; of those that are none, too. Never NULL, never freed.
 */
const char *sdpa_status_string(sdpa_status status);

/**
 * The back end in use where none is asked for, the fastest of this machine: "avx512", "avx2" or
 * "neon" (the FMA family: a multiply-add rounds once), "portable" or "scalar" (the non-FMA one).
 * Inside a family the same input gives the same bits on every machine. Never NULL, never freed.
 */
const char *sdpa_backend(void);

/**
 * The back end of that name, for the operations whose names end in _on; negative where this
 * machine has none, and for NULL. "scalar" is everywhere and gives the bits of microcontrollers.
 */
sdpa_backend_t sdpa_backend_by_name(const char *name);

/**
 * The back ends that this machine has, one after another; negative behind the last:
 *     for (i = 0; (backend = sdpa_backend_at(i)) >= 0; i++)
 */
sdpa_backend_t sdpa_backend_at(size_t index);

/**
 * The name of a back end; "none" where there is none of that handle. Never NULL, never freed.
 */
const char *sdpa_backend_name(sdpa_backend_t backend);

/**
 * The dot product of two arrays of n floats, into *out; 0 where n is 0.
 *
 * Overlap: out with neither array. On failure *out is as it was.
 */
sdpa_status sdpa_dot(const float *a, const float *b, size_t n, float *out);

/**
 * sdpa_dot on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_dot_on(sdpa_backend_t backend,
                        const float *a,
                        const float *b,
                        size_t n,
                        float *out);

/**
 * The softmax of an array of n floats: out[i] = exp(x[i]) / sum of exp(x[j]).
 *
 * Overlap: out may be x itself; otherwise none. On failure out is as it was.
 */
sdpa_status sdpa_softmax(const float *x, size_t n, float *out);

/**
 * sdpa_softmax on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_on(sdpa_backend_t backend, const float *x, size_t n, float *out);

/**
 * The softmax of every row of x; out is of the same shape. A row gives the bits of
 * sdpa_softmax.
 *
 * Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
 * it was.
 */
sdpa_status sdpa_softmax_rows(sdpa_matrix x, sdpa_matrix_mut out);

/**
 * sdpa_softmax_rows on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_rows_on(sdpa_backend_t backend, sdpa_matrix x, sdpa_matrix_mut out);

/**
 * The softmax of every column of x; out is of the same shape. Of a score grid, which has a
 * column per query, this is the pattern. Faster than sdpa_softmax_rows.
 *
 * Overlap: out may be x itself (data, shape and strides); otherwise none. On failure out is as
 * it was.
 */
sdpa_status sdpa_softmax_columns(sdpa_matrix x, sdpa_matrix_mut out);

/**
 * sdpa_softmax_columns on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_columns_on(sdpa_backend_t backend, sdpa_matrix x, sdpa_matrix_mut out);

/**
 * out = x * w + bias: queries, keys or values (tokens x outputs) from embeddings (tokens x
 * inputs) and weights (inputs x outputs). bias: w.cols floats, for every token, or NULL.
 *
 * Overlap: out with no input. On failure out is as it was.
 */
sdpa_status sdpa_project(sdpa_matrix x, sdpa_matrix w, const float *bias, sdpa_matrix_mut out);

/**
 * sdpa_project on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_project_on(sdpa_backend_t backend,
                            sdpa_matrix x,
                            sdpa_matrix w,
                            const float *bias,
                            sdpa_matrix_mut out);

/**
 * The score grid: out[key][query] = scale * dot(keys[key], queries[query]), of keys (keys x
 * dim) and queries (queries x dim): a ROW PER KEY and a COLUMN PER QUERY. scale: finite; 0
 * means 1 / sqrt(dim).
 *
 * Overlap: out with no input. On failure out is as it was.
 */
sdpa_status sdpa_scores(sdpa_matrix keys, sdpa_matrix queries, float scale, sdpa_matrix_mut out);

/**
 * sdpa_scores on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_scores_on(sdpa_backend_t backend,
                           sdpa_matrix keys,
                           sdpa_matrix queries,
                           float scale,
                           sdpa_matrix_mut out);

/**
 * out[query] = sum over the keys of pattern[key][query] * values[key], of a pattern (keys x
 * queries) and values (keys x width); out is queries x width. A weight of 0 times an infinite
 * value is NaN here; sdpa_attention leaves masked values out.
 *
 * Overlap: out with no input. On failure out is as it was.
 */
sdpa_status sdpa_weighted_sum(sdpa_matrix pattern, sdpa_matrix values, sdpa_matrix_mut out);

/**
 * sdpa_weighted_sum on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_weighted_sum_on(sdpa_backend_t backend,
                                 sdpa_matrix pattern,
                                 sdpa_matrix values,
                                 sdpa_matrix_mut out);

/**
 * The pattern under all options: out[key][query] is how much a key matters to a query, of
 * queries (queries x dim) and keys (keys x dim). A column sums to 1, less what a sink takes,
 * or is 0 throughout where every key is masked. options: NULL for the defaults.
 *
 * Overlap: out with no input. On failure out is as it was.
 */
sdpa_status sdpa_pattern(sdpa_matrix queries,
                         sdpa_matrix keys,
                         const sdpa_options *options,
                         sdpa_matrix_mut out);

/**
 * sdpa_pattern on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_on(sdpa_backend_t backend,
                            sdpa_matrix queries,
                            sdpa_matrix keys,
                            const sdpa_options *options,
                            sdpa_matrix_mut out);

/**
 * How many floats of workspace an attention call needs for heads of dim columns and values of
 * value_dim; SIZE_MAX where that is more than there can be. SDPA_ATTENTION_WORKSPACE is the
 * same number for static arrays.
 */
size_t sdpa_attention_workspace(size_t dim, size_t value_dim);

/**
 * Attention, without a score grid: out[query] = sum over the keys of weight * values[key]; the
 * weights are a column of sdpa_pattern. Of queries (queries x dim), keys (keys x dim) and
 * values (keys x width); out is queries x width.
 *
 * options: NULL for the defaults. log_sum_exp: takes queries.rows floats, the natural logarithm
 * of each query's sum of exponentials, the sink included; NULL: not wanted. workspace: at least
 * sdpa_attention_workspace(dim, width) floats, whatever they hold; workspace_len counts
 * floats. What is behind those is not touched.
 *
 * Overlap: out, log_sum_exp and workspace with no input and not with each other. On failure
 * all three are as they were.
 */
sdpa_status sdpa_attention(sdpa_matrix queries,
                           sdpa_matrix keys,
                           sdpa_matrix values,
                           const sdpa_options *options,
                           sdpa_matrix_mut out,
                           float *log_sum_exp,
                           float *workspace,
                           size_t workspace_len);

/**
 * sdpa_attention on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_on(sdpa_backend_t backend,
                              sdpa_matrix queries,
                              sdpa_matrix keys,
                              sdpa_matrix values,
                              const sdpa_options *options,
                              sdpa_matrix_mut out,
                              float *log_sum_exp,
                              float *workspace,
                              size_t workspace_len);

/**
 * Makes one of the attentions of the same queries over two parts of the keys: out and log_sum_exp
 * are those of one part, and become those of both. Of queries x width; each log_sum_exp has a
 * float a query, as sdpa_attention gives it. Where one is -INFINITY (no key was visible) its
 * output is not read. A sink belongs to one part alone.
 *
 * Overlap: out and log_sum_exp with neither other, and not with each other. On failure both are
 * as they were.
 */
sdpa_status sdpa_merge(sdpa_matrix_mut out,
                       float *log_sum_exp,
                       sdpa_matrix other_out,
                       const float *other_log_sum_exp);

/**
 * sdpa_merge on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_merge_on(sdpa_backend_t backend,
                          sdpa_matrix_mut out,
                          float *log_sum_exp,
                          sdpa_matrix other_out,
                          const float *other_log_sum_exp);

/**
 * Attention of many heads: head h of queries, keys, values and out is a call of
 * sdpa_attention. queries.heads is a multiple of keys.heads (as many as of values): that many
 * query heads in a row share one head of keys and values (grouped-query attention).
 *
 * bias and keep of the options are for all heads. sinks: queries.heads floats, a sink for each
 * query head, beside which the options have none (SDPA_ERROR_OPTION); NULL: none.
 * log_sum_exp: takes queries.heads * queries.rows floats, head after head; NULL: not wanted.
 * workspace: as for one head, whatever the number of heads.
 *
 * Overlap: out, log_sum_exp and workspace with no input and not with each other. On failure
 * all three are as they were.
 */
sdpa_status sdpa_attention_heads(sdpa_heads queries,
                                 sdpa_heads keys,
                                 sdpa_heads values,
                                 const sdpa_options *options,
                                 const float *sinks,
                                 sdpa_heads_mut out,
                                 float *log_sum_exp,
                                 float *workspace,
                                 size_t workspace_len);

/**
 * sdpa_attention_heads on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_heads_on(sdpa_backend_t backend,
                                    sdpa_heads queries,
                                    sdpa_heads keys,
                                    sdpa_heads values,
                                    const sdpa_options *options,
                                    const float *sinks,
                                    sdpa_heads_mut out,
                                    float *log_sum_exp,
                                    float *workspace,
                                    size_t workspace_len);

/**
 * How many floats of storage a cache of so many blocks takes; SIZE_MAX where that is more than
 * there can be. SDPA_CACHE_FLOATS is the same number for static arrays.
 */
size_t sdpa_cache_floats(size_t dim, size_t value_dim, size_t blocks);

/**
 * Makes an empty cache in storage, of as many blocks as it has room for, and clears these
 * to 0. storage_len counts floats; room for no block is SDPA_ERROR_CAPACITY. The storage is the
 * cache's for as long as it is used; there is nothing to free.
 *
 * Overlap: cache not with storage. On failure both are as they were.
 */
sdpa_status sdpa_cache_init(sdpa_cache *cache,
                            size_t dim,
                            size_t value_dim,
                            float *storage,
                            size_t storage_len);

/**
 * Takes keys (keys x dim) and values (keys x value_dim), the newest last, into the cache.
 * SDPA_ERROR_CAPACITY where there is no room for all of them.
 *
 * Overlap: cache and its storage with no input. On failure both are as they were.
 */
sdpa_status sdpa_cache_append(sdpa_cache *cache, sdpa_matrix keys, sdpa_matrix values);

/**
 * Keeps the oldest len keys that the cache holds: takes back what was appended last.
 * SDPA_ERROR_POSITION where it holds fewer.
 *
 * On failure the cache is as it was.
 */
sdpa_status sdpa_cache_truncate(sdpa_cache *cache, size_t len);

/**
 * Takes back the keys from position on, which becomes that of the next (appended).
 * SDPA_ERROR_POSITION where that is not from dropped to appended.
 *
 * On failure the cache is as it was.
 */
sdpa_status sdpa_cache_truncate_to(sdpa_cache *cache, uint64_t position);

/**
 * Drops the oldest keys until the cache holds no more than len: their blocks are used again, and the
 * positions of the kept stay what they are.
 *
 * On failure the cache is as it was.
 */
sdpa_status sdpa_cache_slide(sdpa_cache *cache,
                             size_t len);

/**
 * sdpa_attention over the keys and values of a cache: gives the bits of one call over every
 * key ever appended, with the dropped ones masked. Query i of queries (queries x dim) sits at
 * appended - queries.rows + i + query_offset: append a token, then attend with its query. bias
 * and keep of the options have a row for each key that the cache holds, the oldest first.
 *
 * Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
 * and not with each other. On failure all three are as they were; the cache always is.
 */
sdpa_status sdpa_cache_attend(const sdpa_cache *cache,
                              sdpa_matrix queries,
                              const sdpa_options *options,
                              sdpa_matrix_mut out,
                              float *log_sum_exp,
                              float *workspace,
                              size_t workspace_len);

/**
 * sdpa_cache_attend on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_attend_on(sdpa_backend_t backend,
                                 const sdpa_cache *cache,
                                 sdpa_matrix queries,
                                 const sdpa_options *options,
                                 sdpa_matrix_mut out,
                                 float *log_sum_exp,
                                 float *workspace,
                                 size_t workspace_len);

/**
 * sdpa_cache_attend for the query heads that share the keys and values of a cache: head h of
 * queries and out is a call of it. sinks, log_sum_exp and workspace are as in
 * sdpa_attention_heads. A model of more key heads has a cache for each.
 *
 * Overlap: out, log_sum_exp and workspace with no input, not with the cache or its storage,
 * and not with each other. On failure all three are as they were; the cache always is.
 */
sdpa_status sdpa_cache_attend_heads(const sdpa_cache *cache,
                                    sdpa_heads queries,
                                    const sdpa_options *options,
                                    const float *sinks,
                                    sdpa_heads_mut out,
                                    float *log_sum_exp,
                                    float *workspace,
                                    size_t workspace_len);

/**
 * sdpa_cache_attend_heads on that back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_attend_heads_on(sdpa_backend_t backend,
                                       const sdpa_cache *cache,
                                       sdpa_heads queries,
                                       const sdpa_options *options,
                                       const float *sinks,
                                       sdpa_heads_mut out,
                                       float *log_sum_exp,
                                       float *workspace,
                                       size_t workspace_len);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SDPA_H */
