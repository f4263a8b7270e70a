//! Flags that say how the images of a dataset are read.

use clap::Args;
use proxygrad::train::data::DataOptions;

/// How images are read.
#[derive(Debug, Clone, Args)]
pub(super) struct ImageReading {
    /// Scale and crop the images of a folder to this size. Default: that of the model to start from, or that of the
    /// first image.
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    pub(super) size: Option<[usize; 2]>,

    /// Read the images of a folder as grey.
    #[arg(long)]
    pub(super) grey: bool,

    /// Share of the images that becomes the test part, if the data has none.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = parse_share)]
    pub(super) test_share: f64,
}

impl ImageReading {
    /// The options, with the seed of the test part.
    pub(super) fn options(&self, seed: u64) -> DataOptions {
        DataOptions { size: self.size, grey: self.grey, test_share: self.test_share, seed, ..DataOptions::default() }
    }
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let parts = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    parts
        .filter(|size| size.iter().all(|side| (1..=1024).contains(side)))
        .ok_or_else(|| "expected HEIGHTxWIDTH with sides from 1 to 1024, for example 32x32".into())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a number between 0 and 1".into())
}
