//! What is measured at the end of every epoch.

use serde::{Deserialize, Serialize};

/// Measurements of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss of the training batches, before each update.
    pub train_loss: f64,
    /// Share of the training images that were classified correctly, before each update.
    pub train_accuracy: f64,
    /// Mean loss of the test images, without label smoothing.
    pub test_loss: f64,
    /// Share of the test images that are classified correctly.
    pub test_accuracy: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Share of the channels of all rectifiers that are positive on no test image.
    pub dead: f64,
    /// The same for each rectifier, in the order of the network.
    pub layers: Vec<Layer>,
}

/// Dead units of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = TrainedLayer))]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Number of channels.
    pub channels: usize,
    /// Number of channels that are positive on no test image.
    pub dead: usize,
}

impl Epoch {
    pub(super) fn dead_share(layers: &[Layer]) -> f64 {
        let [dead, channels] = layers.iter().fold([0; 2], |sum, layer| [sum[0] + layer.dead, sum[1] + layer.channels]);
        if channels == 0 { 0.0 } else { dead as f64 / channels as f64 }
    }
}

/// A table of epochs as CSV, without the layers.
pub fn csv(epochs: &[Epoch]) -> String {
    let mut text = String::from("epoch,train_loss,train_accuracy,test_loss,test_accuracy,learning_rate,dead\n");
    for epoch in epochs {
        let Epoch { epoch, train_loss, train_accuracy, test_loss, test_accuracy, learning_rate, dead, layers: _ } =
            epoch;
        let numbers = [train_loss, train_accuracy, test_loss, test_accuracy, learning_rate, dead];
        text.push_str(&epoch.to_string());
        for number in numbers {
            text.push_str(&format!(",{number:.6}"));
        }
        text.push('\n');
    }
    text
}
