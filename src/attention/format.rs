//! Attention options for `defmt` loggers: prints the builder calls that set them.

use defmt::{Format, Formatter, write};

use super::Attention;

impl Format for Attention<'_> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "Attention::new()");
        if let Some(backend) = self.backend {
            write!(f, ".on({})", backend);
        }
        if let Some(scale) = self.scale {
            write!(f, ".scale({=f32})", scale);
        }
        if let Some(softcap) = self.softcap {
            write!(f, ".softcap({=f32})", softcap.cap);
        }
        if let Some(bias) = self.bias {
            write!(f, ".bias({})", bias.bias);
        }
        if let Some(slopes) = self.slopes {
            write!(f, ".slopes({})", slopes);
        }
        if self.causal {
            write!(f, ".causal()");
        }
        if self.window != [usize::MAX; 2] {
            let [left, right] = self.window;
            write!(f, ".window({=usize}, {=usize})", left, right);
        }
        if self.first_kept() > 0 {
            write!(f, ".keep_first({=usize})", self.first_kept());
        }
        if self.query_offset != 0 {
            write!(f, ".query_offset({})", self.query_offset);
        }
        if let Some(keep) = self.keep {
            write!(f, ".keep({})", keep.keep);
        }
        if let Some(sinks) = self.sinks {
            write!(f, ".sinks({})", sinks);
        } else if self.sink != f32::NEG_INFINITY {
            write!(f, ".sink({=f32})", self.sink);
        }
    }
}
