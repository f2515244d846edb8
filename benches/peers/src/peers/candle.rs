//! candle on the CPU: tensors made once; each call allocates its result, which only the first call copies out.

use std::hint::black_box;

use candle_core::{Device, Result, Tensor};
use candle_nn::{
    attention::{AttnMask, flash_attn},
    ops::{softmax, softmax_last_dim},
};

use super::{Call, Peer, repeated};
use crate::jobs::{Along, Attention, Inputs, Job, Stored};

pub(super) struct Candle;

impl Peer for Candle {
    fn name(&self) -> String {
        "candle".into()
    }

    fn prepare<'a>(&self, job: &Job, inputs: &'a Inputs, out: &'a mut [f32]) -> Option<Call<'a>> {
        let [x, y, z] = inputs.operands();
        let matrix = |x: &[f32], rows, cols| {
            Tensor::from_slice(x, (rows, cols), &Device::Cpu).expect("sizes agree")
        };
        Some(match *job {
            Job::Dot { .. } => return None,
            Job::Scores { keys, queries, dim } => {
                let keys = matrix(x, keys, dim);
                let queries = matrix(y, queries, dim).t().expect("a matrix");
                copied(out, move || keys.matmul(&queries))
            }
            Job::Softmax { rows, cols, along } => {
                let x = matrix(x, rows, cols);
                match along {
                    Along::Rows => copied(out, move || softmax_last_dim(&x)),
                    Along::Columns => copied(out, move || softmax(&x, 0)),
                }
            }
            Job::Attention(Attention { stored: Stored::Columns { .. }, .. }) => return None,
            Job::Attention(Attention { heads, queries, keys, dim, causal, .. }) => {
                // Its kernel takes [batch][tokens][heads][dim].
                let tensor = |x: &[f32], rows| {
                    Tensor::from_slice(x, (1, heads, rows, dim), &Device::Cpu)
                        .and_then(|x| x.transpose(1, 2)?.contiguous())
                        .expect("sizes agree")
                };
                let (q, k, v) = (tensor(x, queries), tensor(y, keys), tensor(z, keys));
                let scale = 1.0 / (dim as f32).sqrt();
                copied(out, move || {
                    let mask = match causal {
                        true => AttnMask::Causal { kv_offset: keys - queries },
                        false => AttnMask::None,
                    };
                    flash_attn::<f32>(&q, &k, &v, scale, mask, None, None)
                })
            }
        })
    }
}

fn copied<'a>(out: &'a mut [f32], job: impl Fn() -> Result<Tensor> + 'a) -> Call<'a> {
    let mut is_first = true;
    repeated(move || {
        let result = job().expect("sizes agree");
        if is_first {
            is_first = false;
            let floats = result.flatten_all().and_then(|floats| floats.to_vec1());
            out.copy_from_slice(&floats.expect("floats"));
        }
        black_box(result);
    })
}
