//! Named architectures, built from weights of the published shapes.

use proxygrad::network::architecture::{Architecture, ArchitectureError};
use proxygrad::network::checkpoint::StateDict;
use proxygrad::network::{Array, Network, Op, Padding};

fn data(architecture: Architecture, ending: &str) -> String {
    let path = format!("{}/tests/data/architectures/{architecture}.{ending}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Weights with the names and shapes of the published file, and reproducible small positive values.
fn weights(architecture: Architecture) -> StateDict {
    let mut state = StateDict::default();
    let mut noise = 1u32;
    for line in data(architecture, "tensors").lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let shape: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                0.01 + (noise >> 8) as f32 / (1 << 24) as f32
            })
            .collect();
        state.insert(name, Array::new(shape, values).unwrap());
    }
    state
}

fn build(name: &str) -> Network {
    let architecture: Architecture = name.parse().unwrap();
    architecture.build(&weights(architecture)).unwrap()
}

fn padding(network: &Network, layer: &str) -> Padding {
    match &network.node(network.find(layer).unwrap()).op {
        Op::Conv(conv) => conv.window.padding,
        other => panic!("{layer} is {}", other.name()),
    }
}

#[test]
fn layers_have_the_operations_and_shapes_of_another_implementation() {
    for name in ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "squeezenet1.1"] {
        let architecture: Architecture = name.parse().unwrap();
        let network = architecture.build(&weights(architecture)).unwrap();
        let layers = network.layers().map(|layer| {
            let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
            format!("{} {}\n", layer.op, shape.join(" "))
        });
        assert_eq!(layers.collect::<String>(), data(architecture, "layers"), "{architecture}");
        assert_eq!(network.input_shape()[..], architecture.input);
        assert_eq!(network.outputs(), [network.find("logits").unwrap()]);
    }
}

#[test]
fn layers_before_and_after_an_activation_have_names() {
    let lite = build("efficientnet-lite0");
    for layer in [
        "stem",
        "stem.relu6",
        "blocks.0.depthwise",
        "blocks.4.expand",
        "blocks.4.expand.relu6",
        "blocks.4.depthwise",
        "blocks.4.depthwise.relu6",
        "blocks.4.project",
        "blocks.4.add",
        "head",
        "head.relu6",
        "pool",
        "logits",
    ] {
        assert!(lite.find(layer).is_some(), "{layer}");
    }
    assert!(lite.find("blocks.0.expand").is_none(), "the first block does not expand");
    assert!(lite.find("blocks.3.add").is_none(), "a block that shrinks the map has no shortcut");

    let squeeze = build("squeezenet1.1");
    for layer in ["conv1", "conv1.relu", "pool1", "fire2.squeeze.relu", "fire9.expand3x3", "fire9", "conv10", "pool10"]
    {
        assert!(squeeze.find(layer).is_some(), "{layer}");
    }
    let fire = squeeze.node(squeeze.find("fire5").unwrap());
    let before: Vec<&str> = fire.inputs.iter().map(|&id| squeeze.node(id).name.as_str()).collect();
    assert_eq!(before, ["fire5.expand1x1.relu", "fire5.expand3x3.relu"], "a fire module ends after its ReLUs");
}

#[test]
fn same_padding_depends_on_the_input_size_of_a_layer() {
    let around = |before, after| Padding { top: before, left: before, bottom: after, right: after };
    // 224 -> 112 -> 56 -> 28 -> 14 -> 7: every strided layer has an even input.
    let lite0 = build("efficientnet-lite0");
    assert_eq!(padding(&lite0, "stem"), around(0, 1));
    assert_eq!(padding(&lite0, "blocks.1.depthwise"), around(0, 1));
    assert_eq!(padding(&lite0, "blocks.3.depthwise"), around(1, 2));
    assert_eq!(padding(&lite0, "blocks.11.depthwise"), around(1, 2));
    assert_eq!(padding(&lite0, "blocks.12.depthwise"), around(2, 2));
    // 240 -> 120 -> 60 -> 30 -> 15 -> 8: the last one has an input of 15 pixels.
    let lite1 = build("efficientnet-lite1");
    assert_eq!(padding(&lite1, "blocks.7.depthwise"), around(0, 1));
    assert_eq!(padding(&lite1, "blocks.15.depthwise"), around(2, 2));
    // 260 -> 130 -> 65 -> 33 -> 17 -> 9: the last three have odd inputs.
    let lite2 = build("efficientnet-lite2");
    assert_eq!(padding(&lite2, "blocks.4.depthwise"), around(2, 2));
    assert_eq!(padding(&lite2, "blocks.7.depthwise"), around(1, 1));
}

#[test]
fn weights_in_the_layout_of_keras_build_the_same_network() {
    let architecture = Architecture::SQUEEZENET_1_1;
    let state = weights(architecture);
    let mut keras = StateDict::default();
    for (name, array) in state.iter() {
        let &[outputs, inputs, height, width] = array.shape() else {
            keras.insert(name, array.clone());
            continue;
        };
        let mut values = vec![0.0; array.len()];
        for (i, value) in array.data().iter().enumerate() {
            let (tap, i, o) = (i % (height * width), i / (height * width) % inputs, i / (height * width * inputs));
            values[(tap * inputs + i) * outputs + o] = *value;
        }
        keras.insert(name, Array::new([height, width, inputs, outputs], values).unwrap());
    }
    let (one, other) = (architecture.build(&state).unwrap(), architecture.build(&keras).unwrap());
    for (a, b) in one.nodes().iter().zip(other.nodes()) {
        if let (Op::Conv(a), Op::Conv(b)) = (&a.op, &b.op) {
            assert_eq!((a.weight.shape(), a.weight.data()), (b.weight.shape(), b.weight.data()));
        }
    }
}

#[test]
fn the_number_of_classes_is_that_of_the_last_layer() {
    let architecture: Architecture = "efficientnet-lite0".parse().unwrap();
    let mut state = weights(architecture);
    state.insert("_fc.weight", Array::new([7, 1280], vec![0.0; 7 * 1280]).unwrap());
    state.insert("_fc.bias", Array::vector(vec![0.0; 7]));
    let network = architecture.build(&state).unwrap();
    assert_eq!(network.node(network.outputs()[0]).shape[..], [7]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let architecture: Architecture = "efficientnet-lite0".parse().unwrap();
    let missing = architecture.build(&weights(Architecture::SQUEEZENET_1_1)).unwrap_err().to_string();
    assert!(missing.contains("has no tensor _conv_stem.weight"), "{missing}");
    assert!(missing.contains("conv1.bias"), "shows what the file has: {missing}");

    let other_size = "efficientnet-lite2".parse::<Architecture>().unwrap();
    let shape = other_size.build(&weights(architecture)).unwrap_err();
    let ArchitectureError::Tensors { differences, fits, .. } = &shape else { panic!("{shape}") };
    assert!(differences.misshapen.iter().any(|(name, ..)| name.starts_with("_blocks.3.")), "{shape}");
    assert_eq!(fits.as_deref(), Some("efficientnet-lite0"));

    for (name, value) in [("_blocks.2._bn1.running_var", -1.0), ("_fc.bias", f32::NAN), ("_bn1.weight", f32::INFINITY)]
    {
        let mut state = weights(architecture);
        let shape = state.get(name).unwrap().shape().to_vec();
        let values = vec![value; shape.iter().product()];
        state.insert(name, Array::new(shape, values).unwrap());
        let error = architecture.build(&state).unwrap_err().to_string();
        assert!(error.contains("not finite") && error.contains(name.rsplit_once('.').unwrap().0), "{error}");
    }
    assert!("squeezenet".parse::<Architecture>().unwrap_err().to_string().contains("squeezenet1.1"));
    assert!("lenet-5".parse::<Architecture>().unwrap_err().to_string().contains("efficientnet-lite0, "));
}
