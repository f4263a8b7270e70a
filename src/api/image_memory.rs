//! Memory budget for decoding the images of requests, with a separate pool so that small images do not wait for large
//! ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};

/// Two memory pools. Each is first-come, first-served, which avoids starvation; small requests use the small pool and
/// only wait for each other.
pub(super) struct ImageMemory {
    small: MemoryPool,
    large: MemoryPool,
}

struct MemoryPool {
    /// One permit for every [`BLOCK`] bytes.
    free: Arc<Semaphore>,
    blocks: u32,
}

/// Bytes per semaphore permit.
const BLOCK: u64 = 64 << 10;
/// Minimum number of blocks of a request, which also bounds the number of concurrent decoders.
const MIN_BLOCKS: u32 = 64;
/// A request larger than this fraction of the small pool uses the large pool.
const SMALL_FRACTION: u32 = 4;

/// Reserved memory, released when dropped. Held by the decoding work, which continues after its client disconnects.
pub(super) struct MemoryPermit(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl MemoryPool {
    fn new(bytes: u64) -> Self {
        let blocks = u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self { free: Arc::new(Semaphore::new(blocks as usize)), blocks }
    }

    async fn acquire(&self, blocks: u32) -> Result<MemoryPermit, Problem> {
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(blocks.min(self.blocks)).await.map(MemoryPermit).map_err(Problem::internal)
    }
}

impl ImageMemory {
    /// A budget of `bytes`: a quarter for small images, the rest for large ones.
    pub(super) fn new(bytes: u64) -> Self {
        Self { small: MemoryPool::new(bytes / 4), large: MemoryPool::new(bytes - bytes / 4) }
    }

    /// Waits until `bytes` are available.
    ///
    /// # Errors
    /// [`Kind::TooMuchMemory`] if `bytes` exceed the large pool.
    pub(super) async fn acquire(&self, bytes: u64) -> Result<MemoryPermit, Problem> {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX).max(MIN_BLOCKS);
        if blocks <= (self.small.blocks / SMALL_FRACTION).max(MIN_BLOCKS) {
            return self.small.acquire(blocks).await;
        }
        if blocks > self.large.blocks {
            let allowed = u64::from(self.large.blocks) * BLOCK;
            let detail =
                format!("decoding an image would take up to {bytes} bytes of memory, but only {allowed} are allowed");
            return Err(Problem::new(Kind::TooMuchMemory, detail));
        }
        self.large.acquire(blocks).await
    }

    /// Waits for the whole large pool.
    pub(super) async fn acquire_all_large(&self) -> Result<MemoryPermit, Problem> {
        self.large.acquire(self.large.blocks).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use super::*;

    /// The output of a future that is ready immediately.
    fn now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_images_pass_while_large_ones_are_decoded_and_wait() {
        let memory = ImageMemory::new(512 * MIB);
        let first = now(pin!(memory.acquire(300 * MIB))).unwrap().unwrap();
        let mut second = pin!(memory.acquire(300 * MIB));
        assert!(now(second.as_mut()).is_none(), "not enough memory for both");
        let small: Vec<_> = (0..30).map(|_| now(pin!(memory.acquire(MIB))).unwrap().unwrap()).collect();
        assert_eq!(small.len(), 30, "although a large image is waiting");
        drop(first);
        assert!(now(second.as_mut()).is_some());
    }

    #[test]
    fn no_more_memory_is_handed_out_than_the_budget() {
        let memory = ImageMemory::new(64 * MIB);
        let small: Vec<_> = (0..).map_while(|_| now(pin!(memory.acquire(1)))).collect();
        assert_eq!(small.len(), 4, "16 MiB in pieces of 4");
        let large: Vec<_> = (0..).map_while(|_| now(pin!(memory.acquire(20 * MIB)))).collect();
        assert_eq!(large.len(), 2, "48 MiB");
        drop((small, large));
        let all = now(pin!(memory.acquire_all_large())).unwrap();
        assert!(now(pin!(memory.acquire(5 * MIB))).is_none());
        drop(all);
    }

    #[test]
    fn what_never_fits_is_refused_at_once_with_the_numbers() {
        let memory = ImageMemory::new(64 * MIB);
        let Some(Err(problem)) = now(pin!(memory.acquire(48 * MIB + 1))) else { panic!("not refused") };
        assert_eq!(problem.kind(), Kind::TooMuchMemory);
        assert!(problem.detail().contains("50331649") && problem.detail().contains("50331648"), "{}", problem.detail());
        assert!(now(pin!(memory.acquire(48 * MIB))).unwrap().is_ok());
    }
}
