//! Scaled dot-product attention kernels.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod dispatch;
mod dot;
mod error;
mod kernel;
mod matrix;
mod project;
mod scores;
mod simd;
mod softmax;
mod weighted_sum;

pub use dispatch::{Backend, Family};
pub use dot::dot;
pub use error::Error;
pub use matrix::{Matrix, MatrixMut, MatrixRef};
pub use project::project;
pub use scores::scores;
pub use softmax::{
    softmax, softmax_columns, softmax_columns_in_place, softmax_in_place, softmax_rows,
    softmax_rows_in_place,
};
pub use weighted_sum::weighted_sum;
