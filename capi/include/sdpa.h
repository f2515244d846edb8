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
 * All floats are IEEE binary32. Lengths and strides count elements, never bytes. Structures of
 * zeros mean the defaults; later versions add fields at the end only. No function allocates, keeps
 * state between calls or panics. Every function may be called from any thread and from an interrupt,
 * concurrently with any other. During the call nobody else may write the memory that it reads, or
 * read or write the memory that it writes.
 *
 * A function returns SDPA_OK, or an error and has then written nothing. It checks pointers (aligned
 * for their type, and not NULL if there is at least one element), sizes, strides, overlap and
 * options.
 *
 * Overlap. Inputs may overlap each other. An output must share no element with an input or another
 * output, unless its comment says that it may be the input itself. Interleaved elements are accepted
 * if they are disjoint modulo a stride of either argument: heads or slices of one
 * [token][head][dim] buffer, ranges of columns, every second element. Any other interleaving is
 * refused, even if no element is shared (SDPA_ERROR_ALIAS).
 *
 * Numbers. The error bounds in the crate's docs hold under these conditions:
 *   - |scale * query| and every sum of |scale * query * key| are below 2^128. Otherwise a score may
 *     be an infinity or NaN, as the query is multiplied by the scale first.
 *   - Twice the sum of |value| over the visible keys is below 2^128. Otherwise an output may be an
 *     infinity or NaN: four values of 3e38 give +infinity.
 *   - The log-sum-exps given to sdpa_merge can represent the logarithm of a number of keys. Near
 *     1e8 they cannot, as the ULP is 8: there one key may get the weight of three. sdpa_join loses
 *     nothing.
 *   - Rounding is to nearest, and subnormals are not flushed. In other rounding modes the softmax was
 *     measured within 300 ULP, with weights in [0, 1.0001]: tested, not promised.
 * The output of a query that sees one key is within 1 ULP of that key's value. Positions are
 * integers that do not wrap around; a cache counts them in uint64_t on every target.
 *
 * Exception flags. No call leaves FE_INVALID or FE_DIVBYZERO raised if the visible keys and values
 * give finite products and sums; scores and masks of -infinity, masked keys of any content and empty
 * states are no exception. FE_INVALID may be raised if an infinity makes a NaN. Traps are not
 * changed.
 *
 * Back ends (instruction sets). A function runs on the fastest back end of the machine. Its variant
 * with the suffix _on runs on the given back end, with the bits of that back end: see
 * sdpa_backend_by_name.
 */

#ifndef SDPA_H
#define SDPA_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header as a string; sdpa_version() is that of the library. */
#define SDPA_VERSION "0.1.0"

/*
 * The number of queries that a call processes at a time, the floats of scores and state that it keeps
 * per query in the workspace, and the number of keys in a block of a cache. They depend on the target.
 */
#if defined(__arm__) || defined(_M_ARM) || (defined(__riscv) && __riscv_xlen == 32) || defined(__xtensa__)
#define SDPA_QUERY_BLOCK 4
#define SDPA_QUERY_STATE 71
#define SDPA_KEY_BLOCK 16
#else
#define SDPA_QUERY_BLOCK 32
#define SDPA_QUERY_STATE 64
#define SDPA_KEY_BLOCK 64
#endif

/*
 * The number of floats of workspace that an attention call needs, as a constant expression:
 *     static float workspace[SDPA_ATTENTION_WORKSPACE(64, 64)];
 * The number that sdpa_attention_workspace() returns, unless it overflows.
 */
#define SDPA_ATTENTION_WORKSPACE(dim, value_dim)                                           \
    ((SDPA_SIZE(dim) + SDPA_SIZE(value_dim) + SDPA_QUERY_STATE) * SDPA_QUERY_BLOCK)

/* The number of floats of workspace of a call over elements: see sdpa_elements_workspace. */
#if SDPA_QUERY_BLOCK == 4 /* widened where they are loaded */
#define SDPA_ELEMENTS_WORKSPACE(dim, value_dim) SDPA_ATTENTION_WORKSPACE(dim, value_dim)
#else
#define SDPA_ELEMENTS_WORKSPACE(dim, value_dim)                                            \
    (SDPA_ATTENTION_WORKSPACE(dim, value_dim) * 4 +                                        \
     (SDPA_SIZE(dim) > SDPA_SIZE(value_dim) ? SDPA_SIZE(dim) : SDPA_SIZE(value_dim)) * SDPA_KEY_BLOCK)
#endif

/*
 * The number of floats of a state, as a constant expression: see sdpa_attention_states. The number that
 * sdpa_state_floats() returns, unless it overflows.
 */
#define SDPA_STATE_FLOATS(value_dim) (SDPA_SIZE(value_dim) + 4)

/*
 * The number of floats of storage that a cache needs, as a constant expression: see sdpa_cache_init.
 * The number that sdpa_cache_floats() returns, unless it overflows.
 */
#define SDPA_CACHE_FLOATS(dim, value_dim, blocks)                                          \
    ((SDPA_SIZE(dim) + SDPA_SIZE(value_dim)) * SDPA_KEY_BLOCK * SDPA_SIZE(blocks))

/*
 * The same for a cache whose keys and values have formats: see sdpa_cache_init_elements and
 * sdpa_cache_floats_of.
 */
#define SDPA_CACHE_FLOATS_OF(dim, value_dim, blocks, key_format, value_format)             \
    ((SDPA_FORMAT_FLOATS(dim, key_format) + SDPA_FORMAT_FLOATS(value_dim, value_format)) * SDPA_SIZE(blocks))
#define SDPA_FORMAT_FLOATS(dim, format)                                                    \
    ((format) == SDPA_F32  ? SDPA_SIZE(dim) * SDPA_KEY_BLOCK                               \
     : (format) == SDPA_I8 ? (SDPA_SIZE(dim) + 4) * (SDPA_KEY_BLOCK / 4)                   \
                           : SDPA_SIZE(dim) * (SDPA_KEY_BLOCK / 2))

/* An integer as size_t, and the number of elements of an array. In C++ a pointer does not compile. */
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
 * The version of this header: the major number.
 */
#define SDPA_VERSION_MAJOR 0

/**
 * The minor number: higher when functions or fields are added.
 */
#define SDPA_VERSION_MINOR 1

/**
 * The patch number: higher when something is repaired.
 */
#define SDPA_VERSION_PATCH 0

/**
 * Causal mask: a query sees the keys at its own position and before.
 */
#define SDPA_CAUSAL 1

/**
 * Sliding window: a query at position p sees the keys from p - window_left to p + window_right.
 */
#define SDPA_WINDOW 2

/**
 * The columns of a pair: columns i and pairs + i (GPT-NeoX; Llama in the checkpoints of Hugging Face).
 */
#define SDPA_HALVES 0

/**
 * The columns of a pair: columns 2 * i and 2 * i + 1 (GPT-J; Llama in those of Meta).
 */
#define SDPA_INTERLEAVED 1

/**
 * The number of keys in a span: spans are counted from absolute key 0, and each has a state of its
 * own.
 */
#define SDPA_SPAN 1024

/**
 * The result of a call: SDPA_OK, or an error, after which nothing has been written. If several
 * things are wrong, one of them is reported. status % 100 is the kind of error: it is
 * SDPA_ERROR_SHAPE for every SDPA_ERROR_SHAPE_..., which names the argument.
 */
typedef int32_t sdpa_status;

/**
 * A handle of a back end (instruction set) of this machine: 0 or more; negative: none. Every
 * operation has a variant with the suffix _on that takes a handle, for example sdpa_dot_on; it
 * returns SDPA_ERROR_OPTION if this machine has no back end of that handle.
 */
typedef int32_t sdpa_backend_t;

/**
 * A matrix that is read. Element (r, c) is data[r * row_stride + c * col_stride]; strides count
 * floats. Both strides 0 means contiguous rows (row_stride = cols, col_stride = 1). If only
 * row_stride is 0, one row is repeated (broadcast). If only col_stride is 0 and there are several
 * columns, a bias repeats one column, and any other matrix is SDPA_ERROR_STRIDE. Memory between
 * the elements is not touched. data may be NULL if rows or cols is 0.
 */
typedef struct {
    const float *data;
    size_t rows;
    size_t cols;
    size_t row_stride;
    size_t col_stride;
} sdpa_matrix;

/**
 * A matrix that is written: as sdpa_matrix, but no two elements may have the same address.
 */
typedef struct {
    float *data;
    size_t rows;
    size_t cols;
    size_t row_stride;
    size_t col_stride;
} sdpa_matrix_mut;

/**
 * The options of attention. A structure of zeros, or a NULL pointer to one, means the defaults:
 * every query sees every key, and the scale is 1 / sqrt(dim). The options are applied in the order
 * scale, softcap, bias, slopes, masks. Query i is at position query_offset + i, key j at position j;
 * over a cache the queries are at the newest positions if query_offset is 0. Later versions add
 * fields at the end, and their 0 means the earlier behavior: set the whole structure to zero, then the
 * fields that you need.
 */
typedef struct {
    /**
     * SDPA_CAUSAL, SDPA_WINDOW or both; any other bit is SDPA_ERROR_OPTION.
     */
    uint32_t flags;
    /**
     * Finite; 0 means 1 / sqrt(dim).
     */
    float scale;
    /**
     * Softcap: a score s becomes softcap * tanh(s / softcap). Finite and not negative; 0:
     * no capping.
     */
    float softcap;
    /**
     * The position of query 0, where key 0 is at position 0; over a cache, the number of positions
     * added to the default.
     */
    ptrdiff_t query_offset;
    /**
     * With SDPA_WINDOW: the number of visible keys before the query's position; with window_right 0,
     * a window_left of 4 shows five keys. SIZE_MAX: no limit. Without SDPA_WINDOW it must be 0 (else
     * SDPA_ERROR_OPTION).
     */
    size_t window_left;
    /**
     * The number of visible keys after the query's position, under the same rules. With SDPA_CAUSAL
     * it has no effect: no query sees beyond its own position.
     */
    size_t window_right;
    /**
     * Additive mask (bias): keys x queries, added to the scores; -INFINITY masks. data NULL: none.
     */
    sdpa_matrix bias;
    /**
     * Boolean mask: keys x queries, one byte each; 0 masks, any other value keeps. NULL: none.
     */
    const uint8_t *keep;
    /**
     * In elements of keep, which are bytes. Both strides 0 means contiguous. For a padding mask of
     * one byte per key, set keep_row_stride to 1 and keep_col_stride to 0.
     */
    size_t keep_row_stride;
    /**
     * See keep_row_stride.
     */
    size_t keep_col_stride;
    /**
     * Attention sink: ONE float for all queries, an additional score in the softmax denominator only;
     * finite or -INFINITY. NULL: none.
     */
    const float *sink;
    /**
     * The floats from the bias of a query head to that of the next. 0: one bias for all heads.
     */
    size_t bias_head_stride;
    /**
     * The bytes from the keep of a query head to that of the next. 0: one keep for all heads.
     */
    size_t keep_head_stride;
    /**
     * Linear biases (ALiBi): one slope per query head, from -2^97 to 2^97; a score s becomes
     * s - slope * |position of the query - position of the key|. The distance is rounded to a float,
     * exact up to 2^24, and counts up to 2^30. NULL: none.
     */
    const float *slopes;
    /**
     * Kept keys (attention sinks): keys at positions less than keep_first are visible before the window
     * too. 0: none. Over a cache 0, or as many as sdpa_cache_keep_first has set: else
     * SDPA_ERROR_OPTION. 0 on microcontrollers, but for a library that was made with FEATURES=keep-first.
     */
    size_t keep_first;
} sdpa_options;

/**
 * Heads that are read: matrices of one shape. Element (h, r, c) is data[h * head_stride + r *
 * row_stride + c * col_stride]. All three strides 0 means contiguous [heads][rows][cols]; for
 * contiguous [rows][heads][cols] set them to cols, heads * cols, 1. If another stride is not 0, a
 * head_stride or row_stride of 0 repeats one head or row (broadcast), and a col_stride of 0 is
 * SDPA_ERROR_STRIDE if there are several columns.
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
 * Heads that are written: as sdpa_heads, but the strides must nest: in some order of the three
 * axes, each stride is at least the number of floats that the axes before it span.
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
 * The format of elements.
 */
typedef uint32_t sdpa_format;

/**
 * A KV cache: the keys and values of one KV head in caller-provided storage. sdpa_cache_init or
 * sdpa_cache_init_elements initializes it, the functions below change it, and callers may read its fields. It holds
 * appended - dropped keys, those at positions dropped to appended - 1, and kept ones before. As the oldest block may
 * hold a single key, a cache that slides is only certain to hold
 * (blocks - 1) * SDPA_KEY_BLOCK + 1 keys. For a window of left keys and chunks of chunk tokens
 * (append a chunk, attend with its queries, slide to left keys) use
 * (left + chunk + SDPA_KEY_BLOCK - 1) / SDPA_KEY_BLOCK + 1 blocks. Copying the structure does not
 * copy the storage.
 */
typedef struct {
    /**
     * SDPA_CACHE_FLOATS_OF(dim, value_dim, blocks, key_format, value_format) floats.
     */
    float *storage;
    /**
     * Columns per key.
     */
    size_t dim;
    /**
     * Columns per value.
     */
    size_t value_dim;
    /**
     * Number of blocks, of SDPA_KEY_BLOCK keys each.
     */
    size_t blocks;
    /**
     * Number of keys ever appended: the position of the next key.
     */
    uint64_t appended;
    /**
     * Number of keys dropped, oldest first: the position of the oldest key in the cache.
     */
    uint64_t dropped;
    /**
     * The format of the keys; 0, which is SDPA_F32, unless sdpa_cache_init_elements has set it.
     */
    sdpa_format key_format;
    /**
     * The format of the values.
     */
    sdpa_format value_format;
    /**
     * Number of first keys that are kept: see sdpa_cache_keep_first.
     */
    size_t kept;
} sdpa_cache;

/**
 * The cosines and sines of a rotary position embedding, each positions x pairs: those that
 * sdpa_rotary_init computes, or the caller's own.
 */
typedef struct {
    /**
     * A row for each position, a column for each pair.
     */
    sdpa_matrix cosines;
    /**
     * Of the same shape.
     */
    sdpa_matrix sines;
    /**
     * The position of the first row.
     */
    uint64_t first;
} sdpa_rotary;

/**
 * Keys, values or weights of any format, which are read: element (h, r, c) is
 * data[h * head_stride + r * row_stride + c * col_stride]; strides count elements, under the rules of
 * sdpa_heads. Elements are converted to float, which is exact: the bits of a call are those of the same call over
 * the floats.
 */
typedef struct {
    /**
     * Aligned for its format. May be NULL if rows or cols is 0.
     */
    const void *data;
    /**
     * SDPA_F32, SDPA_F16, SDPA_BF16 or SDPA_I8 (else SDPA_ERROR_FORMAT).
     */
    sdpa_format format;
    /**
     * Number of heads; 0 means 1.
     */
    size_t heads;
    /**
     * Rows of a head.
     */
    size_t rows;
    /**
     * Columns of a head.
     */
    size_t cols;
    /**
     * See sdpa_heads.
     */
    size_t head_stride;
    /**
     * See sdpa_heads.
     */
    size_t row_stride;
    /**
     * See sdpa_heads.
     */
    size_t col_stride;
    /**
     * With SDPA_I8: keys and values have a scale for each row of each head, scales[h * scale_head_stride +
     * r * scale_row_stride], finite; weights have one for each column. Not read with other formats.
     */
    const float *scales;
    /**
     * Both strides 0 means contiguous [heads][rows]; for weights they must be 0 (else SDPA_ERROR_STRIDE).
     */
    size_t scale_head_stride;
    /**
     * See scale_head_stride.
     */
    size_t scale_row_stride;
} sdpa_array;

/**
 * Success.
 */
#define SDPA_OK 0

/**
 * A pointer is NULL although it should point to at least one element.
 */
#define SDPA_ERROR_NULL_POINTER 1

/**
 * Sizes disagree, or a size is 0 that must not be; the SDPA_ERROR_SHAPE_... below name the
 * argument.
 */
#define SDPA_ERROR_SHAPE 2

/**
 * Sizes and strides exceed the address space, or a col_stride is 0: see sdpa_matrix.
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
 * The cache has no room for the keys, or the storage has no room for one block.
 */
#define SDPA_ERROR_CAPACITY 6

/**
 * An option is out of range, or no back end of this machine has that handle.
 */
#define SDPA_ERROR_OPTION 7

/**
 * A pointer is not aligned for its type.
 */
#define SDPA_ERROR_POINTER 8

/**
 * The cache or table does not hold that position or number of keys, or a position would exceed UINT64_MAX (of a
 * table, 2^53); a first_key is no multiple of SDPA_SPAN; or a span is joined twice.
 */
#define SDPA_ERROR_POSITION 9

/**
 * A number that the format cannot represent, or a scale that is NaN or infinite.
 */
#define SDPA_ERROR_RANGE 10

/**
 * A format that is none of SDPA_F32, SDPA_F16, SDPA_BF16 and SDPA_I8, or a cache of another format than the
 * function is for.
 */
#define SDPA_ERROR_FORMAT 11

/**
 * The shape of queries: a size is 0 or disagrees with an earlier argument.
 */
#define SDPA_ERROR_SHAPE_QUERIES 102

/**
 * The shape of keys.
 */
#define SDPA_ERROR_SHAPE_KEYS 202

/**
 * The shape of values.
 */
#define SDPA_ERROR_SHAPE_VALUES 302

/**
 * The shape of out.
 */
#define SDPA_ERROR_SHAPE_OUT 402

/**
 * The shape of options.bias, which must be keys x queries.
 */
#define SDPA_ERROR_SHAPE_BIAS 502

/**
 * The shape of x.
 */
#define SDPA_ERROR_SHAPE_X 602

/**
 * The shape of w.
 */
#define SDPA_ERROR_SHAPE_W 702

/**
 * The shape of other_out.
 */
#define SDPA_ERROR_SHAPE_OTHER_OUT 802

/**
 * The fields of a cache: sdpa_cache_init has not set them, or the caller has changed them.
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
 * The length of states: see sdpa_attention_states and sdpa_join.
 */
#define SDPA_ERROR_SHAPE_STATES 1202

/**
 * The shapes of the cosines and sines of a table, or the length of its storage.
 */
#define SDPA_ERROR_SHAPE_TABLE 1302

/**
 * The cumulative lengths of sequences: see sdpa_attention_packed.
 */
#define SDPA_ERROR_SHAPE_CU_SEQLENS 1402

/**
 * IEEE binary32: float.
 */
#define SDPA_F32 0

/**
 * IEEE binary16, as uint16_t: 11 bits of precision, finite up to 65504.
 */
#define SDPA_F16 1

/**
 * bfloat16, as uint16_t: the upper half of a float.
 */
#define SDPA_BF16 2

/**
 * int8_t, to be multiplied by a scale.
 */
#define SDPA_I8 3

/**
 * Returns the version of the library at run time, such as "0.1.0". Never NULL; do not free it.
 */
const char *sdpa_version(void);

/**
 * Returns the message of a status. A value that is no status has a message too. Never NULL; do not
 * free it.
 */
const char *sdpa_status_string(sdpa_status status);

/**
 * Returns the name of the default back end, the fastest of this machine: "avx512", "avx2" or
 * "neon" (FMA family: a multiply-add rounds once), "portable" or "scalar" (non-FMA family).
 * Within a family the same input gives the same bits on every machine. Never NULL; do not free it.
 */
const char *sdpa_backend(void);

/**
 * Returns the handle of the back end with that name, for the operations with the suffix _on.
 * Negative if this machine has no such back end, or if name is NULL. Every machine has "scalar",
 * whose bits are those of microcontrollers.
 */
sdpa_backend_t sdpa_backend_by_name(const char *name);

/**
 * Enumerates the back ends of this machine; negative if index is past the last one:
 *     for (i = 0; (backend = sdpa_backend_at(i)) >= 0; i++)
 */
sdpa_backend_t sdpa_backend_at(size_t index);

/**
 * Returns the name of a back end, or "none" if this machine has no back end of that handle. Never
 * NULL; do not free it.
 */
const char *sdpa_backend_name(sdpa_backend_t backend);

/**
 * Computes the dot product of two arrays of n floats and writes it to *out; 0 if n is 0.
 *
 * Overlap: out must not overlap either array. On failure *out is unchanged.
 */
sdpa_status sdpa_dot(const float *a, const float *b, size_t n, float *out);

/**
 * sdpa_dot on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_dot_on(sdpa_backend_t backend,
                        const float *a,
                        const float *b,
                        size_t n,
                        float *out);

/**
 * Computes the softmax of an array of n floats: out[i] = exp(x[i]) / sum of exp(x[j]).
 *
 * Overlap: out may be x itself (in place); otherwise it must not overlap x. On failure out is
 * unchanged.
 */
sdpa_status sdpa_softmax(const float *x, size_t n, float *out);

/**
 * sdpa_softmax on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_on(sdpa_backend_t backend, const float *x, size_t n, float *out);

/**
 * Computes the softmax of each row of x; out has the shape of x. Each row has the bits of
 * sdpa_softmax.
 *
 * Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not
 * overlap x. On failure out is unchanged.
 */
sdpa_status sdpa_softmax_rows(sdpa_matrix x, sdpa_matrix_mut out);

/**
 * sdpa_softmax_rows on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_rows_on(sdpa_backend_t backend, sdpa_matrix x, sdpa_matrix_mut out);

/**
 * Computes the softmax of each column of x; out has the shape of x. Of a score grid, which has
 * a column per query, the result is the pattern (attention weights). Faster than
 * sdpa_softmax_rows.
 *
 * Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not
 * overlap x. On failure out is unchanged.
 */
sdpa_status sdpa_softmax_columns(sdpa_matrix x, sdpa_matrix_mut out);

/**
 * sdpa_softmax_columns on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_softmax_columns_on(sdpa_backend_t backend, sdpa_matrix x, sdpa_matrix_mut out);

/**
 * Computes a linear projection, out = x * w + bias: queries, keys or values (tokens x outputs)
 * from embeddings x (tokens x inputs) and weights w (inputs x outputs). bias: NULL, or w.cols
 * floats that are added to each row.
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_project(sdpa_matrix x, sdpa_matrix w, const float *bias, sdpa_matrix_mut out);

/**
 * sdpa_project on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_project_on(sdpa_backend_t backend,
                            sdpa_matrix x,
                            sdpa_matrix w,
                            const float *bias,
                            sdpa_matrix_mut out);

/**
 * Computes the score grid: out[key][query] = scale * dot(keys[key], queries[query]), with a ROW
 * PER KEY and a COLUMN PER QUERY. keys: keys x dim; queries: queries x dim. scale: finite; 0
 * means 1 / sqrt(dim).
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_scores(sdpa_matrix keys, sdpa_matrix queries, float scale, sdpa_matrix_mut out);

/**
 * sdpa_scores on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_scores_on(sdpa_backend_t backend,
                           sdpa_matrix keys,
                           sdpa_matrix queries,
                           float scale,
                           sdpa_matrix_mut out);

/**
 * Computes the outputs of attention from a pattern: out[query] = sum over the keys of
 * pattern[key][query] * values[key]. pattern: keys x queries; values: keys x width; out:
 * queries x width. A weight of 0 times an infinite value is NaN here; in sdpa_attention the
 * value of a masked key never reaches the output.
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_weighted_sum(sdpa_matrix pattern, sdpa_matrix values, sdpa_matrix_mut out);

/**
 * sdpa_weighted_sum on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_weighted_sum_on(sdpa_backend_t backend,
                                 sdpa_matrix pattern,
                                 sdpa_matrix values,
                                 sdpa_matrix_mut out);

/**
 * Computes the pattern (attention weights) under all options: out[key][query] is the weight of
 * a key for a query. queries: queries x dim; keys: keys x dim; out: keys x queries. Each column
 * sums to 1 minus the weight of the sink, or is all 0 if every key is masked. options: NULL for
 * the defaults.
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_pattern(sdpa_matrix queries,
                         sdpa_matrix keys,
                         const sdpa_options *options,
                         sdpa_matrix_mut out);

/**
 * sdpa_pattern on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_on(sdpa_backend_t backend,
                            sdpa_matrix queries,
                            sdpa_matrix keys,
                            const sdpa_options *options,
                            sdpa_matrix_mut out);

/**
 * Computes the pattern of each query head: out[head] is what sdpa_pattern gives for that head.
 * queries: heads x queries x dim; keys: KV heads x keys x dim, shared by groups of query heads as
 * in sdpa_attention_heads; out: query heads x keys x queries. options and sinks: as in
 * sdpa_attention_heads.
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_pattern_heads(sdpa_heads queries,
                               sdpa_heads keys,
                               const sdpa_options *options,
                               const float *sinks,
                               sdpa_heads_mut out);

/**
 * sdpa_pattern_heads on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_heads_on(sdpa_backend_t backend,
                                  sdpa_heads queries,
                                  sdpa_heads keys,
                                  const sdpa_options *options,
                                  const float *sinks,
                                  sdpa_heads_mut out);

/**
 * Computes the mean over all query heads of what sdpa_pattern_heads gives, of which there is at
 * least one: the weights are added head after head, and the sum is divided by the number of
 * heads. out: keys x queries. workspace: at least keys.rows * queries.rows floats of any content;
 * workspace_len counts floats. Floats beyond the required number are not touched.
 *
 * Overlap: out and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_pattern_mean(sdpa_heads queries,
                              sdpa_heads keys,
                              const sdpa_options *options,
                              const float *sinks,
                              sdpa_matrix_mut out,
                              float *workspace,
                              size_t workspace_len);

/**
 * sdpa_pattern_mean on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_mean_on(sdpa_backend_t backend,
                                 sdpa_heads queries,
                                 sdpa_heads keys,
                                 const sdpa_options *options,
                                 const float *sinks,
                                 sdpa_matrix_mut out,
                                 float *workspace,
                                 size_t workspace_len);

/**
 * Returns the number of floats of workspace that an attention call needs for keys of dim columns
 * and values of value_dim columns; SIZE_MAX if the number overflows. SDPA_ATTENTION_WORKSPACE is
 * the same number as a constant expression, for static arrays.
 */
size_t sdpa_attention_workspace(size_t dim, size_t value_dim);

/**
 * Computes scaled dot-product attention of one head without storing the scores (online softmax,
 * as in FlashAttention): out[query] = sum over the keys of weight[key] * values[key], where the
 * weights are the query's column of sdpa_pattern. queries: queries x dim; keys: keys x dim;
 * values: keys x width; out: queries x width.
 *
 * options: NULL for the defaults. log_sum_exp: NULL, or receives queries.rows floats: the
 * natural logarithm of each query's sum of exponentials, including the sink. workspace: at
 * least sdpa_attention_workspace(dim, width) floats of any content; workspace_len counts
 * floats. Floats beyond the required number are not touched.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
 * all three are unchanged.
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
 * sdpa_attention on a given back end: see sdpa_backend_by_name.
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
 * Merges the attention of the same queries over two disjoint sets of keys (split keys, as in
 * FlashDecoding). On entry out and log_sum_exp hold the result over one set, other_out and
 * other_log_sum_exp the result over the other; on return out and log_sum_exp hold the result
 * over both sets. out and other_out: queries x width; each log_sum_exp: one float per query, as
 * sdpa_attention writes it. If a log-sum-exp is -INFINITY (no visible key) its output is not
 * read. Give a sink to one of the two attention calls only.
 *
 * Overlap: out and log_sum_exp must not overlap other_out, other_log_sum_exp or each other. On
 * failure both are unchanged.
 */
sdpa_status sdpa_merge(sdpa_matrix_mut out,
                       float *log_sum_exp,
                       sdpa_matrix other_out,
                       const float *other_log_sum_exp);

/**
 * sdpa_merge on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_merge_on(sdpa_backend_t backend,
                          sdpa_matrix_mut out,
                          float *log_sum_exp,
                          sdpa_matrix other_out,
                          const float *other_log_sum_exp);

/**
 * Computes multi-head attention: sdpa_attention for each query head. keys.heads and
 * values.heads are equal and at least 1, and queries.heads is a multiple of them: each group of
 * queries.heads / keys.heads consecutive query heads shares one KV head (grouped-query
 * attention; multi-query attention if keys.heads is 1).
 *
 * bias and keep of the options apply to all heads, unless their head strides are set. sinks: NULL,
 * or queries.heads floats, one sink per query head; options.sink must then be NULL (else
 * SDPA_ERROR_OPTION). log_sum_exp: NULL, or receives queries.heads * queries.rows floats, head
 * after head. workspace: as for one head; it does not grow with the number of heads.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
 * all three are unchanged.
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
 * sdpa_attention_heads on a given back end: see sdpa_backend_by_name.
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
 * Computes sdpa_attention_heads for each of several sequences that lie one after another (packed, of
 * variable length): a query sees the keys of its own sequence only, and the bits are those of a call
 * with this sequence alone. Nothing is padded or copied.
 *
 * cu_seqlens_q and cu_seqlens_k are cumulative lengths in int32_t, as FlashAttention and vLLM have
 * them at hand: sequences + 1 numbers each, from 0 to queries.rows and keys.rows, none less than the
 * one before (else SDPA_ERROR_SHAPE_CU_SEQLENS). Sequence s has the queries cu_seqlens_q[s] to
 * cu_seqlens_q[s + 1] - 1, and the keys likewise; both may be one array.
 *
 * Positions are counted in each sequence: its query i is at position query_offset + i, its key j at
 * position j. bias and keep have a row for each key and a column for each query of all sequences; only
 * those of one sequence are read. log_sum_exp: NULL, or receives queries.heads * queries.rows floats,
 * sequence after sequence, and in each head after head. workspace: as for one sequence.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
 * all three are unchanged.
 */
sdpa_status sdpa_attention_packed(sdpa_heads queries,
                                  sdpa_heads keys,
                                  sdpa_heads values,
                                  const int32_t *cu_seqlens_q,
                                  const int32_t *cu_seqlens_k,
                                  size_t sequences,
                                  const sdpa_options *options,
                                  const float *sinks,
                                  sdpa_heads_mut out,
                                  float *log_sum_exp,
                                  float *workspace,
                                  size_t workspace_len);

/**
 * sdpa_attention_packed on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_packed_on(sdpa_backend_t backend,
                                     sdpa_heads queries,
                                     sdpa_heads keys,
                                     sdpa_heads values,
                                     const int32_t *cu_seqlens_q,
                                     const int32_t *cu_seqlens_k,
                                     size_t sequences,
                                     const sdpa_options *options,
                                     const float *sinks,
                                     sdpa_heads_mut out,
                                     float *log_sum_exp,
                                     float *workspace,
                                     size_t workspace_len);

/**
 * sdpa_attention of matrices whose strides are all 0 (else SDPA_ERROR_STRIDE), without softcap, bias,
 * slopes, keep and sink (else SDPA_ERROR_OPTION) and without log_sum_exp: the same bits from half the
 * flash. On microcontrollers gcc and clang, when they optimise, call it for sdpa_attention if they see
 * that this is enough: write strides of 0 and a NULL into the call, and let options be NULL or a static
 * const.
 *
 * Overlap: out and workspace must not overlap any input or each other. On failure both are unchanged.
 */
sdpa_status sdpa_attention_plain(sdpa_matrix queries,
                                 sdpa_matrix keys,
                                 sdpa_matrix values,
                                 const sdpa_options *options,
                                 sdpa_matrix_mut out,
                                 float *workspace,
                                 size_t workspace_len);

/**
 * sdpa_attention_heads without sinks and log_sum_exp, and without softcap, bias, slopes, keep and sink of
 * the options (else SDPA_ERROR_OPTION): the same bits from half the flash. On microcontrollers gcc and clang,
 * when they optimise, call it for sdpa_attention_heads if they see that this is enough: write a NULL each
 * into the call, and let options be NULL or a static const.
 *
 * Overlap: out and workspace must not overlap any input or each other. On failure both are unchanged.
 */
sdpa_status sdpa_attention_heads_plain(sdpa_heads queries,
                                       sdpa_heads keys,
                                       sdpa_heads values,
                                       const sdpa_options *options,
                                       sdpa_heads_mut out,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * sdpa_cache_attend_heads likewise: what sdpa_attention_heads_plain is to sdpa_attention_heads. On
 * microcontrollers it is called for sdpa_cache_attend too.
 *
 * Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On failure
 * both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_attend_heads_plain(const sdpa_cache *cache,
                                          sdpa_heads queries,
                                          const sdpa_options *options,
                                          sdpa_heads_mut out,
                                          float *workspace,
                                          size_t workspace_len);

/**
 * Returns the number of floats of storage that a table needs: 2 * positions * pairs; SIZE_MAX if the number
 * overflows.
 */
size_t sdpa_rotary_floats(size_t positions,
                          size_t pairs);

/**
 * Computes the cosines and sines of the angles p * frequency[i] of positions p = first, first + 1, ... and
 * pairs i, in double, rounded once, and sets table to view them in storage. frequencies: pairs floats in
 * radians per position, and base 0; or NULL for those of the paper, pow(base, -i / pairs), with a base of
 * 1 or more, such as 10000. storage: at least sdpa_rotary_floats(positions, pairs) floats of any content;
 * storage_len counts floats. The storage must live as long as the table. SDPA_ERROR_POSITION if the
 * positions end beyond 2^53. There is nothing to free.
 *
 * Overlap: table and storage must not overlap frequencies or each other. On failure both are unchanged.
 */
sdpa_status sdpa_rotary_init(sdpa_rotary *table,
                             double base,
                             const float *frequencies,
                             size_t pairs,
                             uint64_t first,
                             size_t positions,
                             float *storage,
                             size_t storage_len);

/**
 * Applies a rotary position embedding (RoPE) to queries or keys: each pair (a, b) of columns of a row
 * becomes (a * cos - b * sin, b * cos + a * sin), with the angle of the row's position in table. x and
 * out: heads x tokens x dim; the first token is at position, each token at the next one
 * (SDPA_ERROR_POSITION if table lacks one). pairs: SDPA_HALVES or SDPA_INTERLEAVED. The first
 * 2 * table->cosines.cols columns are pairs; the rest is copied.
 *
 * Overlap: out may be x itself (same data, shape and strides; in place); otherwise it must not overlap
 * x. It must not overlap the table. On failure out is unchanged.
 */
sdpa_status sdpa_rotate(sdpa_heads x,
                        const sdpa_rotary *table,
                        uint64_t position,
                        uint32_t pairs,
                        sdpa_heads_mut out);

/**
 * sdpa_rotate on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_rotate_on(sdpa_backend_t backend,
                           sdpa_heads x,
                           const sdpa_rotary *table,
                           uint64_t position,
                           uint32_t pairs,
                           sdpa_heads_mut out);

/**
 * Returns the number of floats of the state of one query and one span, value_dim + 4; SIZE_MAX if the
 * number overflows. SDPA_STATE_FLOATS is the same number as a constant expression. The floats are:
 * the index of the span (first key / SDPA_SPAN) as two whole numbers of 24 bits, the upper one first;
 * the largest visible score, -INFINITY if there is none; the sum of the weights exp(score - N ln 2),
 * with a whole number N chosen from that score; and the weighted sums of the value columns.
 */
size_t sdpa_state_floats(size_t value_dim);

/**
 * Computes the states of the spans that these keys fill, for sdpa_join: attention over a part of
 * the keys, on any thread or machine. The keys are those at positions first_key, first_key + 1,
 * ...; first_key is a multiple of SDPA_SPAN (else SDPA_ERROR_POSITION), and the last span may be
 * short. Arguments are those of sdpa_attention, with states instead of out: as many floats as
 * there are spans, (keys.rows + SDPA_SPAN - 1) / SDPA_SPAN, times queries.rows times
 * sdpa_state_floats(width), in that order. states_len counts floats, exactly these (else
 * SDPA_ERROR_SHAPE_STATES). Positions are absolute: query i is at query_offset + i. bias and keep
 * have a row for each of these keys. A sink is not used here: sdpa_join reads it.
 *
 * Overlap: states and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_attention_states(sdpa_matrix queries,
                                  sdpa_matrix keys,
                                  sdpa_matrix values,
                                  const sdpa_options *options,
                                  uint64_t first_key,
                                  float *states,
                                  size_t states_len,
                                  float *workspace,
                                  size_t workspace_len);

/**
 * sdpa_attention_states on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_states_on(sdpa_backend_t backend,
                                     sdpa_matrix queries,
                                     sdpa_matrix keys,
                                     sdpa_matrix values,
                                     const sdpa_options *options,
                                     uint64_t first_key,
                                     float *states,
                                     size_t states_len,
                                     float *workspace,
                                     size_t workspace_len);

/**
 * Computes sdpa_attention_states for each query head, with heads as in sdpa_attention_heads. states:
 * spans * queries.heads * queries.rows * sdpa_state_floats(width) floats, in that order.
 *
 * Overlap: states and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_attention_states_heads(sdpa_heads queries,
                                        sdpa_heads keys,
                                        sdpa_heads values,
                                        const sdpa_options *options,
                                        uint64_t first_key,
                                        float *states,
                                        size_t states_len,
                                        float *workspace,
                                        size_t workspace_len);

/**
 * sdpa_attention_states_heads on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_states_heads_on(sdpa_backend_t backend,
                                           sdpa_heads queries,
                                           sdpa_heads keys,
                                           sdpa_heads values,
                                           const sdpa_options *options,
                                           uint64_t first_key,
                                           float *states,
                                           size_t states_len,
                                           float *workspace,
                                           size_t workspace_len);

/**
 * Joins the states of spans into the output of each query, out: queries x width. The bits are
 * those of one sdpa_attention over all the keys, if all states and this call have back ends of one
 * family. states: those of one or several calls, one after another; states_len counts floats, a
 * multiple of out.rows * sdpa_state_floats(out.cols) (else SDPA_ERROR_SHAPE_STATES). Spans may be
 * in any order, and spans may be absent: their keys then count as masked. A span that is there
 * twice, or an index that is none, is SDPA_ERROR_POSITION. options: NULL, or options of which only
 * the sink is read. log_sum_exp: NULL, or receives out.rows floats, as sdpa_attention writes them.
 * It needs no workspace.
 *
 * Overlap: out and log_sum_exp must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_join(const float *states,
                      size_t states_len,
                      const sdpa_options *options,
                      sdpa_matrix_mut out,
                      float *log_sum_exp);

/**
 * sdpa_join on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_join_on(sdpa_backend_t backend,
                         const float *states,
                         size_t states_len,
                         const sdpa_options *options,
                         sdpa_matrix_mut out,
                         float *log_sum_exp);

/**
 * Computes sdpa_join for several query heads: the states are those of sdpa_attention_states_heads.
 * sinks and log_sum_exp are as in sdpa_attention_heads.
 *
 * Overlap: out and log_sum_exp must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_join_heads(const float *states,
                            size_t states_len,
                            const sdpa_options *options,
                            const float *sinks,
                            sdpa_heads_mut out,
                            float *log_sum_exp);

/**
 * sdpa_join_heads on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_join_heads_on(sdpa_backend_t backend,
                               const float *states,
                               size_t states_len,
                               const sdpa_options *options,
                               const float *sinks,
                               sdpa_heads_mut out,
                               float *log_sum_exp);

/**
 * Rounds floats to a format, to nearest, ties to even: to receives floats.rows * floats.cols elements, row after
 * row; it is aligned for the format. scales: with SDPA_I8, receives floats.rows floats, the largest magnitude of
 * each row divided by 127 (0 if that is below 2^-126: the row is then 0); not used with other formats.
 * SDPA_ERROR_RANGE if a finite number would become infinite, or with SDPA_I8 if a number is NaN or infinite.
 *
 * Overlap: to and scales must not overlap floats or each other. On failure both are unchanged.
 */
sdpa_status sdpa_narrow(sdpa_matrix floats,
                        sdpa_format format,
                        void *to,
                        float *scales);

/**
 * Computes sdpa_project with weights w (inputs x outputs, one head) of any format: out = x * w + bias. Weights
 * that are stored as outputs x inputs, as sdpa_narrow writes them, have row_stride 1 and col_stride inputs. With
 * SDPA_I8 each output is multiplied by its scale before the bias is added; a scale that is not finite is no
 * error, and its column is not finite.
 *
 * Overlap: out must not overlap any input. On failure out is unchanged.
 */
sdpa_status sdpa_project_elements(sdpa_matrix x,
                                  sdpa_array w,
                                  const float *bias,
                                  sdpa_matrix_mut out);

/**
 * sdpa_project_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_project_elements_on(sdpa_backend_t backend,
                                     sdpa_matrix x,
                                     sdpa_array w,
                                     const float *bias,
                                     sdpa_matrix_mut out);

/**
 * Returns the number of floats of workspace that a call over elements needs: four times
 * sdpa_attention_workspace and the converted keys or values of a block; on microcontrollers no more than
 * sdpa_attention_workspace. SIZE_MAX if the number overflows.
 * SDPA_ELEMENTS_WORKSPACE is the same number as a constant expression.
 */
size_t sdpa_elements_workspace(size_t dim,
                               size_t value_dim);

/**
 * Computes sdpa_attention_heads over keys and values of any format, each of its own: those of a
 * memory-mapped model, say. The scale of a key multiplies its score before the softcap; the scale of a value
 * multiplies its weight. SDPA_ERROR_RANGE if a scale is NaN or infinite. workspace: at least
 * sdpa_elements_workspace(dim, width) floats.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
 * all three are unchanged.
 */
sdpa_status sdpa_attention_elements(sdpa_heads queries,
                                    sdpa_array keys,
                                    sdpa_array values,
                                    const sdpa_options *options,
                                    const float *sinks,
                                    sdpa_heads_mut out,
                                    float *log_sum_exp,
                                    float *workspace,
                                    size_t workspace_len);

/**
 * sdpa_attention_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_elements_on(sdpa_backend_t backend,
                                       sdpa_heads queries,
                                       sdpa_array keys,
                                       sdpa_array values,
                                       const sdpa_options *options,
                                       const float *sinks,
                                       sdpa_heads_mut out,
                                       float *log_sum_exp,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * Computes sdpa_pattern_heads over keys of any format, as in sdpa_attention_elements. workspace: at least
 * SDPA_KEY_BLOCK * dim floats of any content.
 *
 * Overlap: out and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_pattern_elements(sdpa_heads queries,
                                  sdpa_array keys,
                                  const sdpa_options *options,
                                  const float *sinks,
                                  sdpa_heads_mut out,
                                  float *workspace,
                                  size_t workspace_len);

/**
 * sdpa_pattern_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_elements_on(sdpa_backend_t backend,
                                     sdpa_heads queries,
                                     sdpa_array keys,
                                     const sdpa_options *options,
                                     const float *sinks,
                                     sdpa_heads_mut out,
                                     float *workspace,
                                     size_t workspace_len);

/**
 * Computes sdpa_pattern_mean over keys of any format, as in sdpa_attention_elements. workspace: at least
 * keys.rows * queries.rows + SDPA_KEY_BLOCK * dim floats of any content.
 *
 * Overlap: out and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_pattern_mean_elements(sdpa_heads queries,
                                       sdpa_array keys,
                                       const sdpa_options *options,
                                       const float *sinks,
                                       sdpa_matrix_mut out,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * sdpa_pattern_mean_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_pattern_mean_elements_on(sdpa_backend_t backend,
                                          sdpa_heads queries,
                                          sdpa_array keys,
                                          const sdpa_options *options,
                                          const float *sinks,
                                          sdpa_matrix_mut out,
                                          float *workspace,
                                          size_t workspace_len);

/**
 * Computes sdpa_attention_packed over keys and values of any format, as in sdpa_attention_elements.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input or each other. On failure
 * all three are unchanged.
 */
sdpa_status sdpa_attention_packed_elements(sdpa_heads queries,
                                           sdpa_array keys,
                                           sdpa_array values,
                                           const int32_t *cu_seqlens_q,
                                           const int32_t *cu_seqlens_k,
                                           size_t sequences,
                                           const sdpa_options *options,
                                           const float *sinks,
                                           sdpa_heads_mut out,
                                           float *log_sum_exp,
                                           float *workspace,
                                           size_t workspace_len);

/**
 * sdpa_attention_packed_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_packed_elements_on(sdpa_backend_t backend,
                                              sdpa_heads queries,
                                              sdpa_array keys,
                                              sdpa_array values,
                                              const int32_t *cu_seqlens_q,
                                              const int32_t *cu_seqlens_k,
                                              size_t sequences,
                                              const sdpa_options *options,
                                              const float *sinks,
                                              sdpa_heads_mut out,
                                              float *log_sum_exp,
                                              float *workspace,
                                              size_t workspace_len);

/**
 * Computes sdpa_attention_states_heads over keys and values of any format, as in
 * sdpa_attention_elements.
 *
 * Overlap: states and workspace must not overlap any input or each other. On failure both are
 * unchanged.
 */
sdpa_status sdpa_attention_states_elements(sdpa_heads queries,
                                           sdpa_array keys,
                                           sdpa_array values,
                                           const sdpa_options *options,
                                           uint64_t first_key,
                                           float *states,
                                           size_t states_len,
                                           float *workspace,
                                           size_t workspace_len);

/**
 * sdpa_attention_states_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_attention_states_elements_on(sdpa_backend_t backend,
                                              sdpa_heads queries,
                                              sdpa_array keys,
                                              sdpa_array values,
                                              const sdpa_options *options,
                                              uint64_t first_key,
                                              float *states,
                                              size_t states_len,
                                              float *workspace,
                                              size_t workspace_len);

/**
 * Returns the number of floats of storage that a cache of blocks blocks needs; SIZE_MAX if the
 * number overflows. SDPA_CACHE_FLOATS is the same number as a constant expression, for static
 * arrays.
 */
size_t sdpa_cache_floats(size_t dim, size_t value_dim, size_t blocks);

/**
 * Initializes an empty cache with as many blocks as fit in storage, and sets these to 0.
 * storage_len counts floats; SDPA_ERROR_CAPACITY if not even one block fits. The storage must live
 * as long as the cache, and only the cache functions may write it. There is nothing to free.
 *
 * Overlap: cache must not overlap storage. On failure both are unchanged.
 */
sdpa_status sdpa_cache_init(sdpa_cache *cache,
                            size_t dim,
                            size_t value_dim,
                            float *storage,
                            size_t storage_len);

/**
 * Initializes an empty cache that begins at a position: sdpa_cache_init, but the first key appended has
 * that position. For a machine that holds a later part of the keys: see sdpa_cache_states.
 *
 * Overlap: cache must not overlap storage. On failure both are unchanged.
 */
sdpa_status sdpa_cache_init_at(sdpa_cache *cache,
                               size_t dim,
                               size_t value_dim,
                               float *storage,
                               size_t storage_len,
                               uint64_t position);

/**
 * Returns the number of floats of storage that a cache of blocks blocks needs whose keys and values have these
 * formats; SIZE_MAX if the number overflows or a format is unknown. SDPA_CACHE_FLOATS_OF is the same number
 * as a constant expression.
 */
size_t sdpa_cache_floats_of(size_t dim,
                            size_t value_dim,
                            size_t blocks,
                            sdpa_format key_format,
                            sdpa_format value_format);

/**
 * Initializes an empty cache whose keys and values have these formats, of which each is any: half or a
 * quarter of the memory. Otherwise as sdpa_cache_init_at; position is 0 for a new sequence.
 *
 * Such a cache is for sdpa_cache_append_elements, sdpa_cache_attend_elements and
 * sdpa_cache_states_elements, which take a cache of floats too, and for sdpa_cache_truncate,
 * sdpa_cache_truncate_to and sdpa_cache_slide. The other functions are for floats alone
 * (SDPA_ERROR_FORMAT), so that a program that calls only these does not link what formats need.
 *
 * Overlap: cache must not overlap storage. On failure both are unchanged.
 */
sdpa_status sdpa_cache_init_elements(sdpa_cache *cache,
                                     size_t dim,
                                     size_t value_dim,
                                     sdpa_format key_format,
                                     sdpa_format value_format,
                                     float *storage,
                                     size_t storage_len,
                                     uint64_t position);

/**
 * Appends keys (keys x dim) and their values (keys x value_dim) to the cache, newest last.
 * SDPA_ERROR_CAPACITY if there is no room for all of them.
 *
 * Overlap: cache and its storage must not overlap any input. On failure both are unchanged.
 */
sdpa_status sdpa_cache_append(sdpa_cache *cache, sdpa_matrix keys, sdpa_matrix values);

/**
 * Appends floats to a cache of any formats, rounded as by sdpa_narrow: sdpa_cache_append for a cache of
 * sdpa_cache_init_elements. SDPA_ERROR_RANGE if a format cannot represent a number.
 *
 * Overlap: cache and its storage must not overlap any input. On failure both are unchanged.
 */
sdpa_status sdpa_cache_append_elements(sdpa_cache *cache,
                                       sdpa_matrix keys,
                                       sdpa_matrix values);

/**
 * Removes the newest keys so that the oldest len keys in the cache remain. SDPA_ERROR_POSITION if
 * the cache holds fewer than len keys.
 *
 * On failure the cache is unchanged.
 */
sdpa_status sdpa_cache_truncate(sdpa_cache *cache, size_t len);

/**
 * Removes the keys at position and after it; the next key appended has that position.
 * SDPA_ERROR_POSITION if position is below dropped or above appended.
 *
 * On failure the cache is unchanged.
 */
sdpa_status sdpa_cache_truncate_to(sdpa_cache *cache, uint64_t position);

/**
 * Keeps the first keys (attention sinks, as in streaming models): sdpa_cache_slide drops none of the keys
 * first ones, and every query sees them, whatever its window. They take whole blocks of 64 keys.
 * SDPA_ERROR_POSITION if keys were dropped already or the cache began at another position than 0, and
 * beyond PTRDIFF_MAX, where positions of such a cache end; SDPA_ERROR_CAPACITY if the cache has fewer
 * blocks; SDPA_ERROR_OPTION on microcontrollers, but for a library that was made with
 * FEATURES=keep-first.
 *
 * On failure the cache is unchanged.
 */
sdpa_status sdpa_cache_keep_first(sdpa_cache *cache,
                                  size_t keys);

/**
 * Drops the oldest keys until the cache holds at most len (sliding window). Blocks without keys are
 * reused; on microcontrollers the other keys move in the storage, once per block. The remaining
 * keys keep their positions.
 *
 * On failure the cache is unchanged.
 */
sdpa_status sdpa_cache_slide(sdpa_cache *cache, size_t len);

/**
 * Computes sdpa_attention over the keys and values in a cache. Its bits are those of
 * sdpa_attention over every key ever appended, with the dropped keys masked. Query i of queries
 * (queries x dim) is at position appended - queries.rows + i + query_offset: append a token,
 * then attend with its query. bias and keep of the options have one row per key in the cache,
 * oldest first.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
 * each other. On failure all three are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_attend(const sdpa_cache *cache,
                              sdpa_matrix queries,
                              const sdpa_options *options,
                              sdpa_matrix_mut out,
                              float *log_sum_exp,
                              float *workspace,
                              size_t workspace_len);

/**
 * sdpa_cache_attend on a given back end: see sdpa_backend_by_name.
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
 * Computes sdpa_cache_attend for several query heads that share the KV head of a cache
 * (grouped-query attention). sinks, log_sum_exp and workspace are as in sdpa_attention_heads. A
 * model with several KV heads has one cache per KV head.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
 * each other. On failure all three are unchanged. The cache is never changed.
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
 * sdpa_cache_attend_heads on a given back end: see sdpa_backend_by_name.
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

/**
 * Computes the states of the spans in which a cache holds keys: sdpa_attention_states over a cache.
 * Query positions, bias and keep are as in sdpa_cache_attend; where newer keys are elsewhere, their
 * number is the query_offset. There are
 * (appended + SDPA_SPAN - 1) / SDPA_SPAN - dropped / SDPA_SPAN spans, none in an empty cache; the
 * keys that a span lacks count as masked.
 *
 * Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
 * On failure both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_states(const sdpa_cache *cache,
                              sdpa_matrix queries,
                              const sdpa_options *options,
                              float *states,
                              size_t states_len,
                              float *workspace,
                              size_t workspace_len);

/**
 * sdpa_cache_states on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_states_on(sdpa_backend_t backend,
                                 const sdpa_cache *cache,
                                 sdpa_matrix queries,
                                 const sdpa_options *options,
                                 float *states,
                                 size_t states_len,
                                 float *workspace,
                                 size_t workspace_len);

/**
 * Computes sdpa_cache_states for several query heads that share the KV head of a cache. states:
 * spans * queries.heads * queries.rows * sdpa_state_floats(value_dim) floats, in that order.
 *
 * Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
 * On failure both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_states_heads(const sdpa_cache *cache,
                                    sdpa_heads queries,
                                    const sdpa_options *options,
                                    float *states,
                                    size_t states_len,
                                    float *workspace,
                                    size_t workspace_len);

/**
 * sdpa_cache_states_heads on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_states_heads_on(sdpa_backend_t backend,
                                       const sdpa_cache *cache,
                                       sdpa_heads queries,
                                       const sdpa_options *options,
                                       float *states,
                                       size_t states_len,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * Computes sdpa_cache_attend_heads over a cache of any formats. workspace: at least
 * sdpa_elements_workspace(dim, value_dim) floats.
 *
 * Overlap: out, log_sum_exp and workspace must not overlap any input, the cache, its storage or
 * each other. On failure all three are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_attend_elements(const sdpa_cache *cache,
                                       sdpa_heads queries,
                                       const sdpa_options *options,
                                       const float *sinks,
                                       sdpa_heads_mut out,
                                       float *log_sum_exp,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * sdpa_cache_attend_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_attend_elements_on(sdpa_backend_t backend,
                                          const sdpa_cache *cache,
                                          sdpa_heads queries,
                                          const sdpa_options *options,
                                          const float *sinks,
                                          sdpa_heads_mut out,
                                          float *log_sum_exp,
                                          float *workspace,
                                          size_t workspace_len);

/**
 * Computes sdpa_cache_states_heads over a cache of any formats. workspace: at least
 * sdpa_elements_workspace(dim, value_dim) floats.
 *
 * Overlap: states and workspace must not overlap any input, the cache, its storage or each other.
 * On failure both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_states_elements(const sdpa_cache *cache,
                                       sdpa_heads queries,
                                       const sdpa_options *options,
                                       float *states,
                                       size_t states_len,
                                       float *workspace,
                                       size_t workspace_len);

/**
 * sdpa_cache_states_elements on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_states_elements_on(sdpa_backend_t backend,
                                          const sdpa_cache *cache,
                                          sdpa_heads queries,
                                          const sdpa_options *options,
                                          float *states,
                                          size_t states_len,
                                          float *workspace,
                                          size_t workspace_len);

/**
 * Computes sdpa_pattern_heads over the keys in a cache of any formats: out is query heads x keys in the
 * cache x queries, the oldest key first. Query positions, bias and keep are as in sdpa_cache_attend.
 * workspace: at least SDPA_KEY_BLOCK * dim floats of any content; none if the keys are SDPA_F32.
 *
 * Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On
 * failure both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_pattern_heads(const sdpa_cache *cache,
                                     sdpa_heads queries,
                                     const sdpa_options *options,
                                     const float *sinks,
                                     sdpa_heads_mut out,
                                     float *workspace,
                                     size_t workspace_len);

/**
 * sdpa_cache_pattern_heads on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_pattern_heads_on(sdpa_backend_t backend,
                                        const sdpa_cache *cache,
                                        sdpa_heads queries,
                                        const sdpa_options *options,
                                        const float *sinks,
                                        sdpa_heads_mut out,
                                        float *workspace,
                                        size_t workspace_len);

/**
 * Computes the mean over all query heads of what sdpa_cache_pattern_heads gives, as sdpa_pattern_mean
 * does. out: keys in the cache x queries. workspace: keys in the cache * queries.rows floats, and those of
 * sdpa_cache_pattern_heads.
 *
 * Overlap: out and workspace must not overlap any input, the cache, its storage or each other. On
 * failure both are unchanged. The cache is never changed.
 */
sdpa_status sdpa_cache_pattern_mean(const sdpa_cache *cache,
                                    sdpa_heads queries,
                                    const sdpa_options *options,
                                    const float *sinks,
                                    sdpa_matrix_mut out,
                                    float *workspace,
                                    size_t workspace_len);

/**
 * sdpa_cache_pattern_mean on a given back end: see sdpa_backend_by_name.
 */
sdpa_status sdpa_cache_pattern_mean_on(sdpa_backend_t backend,
                                       const sdpa_cache *cache,
                                       sdpa_heads queries,
                                       const sdpa_options *options,
                                       const float *sinks,
                                       sdpa_matrix_mut out,
                                       float *workspace,
                                       size_t workspace_len);

/*
 * On microcontrollers sdpa_attention is sdpa_attention_plain in calls of which the compiler sees that it is enough:
 * strides are 0, log_sum_exp is NULL, and options is NULL or points to constants. Likewise sdpa_attention_heads and
 * sdpa_cache_attend_heads, with any strides, if sinks is NULL too, and sdpa_cache_attend. The linker then drops what
 * the call does not use.
 */
#if SDPA_QUERY_BLOCK == 4 && defined(__GNUC__) && (defined(__cplusplus) || __STDC_VERSION__ >= 199901L)
static inline __attribute__((__always_inline__)) sdpa_status
sdpa_attention_inline(sdpa_matrix queries, sdpa_matrix keys, sdpa_matrix values, const sdpa_options *options,
                      sdpa_matrix_mut out, float *log_sum_exp, float *workspace, size_t workspace_len) {
    const size_t strides = queries.row_stride | queries.col_stride | keys.row_stride | keys.col_stride |
                           values.row_stride | values.col_stride | out.row_stride | out.col_stride;
#define SDPA_IS_PLAIN(is_wanted)                                                           \
    (!(is_wanted) && (options == NULL || (!(options->softcap > 0 || options->softcap < 0) && \
                      options->bias.data == NULL && options->keep == NULL && options->sink == NULL && \
                      options->slopes == NULL)))
/* Where it is not known, nothing is read. */
#define SDPA_IS_KNOWN_PLAIN(is_wanted) (__builtin_constant_p(SDPA_IS_PLAIN(is_wanted)) && SDPA_IS_PLAIN(is_wanted))
    if (SDPA_IS_KNOWN_PLAIN(strides != 0 || log_sum_exp != NULL)) {
        return sdpa_attention_plain(queries, keys, values, options, out, workspace, workspace_len);
    }
    return sdpa_attention(queries, keys, values, options, out, log_sum_exp, workspace, workspace_len);
}
static inline __attribute__((__always_inline__)) sdpa_status
sdpa_attention_heads_inline(sdpa_heads queries, sdpa_heads keys, sdpa_heads values, const sdpa_options *options,
                            const float *sinks, sdpa_heads_mut out, float *log_sum_exp, float *workspace,
                            size_t workspace_len) {
    if (SDPA_IS_KNOWN_PLAIN(sinks != NULL || log_sum_exp != NULL)) {
        return sdpa_attention_heads_plain(queries, keys, values, options, out, workspace, workspace_len);
    }
    return sdpa_attention_heads(queries, keys, values, options, sinks, out, log_sum_exp, workspace, workspace_len);
}
static inline __attribute__((__always_inline__)) sdpa_status
sdpa_cache_attend_heads_inline(const sdpa_cache *cache, sdpa_heads queries, const sdpa_options *options,
                               const float *sinks, sdpa_heads_mut out, float *log_sum_exp, float *workspace,
                               size_t workspace_len) {
    if (SDPA_IS_KNOWN_PLAIN(sinks != NULL || log_sum_exp != NULL)) {
        return sdpa_cache_attend_heads_plain(cache, queries, options, out, workspace, workspace_len);
    }
    return sdpa_cache_attend_heads(cache, queries, options, sinks, out, log_sum_exp, workspace, workspace_len);
}
static inline __attribute__((__always_inline__)) sdpa_status
sdpa_cache_attend_inline(const sdpa_cache *cache, sdpa_matrix queries, const sdpa_options *options, sdpa_matrix_mut out,
                         float *log_sum_exp, float *workspace, size_t workspace_len) {
    if (SDPA_IS_KNOWN_PLAIN(log_sum_exp != NULL)) {
        const sdpa_heads q = {queries.data, 1, queries.rows, queries.cols, 0, queries.row_stride, queries.col_stride};
        const sdpa_heads_mut o = {out.data, 1, out.rows, out.cols, 0, out.row_stride, out.col_stride};
        return sdpa_cache_attend_heads_plain(cache, q, options, o, workspace, workspace_len);
    }
    return sdpa_cache_attend(cache, queries, options, out, log_sum_exp, workspace, workspace_len);
}
#undef SDPA_IS_PLAIN
#undef SDPA_IS_KNOWN_PLAIN
/* Not without its arguments, so that its name and address are those of the function. */
#define sdpa_attention(...) sdpa_attention_inline(__VA_ARGS__)
#define sdpa_attention_heads(...) sdpa_attention_heads_inline(__VA_ARGS__)
#define sdpa_cache_attend(...) sdpa_cache_attend_inline(__VA_ARGS__)
#define sdpa_cache_attend_heads(...) sdpa_cache_attend_heads_inline(__VA_ARGS__)
#endif

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SDPA_H */
