//! Memory for unpacking the images of requests: shared by all, and small images do not wait for large ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};

/// Two shares of the memory. Each is given out in the order of asking, so that nobody waits for ever; who asks for little
/// asks the small share and waits only for others who do.
pub(super) struct Decoding {
    small: Share,
    large: Share,
}

struct Share {
    /// One permit for every [`GRAIN`] bytes.
    free: Arc<Semaphore>,
    grains: u32,
}

/// Bytes of a permit.
const GRAIN: u64 = 64 << 10;
/// Permits that every request takes at least: unpacking takes a processor too.
const LEAST: u32 = 64;
/// One in how many parts of the small share may be asked for by one request.
const PART: u32 = 4;

/// Memory that is given out until this is dropped: by the work that uses it, which goes on when its request goes away.
pub(super) struct Room(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Share {
    fn new(bytes: u64) -> Self {
        let grains = u32::try_from(bytes / GRAIN).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self { free: Arc::new(Semaphore::new(grains as usize)), grains }
    }

    async fn take(&self, grains: u32) -> Result<Room, Problem> {
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(grains.min(self.grains)).await.map(Room).map_err(Problem::internal)
    }
}

impl Decoding {
    /// So many bytes in all: a quarter for small images, the rest for others.
    pub(super) fn new(bytes: u64) -> Self {
        Self { small: Share::new(bytes / 4), large: Share::new(bytes - bytes / 4) }
    }

    /// Waits for so much memory.
    ///
    /// # Errors
    /// [`Kind::TooMuchMemory`] when there is never so much.
    pub(super) async fn room(&self, bytes: u64) -> Result<Room, Problem> {
        let grains = u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX).max(LEAST);
        if grains <= (self.small.grains / PART).max(LEAST) {
            return self.small.take(grains).await;
        }
        if grains > self.large.grains {
            let allowed = u64::from(self.large.grains) * GRAIN;
            let detail =
                format!("an image would take up to {bytes} bytes of memory to unpack, but {allowed} are allowed");
            return Err(Problem::new(Kind::TooMuchMemory, detail));
        }
        self.large.take(grains).await
    }

    /// Waits for all memory that there is for large images.
    pub(super) async fn all_for_large(&self) -> Result<Room, Problem> {
        self.large.take(self.large.grains).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use super::*;

    /// What a future has come to without waiting.
    fn now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_images_pass_while_large_ones_are_unpacked_and_wait() {
        let decoding = Decoding::new(512 * MIB);
        let first = now(pin!(decoding.room(300 * MIB))).unwrap().unwrap();
        let mut second = pin!(decoding.room(300 * MIB));
        assert!(now(second.as_mut()).is_none(), "there is not room for both");
        let small: Vec<_> = (0..30).map(|_| now(pin!(decoding.room(MIB))).unwrap().unwrap()).collect();
        assert_eq!(small.len(), 30, "although somebody waits before them");
        drop(first);
        assert!(now(second.as_mut()).is_some());
    }

    #[test]
    fn no_more_is_given_out_than_there_is() {
        let decoding = Decoding::new(64 * MIB);
        let small: Vec<_> = (0..).map_while(|_| now(pin!(decoding.room(1)))).collect();
        assert_eq!(small.len(), 4, "16 MiB in pieces of 4");
        let large: Vec<_> = (0..).map_while(|_| now(pin!(decoding.room(20 * MIB)))).collect();
        assert_eq!(large.len(), 2, "48 MiB");
        drop((small, large));
        let all = now(pin!(decoding.all_for_large())).unwrap();
        assert!(now(pin!(decoding.room(5 * MIB))).is_none());
        drop(all);
    }

    #[test]
    fn what_never_fits_is_refused_at_once_with_the_numbers() {
        let decoding = Decoding::new(64 * MIB);
        let Some(Err(problem)) = now(pin!(decoding.room(48 * MIB + 1))) else { panic!("not refused") };
        assert_eq!(problem.kind(), Kind::TooMuchMemory);
        assert!(problem.detail().contains("50331649") && problem.detail().contains("50331648"), "{}", problem.detail());
        assert!(now(pin!(decoding.room(48 * MIB))).unwrap().is_ok());
    }
}
