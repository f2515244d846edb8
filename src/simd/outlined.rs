//! The functions of attention that a profile shows: on each back end one for each kind of tile, and one for
//! each of its stages.
//!
//! A kernel names the function in which a part of it runs, so that a symbol tells back end, kind and stage, also
//! where the mangling leaves out generic arguments: `sdpa::simd::avx2::attention::one_query_values`.
//! Stages that are the same code share a name, as the compiler may make one function of them. No name begins with
//! another, as tools take a part of a name.
//! `docs/profiling.md` lists the names, and `.ci/symbols` looks each of them up.
//!
//! This also splits long kernels: compile time grows faster than the size of a function, and all code of a
//! function competes for its registers.

/// Calls a macro with the names, behind its own arguments.
macro_rules! with_names {
    ($macro:ident! { $($arguments:tt)* }) => {
        $macro! {
            { $($arguments)* }
            two_vectors_tile two_vectors_products two_vectors_softmax two_vectors_values
            one_vector_tile one_vector_products one_vector_softmax one_vector_values
            half_vector_tile half_vector_values
            few_queries_tile few_queries_products few_queries_l2_products
            few_queries_softmax few_queries_values few_queries_l2_values
            one_query_tile one_query_products one_query_l2_products
            one_query_values one_query_l2_values
            vectors_end_of_span outputs_end_of_span
        }
    };
}

macro_rules! declare {
    ({} $($name:ident)+) => {
        /// Each method returns `f(operands)`, computed in the function of that name, which has the instructions
        /// enabled. `f` is a function or closure marked `#[inline(always)]`.
        pub(crate) trait Outlined<Token> {
            $(fn $name<T, O>(token: Token, operands: T, f: impl FnOnce(T) -> O) -> O;)+
        }
    };
}
with_names! { declare! {} }

/// With `Token, Vector, [target_feature(…)]`: one function a name, in a module `attention` of the back end. The
/// token proves that the CPU has the instructions of the attribute.
#[cfg(portable)]
macro_rules! separate {
    ({ $token:ty, $vector:ty, $attribute:tt } $($name:ident)+) => {
        mod attention {
            $(
                #$attribute
                #[inline(never)]
                pub(super) fn $name<T, O>(operands: T, f: impl FnOnce(T) -> O) -> O {
                    f(operands)
                }
            )+
        }

        impl $crate::simd::outlined::Outlined<$token> for $vector {
            $(
                #[inline(always)]
                #[allow(unused_unsafe, reason = "safe without features")]
                fn $name<T, O>(_: $token, operands: T, f: impl FnOnce(T) -> O) -> O {
                    // SAFETY: the instructions are available: the token is the proof.
                    unsafe { attention::$name(operands, f) }
                }
            )+
        }
    };
}

/// With `Token, Vector`: no functions. One-lane kernels call each part once, and a function would only cost a
/// stack frame.
macro_rules! inlined {
    ({ $token:ty, $vector:ty } $($name:ident)+) => {
        impl $crate::simd::outlined::Outlined<$token> for $vector {
            $(
                #[inline(always)]
                fn $name<T, O>(_: $token, operands: T, f: impl FnOnce(T) -> O) -> O {
                    f(operands)
                }
            )+
        }
    };
}

#[cfg(portable)]
pub(crate) use separate;
pub(crate) use {inlined, with_names};
