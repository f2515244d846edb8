//! Caches for `defmt` loggers: prints sizes and positions, not keys and values.

use defmt::{Format, Formatter, write};

use super::{KvCache, KvCacheMut, KvCacheRef};

impl<const DIM: usize, const VALUE_DIM: usize, const BLOCKS: usize> Format
    for KvCache<DIM, VALUE_DIM, BLOCKS>
{
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCache({}, {})", self.view().sizes, self.positions);
    }
}

impl Format for KvCacheMut<'_> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCacheMut({}, {})", self.sizes, self.positions);
    }
}

impl Format for KvCacheRef<'_> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "KvCacheRef({}, {})", self.sizes, self.positions);
    }
}
