//! Quantized weights and activations.

use super::*;
use crate::network::{Op, Unary};

fn quantized(zero: (i32, i32), scales: &[f32]) -> File {
    let mut file = File::new([2, 6, 6]).constant("s", &[scales.len() as i64], scales);
    let (data_type, value) = zero;
    let int32_data = vec![value];
    file.graph().initializer.push(TensorProto { name: "z".into(), data_type, int32_data, ..Default::default() });
    file.node("Relu", "relu", "image -> r", &[])
}

#[test]
fn a_pair_on_an_activation_is_a_clip_and_a_rounding() {
    let file = quantized((data_type::INT8, 28), &[0.5])
        .node("QuantizeLinear", "q", "r, s, z -> a", &[])
        .node("DequantizeLinear", "dq", "a, s, z -> y", &[])
        .output("y");
    let imported = file.import().unwrap();
    assert_eq!(layers(&imported), "relu relu, q clip, y quantize");
    let network = &imported.network;
    let clip = format!("{:?}", network.node(network.find("q").unwrap()).op);
    assert!(clip.contains("min: -78.0, max: 49.5"), "{clip}");
    // The gradient passes the rounding.
    assert_eq!((Unary::RoundTo(0.5).value(1.3), Unary::RoundTo(0.5).derivative(1.3)), (1.5, 1.0));
    assert!(matches!(network.node(network.outputs()[0]).op, Op::Unary(Unary::RoundTo(0.5))));
}

#[test]
fn what_cannot_be_quantized_says_why() {
    let reason = |file: File, op: &str| {
        let imported = file.node(op, "q", "r, s, z -> y", &[]).output("y").import().unwrap();
        imported.unsupported[0].to_string()
    };
    let several = "several scales are only supported for weights, not for tensors that depend on the image";
    let int8 = (data_type::INT8, 0);
    assert_eq!(reason(quantized(int8, &[0.5, 0.25]), "QuantizeLinear"), format!("q (QuantizeLinear): {several}"));
    assert_eq!(
        reason(quantized(int8, &[0.0]), "DequantizeLinear"),
        "q (DequantizeLinear): its scale is 0; expected a number above 0"
    );
    assert_eq!(
        reason(quantized((data_type::INT32, 0), &[0.5]), "QuantizeLinear"),
        "q (QuantizeLinear): quantization to INT32 is not supported"
    );
    assert_eq!(reason(quantized(int8, &[0.5]), "QLinearConv"), "q (QLinearConv): input number 3 is missing");
    assert!(reason(quantized(int8, &[0.5]), "Loop").contains("loops are not supported"));
    assert!(reason(quantized(int8, &[0.5]), "SequenceAt").contains("sequences of tensors are not supported"));
}

#[test]
fn weights_that_do_not_fit_their_scales_say_why() {
    let reason = |scales: &[i64], attributes: &[AttributeProto], zeros: &str| {
        let count = scales.iter().product::<i64>() as usize;
        let file = quantized((data_type::INT8, 0), &[1.0])
            .constant("scales", scales, &vec![0.5; count])
            .int_constant("two", &[0, 0])
            .node("DequantizeLinear", "dq", &format!("w, scales, {zeros} -> d"), attributes)
            .kernel("w", 4, 2, 3)
            .node("Conv", "conv", "r, d -> y", &[])
            .output("y");
        let imported = file.import().unwrap();
        imported.unsupported.first().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(reason(&[4], &[int("axis", 0)], ""), "");
    assert!(reason(&[3], &[int("axis", 0)], "").contains("it has scales of shape [3]; expected [4]"));
    assert!(reason(&[4], &[int("axis", 4)], "").contains("axis 4 does not exist"));
    assert!(reason(&[4], &[int("axis", 0)], "two").contains("it has 2 zero points for 4 scales"));
    assert_eq!(reason(&[2, 2, 3, 3], &[int("axis", 0), int("block_size", 2)], ""), "");
    assert!(
        reason(&[2, 2, 3, 1], &[int("axis", 0), int("block_size", 2)], "")
            .contains("it has scales of shape [2, 2, 3, 1]; expected [2, 2, 3, 3]")
    );
}

#[test]
fn floating_point_numbers_of_eight_bits_become_floats() {
    let scale = |data_type: i32, bits: u8| {
        let mut file = File::new([1, 2, 2]);
        let raw_data = vec![bits];
        file.graph().initializer.push(TensorProto {
            name: "w".into(),
            data_type,
            raw_data,
            dims: vec![1],
            ..Default::default()
        });
        let imported = file.node("Mul", "m", "image, w -> y", &[]).output("y").import().unwrap();
        let Op::Affine { scale, .. } = &imported.network.node(imported.network.outputs()[0]).op else { unreachable!() };
        scale.data()[0]
    };
    for (bits, value) in [(0x7e, 448.0), (0x01, 2f32.powi(-9)), (0xb8, -1.0), (0x08, 2f32.powi(-6)), (0x42, 2.5)] {
        assert_eq!(scale(data_type::FLOAT8E4M3FN, bits), value, "{bits:#x}");
    }
    for (bits, value) in [(0x7b, 57344.0), (0x01, 2f32.powi(-16)), (0xbe, -1.5)] {
        assert_eq!(scale(data_type::FLOAT8E5M2, bits), value, "{bits:#x}");
    }
}
