//! Places tensors in a few large buffers, so that tensors which are never needed at the same time share memory. Greedy
//! by size: the largest tensor first, each at the lowest offset that is free as long as it is needed.

/// A region of one of the arena's buffers, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Which buffer.
    pub slab: usize,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// A tensor to be placed: its size, and when it is needed.
#[derive(Debug, Clone, Copy)]
pub struct TensorLifetime {
    /// Length.
    pub bytes: u64,
    /// First call that touches it.
    pub first: usize,
    /// Last call that touches it.
    pub last: usize,
}

impl TensorLifetime {
    fn overlaps(&self, other: &TensorLifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The regions of all tensors.
pub struct Placed {
    /// In the order of the tensors.
    pub regions: Vec<Region>,
    /// Sizes of the buffers.
    pub slabs: Vec<u64>,
}

/// Places `requests` on multiples of `alignment`, `guard` unused bytes behind each, in buffers of
/// at most `max_slab` bytes. A single tensor beyond `max_slab` gets a buffer of its own size, and the
/// device reports the error.
pub fn place(requests: &[TensorLifetime], alignment: u64, guard: u64, max_slab: u64) -> Placed {
    let alignment = alignment.max(1);
    let room = |r: &TensorLifetime| {
        r.bytes.saturating_add(guard).checked_next_multiple_of(alignment).unwrap_or(u64::MAX)
    };
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].bytes), requests[i].first));
    let mut regions = vec![Region { slab: 0, offset: 0, bytes: 0 }; requests.len()];
    let mut slabs: Vec<(u64, Vec<usize>)> = Vec::new();
    for i in order {
        let want = room(&requests[i]);
        let mut slab = 0;
        let offset = loop {
            let Some((_, members)) = slabs.get(slab) else {
                slabs.push((0, Vec::new()));
                break 0;
            };
            let mut busy: Vec<(u64, u64)> = members
                .iter()
                .filter(|&&m| requests[m].overlaps(&requests[i]))
                .map(|&m| (regions[m].offset, regions[m].offset.saturating_add(room(&requests[m]))))
                .collect();
            busy.sort_unstable();
            let offset = busy.iter().fold((0, None), |(end, found): (u64, Option<u64>), &(from, to)| {
                let fits = found.or((from >= end.saturating_add(want)).then_some(end));
                (end.max(to), fits)
            });
            let at = offset.1.unwrap_or(offset.0);
            if at.saturating_add(want) <= max_slab {
                break at;
            }
            slab += 1;
        };
        regions[i] = Region { slab, offset, bytes: requests[i].bytes };
        slabs[slab].0 = slabs[slab].0.max(offset.saturating_add(want));
        slabs[slab].1.push(i);
    }
    Placed { regions, slabs: slabs.into_iter().map(|(size, _)| size).collect() }
}

/// Largest sum of tensors that are needed at the same time.
pub fn lower_bound(requests: &[TensorLifetime]) -> u64 {
    // Tensors that begin with a call are needed together with those that end with it.
    let comes = requests.iter().map(|r| (r.first, 0, i128::from(r.bytes)));
    let leaves = requests.iter().map(|r| (r.last, 1, -i128::from(r.bytes)));
    let mut changes: Vec<(usize, u8, i128)> = comes.chain(leaves).collect();
    changes.sort_unstable_by_key(|(at, order, _)| (*at, *order));
    let (mut now, mut top) = (0, 0);
    for (_, _, change) in changes {
        now += change;
        top = top.max(now);
    }
    u64::try_from(top).unwrap_or(u64::MAX)
}
