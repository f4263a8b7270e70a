//! Units of one kind, computed together.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::bound::BoundTerm;
use super::similarity::Similarity;
use crate::maximize::ops::{Placement, sum_dtype};
use crate::network::{Reduction, Selection};

/// Properties that the units of a group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) target: usize,
    source: Source,
    rule: Rule,
}

/// Source of a unit's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Channel,
    Direction,
    Layer,
    /// Each position's similarity to a reference.
    Similarity,
}

/// Reduction of a map to one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Mean,
    /// The value at a position that each unit has for itself.
    Place,
    /// Mean of this many largest values.
    Largest(usize),
    MeanSquare,
    Sum,
}

impl Kind {
    pub(super) fn of(term: &BoundTerm, shape: &[usize]) -> Self {
        let (source, rule) = match &term.selection {
            Selection::Channel { reduction, .. } | Selection::Class { reduction, .. } => {
                (Source::Channel, Rule::of(*reduction, shape))
            }
            Selection::Neuron { .. } => (Source::Channel, Rule::Place),
            Selection::Direction { cosine_power, reduction, .. } => {
                let source = if *cosine_power == 0.0 { Source::Direction } else { Source::Similarity };
                (source, Rule::of(*reduction, shape))
            }
            Selection::Caricature { .. } => (Source::Similarity, Rule::Mean),
            Selection::Inversion { .. } => (Source::Similarity, Rule::Sum),
            Selection::Energy => (Source::Layer, Rule::MeanSquare),
        };
        Self { target: term.target, source, rule }
    }
}

impl Rule {
    fn of(reduction: Reduction, shape: &[usize]) -> Self {
        let count = positions(shape);
        match reduction {
            Reduction::Mean => Self::Mean,
            Reduction::Center => Self::Place,
            Reduction::Max => Self::Largest(1),
            Reduction::TopFraction(share) => {
                // Slightly less, so that a share such as 0.1, which f32 rounds up, keeps 40 of 400 values and not 41.
                let kept = (f64::from(share) * count as f64 * (1.0 - 1e-6)).ceil() as usize;
                Self::Largest(kept.clamp(1, count))
            }
        }
    }
}

/// Number of channels; 1 for a target of one number per image.
fn channels(shape: &[usize]) -> usize {
    shape.first().copied().unwrap_or(1)
}

/// Number of positions of a channel.
fn positions(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

/// Flat index of the position that a unit with [`Rule::Place`] reads.
fn place(selection: &Selection, shape: &[usize]) -> usize {
    match (selection, shape) {
        (Selection::Neuron { position: [y, x], .. }, &[_, _, width]) => y * width + x,
        (Selection::Neuron { position: [y, x], .. }, _) => y + x,
        (_, &[_, height, width]) => height / 2 * width + width / 2,
        _ => 0,
    }
}

/// Units of one kind.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// Shape of the target for one image.
    shape: Vec<usize>,
    /// Image of each unit: `[G]`.
    pub(super) images: Tensor,
    /// `[G]`, in the precision of sums.
    pub(super) weights: Tensor,
    maps: Maps,
    /// Positions of units with [`Rule::Place`]: `[G,1]`.
    places: Tensor,
    dtype: DType,
}

/// Source of the maps of a group's units.
#[derive(Debug)]
enum Maps {
    /// Rows `[G]` of the target seen as `[N*C, P]`, or for whole layers as `[N, C*P]`.
    Rows(Tensor),
    /// Each unit's image, and its weights over channels `[1,C]`.
    Directions(Vec<(usize, Tensor)>),
    /// Each unit's image, and its similarity to the reference.
    Similarities(Vec<(usize, Similarity)>),
}

/// Maps and values of a group's units.
pub(super) struct Reading {
    /// `[G,P]`, in the precision of sums.
    maps: Tensor,
    /// Positions `[G,k]` of the largest values, for [`Rule::Largest`].
    largest: Option<Tensor>,
    /// `[G]`, in the precision of sums.
    pub(super) values: Tensor,
}

impl Group {
    pub(super) fn new(
        kind: Kind,
        members: &[(usize, &BoundTerm)],
        shape: &[usize],
        placement: &Placement,
    ) -> Result<Self> {
        let &Placement { ref device, dtype, arithmetic } = placement;
        let count = members.len();
        let indices = |of: &dyn Fn(usize, &BoundTerm) -> usize, shape: &[usize]| {
            let indices = members.iter().map(|(image, term)| of(*image, term) as u32).collect();
            Tensor::from_vec::<_, u32>(indices, shape, device)
        };
        let channels = channels(shape);
        let direction = |(image, term): &(usize, &BoundTerm)| match &term.selection {
            Selection::Direction { weights, .. } => {
                Some(Tensor::from_slice(weights, (1, channels), device).and_then(|w| Ok((*image, w.to_dtype(dtype)?))))
            }
            _ => None,
        };
        let similarity = |(image, term): &(usize, &BoundTerm)| {
            let similarity = match (&term.selection, &term.reference) {
                (Selection::Direction { weights, cosine_power, .. }, _) => {
                    let direction = Tensor::from_slice(weights, (channels, 1), device)?.to_dtype(dtype)?;
                    Similarity::cosine(
                        &direction.broadcast_as((channels, positions(shape)))?,
                        *cosine_power,
                        arithmetic,
                    )?
                }
                (Selection::Caricature { cosine_power, .. }, Some(reference)) => {
                    Similarity::cosine(&reference.reshape((channels, ()))?, *cosine_power, arithmetic)?
                }
                (Selection::Inversion { .. }, Some(reference)) => {
                    Similarity::distance(&reference.reshape((channels, ()))?, arithmetic)?
                }
                _ => bail!("a unit without the image that it compares with"),
            };
            Ok((*image, similarity))
        };
        let row = |image: usize, term: &BoundTerm| match &term.selection {
            Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => image * channels + channel,
            _ => image,
        };
        let maps = match kind.source {
            Source::Direction => Maps::Directions(members.iter().filter_map(direction).collect::<Result<_>>()?),
            Source::Similarity => Maps::Similarities(members.iter().map(similarity).collect::<Result<_>>()?),
            Source::Channel | Source::Layer => Maps::Rows(indices(&row, &[count])?),
        };
        let weights = members.iter().map(|(_, term)| term.weight).collect();
        Ok(Self {
            kind,
            shape: shape.to_vec(),
            images: indices(&|image, _| image, &[count])?,
            weights: Tensor::from_vec::<_, f32>(weights, count, device)?.to_dtype(sum_dtype(device))?,
            maps,
            places: indices(&|_, term| place(&term.selection, shape), &[count, 1])?,
            dtype,
        })
    }

    /// A target's values in rows: one row per map (per image for directions, similarities and whole layers).
    fn rows(&self, output: &Tensor) -> Result<Tensor> {
        let images = output.dim(0)?;
        match self.kind.source {
            Source::Channel => output.contiguous()?.reshape((images * channels(&self.shape), positions(&self.shape))),
            Source::Direction | Source::Layer | Source::Similarity => output.contiguous()?.reshape((images, ())),
        }
    }

    /// Positions of a unit's map.
    fn map_size(&self) -> usize {
        match self.kind.source {
            Source::Channel | Source::Direction | Source::Similarity => positions(&self.shape),
            Source::Layer => self.shape.iter().product(),
        }
    }

    /// A target's values `[C,P]` on one image.
    fn values(&self, output: &Tensor, image: usize) -> Result<Tensor> {
        output.get(image)?.contiguous()?.reshape((channels(&self.shape), ()))
    }

    fn maps(&self, output: &Tensor) -> Result<Tensor> {
        let maps = match &self.maps {
            Maps::Rows(rows) => self.rows(output)?.index_select(rows, 0)?,
            Maps::Directions(directions) => {
                // One by one: the order of sums in a matrix product may depend on the batch.
                let map = |(image, weights): &(usize, Tensor)| weights.matmul(&self.values(output, *image)?);
                Tensor::cat(&directions.iter().map(map).collect::<Result<Vec<_>>>()?, 0)?
            }
            Maps::Similarities(similarities) => {
                let map = |(image, similarity): &(usize, Similarity)| similarity.map(&self.values(output, *image)?);
                Tensor::cat(&similarities.iter().map(map).collect::<Result<Vec<_>>>()?, 0)?
            }
        };
        maps.to_dtype(sum_dtype(output.device()))
    }

    pub(super) fn read(&self, output: &Tensor) -> Result<Reading> {
        let maps = self.maps(output)?;
        let count = maps.dim(1)?;
        let (largest, values) = match self.kind.rule {
            Rule::Mean => (None, maps.sum(1)?.affine(1.0 / count as f64, 0.0)?),
            Rule::Sum => (None, maps.sum(1)?),
            Rule::Place => (None, maps.gather(&self.places, 1)?.squeeze(1)?),
            Rule::MeanSquare => (None, maps.sqr()?.sum(1)?.affine(1.0 / count as f64, 0.0)?),
            Rule::Largest(kept) => {
                let largest = largest(&maps, kept)?;
                let mean = maps.gather(&largest, 1)?.sum(1)?.affine(1.0 / kept as f64, 0.0)?;
                // Comparisons ignore NaN, but this sum propagates it.
                (Some(largest), (mean + maps.sum(1)?.affine(0.0, 0.0)?)?)
            }
        };
        Ok(Reading { maps, largest, values })
    }

    /// A target's seed plus the derivatives of these units, if those are constant.
    pub(super) fn add_fixed(&self, seed: &Tensor) -> Result<Tensor> {
        match (self.kind.source, self.fixed_slopes()?) {
            (Source::Channel | Source::Direction | Source::Layer, Some(slopes)) => self.add(seed, &slopes, None),
            _ => Ok(seed.clone()),
        }
    }

    /// A target's seed plus the derivatives of these units at `output`, if those depend on it.
    pub(super) fn add_changing(&self, seed: &Tensor, reading: &Reading, output: &Tensor) -> Result<Tensor> {
        let slopes = match (self.kind.rule, &reading.largest) {
            (Rule::Largest(_), Some(largest)) => Some(self.share(largest)?),
            (Rule::MeanSquare, _) => Some(reading.maps.affine(2.0 / reading.maps.dim(1)? as f64, 0.0)?),
            _ if self.kind.source == Source::Similarity => self.fixed_slopes()?,
            _ => None,
        };
        match slopes {
            Some(slopes) => self.add(seed, &slopes, Some(output)),
            None => Ok(seed.clone()),
        }
    }

    /// Derivatives `[G,P]` of the units with respect to their maps, if constant.
    fn fixed_slopes(&self) -> Result<Option<Tensor>> {
        let (units, count) = (self.weights.dim(0)?, self.map_size());
        let even = |slope: f64| {
            let ones = Tensor::ones((units, count), self.weights.dtype(), self.weights.device())?;
            ones.affine(slope, 0.0).map(Some)
        };
        match self.kind.rule {
            Rule::Mean => even(1.0 / count as f64),
            Rule::Sum => even(1.0),
            Rule::Place => self.share(&self.places).map(Some),
            Rule::Largest(_) | Rule::MeanSquare => Ok(None),
        }
    }

    /// `1 / k` at the `chosen` positions `[G,k]` of every map, else 0: `[G,P]`.
    fn share(&self, chosen: &Tensor) -> Result<Tensor> {
        let (units, kept) = chosen.dims2()?;
        let zeros = Tensor::zeros((units, self.map_size()), self.weights.dtype(), self.weights.device())?;
        let share = Tensor::ones((units, kept), self.weights.dtype(), self.weights.device())?;
        zeros.scatter(chosen, &share.affine(1.0 / kept as f64, 0.0)?, 1)
    }

    /// The target's seed with the weighted slopes `[G,P]` of this group added, at the target's `output`.
    fn add(&self, seed: &Tensor, slopes: &Tensor, output: Option<&Tensor>) -> Result<Tensor> {
        let weighted = slopes.broadcast_mul(&self.weights.unsqueeze(1)?)?;
        let slopes = weighted.to_dtype(self.dtype)?;
        let added = match &self.maps {
            Maps::Rows(rows) => self.rows(seed)?.index_add(rows, &slopes, 0)?,
            Maps::Directions(directions) => {
                let vjp = |(g, (_, weights)): (usize, &(usize, Tensor))| {
                    weights.t()?.contiguous()?.matmul(&slopes.narrow(0, g, 1)?.contiguous()?)?.reshape((1, ()))
                };
                let vjp = directions.iter().enumerate().map(vjp).collect::<Result<Vec<_>>>()?;
                self.rows(seed)?.index_add(&self.images, &Tensor::cat(&vjp, 0)?, 0)?
            }
            Maps::Similarities(similarities) => {
                let Some(output) = output else { bail!("similarities have no derivative without an output") };
                let vjp = |(g, (image, similarity)): (usize, &(usize, Similarity))| {
                    let slopes = weighted.narrow(0, g, 1)?;
                    similarity.vjp(&self.values(output, *image)?, &slopes)?.reshape((1, ()))
                };
                let vjp = similarities.iter().enumerate().map(vjp).collect::<Result<Vec<_>>>()?;
                self.rows(seed)?.index_add(&self.images, &Tensor::cat(&vjp, 0)?, 0)?
            }
        };
        added.reshape(seed.shape())
    }
}

/// Largest map that devices sort themselves: their sort works in the shared memory of one thread block.
const SORTED_ON_DEVICE: usize = 4096;

/// Positions `[G,kept]` of the largest values of every map `[G,P]`. On the CPU, ties are broken by position.
fn largest(maps: &Tensor, kept: usize) -> Result<Tensor> {
    if kept == 1 {
        return maps.argmax_keepdim(1);
    }
    // Sorting requires values without NaN.
    let lowest = Tensor::full(f64::NEG_INFINITY, maps.shape(), maps.device())?.to_dtype(maps.dtype())?;
    let comparable = maps.eq(maps)?.where_cond(maps, &lowest)?;
    let device = maps.device();
    let near = if maps.dim(1)? > SORTED_ON_DEVICE { &Device::Cpu } else { device };
    let order = comparable.to_device(near)?.arg_sort_last_dim(false)?;
    order.narrow(1, 0, kept)?.contiguous()?.to_device(device)
}
