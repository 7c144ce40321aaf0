//! Keys and values of the cross-attentions, which depend on the prompt alone: a graph of their own
//! makes them, once for each prompt, and the network reads them at every step.
//!
//! Those of a row lie one behind the other in one tensor, each as `[tokens, K and V]`: one copy
//! brings a prompt to a row of a call, whatever the number of attentions (16 in SD1.5, 70 in SDXL),
//! and kernels read them as densely as if they were alone. The product stays one for each
//! attention: a single one for all would be a weight of 650 MiB in SDXL, and it runs once a prompt.
//! It computes one row, whatever the rows of a step: so a row cannot depend on its company.
//!
//! The network's own tensor is an input in the arena, filled by a copy on the device at each run:
//! the arena holds other plans' tensors between the runs, and 4 MiB a row (SD1.5) take a few
//! microseconds.

use super::blocks;
use crate::Result;
use crate::graph::{Graph, Shape, Tensor};
use crate::model::config::{UNET, UnetConfig};

/// Name of the extra conditioning vector.
pub const VECTOR: &str = "y";

/// Results are bound where they are written, on any device at multiples of 256 bytes.
const STEP: usize = 128;

/// Most values of a tensor of keys: long prompts take several, to stay within the device's buffers.
const MOST_VALUES: usize = 16 << 20;

/// Where the keys and values of all cross-attentions are stored.
pub struct Keys {
    /// Values of each tensor.
    rooms: Vec<usize>,
    places: Vec<KeyRange>,
}

/// Where those of one attention are stored.
struct KeyRange {
    path: String,
    channels: usize,
    room: usize,
    first: usize,
}

impl Keys {
    /// For prompts of `tokens`.
    pub fn new(config: &UnetConfig, tokens: usize) -> Self {
        let mut keys = Keys { rooms: Vec::new(), places: Vec::new() };
        for (path, channels) in blocks::cross_attention(config) {
            let values = (2 * channels * tokens).next_multiple_of(STEP);
            if keys.rooms.last().is_none_or(|room| room + values > MOST_VALUES) {
                keys.rooms.push(0);
            }
            let room = keys.rooms.len() - 1;
            keys.places.push(KeyRange { path, channels, room, first: keys.rooms[room] });
            keys.rooms[room] += values;
        }
        keys
    }

    /// Declares them as inputs of `g`: each attention's path, and its keys and values.
    pub fn inputs(&self, g: &mut Graph, tokens: usize) -> Result<Vec<(String, Tensor)>> {
        let room = |(i, values): (usize, &usize)| g.kept_input(&name(i), Shape::new(1, 1, *values));
        let rooms: Vec<Tensor> = self.rooms.iter().enumerate().map(room).collect();
        let of_place = |p: &KeyRange| {
            let shape = Shape::tokens(tokens, 2 * p.channels);
            let keys = g.part(&format!("{}.to_kv", p.path), rooms[p.room], p.first, shape)?;
            Ok((p.path.clone(), keys))
        };
        self.places.iter().map(of_place).collect()
    }
}

fn name(room: usize) -> String {
    format!("kv.{room}")
}

/// Builds the network that makes keys and values of a prompt. Inputs: `context` `[tokens,
/// context_dim]`, and `y` where the network has extra conditioning; what it keeps are inputs of [`build`](super::build). Only for plans of one row.
///
/// # Errors
/// As [`build`](super::build).
pub fn conditioning(config: &UnetConfig, tokens: usize) -> Result<Graph> {
    config.check((1, 1), tokens)?;
    let keys = Keys::new(config, tokens);
    let mut g = Graph::new(UNET);
    let context = g.input("context", Shape::tokens(tokens, config.context_dim));
    let rooms: Vec<Tensor> =
        keys.rooms.iter().enumerate().map(|(i, values)| g.room(&name(i), *values)).collect();
    for KeyRange { path, channels, room, first } in &keys.places {
        let [k, v] = ["to_k", "to_v"].map(|n| format!("{path}.{n}"));
        let parts = [(k.as_str(), *channels), (v.as_str(), *channels)];
        let kv = g.linear_merged(&format!("{path}.to_kv"), context, &parts, false)?;
        g.place(kv, rooms[*room], *first)?;
    }
    for (i, room) in rooms.into_iter().enumerate() {
        g.keep(&name(i), room);
    }
    if let Some(channels) = config.adm_in_channels {
        // It comes in as it is kept.
        let vector = g.input(VECTOR, Shape::tokens(1, channels));
        g.keep(VECTOR, vector);
    }
    Ok(g)
}
