//! Which core this is: the limits hold for the cores on which they were measured.

use std::{arch::x86_64::__cpuid, fmt, ops::RangeInclusive};

/// A core on which every limit was measured: vendor, family and models of CPUID.
struct Measured {
    name: &'static str,
    vendor: &'static [u8; 12],
    family: u32,
    models: RangeInclusive<u32>,
}

const MEASURED: [Measured; 2] = [
    // EPYC 9005. Those of laptops halve their 512-bit vectors.
    Measured { name: "Zen 5", vendor: b"AuthenticAMD", family: 0x1a, models: 0x00..=0x1f },
    Measured { name: "Emerald Rapids", vendor: b"GenuineIntel", family: 0x06, models: 0xcf..=0xcf },
];

/// What CPUID says of this machine's cores.
pub(crate) struct Core {
    vendor: [u8; 12],
    family: u32,
    model: u32,
}

impl Core {
    pub(crate) fn here() -> Self {
        let (zero, one) = (__cpuid(0), __cpuid(1));
        let mut vendor = [0; 12];
        for (four, register) in vendor.chunks_exact_mut(4).zip([zero.ebx, zero.edx, zero.ecx]) {
            four.copy_from_slice(&register.to_le_bytes());
        }
        let bits = |from: u32, count: u32| one.eax >> from & ((1 << count) - 1);
        // Family and model with their extensions: both vendors, from family 6 and 15 on.
        let family = if bits(8, 4) == 15 { 15 + bits(20, 8) } else { bits(8, 4) };
        Self { vendor, family, model: bits(16, 4) << 4 | bits(4, 4) }
    }

    /// The name of the core, where the limits were measured on it.
    pub(crate) fn measured(&self) -> Option<&'static str> {
        let is_this = |of: &Measured| {
            *of.vendor == self.vendor && of.family == self.family && of.models.contains(&self.model)
        };
        MEASURED.iter().find(|of| is_this(of)).map(|of| of.name)
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vendor, family, model } = self;
        let vendor = vendor.escape_ascii();
        write!(f, "{vendor}, family {family:#x}, model {model:#x}")?;
        self.measured().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}
