//! What is printed.

use std::fmt;

use sdpa::Backend;

use crate::{
    common::{Layout, Operation, Shape},
    roofs::Roofs,
};

/// One operation on one back end, and the limits of the core.
pub(crate) struct Measured {
    pub(crate) operation: Operation,
    pub(crate) backend: Backend,
    pub(crate) shape: Shape,
    /// The bytes of inputs and output.
    pub(crate) bytes: usize,
    /// The least and the median time of a call.
    pub(crate) seconds: [f64; 2],
    pub(crate) roofs: Roofs,
}

impl Measured {
    pub(crate) const CSV: &str = "kernel,shape,heads,layout,keys,backend,ns per call,median ns per call,\
        GFLOP/s,roof GFLOP/s,bytes,GB/s,roof GB/s,cache";

    /// FLOP a second; a softmax has none that count.
    fn flops(&self) -> Option<f64> {
        let [seconds, _] = self.seconds;
        let is_softmax = self.operation.name.starts_with("softmax");
        (!is_softmax).then(|| (self.operation.work)(self.shape) as f64 / seconds)
    }

    /// Bytes a second, each byte counted once.
    fn rate(&self) -> f64 {
        let [seconds, _] = self.seconds;
        self.bytes as f64 / seconds
    }

    pub(crate) fn csv(&self) -> String {
        let Self { operation, backend, shape, bytes, seconds: [least, median], roofs } = self;
        let giga =
            |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{:.3}", 1e-9 * rate));
        format!(
            "{},{},{},{},{},{},{:.1},{:.1},{},{},{bytes},{},{},{}",
            operation.name,
            size(*operation, *shape),
            shape.heads,
            layout(*shape),
            keys(*shape),
            backend.name(),
            1e9 * least,
            1e9 * median,
            giga(self.flops()),
            giga(roofs.flops),
            giga(Some(self.rate())),
            giga(roofs.loads),
            roofs.level.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, backend, shape, bytes, seconds: [least, median], roofs } = self;
        writeln!(f, "{}", title(*operation, *backend, *shape))?;
        writeln!(f, "  the answer is right")?;
        writeln!(f, "  {:.1} ns a call, median {:.1}", 1e9 * least, 1e9 * median)?;
        if let Some(flops) = self.flops() {
            write!(f, "  {:.2} GFLOP/s", 1e-9 * flops)?;
            if let Some(roof) = roofs.flops {
                let (share, roof) = (100.0 * flops / roof, 1e-9 * roof);
                write!(f, ": {share:.1} % of this core's multiply-adds, {roof:.2} GFLOP/s")?;
            }
            writeln!(f)?;
        }
        write!(f, "  {:.2} GB/s of {bytes} bytes", 1e-9 * self.rate())?;
        if let Some(level) = &roofs.level {
            write!(f, ", which fit in {level}")?;
        }
        if let Some(roof) = roofs.loads {
            let (share, roof) = (100.0 * self.rate() / roof, 1e-9 * roof);
            write!(f, ": {share:.1} % of loading as many, {roof:.2} GB/s")?;
        }
        Ok(())
    }
}

/// A line of the table of all back ends.
pub(crate) struct Row {
    pub(crate) operation: Operation,
    pub(crate) backend: Backend,
    pub(crate) shape: Shape,
    pub(crate) seconds: f64,
    /// How many times as fast as `scalar`.
    pub(crate) times_scalar: f64,
}

impl Row {
    pub(crate) const HEAD: &str = "\
An element is a float of a slice, or a pair of a key and a query.
kernel                    shape            back end   ns/element  times scalar";

    pub(crate) const CSV: &str =
        "kernel,shape,heads,layout,keys,backend,ns per element,times scalar";

    fn ns_per_element(&self) -> f64 {
        1e9 * self.seconds / self.shape.scores() as f64
    }

    pub(crate) fn csv(&self) -> String {
        let Self { operation, backend, shape, times_scalar, .. } = self;
        format!(
            "{},{},{},{},{},{},{:.4},{times_scalar:.3}",
            operation.name,
            size(*operation, *shape),
            shape.heads,
            layout(*shape),
            keys(*shape),
            backend.name(),
            self.ns_per_element(),
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = (self.operation.name, size(self.operation, self.shape));
        let (backend, ns, times) = (self.backend.name(), self.ns_per_element(), self.times_scalar);
        write!(f, "{name:25} {size:16} {backend:10} {ns:10.4}  {times:10.2} x")
    }
}

/// What is measured, in a line.
pub(crate) fn title(operation: Operation, backend: Backend, shape: Shape) -> String {
    let mut title = format!("{} {} on {}", operation.name, size(operation, shape), backend.name());
    if shape.heads > 1 {
        title += &format!(", {} heads, {}", shape.heads, layout(shape));
    }
    if shape.keys_transposed {
        title += ", keys transposed";
    }
    title
}

/// As `--shape` takes it.
fn size(operation: Operation, Shape { keys, queries, dim, .. }: Shape) -> String {
    if operation.of_slices { format!("{keys}") } else { format!("{queries}x{keys}x{dim}") }
}

fn layout(shape: Shape) -> &'static str {
    match shape.layout {
        Layout::Stacked => "stacked",
        Layout::Interleaved => "interleaved",
    }
}

fn keys(shape: Shape) -> &'static str {
    if shape.keys_transposed { "transposed" } else { "rows" }
}
