//! The KV cache of a decoder: one of `sdpa` for each layer and KV head.

use std::time::Duration;

use sdpa::{
    Attention, CachePositions, Element, Error, HeadsMut, HeadsRef, KEY_BLOCK, KvCacheMut,
    KvCacheRef,
};

use crate::layers::Rows;

/// What keys and values are stored as: `f32`, `F16`, `Bf16` or `I8`.
pub trait CacheElement: Element<Scale: Default> + Default {}

impl<E: Element<Scale: Default> + Default> CacheElement for E {}

/// The caches of a whole model.
pub struct Cache<E: CacheElement> {
    pub layers: Vec<Vec<HeadCache<E>>>,
    /// The tokens in the cache.
    pub tokens: usize,
    /// Computes the states of spans and joins them, as threads or machines that share a context do.
    pub by_spans: bool,
    /// The time of all attention so far: rotation, cache and [`attend_on`].
    pub attention: Duration,
}

/// The storage of one KV head, as [`KvCacheMut`] takes it.
pub struct HeadCache<E: CacheElement> {
    keys: Vec<E>,
    values: Vec<E>,
    key_scales: Vec<E::Scale>,
    value_scales: Vec<E::Scale>,
    dim: usize,
    positions: CachePositions,
}

impl<E: CacheElement> Cache<E> {
    /// Empty caches with room for `tokens` tokens each.
    pub fn new([layers, kv_heads]: [usize; 2], tokens: usize, dim: usize) -> Self {
        let head = |_| HeadCache::new(tokens, dim);
        let layers = (0..layers).map(|_| (0..kv_heads).map(head).collect()).collect();
        Self { layers, tokens: 0, by_spans: false, attention: Duration::ZERO }
    }
}

impl<E: CacheElement> HeadCache<E> {
    fn new(tokens: usize, dim: usize) -> Self {
        let tokens = tokens.max(1).next_multiple_of(KEY_BLOCK);
        Self {
            keys: vec![E::default(); tokens * dim],
            values: vec![E::default(); tokens * dim],
            key_scales: vec![E::Scale::default(); tokens],
            value_scales: vec![E::Scale::default(); tokens],
            dim,
            positions: CachePositions::default(),
        }
    }

    /// Appends the columns of head `head` of keys and values, tokens × heads · dim.
    pub fn append(&mut self, keys: &Rows, values: &Rows, head: usize) -> Result<(), Error> {
        let of_head = |x| columns(x, head * self.dim, self.dim);
        let (keys, values) = (of_head(keys)?, of_head(values)?);
        let scales = (&mut self.key_scales[..], &mut self.value_scales[..]);
        let sizes = [self.dim; 2];
        KvCacheMut::with_scales(
            &mut self.keys,
            &mut self.values,
            scales,
            sizes,
            &mut self.positions,
        )?
        .append(keys, values)
    }

    /// A view for attention.
    pub fn view(&self) -> Result<KvCacheRef<'_, E>, Error> {
        let scales = (&self.key_scales[..], &self.value_scales[..]);
        let sizes = [self.dim; 2];
        KvCacheRef::with_scales(&self.keys, &self.values, scales, sizes, self.positions)
    }
}

/// `count` columns from `first` on.
fn columns(x: &Rows, first: usize, count: usize) -> Result<sdpa::MatrixRef<'_>, Error> {
    Ok(x.view()?.split_columns(first)?.1.split_columns(count)?.0)
}

/// Causal attention of the newest tokens on many threads: each takes some of the KV heads, with the query heads that
/// share them.
pub fn attend_on<E: CacheElement>(
    threads: usize,
    cache: &[HeadCache<E>],
    queries: HeadsRef<'_>,
    out: HeadsMut<'_>,
    by_spans: bool,
) -> Result<(), Error> {
    if let [cache] = cache {
        return attend(cache, queries, out, by_spans);
    }
    let (cache, other_cache) = cache.split_at(cache.len() / 2);
    let at = queries.heads() / (cache.len() + other_cache.len()) * cache.len();
    let (queries, other_queries) = queries.split_heads(at)?;
    let (out, other_out) = out.split_heads(at)?;
    let some = threads / 2;
    let one = || attend_on(some, cache, queries, out, by_spans);
    let other = || attend_on(threads - some, other_cache, other_queries, other_out, by_spans);
    let (one, other) = if some == 0 { (one(), other()) } else { rayon::join(one, other) };
    one.and(other)
}

fn attend<E: CacheElement>(
    cache: &HeadCache<E>,
    queries: HeadsRef<'_>,
    out: HeadsMut<'_>,
    by_spans: bool,
) -> Result<(), Error> {
    let (cache, dim) = (cache.view()?, cache.dim);
    let attention = Attention::new().causal();
    let mut workspace = vec![0.0; Attention::elements_workspace(dim, dim)];
    if !by_spans {
        return cache.attend(&attention, queries, out, &mut workspace);
    }
    let states = cache.spans() * queries.heads() * queries.rows();
    let mut states = vec![0.0; states * Attention::state_floats(dim)];
    cache.run_spans(&attention, queries, &mut states, &mut workspace)?;
    attention.join(&states, out, None)
}
