//! Logs a value of each public type, and its expected text.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is for a board: run.sh runs it");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod image {
    use core::panic::PanicInfo;

    use cortex_m as _; // its critical section, for the logger
    use defmt_semihosting as _; // the logger
    use sdpa::{
        Attention, Backend, Bf16, CachePositions, ElementsRef, Error, F16, Family, HeadsMut,
        HeadsRef, I8, KEY_BLOCK, KvCache, KvCacheMut, KvCacheRef, Matrix, MatrixMut, MatrixRef,
        Pairs, RotaryTable,
    };
    use semihosting::process;

    /// Logs three lines per value: type, value and expected text.
    macro_rules! log {
        ($($type:ty: $value:expr => $text:literal,)+) => {$({
            let value: &$type = &$value;
            defmt::println!("{=str}", stringify!($type));
            defmt::println!("{}", value);
            defmt::println!("{=str}", $text);
        })+};
    }

    #[cortex_m_rt::entry]
    fn main() -> ! {
        match log_all() {
            Ok(()) => process::exit(0),
            Err(error) => defmt::panic!("{}", error),
        }
    }

    fn log_all() -> Result<(), Error> {
        let floats = [0.5; 24];
        let [mut more, mut others] = [[0.5; 24]; 2];
        let matrix = MatrixRef::new(&floats, 6, 4)?;
        let keep = MatrixRef::with_strides(&[1, 1, 0], 3, 2, 1, 0)?;
        let sinks = [-1.0, f32::NEG_INFINITY];

        let mut cache = KvCache::<2, 1, 2>::new();
        let rows = MatrixRef::with_strides(&floats, 22, 2, 0, 1)?;
        cache.append(rows, rows.split_columns(1)?.0)?;
        cache.slide(6);

        let [mut keys, mut values] = [[0.0; 3 * KEY_BLOCK]; 2];
        let mut span = CachePositions::new(1 << 40, (1 << 40) - 9)?;

        log! {
            Attention: Attention::new() => "Attention::new()",
            Attention: Attention::new().causal().window(4, 0).query_offset(-3).sink(1.5)
                => "Attention::new().causal().window(4, 0).query_offset(-3).sink(1.5)",
            Attention: Attention::new().on(Backend::SCALAR).scale(0.25).softcap(30.0).sinks(&sinks)
                => "Attention::new().on(Backend(scalar)).scale(0.25).softcap(30.0).sinks([-1.0, -inf])",
            Attention: Attention::new().bias(matrix.t()).keep(keep)
                => "Attention::new()\
                    .bias(HeadsRef { first: MatrixRef(Layout { rows: 4, cols: 6, row_stride: 1, \
                    col_stride: 4 }), heads: 1, stride: 0 })\
                    .keep(HeadsRef { first: MatrixRef(Layout { rows: 3, cols: 2, row_stride: 1, \
                    col_stride: 0 }), heads: 1, stride: 0 })",
            Attention: Attention::new().slopes(&[0.5, 0.25])
                => "Attention::new().slopes([0.5, 0.25])",
            Backend: Backend::PORTABLE => "Backend(scalar)",
            Bf16: Bf16::from_f32(1.0) => "Bf16(16256)",
            CachePositions: CachePositions::new(70, 64)? => "CachePositions { appended: 70, dropped: 64 }",
            ElementsRef<f32>: matrix.into()
                => "ElementsRef { elements: HeadsRef { first: MatrixRef(Layout { rows: 6, cols: 4, \
                    row_stride: 4, col_stride: 1 }), heads: 1, stride: 0 }, scales: MatrixRef(Layout { \
                    rows: 0, cols: 0, row_stride: 0, col_stride: 1 }) }",
            F16: F16::from_f32(1.0) => "F16(15360)",
            Family: Backend::SCALAR.family() => "NonFma",
            HeadsMut: HeadsMut::stacked(&mut more, 2, 3, 4)?
                => "HeadsMut { first: MatrixMut(Layout { rows: 3, cols: 4, row_stride: 4, \
                    col_stride: 1 }), heads: 2, stride: 12 }",
            HeadsRef: HeadsRef::interleaved(&floats, 2, 3, 4)?
                => "HeadsRef { first: MatrixRef(Layout { rows: 3, cols: 4, row_stride: 8, \
                    col_stride: 1 }), heads: 2, stride: 4 }",
            I8: I8::new(-3) => "I8(-3)",
            KvCache<2, 1, 2>: cache
                => "KvCache(Sizes { dim: 2, value_dim: 1, blocks: 2 }, \
                    CachePositions { appended: 22, dropped: 16 })",
            KvCacheMut: KvCacheMut::new(&mut keys, &mut values, 1, 3, &mut span)?
                => "KvCacheMut(Sizes { dim: 1, value_dim: 3, blocks: 1 }, \
                    CachePositions { appended: 1099511627776, dropped: 1099511627767 })",
            KvCacheRef: cache.view()
                => "KvCacheRef(Sizes { dim: 2, value_dim: 1, blocks: 2 }, \
                    CachePositions { appended: 22, dropped: 16 })",
            Matrix<1, 2>: Matrix([[1.0, -0.5]]) => "Matrix([[1.0, -0.5]])",
            MatrixMut: MatrixMut::new(&mut others, 2, 3)?
                => "MatrixMut(Layout { rows: 2, cols: 3, row_stride: 3, col_stride: 1 })",
            MatrixRef: matrix
                => "MatrixRef(Layout { rows: 6, cols: 4, row_stride: 4, col_stride: 1 })",
            Pairs: Pairs::Halves => "Halves",
            RotaryTable: RotaryTable::from_parts(matrix, matrix, 7)?
                => "RotaryTable { cosines: MatrixRef(Layout { rows: 6, cols: 4, row_stride: 4, \
                    col_stride: 1 }), sines: MatrixRef(Layout { rows: 6, cols: 4, row_stride: 4, \
                    col_stride: 1 }), first: 7 }",
        }
        #[cfg(not(feature = "missing"))]
        log! { Error: Error::Workspace => "Workspace", }
        #[cfg(feature = "wrong")]
        log! { Error: Error::Workspace => "Capacity", }
        Ok(())
    }

    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        process::exit(101)
    }

    #[defmt::panic_handler]
    fn defmt_panic() -> ! {
        process::exit(102)
    }
}
