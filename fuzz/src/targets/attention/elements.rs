//! Keys and values of 16 and 8 bits: the bits of a call over the widened ones, over arrays, a cache and spans.

use sdpa::{
    Attention, Backend, Bf16, CachePositions, Element, ElementsRef, Error, F16, HeadsMut, HeadsRef,
    I8, KEY_BLOCK, KvCacheMut, MatrixRef, narrow,
};

use super::{Case, Guarded, Heads, Options, State};

/// An element, and how it is widened.
trait Format: Element {
    fn widen(self, scale: Self::Scale) -> f32;
    fn view<'a>(of: HeadsRef<'a, Self>, scales: &'a [Self::Scale]) -> ElementsRef<'a, Self>;
}

macro_rules! unscaled {
    ($($element:ty, $widen:expr;)+) => {
        $(impl Format for $element {
            fn widen(self, (): ()) -> f32 {
                $widen(self)
            }

            fn view<'a>(of: HeadsRef<'a, Self>, _: &'a [()]) -> ElementsRef<'a, Self> {
                of.into()
            }
        })+
    };
}
unscaled! {
    f32, |x| x;
    F16, F16::to_f32;
    Bf16, Bf16::to_f32;
}

impl Format for I8 {
    fn widen(self, scale: f32) -> f32 {
        self.to_f32() * scale
    }

    fn view<'a>(of: HeadsRef<'a, Self>, scales: &'a [f32]) -> ElementsRef<'a, Self> {
        let scales = MatrixRef::new(scales, of.heads(), of.rows()).expect("dense");
        ElementsRef::with_scales(of, scales).expect("finite")
    }
}

/// `[heads][tokens][dim]`.
struct Elements<E: Element> {
    data: Vec<E>,
    scales: Vec<E::Scale>,
}

impl<E: Format> Elements<E> {
    /// The nearest elements; `None` if a number has none.
    fn of(heads: &Heads) -> Option<Self> {
        let rows = heads.heads * heads.tokens;
        let floats = MatrixRef::new(&heads.data, rows, heads.dim).expect("dense");
        let mut data = vec![E::ZERO; heads.data.len()];
        let mut scales = vec![E::NO_SCALE; if size_of::<E::Scale>() == 0 { 0 } else { rows }];
        match narrow(floats, &mut data, &mut scales) {
            Ok(()) => Some(Self { data, scales }),
            Err(error) => {
                assert_eq!(error, Error::Range);
                None
            }
        }
    }

    fn view(&self, of: &Heads) -> ElementsRef<'_, E> {
        let heads = HeadsRef::stacked(&self.data, of.heads, of.tokens, of.dim).expect("dense");
        E::view(heads, &self.scales)
    }

    fn widened(&self, of: &Heads) -> Heads {
        let scale = |i: usize| self.scales.get(i / of.dim).copied().unwrap_or(E::NO_SCALE);
        let data = self.data.iter().enumerate().map(|(i, x)| x.widen(scale(i))).collect();
        Heads { data, ..*of }
    }
}

impl Case {
    /// Checks the call with the formats that `byte` draws, on every back end.
    pub(super) fn check_elements(&self, byte: u8) {
        match byte % 4 {
            0 => self.check_values::<f32>(byte / 4),
            1 => self.check_values::<F16>(byte / 4),
            2 => self.check_values::<Bf16>(byte / 4),
            _ => self.check_values::<I8>(byte / 4),
        }
    }

    fn check_values<K: Format>(&self, byte: u8) {
        match byte % 4 {
            0 => self.check_pair::<K, f32>(),
            1 => self.check_pair::<K, F16>(),
            2 => self.check_pair::<K, Bf16>(),
            _ => self.check_pair::<K, I8>(),
        }
    }

    fn check_pair<K: Format, V: Format>(&self) {
        let (keys, values) = (Elements::<K>::of(&self.keys), Elements::<V>::of(&self.values));
        let (Some(keys), Some(values)) = (keys, values) else {
            return self.check_refusal::<K, V>();
        };
        let (queries, spans) = (self.queries.view(), self.keys.tokens.div_ceil(sdpa::SPAN));
        let (keys_view, values_view) = (keys.view(&self.keys), values.view(&self.values));
        let is_scaled = size_of::<K::Scale>() + size_of::<V::Scale>() > 0;
        let mut families: Vec<(Backend, State)> = Vec::new();
        for backend in Backend::available() {
            let attention = self.options.attention(backend);
            let state = self.state_of(|out, log_sum_exp, workspace| {
                attention.run_elements(
                    queries,
                    keys_view,
                    values_view,
                    out,
                    Some(log_sum_exp),
                    workspace,
                )
            });
            match families.iter().find(|(first, _)| first.family() == backend.family()) {
                Some((_, first)) => state.assert_is("elements", first),
                None => families.push((backend, state.clone())),
            }
            let states = self.states_of(Attention::elements_workspace, spans, |states, space| {
                attention.run_elements_spans(queries, keys_view, values_view, 0, states, space)
            });
            self.join(backend, states).assert_is("spans of elements, joined", &state);
            if !is_scaled {
                let widened = Self {
                    queries: self.queries.rows(0, self.queries.tokens),
                    keys: keys.widened(&self.keys),
                    values: values.widened(&self.values),
                    options: self.options.part(0, self.keys.tokens),
                };
                state.assert_is("elements and floats", &widened.run(backend));
            }
            self.in_a_cache::<K, V>(backend, &state);
        }
    }

    /// A cache that all keys and values of the one KV head are appended to.
    fn in_a_cache<K: Format, V: Format>(&self, backend: Backend, want: &State) {
        let (keys, tokens) = (self.keys.tokens, self.queries.tokens);
        let offset = self.options.offset.checked_sub(keys as isize - tokens as isize);
        let (Some(offset), 1) = (offset, self.keys.heads) else { return };
        with_cache::<K, V>(self, |cache, result| {
            result.expect("representable");
            let held = Options { offset, ..self.options.part(0, keys) };
            let attention = held.attention(backend);
            let state = self.state_of(|out, log_sum_exp, workspace| {
                let view = cache.view();
                view.attend_with_log_sum_exp(
                    &attention,
                    self.queries.view(),
                    out,
                    log_sum_exp,
                    workspace,
                )
            });
            state.assert_is("a cache of elements", want);
        });
    }

    /// What has no elements, a cache refuses.
    fn check_refusal<K: Format, V: Format>(&self) {
        if self.keys.heads == 1 {
            with_cache::<K, V>(self, |cache, result| {
                assert_eq!(result, Err(Error::Range));
                assert!(cache.is_empty());
            });
        }
    }

    /// The outputs that `run` writes, with a workspace for elements.
    fn state_of(
        &self,
        run: impl FnOnce(HeadsMut<'_>, &mut [f32], &mut [f32]) -> Result<(), Error>,
    ) -> State {
        let (heads, tokens, width) = (self.queries.heads, self.queries.tokens, self.values.dim);
        let (mut out, mut log_sum_exp) = self.outputs();
        let mut workspace = Guarded::new(Attention::elements_workspace(self.keys.dim, width));
        let to = HeadsMut::stacked(out.inner(), heads, tokens, width).expect("dense");
        run(to, log_sum_exp.inner(), workspace.inner()).expect("sizes agree");
        workspace.checked("workspace");
        State { out: out.checked("elements"), log_sum_exp: log_sum_exp.checked("elements") }
    }
}

/// Appends the keys and values of the one KV head to a cache.
fn with_cache<K: Format, V: Format>(
    case: &Case,
    then: impl FnOnce(&KvCacheMut<'_, K, V>, Result<(), Error>),
) {
    let (dim, width) = (case.keys.dim, case.values.dim);
    let kept = case.options.keep_first;
    let rows =
        case.keys.tokens.next_multiple_of(KEY_BLOCK).max(kept.next_multiple_of(64)).max(KEY_BLOCK);
    let (mut keys, mut values) = (vec![K::ZERO; rows * dim], vec![V::ZERO; rows * width]);
    let (mut key_scales, mut value_scales) = (vec![K::NO_SCALE; rows], vec![V::NO_SCALE; rows]);
    let mut positions = CachePositions::default().keeping(kept).expect("none dropped");
    let scales = (&mut key_scales[..], &mut value_scales[..]);
    let sizes = [dim, width];
    let mut cache =
        KvCacheMut::<K, V>::with_scales(&mut keys, &mut values, scales, sizes, &mut positions)
            .expect("room");
    let (keys, values) = (case.keys.head(0), case.values.head(0));
    let result = cache.append(keys.view(), values.view());
    then(&cache, result);
}
