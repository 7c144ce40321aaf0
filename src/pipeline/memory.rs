//! Which weights stay on the device. One rule for the forecast and for the run: a network enters
//! with its weights and activations, and where a limit asks for it others leave, those first that
//! are quickest to bring back.

use super::parts::Network;
use crate::engine::ring_bytes;
use crate::kernels::Precision;
use crate::{Error, ErrorKind, Result};

/// Small buffers of the engine, too many to name.
const SMALL_CHANGE: u64 = 16 << 10;

/// What a network needs on the device, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Its weights.
    pub weights: u64,
    /// Its activations.
    pub arena: u64,
    /// What the weights need on their way.
    pub road: u64,
}

impl Need {
    /// Of a network whose weights are all on the device.
    pub fn new(weights: u64, arena: u64) -> Self {
        Self { weights, arena, road: ring_bytes(weights) }
    }

    /// With what is needed to bring the weights over, which is gone before the activations come.
    pub fn bytes(&self) -> u64 {
        self.weights + self.arena.max(self.road) + SMALL_CHANGE
    }

    /// Refuses what is over `limit` by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] naming the network.
    pub fn within(&self, limit: Option<u64>, network: Network) -> Result<()> {
        match limit.filter(|limit| *limit < self.bytes()) {
            None => Ok(()),
            Some(limit) => {
                Err(Error::new(ErrorKind::Memory, format!("{network} does not fit the memory budget"))
                    .expected(format!("at most {} MiB", limit >> 20))
                    .found(format!("{} MiB of weights and activations", self.bytes().div_ceil(1 << 20)))
                    .hint(proposal(self.bytes(), None)))
            }
        }
    }
}

/// What to do where `least` bytes are needed; in f32 there is f16 too.
pub fn proposal(least: u64, precision: Option<Precision>) -> String {
    let other = if precision == Some(Precision::F32) { ", use f16 (--precision f16)" } else { "" };
    format!("raise --max-memory to {}{other} or draw a smaller picture", least.div_ceil(1 << 20))
}

/// The networks of `held` that leave so that `network` with its `need` stays below `limit`. Their
/// order is that in which they leave.
pub fn leaving<N: Copy + Ord>(held: &[(N, u64)], network: N, need: Need, limit: Option<u64>) -> Vec<N> {
    let Some(limit) = limit else { return Vec::new() };
    let mut others: Vec<(N, u64)> = held.iter().copied().filter(|(n, _)| *n != network).collect();
    others.sort_by_key(|(n, _)| *n);
    let mut beside: u64 = others.iter().map(|(_, bytes)| bytes).sum();
    let mut leaving = Vec::new();
    for (other, bytes) in others {
        if need.bytes() + beside <= limit {
            break;
        }
        beside -= bytes;
        leaving.push(other);
    }
    leaving
}

/// The forecast: networks enter one after the other.
#[derive(Debug, Default)]
pub struct Forecast {
    held: Vec<(Network, u64)>,
    /// Of the activations of those before, which stay for the next where there is no limit.
    spare: u64,
    /// The most bytes at one time.
    pub peak: u64,
}

impl Forecast {
    /// `network` does its part.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] if it does not fit by itself.
    pub fn enter(&mut self, network: Network, need: Need, limit: Option<u64>) -> Result<()> {
        need.within(limit, network)?;
        let leaving = leaving(&self.held, network, need, limit);
        self.held.retain(|(n, _)| *n != network && !leaving.contains(n));
        let beside: u64 = self.held.iter().map(|(_, bytes)| bytes).sum();
        let spare = if limit.is_some() { 0 } else { self.spare };
        // The weights come over while the activations of the network before are still there.
        let with_spare = need.weights + need.road + spare;
        self.peak = self.peak.max(beside + need.bytes().max(with_spare + SMALL_CHANGE));
        self.spare = self.spare.max(need.arena);
        self.held.push((network, need.weights));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn need(weights: u64, arena: u64) -> Need {
        Need { weights: weights * MIB, arena: arena * MIB, road: 64 * MIB }
    }

    #[test]
    fn without_a_limit_all_stay() {
        let mut f = Forecast::default();
        for network in [Network::Text(0), Network::Unet, Network::Decoder(Precision::F16)] {
            f.enter(network, need(100, 80), None).unwrap();
        }
        // The last weights come over while the activations of the networks before are there.
        assert_eq!(f.peak, (300 + 80 + 64) * MIB + SMALL_CHANGE);
        f.enter(Network::Unet, need(100, 200), None).unwrap();
        assert_eq!(f.peak, (300 + 200) * MIB + SMALL_CHANGE);
    }

    #[test]
    fn text_leaves_before_the_unet_and_only_if_it_must() {
        let limit = Some(1000 * MIB);
        let held = [(Network::Unet, 700 * MIB), (Network::Text(0), 200 * MIB)];
        let decoder = Network::Decoder(Precision::F32);
        assert!(leaving(&held, decoder, need(10, 89), limit).is_empty());
        assert_eq!(leaving(&held, decoder, need(50, 100), limit), [Network::Text(0)]);
        assert_eq!(leaving(&held, decoder, need(50, 300), limit), [Network::Text(0), Network::Unet]);
        let error = Forecast::default().enter(decoder, need(900, 200), limit).unwrap_err();
        assert!(error.to_string().contains("raise --max-memory to 1101"), "{error}");
    }
}
