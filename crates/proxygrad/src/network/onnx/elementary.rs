//! Functions that exporters build activations from, and that networks do not have by themselves.

/// An elementwise function of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Elementary {
    /// The error function.
    Erf,
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// Absolute value.
    Abs,
    /// `x^exponent`
    Power(f64),
}

impl Elementary {
    /// The function's value.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Erf => candle_core::cpu::erf::erf_f64(x),
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Abs => x.abs(),
            Self::Power(exponent) => x.powf(exponent),
        }
    }
}
