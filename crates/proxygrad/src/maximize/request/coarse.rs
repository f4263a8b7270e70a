//! Resolution of the coarse stage: whether the run has one, and the size of its image.

use super::defaults::Filled;
use super::document::Request;
use super::preset::SMALLEST_SIDE;
use super::resolve::{LayerAt, check_regularizers, check_transforms};
use crate::Invalid;
use crate::maximize::coarse::Coarse;
use crate::maximize::objective::Objective;
use crate::maximize::start::Start;
use crate::network::{Model, Selection, Shape};

impl Request {
    /// The coarse stage of a run whose stimuli are `input` `[C,H,W]`, for objectives whose units exist there.
    pub(super) fn coarse_stage(
        &self,
        model: &Model,
        filled: &Filled,
        objectives: &[Objective],
        input: &Shape,
    ) -> Result<Option<Coarse>, Invalid> {
        let Some(request) = &filled.coarse else { return Ok(None) };
        let share = request.checked_share()?;
        if share == 0.0 {
            return Ok(None);
        }
        let full = [input[1], input[2]];
        let mut size = request.scaled(full)?;
        let asked = self.coarse.as_ref().is_some_and(|coarse| coarse.scale.is_some());
        let why = match size == full {
            true => None,
            false => self.why_full_size(model, filled, objectives, input, size),
        };
        match why {
            Some(why) if asked => return Err(Invalid::new("scale", request.scale.unwrap_or(1.0), format!("1: {why}"))),
            Some(_) => size = full,
            None if !asked && size.iter().any(|&side| side < SMALLEST_SIDE) => size = full,
            None => {}
        }
        let mut optimizer = filled.optimizer.clone();
        optimizer.lr = request.lr.or(optimizer.lr);
        let image = [input[0], size[0], size[1]];
        let lr = optimizer.resolve(image, filled.parameterization.kind)?.lr;
        let transforms = request.transforms.clone().unwrap_or_else(|| filled.transforms.clone());
        check_transforms(&transforms)?;
        let regularizers = request.regularizers.clone().or_else(|| self.regularizers.clone()).unwrap_or_default();
        check_regularizers(&regularizers, filled.parameterization.kind)?;
        Ok(Some(Coarse { share, size, lr, transforms, regularizers }))
    }

    /// Why the coarse stage cannot run on images of height and width `size`, if it cannot.
    fn why_full_size(
        &self,
        model: &Model,
        filled: &Filled,
        objectives: &[Objective],
        input: &Shape,
        size: [usize; 2],
    ) -> Option<String> {
        if matches!(filled.start, Start::Image { .. }) {
            return Some("the start is an image, which keeps its size".to_owned());
        }
        let small = Shape::from([input[0], size[0], size[1]]);
        let shapes = |layer: &str| {
            let at = |input| LayerAt::new(model, layer, input).map(|found| found.shape);
            Some((at(input).ok()?, at(&small).ok()?))
        };
        let compared = self.diversity.as_ref().map(|diversity| &diversity.layer);
        let units = || objectives.iter().flat_map(|objective| &objective.terms).map(|term| &term.unit);
        for layer in units().map(|unit| &unit.layer).chain(compared) {
            match shapes(layer) {
                Some((full, small)) if full.channels() == small.channels() => {}
                Some(_) => return Some(format!("the channels of {layer} depend on the size of the image")),
                None => {
                    return Some(format!("the network does not work with images of {} by {} pixels", size[0], size[1]));
                }
            }
        }
        let depends = |selection: &Selection| match selection {
            Selection::Channel { .. } | Selection::Class { .. } | Selection::Direction { .. } | Selection::Energy => {
                false
            }
            Selection::Neuron { .. } | Selection::Caricature { .. } | Selection::Inversion { .. } => true,
        };
        let unit = units().find(|unit| depends(&unit.selection))?;
        Some(format!("{unit} depends on the size of the image"))
    }
}
