//! Elementwise functions of one or two tensors that are no activations: no gate replaces their derivative.

/// A function of one number, with the same derivative under every gate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Unary {
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// Absolute value; its derivative at 0 is 0.
    Abs,
    /// -1, 0 or 1; its derivative is 0.
    Sign,
    /// The largest integer that is not larger; its derivative is 0.
    Floor,
    /// The smallest integer that is not smaller; its derivative is 0.
    Ceil,
    /// The nearest integer, halves to the even one; its derivative is 0.
    Round,
    /// The nearest multiple of a positive step, halves to the even one: quantization. Its derivative is passed straight
    /// through as 1 (Bengio et al. 2013, arXiv:1308.3432).
    RoundTo(f32),
    /// The error function.
    Erf,
    /// Sine of an angle in radians.
    Sin,
    /// Cosine of an angle in radians.
    Cos,
    /// Tangent of an angle in radians.
    Tan,
    /// Inverse of [`Unary::Sin`].
    Asin,
    /// Inverse of [`Unary::Cos`].
    Acos,
    /// Inverse of [`Unary::Tan`].
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Inverse of [`Unary::Sinh`].
    Asinh,
    /// Inverse of [`Unary::Cosh`].
    Acosh,
    /// Inverse of the hyperbolic tangent.
    Atanh,
    /// `x^exponent`
    Power(f64),
}

impl Unary {
    /// Name as in layer listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sqrt => "sqrt",
            Self::Abs => "abs",
            Self::Sign => "sign",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Round => "round",
            Self::RoundTo(_) => "quantize",
            Self::Erf => "erf",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Tan => "tan",
            Self::Asin => "asin",
            Self::Acos => "acos",
            Self::Atan => "atan",
            Self::Sinh => "sinh",
            Self::Cosh => "cosh",
            Self::Asinh => "asinh",
            Self::Acosh => "acosh",
            Self::Atanh => "atanh",
            Self::Power(-1.0) => "reciprocal",
            Self::Power(_) => "power",
        }
    }

    /// The function's value.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Abs => x.abs(),
            Self::Sign => sign(x),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
            Self::Round => x.round_ties_even(),
            Self::RoundTo(step) => (x / f64::from(step)).round_ties_even() * f64::from(step),
            Self::Erf => candle_core::cpu::erf::erf_f64(x),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Tan => x.tan(),
            Self::Asin => x.asin(),
            Self::Acos => x.acos(),
            Self::Atan => x.atan(),
            Self::Sinh => x.sinh(),
            Self::Cosh => x.cosh(),
            Self::Asinh => x.asinh(),
            Self::Acosh => x.acosh(),
            Self::Atanh => x.atanh(),
            Self::Power(exponent) => x.powf(exponent),
        }
    }

    /// The function's derivative, and 0 where that is infinite or undefined: the gradient of a norm at the origin.
    pub fn derivative(self, x: f64) -> f64 {
        let slope = match self {
            Self::Exp => x.exp(),
            Self::Log => 1.0 / x,
            Self::Sqrt => 0.5 / x.sqrt(),
            Self::Abs => sign(x),
            Self::Sign | Self::Floor | Self::Ceil | Self::Round => 0.0,
            Self::RoundTo(_) => 1.0,
            Self::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Self::Sin => x.cos(),
            Self::Cos => -x.sin(),
            Self::Tan => 1.0 + x.tan().powi(2),
            Self::Asin => 1.0 / (1.0 - x * x).sqrt(),
            Self::Acos => -1.0 / (1.0 - x * x).sqrt(),
            Self::Atan => 1.0 / (1.0 + x * x),
            Self::Sinh => x.cosh(),
            Self::Cosh => x.sinh(),
            Self::Asinh => 1.0 / (x * x + 1.0).sqrt(),
            Self::Acosh => 1.0 / (x * x - 1.0).sqrt(),
            Self::Atanh => 1.0 / (1.0 - x * x),
            Self::Power(0.0) => 0.0,
            Self::Power(exponent) => exponent * x.powf(exponent - 1.0),
        };
        finite(slope)
    }
}

/// Elementwise arithmetic and comparisons on two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller of both; the gradient goes to `a` if they are equal.
    Min,
    /// The larger of both; the gradient goes to `a` if they are equal.
    Max,
    /// `a^b`
    Pow,
    /// 1 where `a < b`, else 0, without a gradient.
    Less,
    /// 1 where `a <= b`, else 0, without a gradient.
    LessOrEqual,
    /// 1 where `a == b`, else 0, without a gradient.
    Equal,
}

impl Binary {
    /// Name as in layer listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Min => "min",
            Self::Max => "max",
            Self::Pow => "pow",
            Self::Less => "less",
            Self::LessOrEqual => "less-or-equal",
            Self::Equal => "equal",
        }
    }

    /// The result for two numbers.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Self::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
            Self::Pow => a.powf(b),
            Self::Less => f64::from(u8::from(a < b)),
            Self::LessOrEqual => f64::from(u8::from(a <= b)),
            Self::Equal => f64::from(u8::from(a == b)),
        }
    }

    /// The derivative with respect to `a` (`input` 0) or `b`; of a power, 0 where it is infinite or undefined.
    pub fn derivative(self, input: usize, a: f64, b: f64) -> f64 {
        let chosen = |first: bool| f64::from(u8::from(first == (input == 0)));
        match (self, input) {
            (Self::Add, _) | (Self::Sub, 0) => 1.0,
            (Self::Sub, _) => -1.0,
            (Self::Mul, 0) => b,
            (Self::Mul, _) => a,
            (Self::Div, 0) => 1.0 / b,
            (Self::Div, _) => -a / (b * b),
            (Self::Min, _) => chosen(a <= b),
            (Self::Max, _) => chosen(a >= b),
            (Self::Pow, 0) => Unary::Power(b).derivative(a),
            (Self::Pow, _) => finite(a.powf(b) * a.ln()),
            (Self::Less | Self::LessOrEqual | Self::Equal, _) => 0.0,
        }
    }

    /// Which parts of the forward pass its derivatives depend on.
    pub(crate) fn reads_inputs(self) -> bool {
        match self {
            Self::Mul | Self::Div | Self::Min | Self::Max | Self::Pow => true,
            Self::Add | Self::Sub | Self::Less | Self::LessOrEqual | Self::Equal => false,
        }
    }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

fn finite(slope: f64) -> f64 {
    if slope.is_finite() { slope } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_that_is_infinite_or_undefined_counts_as_zero() {
        for function in [Unary::Sqrt, Unary::Log, Unary::Power(0.5), Unary::Power(-1.0), Unary::Abs] {
            assert_eq!(function.derivative(0.0), 0.0, "{function:?}");
        }
        for function in [Unary::Asin, Unary::Acos, Unary::Atanh, Unary::Acosh] {
            assert_eq!(function.derivative(1.0), 0.0, "{function:?}");
        }
        assert_eq!(Unary::Power(1.0).derivative(0.0), 1.0);
        assert_eq!(Unary::Power(2.0).derivative(-3.0), -6.0);
        assert_eq!(Binary::Pow.derivative(1, -2.0, 3.0), 0.0);
    }

    #[test]
    fn one_of_two_equal_numbers_gets_the_whole_gradient() {
        for kind in [Binary::Min, Binary::Max] {
            assert_eq!([0, 1].map(|input| kind.derivative(input, 0.5, 0.5)), [1.0, 0.0]);
        }
        assert_eq!([0, 1].map(|input| Binary::Max.derivative(input, 0.5, 0.75)), [0.0, 1.0]);
        assert_eq!([0, 1].map(|input| Binary::Min.derivative(input, 0.5, 0.75)), [1.0, 0.0]);
    }
}
