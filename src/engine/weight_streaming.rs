//! Where weights are stored on the device: in pages of a few buffers, in the order of their use. Pages that do not fit
//! the budget are streamed: while a network runs, each is uploaded before its use into one of a few buffers, the window.

use crate::{Error, ErrorKind, Remedy, Result};

/// Size of a page; a larger weight has its own page. If memory is short, a page is a small fraction of it, so that the
/// window leaves more for resident pages.
fn page_bytes(most: u64) -> u64 {
    (most / 64).clamp(256 << 10, 64 << 20)
}

/// Number of buffers of the window. A dispatch may need two pages at once, and a third is filled meanwhile.
pub const WINDOW: usize = 3;

/// Page, offset and bytes of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRange {
    pub page: usize,
    pub offset: u64,
    pub bytes: u64,
}

/// The pages of some weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Bytes of each page.
    pub sizes: Vec<u64>,
    /// Of each weight.
    pub spots: Vec<PageRange>,
    /// Pages from this one on are streamed.
    pub resident: usize,
}

impl Pages {
    /// Pages for weights of these `lengths`, with at most `most` bytes on the device at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] if not even the window fits.
    pub fn new(lengths: &[u64], alignment: u64, most: Option<u64>) -> Result<Self> {
        let most = most.unwrap_or(u64::MAX);
        let mut sizes: Vec<u64> = Vec::new();
        let mut spots = Vec::with_capacity(lengths.len());
        for &bytes in lengths {
            let room = bytes.next_multiple_of(alignment);
            if sizes.last().is_none_or(|size| size + room > page_bytes(most)) {
                sizes.push(0);
            }
            let page = sizes.len() - 1;
            spots.push(PageRange { page, offset: sizes[page], bytes });
            sizes[page] += room;
        }
        let mut pages = Self { resident: sizes.len(), sizes, spots };
        while pages.device_bytes() > most {
            if pages.resident == 0 {
                return Err(Error::new(
                    ErrorKind::Memory,
                    "there is not enough memory for the weights, not even for streaming them",
                )
                .expected(format!("at most {} MiB for weights", most >> 20))
                .found(format!("{} MiB for the weights that are needed at once", pages.device_bytes() >> 20))
                .remedy(Remedy::RaiseMemoryLimit(None))
                .remedy(Remedy::UseF16));
            }
            pages.resident -= 1;
        }
        Ok(pages)
    }

    /// Bytes on the device at a time.
    pub fn device_bytes(&self) -> u64 {
        let (resident, streamed) = self.sizes.split_at(self.resident);
        let window = if streamed.is_empty() { 0 } else { WINDOW as u64 * self.slot_bytes() };
        resident.iter().sum::<u64>() + window
    }

    /// Bytes of all weights.
    pub fn all_bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// Bytes of a buffer of the window: those of the largest streamed page.
    pub fn slot_bytes(&self) -> u64 {
        self.sizes[self.resident..].iter().copied().max().unwrap_or(0)
    }

    /// The buffer of the window for a page, if it is streamed.
    pub fn slot(&self, page: usize) -> Option<usize> {
        page.checked_sub(self.resident).map(|number| number % WINDOW)
    }
}
