//! Caches for `defmt` loggers: prints sizes and positions, not keys and values.

use defmt::{Format, Formatter, write};

use super::{Element, KvCache, KvCacheMut, KvCacheRef};

impl<const DIM: usize, const VALUE_DIM: usize, const BLOCKS: usize, K: Element, V: Element> Format
    for KvCache<DIM, VALUE_DIM, BLOCKS, K, V>
{
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCache({}, {})", self.view().sizes, self.positions);
    }
}

impl<K: Element, V: Element> Format for KvCacheMut<'_, K, V> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCacheMut({}, {})", self.sizes, self.positions);
    }
}

impl<K: Element, V: Element> Format for KvCacheRef<'_, K, V> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCacheRef({}, {})", self.sizes, self.positions);
    }
}
