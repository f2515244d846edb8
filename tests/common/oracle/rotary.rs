//! Rotary position embedding with angles of twice the precision of f64: θ and the angle are sums of two f64.

use super::Sum;

/// A number and what its rounding lost.
type Double = [f64; 2];

fn add([a, a_low]: Double, [b, b_low]: Double) -> Double {
    let sum = a + b;
    let part = sum - a;
    let low = (a - (sum - part)) + (b - part) + a_low + b_low;
    [sum + low, low - ((sum + low) - sum)]
}

fn mul([a, a_low]: Double, [b, b_low]: Double) -> Double {
    let product = a * b;
    let low = a.mul_add(b, -product) + a * b_low + a_low * b;
    [product + low, low - ((product + low) - product)]
}

fn power(x: Double, n: usize) -> Double {
    (0..n).fold([1.0, 0.0], |power, _| mul(power, x))
}

/// `base^(−i / pairs)` for each pair.
pub(crate) fn frequencies(base: f64, pairs: usize) -> Vec<Double> {
    // A step of Newton's towards ratio^pairs · base = 1.
    let ratio = [base.powf(-1.0 / pairs as f64), 0.0];
    let excess = add(mul(power(ratio, pairs), [base, 0.0]), [-1.0, 0.0]);
    let ratio = add(ratio, mul(ratio, [-excess[0] / pairs as f64, 0.0]));
    (0..pairs).map(|i| power(ratio, i)).collect()
}

/// The cosine and the sine of an angle.
pub(crate) fn cosine_and_sine(position: u64, frequency: Double) -> [f64; 2] {
    let [angle, low] = mul([position as f64, 0.0], frequency);
    let (sine, cosine) = angle.sin_cos();
    [cosine - sine * low, sine + cosine * low]
}

/// The rotated pair. The magnitude is its length; each product may round to a subnormal.
pub(crate) fn rotate([a, b]: [f32; 2], [cosine, sine]: [f64; 2]) -> [Sum; 2] {
    let [a, b] = [a, b].map(f64::from);
    [a * cosine - b * sine, b * cosine + a * sine].map(|value| Sum {
        value,
        magnitude: a.hypot(b),
        underflow: 2.0,
    })
}
