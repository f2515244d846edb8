#!/bin/sh
# Writes the hand-made files of fuzz/regressions/, in the byte format of fuzz/src/targets/input.rs:
#   slice:   length (2 bytes, little endian)
#   values:  kind, its arguments, number of patches (each: index in 2 bytes, f32)
#            kinds: 0 one f32 per element, 1 one f32 for all, 2 one byte per element: an index of SPECIAL,
#                   3 an f32 for the first and one for the others, 4… a Kind of cases.rs and 4 bytes of seed
#   layout:  0 contiguous, 1 transposed, 2 random with 4 bytes of seed, 3 row and column stride
set -eu
cd "$(dirname "$0")/regressions"
seed() { # target name octal-bytes…
    file=$1/$2
    shift 2
    printf '%b' "$(printf '\\0%s' "$@")" >"$file"
}
mkdir -p dot project scores weighted_sum softmax attention rotate

one='000 000 200 077'      # 1.0
tiny='140 102 242 015'     # 1e-30
minus_tiny='140 102 242 215'
nan='000 000 300 177'
inf='000 000 200 177'
minus_inf='000 000 200 377'
minus_ten='000 000 040 301' # -10

# length, starts; kind …, patches; kind …, patches.
seed dot empty 000 000 000 000
# 65 products that underflow to -0.
seed dot minus_zeros 101 000 000 000 001 $tiny 000 001 $minus_tiny 000
seed dot nan 021 000 001 002 004 007 000 000 000 001 001 $one 001 003 000 $nan
seed dot infinities 011 000 000 001 001 $inf 000 001 $one 001 010 000 $minus_inf
seed dot special 100 000 003 000 002 005 006 007 010 011 012 013 014 015 016 017
seed dot long 377 003 002 003 004 001 002 003 004 000 005 005 006 007 010 000

# rows, cols, depth; bias; values, layout (twice); layout of the output.
seed project no_inputs 003 004 000 000
seed project no_tokens 000 004 003 001 001 $one 000
# 65 inputs whose products underflow to -0, a bias of -0.
seed project minus_zeros 002 003 101 001 001 000 000 000 200 000 001 $tiny 000 000 001 $minus_tiny 000 001 001
# A repeated row, a repeated element; an output with gaps.
seed project strides_zero 005 021 007 000 004 001 001 001 001 000 003 000 001 005 002 002 002 002 000 003 000 000 003 144 003
seed project nan 007 031 011 001 020 001 000 000 000 000 020 007 000 000 000 000 000 021 011 000 000 000 000 001 001
# An output that overlaps itself is refused.
seed project alias 005 005 002 000 004 001 000 000 000 000 000 004 002 000 000 000 000 000 003 002 002

# rows, cols, depth; scale; values, layout (twice); layout of the output.
seed scores no_dim 003 003 000 000
seed scores no_keys 000 003 004 000
seed scores scale_nan 003 003 004 001 $nan
seed scores scale_inf 003 003 004 001 $inf
seed scores minus_zeros 003 005 101 001 $one 001 $tiny 000 000 001 $minus_tiny 000 000 000
seed scores scaled_query_underflows 002 003 004 001 $tiny 001 377 377 177 177 000 000 001 001 000 000 000 000 000 001
seed scores strides_zero 011 061 010 000 004 003 000 000 000 000 003 000 000 004 004 000 000 000 000 003 000 007 002 005 000 000 000
seed scores infinities 006 021 005 000 021 001 000 000 000 000 000 021 002 000 000 000 000 001 003 001 012

# rows, cols, depth; values, layout (twice); layout of the output.
seed weighted_sum no_width 003 000 004
seed weighted_sum no_keys 003 004 000 001 000 000 000 000 000 000
seed weighted_sum minus_zeros 003 006 101 001 $tiny 000 000 001 $minus_tiny 000 000 000
# A weight of 0 times an infinite value.
seed weighted_sum zero_times_infinity 004 021 005 001 000 000 000 000 000 000 004 001 000 000 000 001 003 000 $inf 000 000
seed weighted_sum nan 007 061 010 004 001 000 000 000 000 000 020 002 000 000 000 000 001 002 001 000 000 000
seed weighted_sum strides_zero 007 060 010 004 001 000 000 000 000 003 000 000 004 002 000 000 000 000 003 000 001 000

# 0 slice, length / 1 rows, 2 columns, rows, cols; values, layout; two layouts of outputs.
seed softmax empty 000 000 000
# One large score and 1023 equal ones.
seed softmax one_large_slice 000 000 004 003 000 000 000 000 $minus_ten 000
seed softmax masked 000 106 000 001 $minus_inf 000
seed softmax nan_slice 000 101 000 001 $one 001 100 000 $nan
seed softmax infinities 000 101 000 002 005 006 007 010 005 001
seed softmax nan_rows 001 011 101 020 001 000 000 000 000 001 000 000
seed softmax masked_columns 002 106 061 010 001 000 000 000 000 000 001 002 001 000 000 000
seed softmax deep_columns 002 106 021 006 001 000 000 000 000 003 001 310 001 000
seed softmax overflowing_rows 001 021 106 013 001 000 000 000 000 002 001 000 000 000 003 001 106 000
seed softmax strides_zero_columns 002 021 061 005 001 000 000 000 000 003 000 001 000 001
seed softmax no_rows 001 000 021
seed softmax no_columns 002 021 000

# heads (KV heads - 1 + 2 · (group - 1)); queries, keys, dim, width; cut, layouts; values of queries,
# keys and values; options: bits 0 scale (f32), 1 softcap (f32), 2 window (2 bytes), 3 causal,
# 4 offset (a byte minus 100), 5 keep, 6 bias (values), 7 sinks (0 one, 1 one per head; values).
ordinary() { echo "004 00$1 000 000 000 000"; }
seed attention one_key 000 001 001 001 001 000 000 001 $one 000 001 $one 000 001 $one 000 000
seed attention no_keys 001 003 000 004 005 000 001 $(ordinary 1) $(ordinary 2) $(ordinary 3) 000
seed attention no_queries 001 000 011 004 005 003 002 $(ordinary 1) $(ordinary 2) $(ordinary 3) 000
seed attention no_dim 000 003 011 000 005 000 000 000
seed attention no_width 000 003 011 004 000 000 000 000
seed attention causal_heads 005 014 202 010 007 101 003 $(ordinary 1) $(ordinary 2) $(ordinary 3) 010
seed attention window_from_a_cache 003 007 310 005 011 144 007 $(ordinary 4) $(ordinary 5) $(ordinary 6) 014 004 000
seed attention window_without_end 000 021 105 005 011 012 010 $(ordinary 4) $(ordinary 5) $(ordinary 6) 024 376 377 377
seed attention keep_and_a_nan 002 011 203 006 011 100 011 $(ordinary 1) $(ordinary 2) 004 003 000 000 000 002 005 000 $nan 201 000 $inf 050 002 007 000 000 000
seed attention padded 000 011 103 006 011 040 012 $(ordinary 1) $(ordinary 2) 020 003 000 000 000 000 040 000 041
seed attention bias_masks 000 021 106 006 011 040 013 $(ordinary 1) $(ordinary 2) $(ordinary 3) 100 010 001 000 000 000 000
seed attention bias_is_infinite 000 021 106 006 011 040 014 $(ordinary 1) $(ordinary 2) $(ordinary 3) 100 021 001 000 000 000 000
seed attention sinks_and_softcap 005 011 102 006 011 040 015 005 001 000 000 000 000 $(ordinary 2) $(ordinary 3) 202 $one 001 $(ordinary 5)
seed attention sink_is_nan 000 003 005 003 003 002 000 $(ordinary 1) $(ordinary 2) $(ordinary 3) 200 000 001 $nan 000
seed attention softcap_is_negative 000 003 005 003 003 002 000 $(ordinary 1) $(ordinary 2) $(ordinary 3) 002 $minus_ten
seed attention scale_is_infinite 000 003 005 003 003 002 000 $(ordinary 1) $(ordinary 2) $(ordinary 3) 001 $inf
# Scores of some millions, from which the maximum is subtracted.
seed attention large_scores 000 021 310 010 007 144 016 005 001 000 000 000 000 005 002 000 000 000 000 $(ordinary 3) 001 000 000 172 104
seed attention infinite_scores 000 021 110 003 007 040 017 021 001 000 000 000 000 021 002 000 000 000 000 $(ordinary 3) 000
# Finite scores, then +∞ in the second block.
seed attention infinity_in_a_later_block 000 003 110 003 007 103 020 $(ordinary 1) $(ordinary 2) $(ordinary 3) 100 004 001 000 000 000 001 323 000 $inf
# Rings of 1 to 4 blocks that wrap around.
for layouts in 020 021 022 023 024 025; do
    seed attention ring_$layouts 000 003 310 003 005 144 $layouts $(ordinary 1) $(ordinary 2) $(ordinary 3) 010
done

# tokens, pairs, columns behind; bits 0 interleaved, 1 one column less, 2 in place; rows before the tokens, rows of the
# table; first position (0, or 2^n less 2); base (0 f32, 1 10000, 2 500000) or frequencies (3 values); values, layout;
# layout of the output.
seed rotate halves 005 041 000 000 001 010 012 001 $(ordinary 1) 000
seed rotate interleaved 005 041 003 001 001 010 027 002 $(ordinary 2) 000
seed rotate in_place_with_gaps 007 021 005 004 000 011 003 001 $(ordinary 3) 002 000 000 000 000
seed rotate frequencies 004 011 000 001 000 004 023 003 $(ordinary 4) 000 $(ordinary 5) 001
seed rotate infinities 003 022 002 001 000 003 000 001 021 001 000 000 000 000 000 000
seed rotate special 002 020 007 000 000 002 000 001 002 000 001 002 003 004 005 006 007 010 011 012 013 014 015 016 017
seed rotate one_column_short 003 004 000 002 000 003 000 001 $(ordinary 1) 000
seed rotate not_covered 005 004 000 000 001 005 000 001 $(ordinary 1) 000
seed rotate beyond_the_end 001 004 000 000 000 011 065 001 $(ordinary 1) 000
seed rotate base_is_nan 001 004 000 000 000 001 000 000 $nan
seed rotate no_pairs 001 000 004 000 000 001 000 001 $(ordinary 1) 000
seed rotate no_tokens 000 004 000 000 000 000 000 001 000
