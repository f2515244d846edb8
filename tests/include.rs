//! Constants from files.

use sdpa::{Matrix, include_f32};

static FLOATS: [f32; 6] = include_f32!("../examples/data/floats.bin");
static ROWS: Matrix<3, 2> = include_f32!("../examples/data/floats.bin", 3, 2);

#[test]
fn a_constant_has_the_bits_of_its_file() {
    let bytes = include_bytes!("../examples/data/floats.bin");
    let floats = bytes.as_chunks().0.iter().map(|&float| f32::from_le_bytes(float).to_bits());
    assert!(floats.clone().eq(FLOATS.iter().map(|float| float.to_bits())));
    assert!(floats.eq(ROWS.0.as_flattened().iter().map(|float| float.to_bits())));
    assert_eq!(FLOATS[2], 0.1);
}
