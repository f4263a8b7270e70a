//! Transforms as tensor operations, for devices other than the host.
//!
//! Every transform is applied to the whole batch; images that skip it get the identity. Only a few numbers per image
//! are copied to the device. No image depends on its batch: windows and margins wider than it needs only add zeros.

use candle_core::{DType, Device, Result, Tensor};

use super::blur::{Blur, REACH};
use super::colour::Colour;
use super::linear::{Linear, center, mirror};
use super::noise;
use super::roll::wrap;
use super::sampled::SampledTransform;

/// The views of `x` `[N,C,H,W]`.
pub(super) fn apply(transform: &SampledTransform, x: &Tensor) -> Result<Tensor> {
    match transform {
        SampledTransform::Roll(shifts) => roll(shifts.iter().map(|shift| shift.unwrap_or_default()), x),
        SampledTransform::Sample(linears) => sample(&all(linears), x),
        SampledTransform::Blur(blur, on) => chosen(on, &blurred(blur, x)?, x),
        SampledTransform::Pad { margin, grey } => padded(*margin, grey, x),
        SampledTransform::Cut { margin } => cut(*margin, x),
        SampledTransform::Noise { sd, seeds } => x + noises(*sd, seeds, x)?,
        SampledTransform::Colour(colours) => coloured(colours, x, true),
    }
}

/// The adjoint: from gradients `[N,C,H,W]` with respect to the views to gradients with respect to the images.
pub(super) fn adjoint(transform: &SampledTransform, g: &Tensor) -> Result<Tensor> {
    match transform {
        SampledTransform::Roll(shifts) => roll(shifts.iter().map(|shift| shift.unwrap_or_default().map(|s| -s)), g),
        SampledTransform::Sample(linears) => scatter(&all(linears), g),
        SampledTransform::Blur(blur, on) => chosen(on, &blurred_back(blur, g)?, g),
        SampledTransform::Pad { margin, grey } => unpadded(*margin, grey, g),
        SampledTransform::Cut { margin } => {
            [2, 3].into_iter().try_fold(g.clone(), |g, axis| g.pad_with_zeros(axis, *margin, *margin))
        }
        SampledTransform::Noise { .. } => Ok(g.clone()),
        SampledTransform::Colour(colours) => coloured(colours, g, false),
    }
}

/// Pads images with middle grey where `grey` is set, else by reflection.
fn padded(margin: usize, grey: &[bool], x: &Tensor) -> Result<Tensor> {
    let mirrored = [2, 3].into_iter().try_fold(x.clone(), |x, axis| {
        let length = x.dim(axis)?;
        x.contiguous()?.index_select(&mirror_indices(margin, length, x.device())?, axis)
    })?;
    let inside = [2, 3].into_iter().try_fold(x.affine(1.0, -0.5)?, |x, axis| x.pad_with_zeros(axis, margin, margin))?;
    chosen(grey, &inside.affine(1.0, 0.5)?, &mirrored)
}

/// The adjoint of the linear part of [`padded`].
fn unpadded(margin: usize, grey: &[bool], g: &Tensor) -> Result<Tensor> {
    let folded =
        [3, 2].into_iter().try_fold(g.clone(), |g, axis| folded(&g, axis, margin, g.dim(axis)? - 2 * margin))?;
    chosen(grey, &cut(margin, g)?, &folded)
}

fn cut(margin: usize, x: &Tensor) -> Result<Tensor> {
    let inner = |x: Tensor, axis: usize| x.narrow(axis, margin, x.dim(axis)? - 2 * margin);
    [2, 3].into_iter().try_fold(x.clone(), inner)?.contiguous()
}

/// Gaussian noise for images `x` `[N,C,H,W]`, generated in main memory so that it is the same on all devices.
fn noises(sd: f32, seeds: &[Option<u64>], x: &Tensor) -> Result<Tensor> {
    let (_, channels, h, w) = x.dims4()?;
    let mut values = vec![0f32; x.elem_count()];
    for (plane, values) in values.chunks_exact_mut(h * w).enumerate() {
        if let Some(seed) = seeds[plane / channels] {
            noise::fill(seed, plane % channels, sd, values);
        }
    }
    Tensor::from_vec(values, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
}

/// Changes colours; without `shift`, this is the adjoint.
fn coloured(colours: &[Option<Colour>], x: &Tensor, shift: bool) -> Result<Tensor> {
    let factor = |f: fn(Colour) -> f32| {
        let values = colours.iter().map(|colour| f(colour.unwrap_or(Colour::IDENTITY))).collect();
        Tensor::from_vec(values, (colours.len(), 1, 1, 1), x.device())?.to_dtype(x.dtype())
    };
    let mean = x.mean_keepdim(1)?.broadcast_mul(&factor(|colour| colour.of_mean)?)?;
    let mixed = x.broadcast_mul(&factor(|colour| colour.of_own)?)?.broadcast_add(&mean)?;
    if shift { mixed.broadcast_add(&factor(|colour| colour.shift)?) } else { Ok(mixed) }
}

fn all(linears: &[Option<Linear>]) -> Vec<Linear> {
    linears.iter().map(|linear| linear.unwrap_or(Linear::IDENTITY)).collect()
}

/// `yes` for images where `on` is set, else `no`.
fn chosen(on: &[bool], yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let on: Vec<u8> = on.iter().copied().map(u8::from).collect();
    let on = Tensor::from_vec(on, (yes.dim(0)?, 1, 1, 1), yes.device())?;
    on.broadcast_as(yes.shape())?.where_cond(yes, no)
}

/// Values of `x` `[N,C,H*W]` at indices `[N,1,P]` into its planes, the same for all channels: `[N,C,P]`.
fn gather(x: &Tensor, at: &Tensor) -> Result<Tensor> {
    let (n, c, _) = x.dims3()?;
    x.gather(&at.broadcast_as((n, c, at.dim(2)?))?.contiguous()?, 2)
}

fn roll(shifts: impl Iterator<Item = [i32; 2]>, x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let (mut rows, mut columns) = (Vec::with_capacity(n * h), Vec::with_capacity(n * w));
    for [down, right] in shifts {
        let (down, right) = (wrap(down, h), wrap(right, w));
        rows.extend((0..h).map(|y| ((y + h - down) % h * w) as u32));
        columns.extend((0..w).map(|x| ((x + w - right) % w) as u32));
    }
    let rows = Tensor::from_vec(rows, (n, h, 1), x.device())?;
    let columns = Tensor::from_vec(columns, (n, 1, w), x.device())?;
    let at = rows.broadcast_add(&columns)?.reshape((n, 1, h * w))?;
    gather(&x.contiguous()?.reshape((n, c, h * w))?, &at)?.reshape((n, c, h, w))
}

/// Coefficients of the maps, each `[N,1,1]`: for y and for x, the factors of y and x and the shift.
fn coefficients(linears: &[Linear], device: &Device) -> Result<[[Tensor; 3]; 2]> {
    let entry = |f: &dyn Fn(&Linear) -> f32| {
        let values: Vec<f32> = linears.iter().map(f).collect();
        Tensor::from_vec(values, (linears.len(), 1, 1), device)
    };
    let row = |i: usize| {
        Ok::<_, candle_core::Error>([
            entry(&|linear| linear.matrix[i][0])?,
            entry(&|linear| linear.matrix[i][1])?,
            entry(&|linear| linear.shift[i])?,
        ])
    };
    Ok([row(0)?, row(1)?])
}

/// Maps positions `y` and `x`, which broadcast to `[N, rows, columns]`, to both coordinates in the source.
fn mapped(by: &[[Tensor; 3]; 2], [y, x]: [&Tensor; 2], size: [usize; 2]) -> Result<[Tensor; 2]> {
    let [center_y, center_x] = center(size).map(f64::from);
    let (y, x) = (y.affine(1.0, -center_y)?, x.affine(1.0, -center_x)?);
    let axis = |[of_y, of_x, shift]: &[Tensor; 3], center: f64| {
        let about = of_y.broadcast_mul(&y)?.broadcast_add(&of_x.broadcast_mul(&x)?)?;
        about.broadcast_add(&shift.affine(1.0, center)?)
    };
    Ok([axis(&by[0], center_y)?, axis(&by[1], center_x)?])
}

/// The coordinates `first..first + count`.
fn coordinates(first: i64, count: usize, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = (0..count as i64).map(|i| (first + i) as f32).collect();
    Tensor::from_vec(values, count, device)
}

/// [`mirror`] as tensor operations.
fn mirrored(position: &Tensor, length: usize) -> Result<Tensor> {
    let last = (length - 1) as f64;
    if last == 0.0 {
        return position.zeros_like();
    }
    let periods = position.affine(0.5 / last, 0.0)?.floor()?;
    let wrapped = (position - periods.affine(2.0 * last, 0.0)?)?;
    let back = wrapped.affine(-1.0, 2.0 * last)?;
    wrapped.gt(last)?.where_cond(&back, &wrapped)?.clamp(0.0, last)
}

/// Bilinear sampling. Indices are computed in f32, which holds those of planes of up to 2^24 pixels.
fn sample(linears: &[Linear], x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let device = x.device();
    let y = coordinates(0, h, device)?.reshape((1, h, 1))?;
    let column = coordinates(0, w, device)?.reshape((1, 1, w))?;
    let [source_y, source_x] = mapped(&coefficients(linears, device)?, [&y, &column], [h, w])?;
    let (source_y, source_x) = (mirrored(&source_y, h)?, mirrored(&source_x, w)?);
    let top = source_y.floor()?.minimum(h.saturating_sub(2) as f64)?;
    let left = source_x.floor()?.minimum(w.saturating_sub(2) as f64)?;
    let flat = |t: Tensor| t.reshape((n, 1, h * w));
    let (fy, fx) = (flat((source_y - &top)?)?, flat((source_x - &left)?)?);
    let at = flat((top.affine(w as f64, 0.0)? + left)?)?;
    let (right, down) = (usize::from(w > 1), if h > 1 { w } else { 0 });
    let values = x.contiguous()?.reshape((n, c, h * w))?;
    let tap = |offset: usize, weight: Tensor| {
        let at = at.affine(1.0, offset as f64)?.to_dtype(DType::U32)?;
        gather(&values, &at)?.broadcast_mul(&weight.to_dtype(x.dtype())?)
    };
    let (gy, gx) = (fy.affine(-1.0, 1.0)?, fx.affine(-1.0, 1.0)?);
    let upper = (tap(0, (&gy * &gx)?)? + tap(right, (&gy * &fx)?)?)?;
    let lower = (tap(down, (&fy * &gx)?)? + tap(down + right, (&fy * &fx)?)?)?;
    (upper + lower)?.reshape((n, c, h, w))
}

/// The adjoint of [`sample`] as a gather, because devices serialize additions to one address: every source pixel
/// collects from the view.
///
/// The image is extended by reflection as far as any view reaches. A source pixel of the extended image collects from
/// the view pixels around its position in the view; then the margins are folded back.
fn scatter(linears: &[Linear], g: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = g.dims4()?;
    let device = g.device();
    let window = Window::new(linears, [h, w]);
    let [margin_y, margin_x] = window.margins;
    let (rows, columns) = (h + 2 * margin_y, w + 2 * margin_x);
    let source_y = coordinates(-(margin_y as i64), rows, device)?.reshape((1, rows, 1))?;
    let source_x = coordinates(-(margin_x as i64), columns, device)?.reshape((1, 1, columns))?;
    let forward = coefficients(linears, device)?;
    let inverses: Vec<Linear> = linears.iter().map(|linear| linear.inverse()).collect();
    let [seen_y, seen_x] = mapped(&coefficients(&inverses, device)?, [&source_y, &source_x], [h, w])?;
    let first = |seen: Tensor, axis: usize| {
        let reach: Vec<f32> = window.reaches.iter().map(|reach| reach[axis]).collect();
        seen.broadcast_sub(&Tensor::from_vec(reach, (n, 1, 1), device)?)?.ceil()
    };
    let (first_y, first_x) = (first(seen_y, 0)?, first(seen_x, 1)?);
    let values = g.contiguous()?.reshape((n, c, h * w))?;
    let mut collected = Tensor::zeros((n, c, rows * columns), g.dtype(), device)?;
    for i in 0..window.counts[0] {
        let y = first_y.affine(1.0, i as f64)?;
        let inside_y = y.clamp(0.0, (h - 1) as f64)?;
        for j in 0..window.counts[1] {
            let x = first_x.affine(1.0, j as f64)?;
            let inside_x = x.clamp(0.0, (w - 1) as f64)?;
            let [from_y, from_x] = mapped(&forward, [&y, &x], [h, w])?;
            let weight = (nearness(&from_y, &source_y)? * nearness(&from_x, &source_x)?)?;
            let exists = (y.eq(&inside_y)?.to_dtype(DType::F32)? * x.eq(&inside_x)?.to_dtype(DType::F32)?)?;
            let weight = (weight * exists)?.reshape((n, 1, rows * columns))?.to_dtype(g.dtype())?;
            let at = (inside_y.affine(w as f64, 0.0)? + inside_x)?.to_dtype(DType::U32)?;
            let seen = gather(&values, &at.reshape((n, 1, rows * columns))?)?;
            collected = (collected + seen.broadcast_mul(&weight)?)?;
        }
    }
    let collected = collected.reshape((n, c, rows, columns))?;
    folded(&folded(&collected, 2, margin_y, h)?, 3, margin_x, w)
}

/// Bilinear weight between two coordinates: one minus their distance, at least 0.
fn nearness(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.broadcast_sub(b)?.abs()?.affine(-1.0, 1.0)?.relu()
}

/// Adds the reflected margins of `axis` to the `length` values between them.
fn folded(x: &Tensor, axis: usize, margin: usize, length: usize) -> Result<Tensor> {
    let into = mirror_indices(margin, length, x.device())?;
    let mut dims = x.dims().to_vec();
    dims[axis] = length;
    Tensor::zeros(dims, x.dtype(), x.device())?.index_add(&into, &x.contiguous()?, axis)
}

/// Source index of every position along an axis of `length` values with reflected margins.
fn mirror_indices(margin: usize, length: usize, device: &Device) -> Result<Tensor> {
    let from = |i: usize| mirror(i as f32 - margin as f32, length) as u32;
    Tensor::from_vec((0..length + 2 * margin).map(from).collect(), length + 2 * margin, device)
}

/// Extent of the views beyond the image, and of a source pixel in the view; both per axis.
struct Window {
    /// Pixels beyond the image's border that some view reads.
    margins: [usize; 2],
    /// Per image: radius around a source pixel's position in the view within which view pixels read it.
    reaches: Vec<[f32; 2]>,
    /// Largest number of view pixels within twice that radius.
    counts: [usize; 2],
}

impl Window {
    fn new(linears: &[Linear], size: [usize; 2]) -> Self {
        // Rounding must not push a pixel of the view out of the window.
        const SLACK: f32 = 1e-2;
        let half = center(size);
        let beyond = |axis: usize| {
            let beyond = |linear: &Linear| {
                let [of_y, of_x] = linear.matrix[axis];
                of_y.abs() * half[0] + of_x.abs() * half[1] + linear.shift[axis].abs() - half[axis]
            };
            linears.iter().map(beyond).fold(0.0, f32::max).ceil() as usize + 1
        };
        let reach = |linear: &Linear| linear.inverse().matrix.map(|[a, b]| a.abs() + b.abs() + SLACK);
        let reaches: Vec<[f32; 2]> = linears.iter().map(reach).collect();
        let count = |axis: usize| reaches.iter().map(|reach| reach[axis]).fold(0.0, f32::max);
        let counts = [0, 1].map(|axis| (2.0 * count(axis)).floor() as usize + 1);
        Self { margins: [beyond(0), beyond(1)], reaches, counts }
    }
}

/// Factors along an axis as a tensor that broadcasts to images.
fn factors(values: &[f32], axis: usize, like: &Tensor) -> Result<Tensor> {
    let mut shape = [1; 4];
    shape[axis] = values.len();
    Tensor::from_slice(values, &shape[..], like.device())?.to_dtype(like.dtype())
}

/// Separable convolution with the taps of the blur.
fn sums(blur: &Blur, x: &Tensor) -> Result<Tensor> {
    [2, 3].into_iter().try_fold(x.clone(), |x, axis| {
        let padded = x.pad_with_zeros(axis, REACH, REACH)?;
        let tap = |i: usize| padded.narrow(axis, i, x.dim(axis)?)?.affine(f64::from(blur.taps[i]), 0.0);
        (1..blur.taps.len()).try_fold(tap(0)?, |sum, i| sum + tap(i)?)
    })
}

fn scaled(blur: &Blur, x: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&factors(&blur.rows, 2, x)?)?.broadcast_mul(&factors(&blur.columns, 3, x)?)
}

fn blurred(blur: &Blur, x: &Tensor) -> Result<Tensor> {
    scaled(blur, &sums(blur, x)?)
}

fn blurred_back(blur: &Blur, g: &Tensor) -> Result<Tensor> {
    sums(blur, &scaled(blur, g)?)
}
