//! The images of a batch and how a step changes them: regularization, parameterization, optimizer and projection.

use candle_core::{DType, Result, Tensor};

use super::stage::Stage;
use crate::maximize::enlarge::Enlargement;
use crate::maximize::ops::Arithmetic;
use crate::maximize::optimizer::Ascent;
use crate::maximize::parameterization::ImageDecoder;
use crate::maximize::projection::RmsBall;
use crate::maximize::regularization::Regularization;
use crate::maximize::request::Settings;

/// Parameters, pixels and optimizer state of a batch of images.
#[derive(Debug)]
pub(super) struct ImageState {
    decoder: ImageDecoder,
    /// What the optimizer changes: `[N,…]`, of the parameterization's shape.
    parameters: Tensor,
    /// Pixels `[N,C,H,W]` in [0, 1], decoded from the parameters.
    pixels: Tensor,
    ascent: Ascent,
    regularization: Regularization,
    /// Absolute gradients with respect to the pixels, summed over channels and steps: `[N,H,W]`, f32. `None` unless
    /// an alpha channel is requested.
    saliency: Option<Tensor>,
    ball: Option<RmsBall>,
}

impl ImageState {
    /// Starts from the parameters of each image.
    pub(super) fn new(
        decoder: ImageDecoder,
        parameters: &[Tensor],
        settings: &Settings,
        stage: &Stage<'_>,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let parameters = Tensor::stack(parameters, 0)?;
        let pixels = decoder.decode(&parameters)?;
        let (n, _, height, width) = pixels.dims4()?;
        let saliency = || Tensor::zeros((n, height, width), DType::F32, pixels.device());
        let saliency = settings.alpha.then(saliency).transpose()?;
        // Requests allow a maximal distance only with the pixel parameterization.
        let ball = settings.start.max_rms_distance().map(|radius| RmsBall::new(&pixels, radius, arithmetic));
        let (ascent, regularization) = stage.updates(&decoder, &parameters, arithmetic)?;
        Ok(Self { decoder, parameters, pixels, ascent, regularization, saliency, ball })
    }

    /// Continues with the next stage, whose optimizer starts anew. With an enlargement, images of the size of `decoder`
    /// that look the same.
    pub(super) fn enter(
        &mut self,
        stage: &Stage<'_>,
        enlarged: Option<(&Enlargement, ImageDecoder)>,
        arithmetic: Arithmetic,
    ) -> Result<()> {
        if let Some((enlargement, decoder)) = enlarged {
            let pixels = enlargement.pixels(&self.pixels)?;
            let parameters = (0..pixels.dim(0)?).map(|image| decoder.encode(&pixels.get(image)?));
            self.parameters = Tensor::stack(&parameters.collect::<Result<Vec<_>>>()?, 0)?;
            self.pixels = decoder.decode(&self.parameters)?;
            self.decoder = decoder;
            if let Some(saliency) = &mut self.saliency {
                // Where cubic interpolation overshoots, there is no saliency.
                *saliency = enlargement.apply(saliency)?.relu()?;
            }
        }
        (self.ascent, self.regularization) = stage.updates(&self.decoder, &self.parameters, arithmetic)?;
        Ok(())
    }

    /// The current images: `[N,C,H,W]` in [0, 1].
    pub(super) fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// Sum of absolute gradients at every pixel so far, in any unit: `[N,H,W]`, f32; `None` unless settings ask for
    /// alpha.
    pub(super) fn saliency(&self) -> Option<&Tensor> {
        self.saliency.as_ref()
    }

    /// Step number `step` of the stage, from 0, along the gradient `[N,C,H,W]` with respect to the pixels.
    pub(super) fn step(&mut self, gradient: Tensor, step: u32) -> Result<()> {
        if let Some(saliency) = &mut self.saliency {
            let strength = gradient.to_dtype(DType::F32)?.abs()?.sum(1)?;
            // A single value that is not finite would spoil the whole sum.
            let finite = strength.lt(f32::INFINITY)?.where_cond(&strength, &strength.zeros_like()?)?;
            *saliency = (&*saliency + finite)?;
        }
        let gradient = self.regularization.apply_to_gradient(&self.pixels, gradient)?;
        let gradient = self.decoder.gradient(&self.parameters, &self.pixels, &gradient)?;
        let parameters = self.ascent.step(&self.parameters, &gradient, step)?;
        // Requests allow blur only with the pixel parameterization.
        self.parameters =
            if self.decoder.is_pixel() { self.regularization.blurred(parameters, step + 1)? } else { parameters };
        if let Some(ball) = &self.ball {
            self.parameters = ball.project(&self.parameters)?;
        }
        self.pixels = self.decoder.decode(&self.parameters)?;
        Ok(())
    }

    /// Keeps only the images of these rows.
    pub(super) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.parameters = self.parameters.index_select(rows, 0)?;
        self.pixels = self.pixels.index_select(rows, 0)?;
        if let Some(saliency) = &mut self.saliency {
            *saliency = saliency.index_select(rows, 0)?;
        }
        if let Some(ball) = &mut self.ball {
            ball.retain_rows(rows)?;
        }
        self.ascent.retain_rows(rows)
    }

    /// For every image, whether some gradient of this stage was not finite.
    pub(super) fn non_finite_gradients(&self) -> Result<Vec<bool>> {
        self.ascent.non_finite_gradients()
    }
}
