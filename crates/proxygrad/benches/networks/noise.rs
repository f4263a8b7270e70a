//! A pseudorandom stream that is easy to reimplement in other languages.

use proxygrad::network::Array;

/// Uniform numbers in [-1, 1): a counter hashed with the finalizer of MurmurHash3.
#[derive(Default)]
pub struct Noise {
    position: u32,
}

impl Noise {
    /// The next `count` numbers, times `bound`.
    pub fn values(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count).map(|_| self.next() * bound as f32).collect()
    }

    /// Weights `[O,I,…]` that multiply the mean square of their inputs by `gain`.
    ///
    /// # Errors
    /// Never for shapes of tensors that fit into memory.
    pub fn weight(&mut self, shape: &[usize], gain: f64) -> anyhow::Result<Array> {
        let fan = shape[1..].iter().product::<usize>();
        let values = self.values(shape.iter().product(), (3.0 * gain / fan as f64).sqrt());
        Ok(Array::new(shape, values)?)
    }

    /// Small biases.
    pub fn bias(&mut self, count: usize) -> Array {
        Array::vector(self.values(count, 0.1))
    }

    fn next(&mut self) -> f32 {
        let mut x = self.position;
        self.position = self.position.wrapping_add(1);
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        (x >> 8) as f32 * (2.0 / (1 << 24) as f32) - 1.0
    }
}
