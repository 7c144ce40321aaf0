//! Latents to pictures and back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::device_context::{DeviceContext, Stock};
use super::memory::Need;
use super::options::ModelOptions;
use super::parts::Network;
use super::progress::Progress;
use super::tiles::{LEAST_SIDE, Tiles, Tiling};
use crate::checkpoint::Checkpoint;
use crate::engine::{PlanRun, Prepared};
use crate::graph::Graph;
use crate::image;
use crate::kernels::Precision;
use crate::latent::{Latent, VaeLatent};
use crate::model::config::VaeConfig;
use crate::model::vae;
use crate::plan::{Plan, PlanOptions};
use crate::{Error, ErrorKind, Result, Size};

/// Tiles, plan and memory of an autoencoder for pictures of one size.
pub(super) struct Fit {
    pub tiles: Tiles,
    /// For a tile.
    pub plan: Plan,
    pub need: Need,
}

/// An autoencoder prepared for tiles of one size.
struct Ready {
    tiles: Tiles,
    prepared: Prepared,
}

/// Memory for activations of an autoencoder if the caller sets no limit; larger pictures are tiled.
const MOST_WHOLE: u64 = 4 << 30;

/// An autoencoder, between pictures and latents.
#[derive(Clone)]
pub struct Autoencoder {
    stock: Arc<Stock>,
    pub(super) config: VaeConfig,
    pub(super) precision: Precision,
    tiling: Tiling,
}

impl fmt::Debug for Autoencoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autoencoder").field("file", &self.stock.checkpoint.file()).finish_non_exhaustive()
    }
}

impl Autoencoder {
    /// The autoencoder in `checkpoint`, which may contain other networks or none. `options` set the
    /// precision and the tiling.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if there is none.
    pub fn new(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let config = VaeConfig::infer(&checkpoint)?;
        let precision = options.vae_precision_on(context.engine().gpu(), None);
        Self::with_config(context, checkpoint, config, precision, options.tiling)
    }

    pub(super) fn with_config(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        config: VaeConfig,
        precision: Precision,
        tiling: Tiling,
    ) -> Result<Self> {
        let stock = Arc::new(Stock::new(context, checkpoint, Arc::default()));
        Ok(Self { stock, config, precision, tiling })
    }

    /// The same weights with other tiling.
    #[doc(hidden)]
    pub fn in_tiles(&self, tiling: Tiling) -> Self {
        Self { tiling, ..self.clone() }
    }

    /// Pixels per latent cell, in each direction.
    #[doc(hidden)]
    pub fn cell(&self) -> usize {
        self.config.scale()
    }

    /// Channels of its latents.
    #[doc(hidden)]
    pub fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// Turns latents into pictures' values `[height, width, 3]`, about -1..1, one
    /// at a time, in at most `limit` bytes of device memory. A decoder whose f16 activations overflow
    /// is run again in f32; this and tiling are reported to `observe`.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`] if a picture is not finite in f32 either; [`ErrorKind::Memory`] if the
    /// smallest tile does not fit.
    pub fn decode(
        &self,
        limit: Option<u64>,
        latent: &VaeLatent,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Vec<Vec<f32>>> {
        let size = (latent.height(), latent.width());
        let cell = self.cell();
        let finite = |values: Vec<f32>| image::check_finite(size.1 * cell, &values).map(|()| values);
        let first = self.decoder(self.precision, size, limit, cancel)?;
        let mut again = None;
        report_tiles("decoder", &first.tiles, observe);
        let mut pictures = Vec::new();
        for i in 0..latent.batch() {
            observe(Progress::Decoding { picture: i, total: latent.batch() });
            let z = latent.row(i);
            let done = finite(self.draw(&first, &z, cancel)?);
            pictures.push(match done {
                Err(_) if self.precision == Precision::F16 => {
                    observe(Progress::DecodingAgain { picture: i });
                    let ready = match again.take() {
                        Some(ready) => ready,
                        None => self.decoder(Precision::F32, size, limit, cancel)?,
                    };
                    let done = finite(self.draw(&ready, &z, cancel)?);
                    again = Some(ready);
                    done?
                }
                Err(e) => {
                    return Err(e
                        .without_remedies()
                        .hint("lower the CFG scale, and the weights of prompts and LoRAs"));
                }
                Ok(values) => values,
            });
        }
        Ok(pictures)
    }

    /// The VAE decoder's own result for one latent: `[8·height, 8·width, 3]`, about -1..1.
    #[doc(hidden)]
    pub fn decode_values(&self, z: &Latent, cancel: &AtomicBool) -> Result<Vec<f32>> {
        let [batch, channels, height, width] = z.shape();
        if batch != 1 || channels != self.config.latent_channels || height * width == 0 {
            return Err(Error::usage("the latent does not fit the autoencoder")
                .expected(format!("[1, {}, height, width]", self.config.latent_channels))
                .found(format!("{:?}", z.shape())));
        }
        let ready = self.decoder(self.precision, (height, width), None, cancel)?;
        self.draw(&ready, z, cancel)
    }

    /// Whether the decoder fits `limit` for a latent of this height and width.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`], as [`decode`](Self::decode) would give it.
    pub(crate) fn fits_decoder(&self, size: (usize, usize), limit: Option<u64>) -> Result<()> {
        self.fit_decoder(self.precision, size, limit).map(drop)
    }

    /// The same for the encoder and a picture that becomes such a latent.
    pub(crate) fn fits_encoder(&self, size: (usize, usize), limit: Option<u64>) -> Result<()> {
        self.fit_encoder(self.precision, size, limit).map(drop)
    }

    /// Tiles and memory of the decoder for a latent of `whole`.
    pub(super) fn fit_decoder(
        &self,
        precision: Precision,
        whole: (usize, usize),
        limit: Option<u64>,
    ) -> Result<Fit> {
        self.fit(Network::Decoder(precision), precision, whole, limit, |(h, w)| {
            vae::decoder(&self.config, h, w)
        })
    }

    /// Tiles and memory of the encoder for a picture that becomes a latent of `whole`.
    pub(super) fn fit_encoder(
        &self,
        precision: Precision,
        whole: (usize, usize),
        limit: Option<u64>,
    ) -> Result<Fit> {
        let cell = self.cell();
        let graph = |(h, w)| vae::encoder(&self.config, h * cell, w * cell);
        self.fit(Network::Encoder(precision), precision, whole, limit, graph)
    }

    /// The picture in one piece if it fits, else the largest tiles that do.
    fn fit(
        &self,
        network: Network,
        precision: Precision,
        whole: (usize, usize),
        limit: Option<u64>,
        graph: impl Fn((usize, usize)) -> Result<Graph>,
    ) -> Result<Fit> {
        let device = self.stock.engine().gpu().profile();
        let longest = whole.0.max(whole.1);
        let sides: Vec<usize> = match self.tiling {
            Tiling::Off => vec![longest],
            Tiling::Side(side) => vec![side],
            Tiling::Auto => {
                let smaller = (LEAST_SIDE..longest).rev().filter(|side| side.is_multiple_of(8));
                std::iter::once(longest).chain(smaller).collect()
            }
        };
        let mut failure = None;
        for side in sides {
            let tiles = Tiles::new(whole, side);
            let graph = graph(tiles.size)?;
            let storage = self.stock.storage(graph.weights(), precision);
            let weights = self.stock.weight_bytes((graph.weights(), &storage, None))?;
            match Plan::new(&graph, &PlanOptions { rows: 1, storage, device: device.clone(), guard: 0 }) {
                Ok(plan) => {
                    let need = Need::new(weights, plan.arena_bytes(), plan.side_bytes(device.alignment));
                    let most = limit.unwrap_or(weights + MOST_WHOLE);
                    if need.bytes() <= most || self.tiling == Tiling::Off && limit.is_none() {
                        return Ok(Fit { tiles, plan, need });
                    }
                    failure = need.within(Some(most), network).err();
                }
                Err(e) => failure = Some(e),
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("no tile was tried")))
    }

    fn decoder(
        &self,
        precision: Precision,
        whole: (usize, usize),
        limit: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Ready> {
        let fit = self.fit_decoder(precision, whole, limit)?;
        self.ready(Network::Decoder(precision), fit, limit, cancel)
    }

    fn ready(&self, network: Network, fit: Fit, limit: Option<u64>, cancel: &AtomicBool) -> Result<Ready> {
        let how = (fit.plan.weights.as_slice(), &fit.plan.storage, None);
        let weights = self.stock.weights(network, how, fit.need, limit, cancel)?;
        let arena = self.stock.engine().arena(&fit.plan)?;
        let prepared = self.stock.engine().prepare(fit.plan, &weights, &arena)?;
        Ok(Ready { tiles: fit.tiles, prepared })
    }

    /// Decodes one latent.
    fn draw(&self, ready: &Ready, z: &Latent, cancel: &AtomicBool) -> Result<Vec<f32>> {
        let [_, channels, _, width] = z.shape();
        let planes = z.data();
        ready.tiles.blend(self.cell(), self.config.image_channels, |corner| {
            let (rows, columns) = ready.tiles.cells(corner);
            let plane = planes.len() / channels;
            let cells = rows.flat_map(|y| columns.clone().map(move |x| y * width + x));
            let input: Vec<f32> =
                cells.flat_map(|at| (0..channels).map(move |c| planes[c * plane + at])).collect();
            self.run_once(&ready.prepared, ("z", &input), cancel)
        })
    }

    /// The latent of a picture `[height, width, 3]` in -1..1, in at most `limit`
    /// bytes of device memory. Of the distribution that the encoder gives the mean is taken, as in
    /// ComfyUI, and not a sample. An encoder that overflows f16 is run again in f32.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if a side is no multiple of 8; [`ErrorKind::NonFinite`] if the latent is
    /// not finite in f32 either; [`ErrorKind::Memory`] if the smallest tile does not fit.
    pub fn encode(
        &self,
        limit: Option<u64>,
        size: Size,
        values: &[f32],
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<VaeLatent> {
        let mut latent =
            self.encode_in(self.precision, limit, (size.height, size.width), values, observe, cancel)?;
        if !latent.is_finite() && self.precision == Precision::F16 {
            log::warn!("the picture overflowed the encoder's f16: encoding it again in f32");
            latent =
                self.encode_in(Precision::F32, limit, (size.height, size.width), values, observe, cancel)?;
        }
        if latent.is_finite() {
            return Ok(VaeLatent::new(latent));
        }
        Err(Error::new(ErrorKind::NonFinite, "the encoded picture is not finite"))
    }

    /// The VAE encoder's mean for one picture `[height, width, 3]` in -1..1: a latent in the VAE's
    /// scale. Sides must be multiples of 8.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the size or the number of values does not fit.
    #[doc(hidden)]
    pub fn encode_values(
        &self,
        height: usize,
        width: usize,
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        self.encode_in(self.precision, None, (height, width), values, &mut |_| {}, cancel)
    }

    fn encode_in(
        &self,
        precision: Precision,
        limit: Option<u64>,
        (height, width): (usize, usize),
        values: &[f32],
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        let (cell, image) = (self.cell(), self.config.image_channels);
        let fits = height.is_multiple_of(cell) && width.is_multiple_of(cell) && height * width > 0;
        if !fits || values.len() != height * width * image {
            return Err(Error::usage("the picture does not fit the autoencoder")
                .expected(format!("sides in multiples of {cell} and a value for each channel"))
                .found(format!("{width}x{height} with {} values", values.len())));
        }
        let (h, w) = (height / cell, width / cell);
        let fit = self.fit_encoder(precision, (h, w), limit)?;
        let ready = self.ready(Network::Encoder(precision), fit, limit, cancel)?;
        report_tiles("encoder", &ready.tiles, observe);
        let channels = self.config.latent_channels;
        let moments = ready.tiles.blend(1, 2 * channels, |corner| {
            let (rows, columns) = ready.tiles.cells(corner);
            let line = |y: usize| (y * width + columns.start * cell) * image;
            let length = columns.len() * cell * image;
            let lines = rows.start * cell..rows.end * cell;
            let input: Vec<f32> = lines.flat_map(|y| &values[line(y)..line(y) + length]).copied().collect();
            self.run_once(&ready.prepared, ("image", &input), cancel)
        })?;
        let mut latent = Latent::zeros(1, channels, h, w);
        for (i, v) in latent.data_mut().iter_mut().enumerate() {
            // The log variance in the second half of the channels is not used.
            *v = moments[i % (h * w) * 2 * channels + i / (h * w)];
        }
        Ok(latent)
    }

    /// Runs a network of one row with one input and one result.
    fn run_once(&self, prepared: &Prepared, input: (&str, &[f32]), cancel: &AtomicBool) -> Result<Vec<f32>> {
        let mut results = self.stock.engine().run(prepared, &PlanRun::new(&[input], cancel))?;
        results.pop().map(|(_, v)| v).ok_or_else(|| Error::internal("a network gave no result"))
    }
}

fn report_tiles(part: &'static str, tiles: &Tiles, observe: &mut dyn FnMut(Progress)) {
    if tiles.corners.len() > 1 {
        observe(Progress::Tiles { part, tiles: tiles.corners.len(), side: tiles.size.0.max(tiles.size.1) });
    }
}
