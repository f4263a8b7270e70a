//! Matrix products of two maps in vector code: the second factor is packed into panels, the first one is read in place.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, KernelConfig, ThreadCtx};
use crate::engine::cpu::kernels::gemm::{Accumulator, MOST_ROWS, Prefetch, Run, TILE_SUMS, microkernel, split_evenly};
use crate::engine::cpu::kernels::matmul::ScalarMatMul;
use crate::engine::cpu::kernels::scalar::ScalarKernel;
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// Matrix products of two row-major maps, whose rows are pixels.
pub(crate) struct MatMulKernel {
    /// The matrices of each product: of both inputs and of the output.
    products: Vec<[usize; 3]>,
    /// Rows, inner length and columns.
    size: [usize; 3],
    /// Whether some matrix of an input is a factor of several products.
    is_shared: [bool; 2],
    /// Computes the gradient of shared matrices, which is a sum over products.
    scalar: ScalarKernel<ScalarMatMul>,
    scratch_len: usize,
}

/// A matrix in memory: its first value, and the distance of rows and of columns.
#[derive(Clone, Copy)]
struct Matrix {
    data: *const f32,
    strides: [usize; 2],
}

impl Matrix {
    /// Matrix number `index` of an image of a row-major map.
    fn of(map: &FeatureMap, image: usize, index: usize, rows: usize) -> Self {
        Self { data: map.at(image * map.size() + index * rows), strides: [map.pixel_stride, 1] }
    }

    fn transposed(self) -> Self {
        Self { strides: [self.strides[1], self.strides[0]], ..self }
    }

    /// The value in a row and column.
    ///
    /// # Safety
    /// It lies in the matrix.
    #[inline(always)]
    unsafe fn at(&self, row: usize, column: usize) -> *const f32 {
        // SAFETY: the caller's.
        unsafe { self.data.add(row * self.strides[0] + column * self.strides[1]) }
    }
}

impl MatMulKernel {
    pub(crate) fn new(a: &Layout, b: &Layout, output: &Layout, config: KernelConfig) -> Self {
        let scalar = ScalarMatMul::new(a, b, output);
        let size @ [rows, inner, columns] = scalar.size();
        let matrices = [rows * inner, inner * columns, rows * columns];
        let products: Vec<[usize; 3]> =
            scalar.starts().iter().map(|starts| std::array::from_fn(|i| starts[i] as usize / matrices[i])).collect();
        let is_shared =
            [(a, matrices[0]), (b, matrices[1])].map(|(input, len)| input.elements() / len < products.len());
        // Of the three products, forward and by both inputs, the one that packs most.
        let longest = |inner: usize, columns: usize| Piece::scratch_len(inner, columns, config.lanes);
        let scratch_len = longest(inner, columns).max(longest(columns, inner)).max(longest(rows, columns));
        Self { products, size, is_shared, scalar: ScalarKernel(scalar), scratch_len }
    }

    /// Computes a matrix of `epilogue.to` for every product. `factors` returns both factors of a product of an image,
    /// and the number of the matrix; `size` is rows, inner length and columns.
    fn run(
        &self,
        ctx: &ThreadCtx<'_>,
        size @ [rows, ..]: [usize; 3],
        factors: impl Fn(usize, [usize; 3]) -> (Matrix, Matrix, usize),
        epilogue: &Epilogue<'_>,
    ) {
        let to = epilogue.to;
        let all = to.images * self.products.len();
        // A few large matrices are divided by rows; every piece packs the second factor.
        let wanted = if ctx.worker.count() == 1 { 1 } else { 3 * ctx.worker.count() };
        let parts = wanted.div_ceil(all.max(1)).clamp(1, rows.div_ceil(2 * MOST_ROWS));
        ctx.worker.for_each_piece(all * parts, |piece| {
            let (product, part) = (piece / parts, piece % parts);
            let (image, product) = (product / self.products.len(), product % self.products.len());
            let (a, b, matrix) = factors(image, self.products[product]);
            let pixel = image * to.size() + matrix * rows;
            let rows = [rows * part / parts, rows * (part + 1) / parts];
            let job = Piece { size, rows, a, b, pixel, epilogue, scratch: ctx.scratch };
            // SAFETY: the instruction set is supported; the matrices lie in their maps, whose sizes `new` has compared;
            // no two pieces write the same rows; the scratch memory is private to this thread and long enough.
            unsafe { ctx.instructions.run(job) };
        });
    }
}

impl Kernel for MatMulKernel {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn scratch_len(&self) -> usize {
        self.scratch_len
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let [rows, inner, _] = self.size;
        let factors = |image, [a, b, to]: [usize; 3]| {
            (Matrix::of(&args.inputs[0], image, a, rows), Matrix::of(&args.inputs[1], image, b, inner), to)
        };
        self.run(ctx, self.size, factors, epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        if self.is_shared[input] {
            return self.scalar.backward(ctx, input, args, epilogue);
        }
        let [rows, inner, columns] = self.size;
        let gradient = |image, to| Matrix::of(&args.gradient, image, to, rows);
        if input == 0 {
            let factors = |image, [a, b, to]: [usize; 3]| {
                (gradient(image, to), Matrix::of(&args.inputs[1], image, b, inner).transposed(), a)
            };
            self.run(ctx, [rows, columns, inner], factors, epilogue);
        } else {
            let factors = |image, [a, b, to]: [usize; 3]| {
                (Matrix::of(&args.inputs[0], image, a, rows).transposed(), gradient(image, to), b)
            };
            self.run(ctx, [inner, rows, columns], factors, epilogue);
        }
    }
}

/// Some rows of a product.
struct Piece<'a> {
    /// Rows, inner length and columns.
    size: [usize; 3],
    rows: [usize; 2],
    a: Matrix,
    b: Matrix,
    /// Pixel of the first row of the result.
    pixel: usize,
    epilogue: &'a Epilogue<'a>,
    scratch: *mut f32,
}

impl Piece<'_> {
    /// Values of private memory: the second factor in panels, some rows of the first one, and a tile of sums.
    fn scratch_len(inner: usize, columns: usize, lanes: usize) -> usize {
        let packed = inner.saturating_mul(columns.next_multiple_of(lanes));
        packed.saturating_add(MOST_ROWS.saturating_mul(inner).next_multiple_of(16)).saturating_add(TILE_SUMS)
    }

    /// Packs columns of the second factor into a panel `[inner, width]`, padded with zeros.
    ///
    /// # Safety
    /// The columns lie in the matrix, and the panel in memory.
    #[inline(always)]
    unsafe fn pack_panel<S: Simd>(&self, first: usize, columns: usize, width: usize, panel: *mut f32) {
        let inner = self.size[1];
        // SAFETY: the caller's; partial vectors are loaded as such, and whole vectors are stored.
        unsafe {
            if self.b.strides[1] == 1 {
                for k in 0..inner {
                    let (from, to) = (self.b.at(k, first), panel.add(k * width));
                    for c in (0..width).step_by(S::LANES) {
                        S::store(to.add(c), S::load_up_to(from.wrapping_add(c), columns.saturating_sub(c)));
                    }
                }
                return;
            }
            for c in 0..width {
                for k in 0..inner {
                    *panel.add(k * width + c) = if c < columns { *self.b.at(k, first + c) } else { 0.0 };
                }
            }
        }
    }
}

impl SimdOp for Piece<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [_, inner, columns] = self.size;
        let panel_width = 2 * S::LANES;
        let runs = [Run { offset: 0, count: inner, skipped: 0 }];
        // SAFETY: the caller's; the parts of the scratch memory are counted in `scratch_len`.
        unsafe {
            let packed = self.scratch;
            let tile = packed.add(inner * columns.next_multiple_of(S::LANES));
            let sums = tile.add((MOST_ROWS * inner).next_multiple_of(16));
            for first in (0..columns).step_by(panel_width) {
                let count = (columns - first).min(panel_width);
                let width = count.next_multiple_of(S::LANES);
                self.pack_panel::<S>(first, count, width, packed.add(first * inner));
            }
            for (start, end) in split_evenly(self.rows[1] - self.rows[0], S::TILE_ROWS) {
                let (row, rows) = (self.rows[0] + start, end - start);
                let (a, row_stride) = if self.a.strides[1] == 1 {
                    (self.a.at(row, 0), self.a.strides[0])
                } else {
                    for k in 0..inner {
                        for r in 0..rows {
                            *tile.add(r * inner + k) = *self.a.at(row + r, k);
                        }
                    }
                    (tile.cast_const(), inner)
                };
                for first in (0..columns).step_by(panel_width) {
                    let count = (columns - first).min(panel_width);
                    let vectors = count.div_ceil(S::LANES);
                    for r in 0..rows {
                        self.epilogue.prefetch::<S>(self.pixel + row + r, first, count);
                    }
                    let panel = packed.add(first * inner).cast_const();
                    let to = Accumulator { sums, accumulate: false };
                    microkernel::<S>(
                        [rows, vectors],
                        &runs,
                        a,
                        row_stride,
                        panel,
                        Prefetch::of::<S>(panel, vectors),
                        to,
                    );
                    let region = OutputRegion::row(self.pixel + row, rows, first, count);
                    self.epilogue.store_region::<S>(region, sums, [0, vectors * S::LANES]);
                }
            }
        }
    }
}
