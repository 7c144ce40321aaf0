//! Which weights stay on the device. Forecast and run follow the same rule: a network is loaded with its weights and
//! activations, and if a limit requires it others are evicted, those first that are quickest to upload again.

use super::parts::Network;
use crate::engine::{MOST_SPARE, ring_bytes};
use crate::kernels::Precision;
use crate::{Error, ErrorKind, Remedy, Result};

/// Small buffers of the engine, bytes.
const SMALL_BUFFERS: u64 = 16 << 10;

/// Device memory of a network, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Its weights.
    pub weights: u64,
    /// Its arena.
    pub arena: u64,
    /// Memory beside the arena: parameters, inputs and results, latents, kept tensors of prompts.
    pub beside: u64,
    /// Staging buffers for the upload of weights.
    pub staging: u64,
}

impl Need {
    /// For a network whose weights are all on the device.
    pub fn new(weights: u64, arena: u64, beside: u64) -> Self {
        Self { weights, arena, beside, staging: ring_bytes(weights) }
    }

    /// The total: the staging buffers are freed before the arena is allocated.
    pub fn bytes(&self) -> u64 {
        self.weights + (self.arena + self.beside).max(self.staging) + SMALL_BUFFERS
    }

    /// Checks that the network alone is within `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] naming the network.
    pub fn within(&self, limit: Option<u64>, network: Network) -> Result<()> {
        match limit.filter(|limit| *limit < self.bytes()) {
            None => Ok(()),
            Some(limit) => {
                let error =
                    Error::new(ErrorKind::Memory, format!("{network} does not fit the memory budget"))
                        .expected(format!("at most {} MiB", limit >> 20))
                        .found(format!("{} MiB of weights and activations", self.bytes().div_ceil(1 << 20)));
                Err(propose(error, self.bytes(), None))
            }
        }
    }
}

/// `error` with remedies if `least` bytes are needed: a higher limit, and f16 instead of f32.
pub fn propose(error: Error, least: u64, precision: Option<Precision>) -> Error {
    let error = error.without_remedies().remedy(Remedy::RaiseMemoryLimit(Some(least)));
    let error = match precision {
        Some(Precision::F32) => error.remedy(Remedy::UseF16),
        _ => error,
    };
    error.hint("draw a smaller picture")
}

/// The networks of `held` that are evicted so that `network` with its `need` stays below `limit`, in the order of
/// eviction.
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

/// The forecast: networks are loaded one after the other.
#[derive(Debug, Clone, Default)]
pub struct Forecast {
    held: Vec<(Network, u64)>,
    entered: Vec<(Network, Need)>,
    peak: u64,
}

impl Forecast {
    /// Loads `network`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] if it does not fit alone.
    pub fn enter(&mut self, network: Network, need: Need, limit: Option<u64>) -> Result<()> {
        need.within(limit, network)?;
        let is_there = self.held.contains(&(network, need.weights));
        let leaving = leaving(&self.held, network, need, limit);
        self.held.retain(|(n, _)| *n != network && !leaving.contains(n));
        let beside: u64 = self.held.iter().map(|(_, bytes)| bytes).sum();
        let need = if is_there { Need { staging: 0, ..need } } else { need };
        self.peak = self.peak.max(beside + need.bytes());
        self.held.push((network, need.weights));
        self.entered.push((network, need));
        Ok(())
    }

    /// Peak bytes, also for the next picture, which finds the weights that stay, and without a limit the largest arena
    /// that the engine keeps.
    pub fn peak(&self, limit: Option<u64>) -> Result<u64> {
        let arenas = self.entered.iter().map(|(_, need)| need.arena).filter(|arena| *arena <= MOST_SPARE);
        let kept = arenas.max().unwrap_or(0);
        let mut next = self.clone();
        for (network, need) in &self.entered {
            let again = match limit {
                Some(_) => *need,
                None => Need { arena: need.arena.max(kept), ..*need },
            };
            next.enter(*network, again, limit)?;
        }
        Ok(next.peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn need(weights: u64, arena: u64) -> Need {
        Need { weights: weights * MIB, arena: arena * MIB, beside: 10 * MIB, staging: 64 * MIB }
    }

    #[test]
    fn without_a_limit_all_stay() {
        let mut f = Forecast::default();
        for network in [Network::Text(0), Network::Unet, Network::Decoder(Precision::F16)] {
            f.enter(network, need(100, 80), None).unwrap();
        }
        assert_eq!(f.peak(None).unwrap(), 390 * MIB + SMALL_BUFFERS);
    }

    #[test]
    fn the_largest_arena_stays_where_there_is_no_limit() {
        let forecast = |limit: Option<u64>, arena: u64| {
            let mut f = Forecast::default();
            f.enter(Network::Unet, need(100, arena), limit).unwrap();
            f.enter(Network::Decoder(Precision::F16), need(50, 80), limit).unwrap();
            f.peak(limit).unwrap()
        };
        assert_eq!(forecast(None, 200), (150 + 200 + 10) * MIB + SMALL_BUFFERS);
        // Under a limit the arena is freed, and the decoder's weights if necessary.
        assert_eq!(forecast(Some(400 * MIB), 200), (150 + 200 + 10) * MIB + SMALL_BUFFERS);
        assert_eq!(forecast(Some(350 * MIB), 200), (100 + 200 + 10) * MIB + SMALL_BUFFERS);
        // So large an arena is freed, but the decoder's weights stay beside the next picture's UNet.
        assert_eq!(forecast(None, 2000), (150 + 2000 + 10) * MIB + SMALL_BUFFERS);
    }

    #[test]
    fn text_leaves_before_the_unet_and_only_if_it_must() {
        let limit = Some(1000 * MIB);
        let held = [(Network::Unet, 700 * MIB), (Network::Text(0), 200 * MIB)];
        let decoder = Network::Decoder(Precision::F32);
        assert!(leaving(&held, decoder, need(10, 79), limit).is_empty());
        assert_eq!(leaving(&held, decoder, need(50, 90), limit), [Network::Text(0)]);
        assert_eq!(leaving(&held, decoder, need(50, 290), limit), [Network::Text(0), Network::Unet]);
        let error = Forecast::default().enter(decoder, need(900, 190), limit).unwrap_err();
        assert!(error.to_string().contains("raise the memory limit to 1101"), "{error}");
    }
}
