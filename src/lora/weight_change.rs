//! The change of one weight, in every form that training programs write it, and its shapes.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use crate::checkpoint::Checkpoint;

/// What is added to a weight, or done with it. Names are those of the file's tensors.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ChangeKind {
    /// LoRA and LoCon: up · down, with a kernel between them in Tucker's form.
    Pair { up: String, down: String, mid: Option<String> },
    /// LoHa (LyCORIS): the product, element by element, of two such.
    Loha([Factor; 2]),
    /// LoKr (LyCORIS): the Kronecker product of two matrices.
    Lokr([Factor; 2]),
    /// GLoRA (LyCORIS): W · a1 · a2 + b1 · b2.
    Glora { a: [String; 2], b: [String; 2] },
    /// OFT (LyCORIS, kohya): rows of W rotated in blocks `[blocks, size, size]`; BOFT: in stages of blocks
    /// `[stages, blocks, size, size]`. At most `limit` of the rotation's norm, if it is not 0; rows then `rescale`d.
    Oft { blocks: String, limit: f64, rescale: Option<String> },
    /// The difference itself.
    Difference(String),
    /// What the weight is replaced with.
    Set(String),
}

/// A matrix or kernel, whole or as a product.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factor {
    /// As it is.
    Whole(String),
    /// a `[m, r]` · b `[r, n]`.
    Product { a: String, b: String },
    /// t `[i, j, h, w]`, over i with a `[i, m]` and over j with b `[j, n]`: `[m, n, h, w]`.
    Tucker { t: String, a: String, b: String },
}

/// Which tensor of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leaf {
    Weight,
    Bias,
}

/// The change of one weight or bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// The module in the file's own words.
    pub module: String,
    pub leaf: Leaf,
    pub kind: ChangeKind,
    /// alpha/rank; 1 without alpha.
    pub scale: f64,
    /// DoRA's lengths of rows or columns of the changed weight.
    pub magnitude: Option<String>,
}

impl Factor {
    /// The tensors.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Self::Whole(name) => vec![name],
            Self::Product { a, b } => vec![a, b],
            Self::Tucker { t, a, b } => vec![t, a, b],
        }
    }

    /// Its inner size, if it is a product.
    pub fn rank(&self, tensors: &Checkpoint) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product { b, .. } | Self::Tucker { b, .. } => shape_of(tensors, b).first().copied(),
        }
    }

    /// The shape of the product; None if it has none.
    fn shape(&self, tensors: &Checkpoint) -> Option<Vec<usize>> {
        match self {
            Self::Whole(name) => Some(shape_of(tensors, name).to_vec()),
            Self::Product { a, b } => multiplied(shape_of(tensors, a), shape_of(tensors, b)),
            Self::Tucker { t, a, b } => {
                let [i, j, ref taps @ ..] = *shape_of(tensors, t) else { return None };
                let ([ai, m], [bj, n]) = (plane(shape_of(tensors, a))?, plane(shape_of(tensors, b))?);
                ((ai, bj) == (i, j)).then(|| [&[m, n], taps].concat())
            }
        }
    }
}

/// A matrix, or a kernel of 1×1 taps.
fn plane(shape: &[usize]) -> Option<[usize; 2]> {
    let [m, n, ref taps @ ..] = *shape else { return None };
    taps.iter().all(|t| *t == 1).then_some([m, n])
}

/// `[m, r]` · `[r, n, taps…]`.
fn multiplied(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let [m, r] = plane(a)?;
    let [rows, n, ref taps @ ..] = *b else { return None };
    (r == rows && r > 0).then(|| [&[m, n], taps].concat())
}

/// The shape of a tensor of the file; that of a scalar if there is none of that name.
pub(super) fn shape_of<'t>(tensors: &'t Checkpoint, name: &str) -> &'t [usize] {
    tensors.tensor(name).map_or(&[], |t| &t.shape)
}

fn shapes<'l>(tensors: &'l Checkpoint, names: &[String; 2]) -> [&'l [usize]; 2] {
    names.each_ref().map(|name| shape_of(tensors, name))
}

impl ChangeKind {
    /// What programs call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pair { .. } => "LoRA",
            Self::Loha(_) => "LoHa",
            Self::Lokr(_) => "LoKr",
            Self::Glora { .. } => "GLoRA",
            Self::Oft { .. } => "OFT",
            Self::Difference(_) => "difference",
            Self::Set(_) => "replacement",
        }
    }

    /// Its tensors.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Self::Pair { up, down, mid } => [up, down].into_iter().chain(mid).map(String::as_str).collect(),
            Self::Loha(factors) | Self::Lokr(factors) => factors.iter().flat_map(Factor::tensors).collect(),
            Self::Glora { a, b } => a.iter().chain(b).map(String::as_str).collect(),
            Self::Oft { blocks, rescale, .. } => {
                std::iter::once(blocks).chain(rescale).map(String::as_str).collect()
            }
            Self::Difference(name) | Self::Set(name) => vec![name],
        }
    }

    /// The inner size by which alpha is divided; None where alpha is no factor.
    pub fn rank(&self, tensors: &Checkpoint) -> Option<usize> {
        match self {
            Self::Pair { down, .. } => shape_of(tensors, down).first().copied(),
            Self::Loha([first, _]) => first.rank(tensors),
            // Of two products the second counts, and of none alpha does not.
            Self::Lokr([first, second]) => second.rank(tensors).or_else(|| first.rank(tensors)),
            Self::Glora { a, b } => glora(shapes(tensors, a), shapes(tensors, b)).map(|(_, rank)| rank),
            Self::Oft { .. } | Self::Difference(_) | Self::Set(_) => None,
        }
    }

    /// Whether it is for a weight of shape `want`, `[outputs, inputs, taps…]` or `[channels]`; the shape that
    /// it has else, if it has any.
    pub fn check(&self, tensors: &Checkpoint, want: &[usize]) -> Result<(), Option<Vec<usize>>> {
        let found = self.shape(tensors, want);
        match &found {
            Some(found) if !found.contains(&0) && same(want, found) => Ok(()),
            _ => Err(found),
        }
    }

    /// The shape of the change of a weight of shape `want`.
    fn shape(&self, tensors: &Checkpoint, want: &[usize]) -> Option<Vec<usize>> {
        match self {
            Self::Pair { up, down, mid: None } => multiplied(shape_of(tensors, up), shape_of(tensors, down)),
            Self::Pair { up, down, mid: Some(mid) } => {
                let [a, b, ref taps @ ..] = *shape_of(tensors, mid) else { return None };
                let [rows, inputs] = plane(shape_of(tensors, down))?;
                let [outputs, rank] = plane(shape_of(tensors, up))?;
                ((rank, rows) == (a, b) && rank * rows > 0).then(|| [&[outputs, inputs], taps].concat())
            }
            Self::Loha([first, second]) => {
                let shape = first.shape(tensors)?;
                (second.shape(tensors)? == shape).then_some(shape)
            }
            Self::Lokr([first, second]) => {
                let [a, b] = plane(&first.shape(tensors)?)?;
                let second = second.shape(tensors)?;
                let [c, d, ref taps @ ..] = *second.as_slice() else { return None };
                Some([&[a * c, b * d], taps].concat())
            }
            Self::Glora { a, b } => {
                let ([a1, a2], [b1, b2]) = (shapes(tensors, a), shapes(tensors, b));
                let (old, _) = glora([a1, a2], [b1, b2])?;
                let [outputs, inputs, ref taps @ ..] = *want else { return None };
                // The old way takes W laid flat.
                let (a, width) = match old {
                    true => (multiplied(a2, a1)?, inputs * taps.iter().product::<usize>()),
                    false => (multiplied(a1, a2)?, inputs),
                };
                let b = if old { multiplied(b2, b1)? } else { multiplied(b1, b2)? };
                (a == [width, width] && b.first() == Some(&outputs)).then_some(b)
            }
            Self::Oft { blocks, rescale, .. } => {
                let (&outputs, inner) = want.split_first()?;
                if rescale.as_ref().is_some_and(|r| shape_of(tensors, r).iter().product::<usize>() != outputs)
                {
                    return None;
                }
                let turned = match *shape_of(tensors, blocks) {
                    [n, size, columns] if size == columns => n * size,
                    // Each stage exchanges rows in groups of twice as many as that before.
                    [stages, n, size, columns] if size == columns && size.is_multiple_of(2) => {
                        let group = 1usize
                            .checked_shl(u32::try_from(stages).ok()?.checked_sub(1)?)?
                            .checked_mul(size)?;
                        if !(n * size).is_multiple_of(group.max(1)) {
                            return None;
                        }
                        n * size
                    }
                    _ => return None,
                };
                (turned > 0).then(|| [&[turned], inner].concat())
            }
            Self::Difference(name) | Self::Set(name) => Some(shape_of(tensors, name).to_vec()),
        }
    }
}

/// Whether GLoRA's matrices are written in the old way, a1 `[r, inputs]`, a2 `[inputs, r]`, b1 `[r, inputs]`, b2
/// `[outputs, r]`, and r. Today it is a1 `[inputs, r]`, a2 `[r, inputs]`, b1 `[outputs, r]`, b2 `[r, inputs]`. Where a
/// square weight allows both, r is the smaller one. None if neither is so.
pub(super) fn glora(a: [&[usize]; 2], b: [&[usize]; 2]) -> Option<(bool, usize)> {
    let [[a1, a2], [b1, b2]] = [a, b].map(|pair| pair.map(plane));
    let ([a1, a2], [b1, b2]) = ([a1?, a2?], [b1?, b2?]);
    let one = |sizes: [usize; 4]| sizes.iter().all(|n| *n == sizes[0] && *n > 0).then_some(sizes[0]);
    let today = one([a1[1], a2[0], b1[1], b2[0]]).map(|r| (false, r));
    let old = one([a1[0], a2[1], b1[0], b2[1]]).map(|r| (true, r));
    today.into_iter().chain(old).min_by_key(|(_, r)| *r)
}

/// Whether two shapes are the same weight: a kernel of 1×1 is a matrix (SD 1 has the one where SD 2 has the
/// other), and a matrix `[outputs, inputs · taps]` is a kernel that was laid flat.
pub(super) fn same(want: &[usize], found: &[usize]) -> bool {
    let (want, found) = (matrix(want), matrix(found));
    let flat = |kernel: &[usize], flat: &[usize]| match (kernel, flat) {
        ([outputs, inner @ ..], [rows, columns]) if inner.len() > 1 => {
            outputs == rows && inner.iter().product::<usize>() == *columns
        }
        _ => false,
    };
    want == found || flat(want, found) || flat(found, want)
}

/// `shape` without a kernel of 1×1.
pub(super) fn matrix(shape: &[usize]) -> &[usize] {
    match shape {
        [outputs_inputs @ .., 1, 1] if outputs_inputs.len() == 2 => outputs_inputs,
        _ => shape,
    }
}
