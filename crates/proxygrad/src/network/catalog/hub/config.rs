//! What a repository says about its network: `preprocessor_config.json` of transformers, `config.json` of transformers
//! or timm.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::network::{ChannelOrder, Preprocessing};

/// Facts that the files state; the others are none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Described {
    /// Name of the architecture in timm, without the tag of the weights.
    pub(super) architecture: Option<String>,
    /// Height and width of the input.
    pub(super) size: Option<[usize; 2]>,
    /// Channel order, range, mean and std.
    pub(super) preprocessing: Option<Preprocessing>,
    /// Names of the classes, in the order of the logits.
    pub(super) classes: Vec<String>,
    /// Number of classes.
    pub(super) class_count: Option<usize>,
}

/// `config.json` of timm (its `pretrained_cfg`, or in older files at the top), or of transformers.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    architecture: Option<String>,
    pretrained_cfg: Option<TimmConfig>,
    #[serde(flatten)]
    top: TimmConfig,
    id2label: Option<BTreeMap<String, String>>,
    image_size: Option<Size>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TimmConfig {
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    input_size: Option<[usize; 3]>,
    num_classes: Option<usize>,
    label_names: Option<Vec<String>>,
    label_descriptions: Option<Value>,
}

/// `preprocessor_config.json` of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct Processor {
    do_rescale: bool,
    rescale_factor: f32,
    do_normalize: bool,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
    do_flip_channel_order: bool,
    do_center_crop: bool,
    size: Option<Size>,
    crop_size: Option<Size>,
}

impl Default for Processor {
    fn default() -> Self {
        Self {
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: None,
            image_std: None,
            do_flip_channel_order: false,
            do_center_crop: false,
            size: None,
            crop_size: None,
        }
    }
}

/// A height and width.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Both { height: usize, width: usize },
    Shortest { shortest_edge: usize },
    Pair([usize; 2]),
}

impl Size {
    fn pixels(self) -> [usize; 2] {
        match self {
            Self::Side(side) | Self::Shortest { shortest_edge: side } => [side; 2],
            Self::Both { height, width } => [height, width],
            Self::Pair(pair) => pair,
        }
    }
}

impl Described {
    /// Adds what `config.json` says. Fails with a phrase about its content.
    pub(super) fn add_config(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Config { architecture, pretrained_cfg, top, id2label, image_size } = parse(bytes)?;
        self.architecture = architecture;
        let inner = pretrained_cfg.unwrap_or_default();
        let mean = inner.mean.or(top.mean);
        let std = inner.std.or(top.std);
        if let (Some(mean), Some(std)) = (mean, std) {
            self.preprocessing = Some(preprocessing(false, 1.0, mean, std)?);
        }
        let input = inner.input_size.or(top.input_size).map(|[_, height, width]| [height, width]);
        self.size = input.or(image_size.map(Size::pixels));
        self.class_count = inner.num_classes.or(top.num_classes);
        let names = inner.label_names.or(top.label_names);
        let descriptions = inner.label_descriptions.or(top.label_descriptions);
        self.classes = match (names, id2label) {
            (Some(names), _) => described(names, descriptions.as_ref()),
            (None, Some(labels)) => in_order(&labels).unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        Ok(())
    }

    /// Adds what `preprocessor_config.json` says. Fails with a phrase about its content.
    pub(super) fn add_processor(&mut self, bytes: &[u8]) -> Result<(), String> {
        let processor: Processor = parse(bytes)?;
        let range = if processor.do_rescale { 255.0 * processor.rescale_factor } else { 255.0 };
        let channels = processor.image_mean.as_ref().map_or(3, Vec::len);
        let (mean, std) = match processor.do_normalize {
            true => (processor.image_mean, processor.image_std),
            false => (Some(vec![0.0; channels]), Some(vec![1.0; channels])),
        };
        if let (Some(mean), Some(std)) = (mean, std) {
            // 255 times the nearest f32 of 1/255 is 1.
            let range = if (range - 1.0).abs() < 1e-5 { 1.0 } else { range };
            self.preprocessing = Some(preprocessing(processor.do_flip_channel_order, range, mean, std)?);
        }
        let crop = processor.crop_size.filter(|_| processor.do_center_crop);
        self.size = crop.or(processor.size).map(Size::pixels).or(self.size);
        Ok(())
    }
}

fn parse<T: for<'d> Deserialize<'d>>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

fn preprocessing(flipped: bool, range: f32, mean: Vec<f32>, std: Vec<f32>) -> Result<Preprocessing, String> {
    let channels = match (mean.len(), flipped) {
        (1, _) => ChannelOrder::Grey,
        (_, false) => ChannelOrder::Rgb,
        (_, true) => ChannelOrder::Bgr,
    };
    // The values are those of the channels as the network reads them.
    let preprocessing = Preprocessing { channels, range, mean, std };
    preprocessing.check(channels.count()).map_err(|invalid| invalid.to_string())?;
    Ok(preprocessing)
}

/// Descriptions of labels instead of names such as `n01440764`, where there are some.
fn described(names: Vec<String>, descriptions: Option<&Value>) -> Vec<String> {
    let describe = |name: String| {
        let text = descriptions.and_then(|all| all.get(&name)).and_then(Value::as_str);
        // The first of several synonyms.
        let first = text.map(|text| text.split(',').next().unwrap_or(text).trim().to_owned());
        first.filter(|text| !text.is_empty()).unwrap_or(name)
    };
    names.into_iter().map(describe).collect()
}

/// The values of `{"0": …, "1": …}` in the order of their keys; none if keys are missing, or if the names are the
/// placeholders that transformers writes.
fn in_order(labels: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let names: Option<Vec<String>> = (0..labels.len()).map(|i| labels.get(&i.to_string()).cloned()).collect();
    names.filter(|names| !names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(text: &str) -> Described {
        let mut described = Described::default();
        described.add_config(text.as_bytes()).unwrap();
        described
    }

    fn processor(text: &str) -> Described {
        let mut described = Described::default();
        described.add_processor(text.as_bytes()).unwrap();
        described
    }

    #[test]
    fn configurations_of_timm_are_read() {
        let new = config(
            r#"{"architecture": "resnet50", "num_classes": 2, "pretrained_cfg": {"tag": "x", "mean": [0.5, 0.4, 0.3],
                "std": [0.1, 0.2, 0.3], "input_size": [3, 224, 192], "crop_pct": 0.95, "label_names": ["n01", "n02"],
                "label_descriptions": {"n01": "tench, Tinca tinca"}}}"#,
        );
        assert_eq!(new.architecture.as_deref(), Some("resnet50"));
        assert_eq!((new.size, new.class_count), (Some([224, 192]), Some(2)));
        assert_eq!(new.classes, ["tench", "n02"]);
        let preprocessing = new.preprocessing.unwrap();
        assert_eq!((preprocessing.mean[2], preprocessing.std[0], preprocessing.range), (0.3, 0.1, 1.0));
        let old = config(r#"{"architecture": "vgg11", "mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 8, 8]}"#);
        assert_eq!((old.size, old.preprocessing.unwrap().std), (Some([8, 8]), vec![1.0; 3]));
    }

    #[test]
    fn configurations_of_transformers_are_read() {
        let model = config(r#"{"image_size": 384, "id2label": {"1": "dog", "0": "cat"}, "model_type": "vit"}"#);
        assert_eq!((model.size, model.classes), (Some([384, 384]), vec!["cat".to_owned(), "dog".into()]));
        let nameless = config(r#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#);
        assert!(nameless.classes.is_empty());

        let cropped = processor(
            r#"{"do_center_crop": true, "crop_size": {"height": 224, "width": 200}, "size": {"shortest_edge": 256},
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "rescale_factor": 0.00392156862745098}"#,
        );
        assert_eq!(cropped.size, Some([224, 200]));
        assert_eq!(cropped.preprocessing.unwrap().range, 1.0);
        let flipped =
            processor(r#"{"do_normalize": false, "do_flip_channel_order": true, "do_rescale": false, "size": 64}"#);
        let preprocessing = flipped.preprocessing.unwrap();
        assert_eq!((preprocessing.channels, preprocessing.range), (ChannelOrder::Bgr, 255.0));
        assert_eq!((preprocessing.mean, flipped.size), (vec![0.0; 3], Some([64, 64])));
        let scaled = processor(
            r#"{"rescale_factor": 1.0, "image_mean": [104, 117, 123], "image_std": [1, 1, 1], "size": [32, 48]}"#,
        );
        assert_eq!((scaled.preprocessing.unwrap().range, scaled.size), (255.0, Some([32, 48])));
    }

    #[test]
    fn impossible_values_are_errors() {
        let mut described = Described::default();
        for text in ["", "[]", r#"{"mean": [0.5], "std": [0, 0]}"#, r#"{"mean": [1, 2], "std": [1, 1]}"#] {
            assert!(described.add_config(text.as_bytes()).is_err(), "{text}");
        }
        assert!(described.add_processor(br#"{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}"#).is_err());
        assert!(described.add_processor(br#"{"size": "large"}"#).is_err());
    }
}
