//! A folder of photographs, and the embedded model calibrated with it.

use std::path::Path;
use std::sync::Arc;

use image::{GrayImage, Luma, Rgb, RgbImage};
use proxygrad::calibrate::{CalibrateError, Options, calibrate, images_in, write};
use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::network::Model;
use proxygrad::network::calibration::Calibration;
use proxygrad::network::catalog::{Models, ModelsConfig};

const MODEL: &str = "fashion-resnet8";

/// Images of several sizes and kinds, one of them in a folder below, and a file that is none.
pub fn pictures(folder: &Path) {
    std::fs::create_dir_all(folder.join("below")).unwrap();
    for i in 0u8..5 {
        let image =
            GrayImage::from_fn(28, 28, |x, y| Luma([(x as u8).wrapping_mul(9 + i) ^ (y as u8).wrapping_mul(5)]));
        image.save(folder.join(format!("{i}.png"))).unwrap();
    }
    RgbImage::from_fn(90, 61, |x, y| Rgb([x as u8 * 2, y as u8 * 4, 99])).save(folder.join("below/wide.png")).unwrap();
    RgbImage::from_fn(40, 70, |_, y| Rgb([255, 3 * y as u8, 0])).save(folder.join("tall.jpeg")).unwrap();
    std::fs::write(folder.join("broken.jpg"), b"no image").unwrap();
    std::fs::write(folder.join("notes.txt"), b"no image either").unwrap();
}

/// Calibrates the embedded model with [`pictures`].
pub fn calibrated(data: &Path, layers: &[&str], top: usize) -> Arc<Model> {
    let pictures_in = data.join("pictures");
    pictures(&pictures_in);
    let models = Models::new(ModelsConfig::new(data)).unwrap();
    let model = models.load(MODEL).unwrap();
    let options = Options { layers: layers.iter().map(ToString::to_string).collect(), top };
    let files = images_in(&pictures_in).unwrap();
    let mut progress = Vec::new();
    let on_progress = &mut |done| progress.push(done);
    let found =
        calibrate(&Cpu::new(&CpuSettings::default()).unwrap(), &model, &pictures_in, &files, &options, on_progress)
            .unwrap();
    assert_eq!((found.calibration.images, progress.last()), (7, Some(&8)));
    assert_eq!(found.skipped.len(), 1);
    assert!(found.skipped[0].file.ends_with("broken.jpg") && !found.skipped[0].why.is_empty());
    models
        .install_calibration::<CalibrateError>(MODEL, |folder| write(&found.calibration, &model, &pictures_in, folder))
        .unwrap();
    let model = models.load(MODEL).unwrap();
    let folder = Some(data.join("models").join(MODEL).join(Calibration::FOLDER));
    assert_eq!(model.calibration.as_deref(), Some(&Calibration { folder, ..found.calibration }));
    model
}
