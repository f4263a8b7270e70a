//! `proxygrad train-study`: compares surrogates on the same networks, data and seeds.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use proxygrad::study::training::{
    MaximaPlan, StartModels, StudyData, TrainingDesign, TrainingOptions, TrainingPlan, TrainingSummary, train_study,
    training_report, training_summary,
};
use proxygrad::study::{Folder, Progress};
use proxygrad::train::data::{self, DataOptions};
use proxygrad::{Invalid, engine, text};
use proxygrad_server::config::{CpuOptions, MemoryOptions, StorageOptions};

use super::image_reading::ImageReading;
use super::progress_display::ProgressDisplay;
use super::start_model;

/// Arguments of `proxygrad train-study`.
#[derive(Debug, Args)]
pub struct TrainStudy {
    #[command(flatten)]
    storage: StorageOptions,

    /// TOML or JSON file with the networks and arms, for example studies/training.toml.
    #[arg(long, value_name = "FILE", required_unless_present = "report")]
    plan: Option<PathBuf>,

    /// Images and labels, as for `train`, with a name for tables; the default name is that of the file or folder. May
    /// be repeated.
    #[arg(long, value_name = "[NAME=]PATH", required_unless_present = "report")]
    data: Vec<String>,

    /// Output folder. An unfinished study in this folder is resumed.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Only the networks of the plan with these names, comma-separated.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    networks: Vec<String>,

    /// Number of seeds of every network, instead of the plan's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: Option<u32>,

    /// The first seed, instead of the plan's.
    #[arg(long, value_name = "SEED", value_parser = clap::value_parser!(u64).range(..1 << 52))]
    first_seed: Option<u64>,

    /// Keep the trained networks as ONNX files in the folder `networks`, as a plan with the table maxima does anyway.
    #[arg(long)]
    keep_networks: bool,

    /// Only write the report of the runs in the folder again.
    #[arg(long)]
    report: bool,

    /// Device that trains: cpu, cuda:0, metal.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,

    #[command(flatten)]
    cpu: CpuOptions,

    #[command(flatten)]
    memory: MemoryOptions,

    #[command(flatten)]
    reading: ImageReading,
}

impl TrainStudy {
    /// Runs the missing runs and writes the report.
    pub fn run(self) -> anyhow::Result<()> {
        let folder = Folder::new(&self.out);
        if !self.report {
            self.train(&folder)?;
        }
        let summary = training_summary(&folder)?;
        training_report(&folder, &summary)?;
        print(&summary);
        println!("{}", folder.file("report.html").display());
        Ok(())
    }

    fn train(&self, folder: &Folder) -> anyhow::Result<()> {
        let design = self.design()?;
        let load = |name: String| Ok((name.clone(), start_model::load(&self.storage, &name)?));
        let models = design.starts().into_iter().map(load).collect::<anyhow::Result<StartModels>>()?;
        let options = self.data_options(&models);
        let data =
            self.data.iter().map(|text| load_data(text, &options)).collect::<anyhow::Result<Vec<StudyData>>>()?;
        let plan = TrainingPlan::new(&design, &data, &models, &self.device)?;
        let maxima = design.maxima.as_ref().map(|maxima| MaximaPlan::new(maxima, &plan, &data, &models)).transpose()?;
        let engine = engine::open(&self.device, &self.cpu.settings(&self.storage.data_dir))?;
        let mut display = ProgressDisplay::new(plan.run_count());
        let (keep_networks, memory) = (self.keep_networks, self.memory.run_bytes());
        let options = TrainingOptions { keep_networks, maxima, memory };
        let show = &mut |progress: Progress<'_>| display.show(&progress);
        let result = train_study(folder, &plan, &data, &models, &*engine, &options, show);
        display.bar.finish_and_clear();
        result?;
        Ok(())
    }

    fn design(&self) -> anyhow::Result<TrainingDesign> {
        let Some(file) = &self.plan else { bail!("--plan is required") };
        let text = text::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = TrainingDesign::parse(&text);
        let mut design = parsed.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        if let Some(seeds) = self.seeds {
            design.seeds = seeds;
            design.networks.iter_mut().for_each(|network| network.seeds = None);
        }
        design.first_seed = self.first_seed.unwrap_or(design.first_seed);
        if let Some(unknown) = self.networks.iter().find(|name| !design.networks.iter().any(|own| own.name == **name)) {
            let names: Vec<&str> = design.networks.iter().map(|network| &*network.name).collect();
            return Err(
                Invalid::new("--networks", unknown, format!("networks of the plan: {}", names.join(", "))).into()
            );
        }
        design.networks.retain(|own| self.networks.is_empty() || self.networks.contains(&own.name));
        Ok(design)
    }

    /// How images are read: those of a folder, by default, as the models need them that networks start from.
    fn data_options(&self, models: &StartModels) -> DataOptions {
        let mut shapes = models.values().filter_map(|model| model.network.input_shape().feature_map());
        let first = shapes.next().filter(|first| shapes.all(|shape| shape == *first));
        let options = self.reading.options(0);
        DataOptions {
            size: options.size.or(first.map(|[_, height, width]| [height, width])),
            grey: options.grey || first.is_some_and(|[channels, ..]| channels == 1),
            ..options
        }
    }
}

/// Reads a dataset given as `[NAME=]PATH`.
fn load_data(text: &str, options: &DataOptions) -> anyhow::Result<StudyData> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) if !name.is_empty() => (name.to_owned(), PathBuf::from(path)),
        _ => {
            let path = PathBuf::from(text);
            let name = path.file_stem().map_or_else(|| text.into(), |name| name.to_string_lossy().into_owned());
            (name, path)
        }
    };
    Ok(StudyData { name, splits: data::load(&path, options)? })
}

/// Prints a line per arm.
fn print(summary: &TrainingSummary) {
    let percent = |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{:.2} %", 100.0 * share));
    for table in &summary.tables {
        println!("{} on {}, {} seeds", table.network, table.data, table.seeds.len());
        println!(
            "  {:<20} {:>9} {:>10} {:>10} {:>14} {:>10}",
            "arm", "accuracy", "learn", "dead units", "difference", "p (Holm)"
        );
        for arm in &table.arms {
            let versus = arm.versus.as_ref();
            let difference = versus.and_then(|versus| versus.difference.median);
            let difference = difference.map_or_else(|| "-".into(), |share| format!("{:+.2} points", 100.0 * share));
            let p = versus.and_then(|versus| versus.p_accuracy.corrected);
            let p = p.map_or_else(|| "-".into(), |p| format!("{p:.4}"));
            let (accuracy, dead) = (percent(arm.accuracy.median), percent(arm.dead.median));
            let learn = format!("{} of {}", arm.learned, table.seeds.len());
            println!("  {:<20} {accuracy:>9} {learn:>10} {dead:>10} {difference:>14} {p:>10}", arm.arm);
        }
        for gate in &table.maxima {
            let head = format!("maxima, {}", gate.gate);
            println!("  {head:<20} {:>12} {:>12} {:>14} {:>10}", "% of natural", "at start", "difference", "p (Holm)");
            for arm in &gate.arms {
                let versus = arm.versus.as_ref();
                let ratio = arm.ratio.median.map_or_else(|| "-".into(), |ratio| format!("{:.0}", 100.0 * ratio));
                let difference = versus.and_then(|versus| versus.difference.median);
                let difference = difference.map_or_else(|| "-".into(), |ratio| format!("{:+.0}", 100.0 * ratio));
                let p = versus.and_then(|versus| versus.p_ratio.corrected);
                let p = p.map_or_else(|| "-".into(), |p| format!("{p:.4}"));
                let still = percent(arm.still.median);
                println!("  {:<20} {ratio:>12} {still:>12} {difference:>14} {p:>10}", arm.arm);
            }
        }
    }
}
