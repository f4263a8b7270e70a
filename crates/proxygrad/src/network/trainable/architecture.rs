//! Architectures that can be trained from random weights: residual networks, VGG-like and plain deep networks.

use std::fmt;
use std::str::FromStr;

use super::TrainableNetwork;
use crate::Invalid;
use crate::network::error::GraphError;
use crate::network::op::Op;
use crate::network::{Activation, Padding, Window};

/// Smallest image height or width for which a residual network starts as for ImageNet: a 7x7 convolution of stride 2 and
/// a pool.
const LARGE_IMAGE: usize = 64;

/// Largest number of layers of a plain network.
const MOST_LAYERS: usize = 100;

/// Outputs of the hidden dense layers of VGG-like networks, per channel of the first layer.
const HIDDEN: usize = 8;

/// An architecture with its settings.
///
/// # Examples
/// ```
/// use proxygrad::network::trainable::TrainableArchitecture;
///
/// let narrow = TrainableArchitecture { width: Some(8), ..TrainableArchitecture::default() };
/// assert_eq!(narrow.to_string(), "resnet8");
/// assert!(narrow.build([1, 28, 28], 10)?.parameter_count() < 25_000);
/// assert!("resnet9".parse::<TrainableArchitecture>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TrainableArchitecture {
    /// The family and its depth.
    pub family: Family,
    /// Whether convolutions are followed by batch normalizations.
    pub batch_norm: bool,
    /// Channels of the first layer; other layers have multiples of it. Default: 64 for ResNet-18 and 34, otherwise 16.
    pub width: Option<usize>,
    /// Stride of the first convolution. Default: 1; 2 for plain networks, and for residual networks on images of at
    /// least 64x64.
    pub stem_stride: Option<usize>,
    /// The activation of all hidden layers.
    pub activation: Activation,
}

/// A family of architectures, with its depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Residual networks of basic blocks (He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385):
    /// 8, 14 or 20 layers in three stages, 18 or 34 in four.
    ResNet(usize),
    /// 8, 13 or 16 layers of 3x3 convolutions, pools and dense layers, after VGG (Simonyan & Zisserman,
    /// arXiv:1409.1556).
    Vgg(usize),
    /// 3x3 convolutions one after another without pools, normalization or shortcuts: hard to train.
    Plain(usize),
}

impl Default for TrainableArchitecture {
    /// ResNet-8 with batch normalization.
    fn default() -> Self {
        Self {
            family: Family::ResNet(8),
            batch_norm: true,
            width: None,
            stem_stride: None,
            activation: Activation::Relu,
        }
    }
}

const NAMES: &str = "resnet8, resnet14, resnet20, resnet18 or resnet34, with batch normalization unless followed by \
                     -nobn; vgg8, vgg13 or vgg16, optionally followed by -bn; or plain2 to plain100";

impl FromStr for TrainableArchitecture {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("architecture", text, NAMES);
        let (name, suffix) = text.split_once('-').map_or((text, None), |(name, suffix)| (name, Some(suffix)));
        let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let depth: usize = name[digits..].parse().map_err(|_| wrong())?;
        let (family, batch_norm) = match (&name[..digits], depth, suffix) {
            ("resnet", 8 | 14 | 18 | 20 | 34, None) => (Family::ResNet(depth), true),
            ("resnet", 8 | 14 | 18 | 20 | 34, Some("nobn")) => (Family::ResNet(depth), false),
            ("vgg", 8 | 13 | 16, None) => (Family::Vgg(depth), false),
            ("vgg", 8 | 13 | 16, Some("bn")) => (Family::Vgg(depth), true),
            ("plain", 2..=MOST_LAYERS, None) => (Family::Plain(depth), false),
            _ => return Err(wrong()),
        };
        Ok(Self { family, batch_norm, ..Self::default() })
    }
}

impl fmt::Display for TrainableArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.family, self.batch_norm) {
            (Family::ResNet(depth), true) => write!(f, "resnet{depth}"),
            (Family::ResNet(depth), false) => write!(f, "resnet{depth}-nobn"),
            (Family::Vgg(depth), true) => write!(f, "vgg{depth}-bn"),
            (Family::Vgg(depth), false) => write!(f, "vgg{depth}"),
            (Family::Plain(depth), _) => write!(f, "plain{depth}"),
        }
    }
}

impl TrainableArchitecture {
    /// Builds the network for images `[C,H,W]` and a number of classes. Its output is the node `logits`; layers are
    /// named as in torchvision (`layer1.0.conv1`).
    ///
    /// # Errors
    /// When the images are too small for the architecture.
    pub fn build(&self, input: [usize; 3], classes: usize) -> Result<TrainableNetwork, GraphError> {
        let mut builder = Builder { network: TrainableNetwork::new(input), architecture: self };
        let last = match self.family {
            Family::ResNet(depth) => builder.resnet(depth, input)?,
            Family::Vgg(depth) => builder.vgg(depth)?,
            Family::Plain(depth) => builder.plain(depth)?,
        };
        builder.network.dense("logits", classes, last)?;
        Ok(builder.network)
    }
}

struct Builder<'a> {
    network: TrainableNetwork,
    architecture: &'a TrainableArchitecture,
}

/// A square window with the padding that keeps the size at stride 1.
fn window(kernel: usize, stride: usize) -> Window {
    let side = kernel / 2;
    let padding = Padding { top: side, left: side, bottom: side, right: side };
    Window { stride: [stride; 2], padding, ..Window::new([kernel; 2]) }
}

impl Builder<'_> {
    fn width(&self, default: usize) -> usize {
        self.architecture.width.unwrap_or(default)
    }

    fn activation(&mut self, name: &str, input: usize) -> Result<usize, GraphError> {
        self.network.activation(name, self.architecture.activation.clone(), input)
    }

    /// A convolution, followed by a batch normalization if the architecture has them.
    fn conv(
        &mut self,
        [conv, norm]: [&str; 2],
        outputs: usize,
        window: Window,
        input: usize,
    ) -> Result<usize, GraphError> {
        let batch_norm = self.architecture.batch_norm;
        let conv = self.network.conv(conv, outputs, window, !batch_norm, input)?;
        if batch_norm { self.network.batch_norm(norm, conv) } else { Ok(conv) }
    }

    fn resnet(&mut self, depth: usize, [_, height, width_of_image]: [usize; 3]) -> Result<usize, GraphError> {
        let (blocks, width): (&[usize], usize) = match depth {
            18 => (&[2, 2, 2, 2], 64),
            34 => (&[3, 4, 6, 3], 64),
            14 => (&[2, 2, 2], 16),
            20 => (&[3, 3, 3], 16),
            _ => (&[1, 1, 1], 16),
        };
        let width = self.width(width);
        let large = blocks.len() == 4 && height.min(width_of_image) >= LARGE_IMAGE;
        let default_stride = if height.min(width_of_image) >= LARGE_IMAGE { 2 } else { 1 };
        let stride = self.architecture.stem_stride.unwrap_or(default_stride);
        let stem =
            self.conv(["conv1", "bn1"], width, window(if large { 7 } else { 3 }, stride), TrainableNetwork::INPUT)?;
        let mut x = self.activation("relu", stem)?;
        if large {
            x = self.network.fixed("maxpool", Op::MaxPool(window(3, 2)), &[x])?;
        }
        for (stage, &count) in blocks.iter().enumerate() {
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = self.basic_block(&format!("layer{}.{block}", stage + 1), width << stage, stride, x)?;
            }
        }
        self.network.global_average("avgpool", x)
    }

    /// The basic block: two 3x3 convolutions and a shortcut.
    fn basic_block(&mut self, name: &str, outputs: usize, stride: usize, input: usize) -> Result<usize, GraphError> {
        let part = |part: &str| format!("{name}.{part}");
        let x = self.conv([&part("conv1"), &part("bn1")], outputs, window(3, stride), input)?;
        let x = self.activation(&part("relu1"), x)?;
        let x = self.conv([&part("conv2"), &part("bn2")], outputs, window(3, 1), x)?;
        let shape = &self.network.nodes()[input].shape;
        let shortcut = if stride != 1 || shape.channels() != outputs {
            self.conv([&part("downsample.0"), &part("downsample.1")], outputs, window(1, stride), input)?
        } else {
            input
        };
        let sum = self.network.add(&part("add"), [x, shortcut])?;
        self.activation(name, sum)
    }

    fn vgg(&mut self, depth: usize) -> Result<usize, GraphError> {
        /// Multiples of the width, 0 for a pool.
        const VGG8: &[usize] = &[1, 0, 2, 2, 0, 4, 4, 0];
        const VGG13: &[usize] = &[1, 1, 0, 2, 2, 2, 0, 4, 4, 4, 0, 4, 4];
        const VGG16: &[usize] = &[1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 4, 4, 4, 0, 4, 4, 4];
        let layers = match depth {
            16 => VGG16,
            13 => VGG13,
            _ => VGG8,
        };
        let width = self.width(16);
        let mut x = TrainableNetwork::INPUT;
        let (mut convs, mut pools) = (0, 0);
        for &multiple in layers {
            if multiple == 0 {
                pools += 1;
                let pool = Window { stride: [2, 2], ..Window::new([2, 2]) };
                x = self.network.fixed(&format!("pool{pools}"), Op::MaxPool(pool), &[x])?;
                continue;
            }
            convs += 1;
            let stride = if convs == 1 { self.architecture.stem_stride.unwrap_or(1) } else { 1 };
            let names = [format!("conv{convs}"), format!("bn{convs}")];
            x = self.conv([&names[0], &names[1]], multiple * width, window(3, stride), x)?;
            x = self.activation(&format!("relu{convs}"), x)?;
        }
        x = self.network.flatten("flatten", x)?;
        for hidden in 1..=2 {
            x = self.network.dense(&format!("fc{hidden}"), HIDDEN * width, x)?;
            x = self.activation(&format!("fc{hidden}.relu"), x)?;
        }
        Ok(x)
    }

    fn plain(&mut self, depth: usize) -> Result<usize, GraphError> {
        let width = self.width(16);
        let mut x = TrainableNetwork::INPUT;
        for layer in 1..=depth {
            let second_half = layer > depth / 2;
            let stride = match layer {
                1 => self.architecture.stem_stride.unwrap_or(2),
                layer if layer == depth / 2 + 1 => 2,
                _ => 1,
            };
            let outputs = if second_half { 2 * width } else { width };
            let names = [format!("conv{layer}"), format!("bn{layer}")];
            x = self.conv([&names[0], &names[1]], outputs, window(3, stride), x)?;
            x = self.activation(&format!("relu{layer}"), x)?;
        }
        self.network.flatten("flatten", x)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn count(name: &str, input: [usize; 3]) -> usize {
        name.parse::<TrainableArchitecture>().unwrap().build(input, 10).unwrap().parameter_count()
    }

    /// Counted by PyTorch for the same modules.
    #[test]
    fn architectures_have_the_parameters_of_their_pytorch_twins() {
        assert_eq!(count("resnet8", [1, 28, 28]), 77_754);
        assert_eq!(count("resnet18", [3, 224, 224]), 11_181_642);
        assert_eq!(count("resnet34", [3, 224, 224]), 21_289_802);
        assert_eq!(count("resnet18", [3, 32, 32]), 11_173_962);
    }

    #[test]
    fn names_survive_the_round_trip_and_wrong_ones_name_the_right_ones() {
        for name in ["resnet8", "resnet34-nobn", "vgg13", "vgg16-bn", "plain20"] {
            assert_eq!(name.parse::<TrainableArchitecture>().unwrap().to_string(), name);
        }
        for name in ["", "resnet", "resnet9", "vgg8-nobn", "plain1", "plain101", "resnet8-", "vgg99999999999999999999"]
        {
            let error = name.parse::<TrainableArchitecture>().unwrap_err().to_string();
            assert!(error.contains("architecture") && error.contains("resnet8, resnet14"), "{error}");
        }
    }

    #[test]
    fn an_image_that_is_too_small_is_an_error() {
        let vgg: TrainableArchitecture = "vgg16".parse().unwrap();
        let error = vgg.build([1, 8, 8], 10).unwrap_err().to_string();
        assert!(error.contains("pool4"), "{error}");
    }
}
