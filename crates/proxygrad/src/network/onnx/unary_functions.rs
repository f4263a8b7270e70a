//! The operators that apply one function to every value.

use crate::network::Unary;

/// The function of an operator without attributes; `None` if it is no such operator, or one that only activations use.
pub(super) fn unary_function(op_type: &str) -> Option<Unary> {
    Some(match op_type {
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Abs" => Unary::Abs,
        "Sign" => Unary::Sign,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Erf" => Unary::Erf,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tan" => Unary::Tan,
        "Asin" => Unary::Asin,
        "Acos" => Unary::Acos,
        "Atan" => Unary::Atan,
        "Sinh" => Unary::Sinh,
        "Cosh" => Unary::Cosh,
        "Asinh" => Unary::Asinh,
        "Acosh" => Unary::Acosh,
        "Atanh" => Unary::Atanh,
        "Reciprocal" => Unary::Power(-1.0),
        _ => return None,
    })
}
