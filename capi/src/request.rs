//! A generation request from C.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};
use std::ptr;

use sagittal::Size;
use sagittal::pipeline::Request;
use sagittal::{Result, Sag, embedded};

use crate::argument;
use crate::failure::{SagittalStatus, report};
use crate::model::SagittalModel;

/// A generation request: fill it with sagittal_request_init(), then change fields. Texts are read
/// only during sagittal_generate().
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SagittalRequest {
    /// Size of the struct in bytes, which sagittal_request_init() sets. A later library with more
    /// fields uses default values for them.
    pub struct_size: usize,
    /// Prompt; NULL is an empty one. `(word:1.3)` gives words more weight, `AND` and `BREAK` mean the
    /// same as in A1111.
    pub prompt: *const c_char,
    /// Negative prompt; NULL is an empty one.
    pub negative: *const c_char,
    /// Width in pixels, a multiple of 8.
    pub width: u32,
    /// Height in pixels, a multiple of 8.
    pub height: u32,
    /// Pictures made together, 1 to 4096.
    pub count: u32,
    /// Number of sampling steps, 1 to 10000.
    pub steps: u32,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub cfg: f32,
    /// Scale of Self-Attention Guidance, -2 to 5; 0 turns it off.
    pub sag_scale: f32,
    /// Sigma of its blur in latent cells, 0 to 10; 0 turns it off, too.
    pub sag_blur: f32,
    /// ComfyUI's name of a sampler, such as "dpmpp_2m"; NULL is "euler".
    pub sampler: *const c_char,
    /// ComfyUI's name of a scheduler, such as "karras"; NULL is "normal".
    pub scheduler: *const c_char,
    /// Seed of the noise.
    pub seed: u64,
    /// Steps between previews, see sagittal_event_preview(); 0 for none. A step with a preview waits
    /// for the device.
    pub preview_every: u32,
}

// SAFETY: it is `repr(C)`, and its first field is a `usize`.
unsafe impl argument::Versioned for SagittalRequest {
    const NAME: &'static str = "SagittalRequest";
    const LEAST: usize = offset_of!(Self, preview_every) + size_of::<u32>();
}

/// Fills a request with default settings: the picture size and the CFG scale of `model` (512×512 and
/// 7 for NULL), 20 steps of euler, one picture, seed 0, SAG with the defaults of ComfyUI's node (scale
/// 0.5, blur 2), empty prompts, no previews. `size` is sizeof(SagittalRequest): a later library with
/// more fields writes no more than that.
///
/// # Safety
/// `model` is NULL or a model that is not freed yet; `request` is NULL or points to `size` bytes to
/// write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sagittal_request_init(
    model: *const SagittalModel,
    request: *mut SagittalRequest,
    size: usize,
) -> SagittalStatus {
    report(|| {
        // SAFETY: by this function's own condition.
        let filled = usual(unsafe { model.as_ref() });
        // SAFETY: likewise.
        unsafe { argument::write_versioned("request", request, size, filled) }
    })
}

/// The default request for `model`.
pub(crate) fn usual(model: Option<&SagittalModel>) -> SagittalRequest {
    let (side, cfg) = match model {
        Some(model) if model.embedded => (embedded::SIZE, Some(embedded::CFG)),
        Some(model) => (model.model.config().native_side(), None),
        None => (512, None),
    };
    let usual = Request::new("", Size::square(side));
    SagittalRequest {
        struct_size: size_of::<SagittalRequest>(),
        prompt: ptr::null(),
        negative: ptr::null(),
        width: side as u32,
        height: side as u32,
        count: usual.batch as u32,
        steps: usual.schedule.steps as u32,
        cfg: cfg.unwrap_or(usual.guidance.cfg),
        sag_scale: usual.guidance.sag().scale,
        sag_blur: usual.guidance.sag().blur_sigma,
        sampler: ptr::null(),
        scheduler: ptr::null(),
        seed: usual.seed,
        preview_every: 0,
    }
}

impl SagittalRequest {
    /// The library's request.
    ///
    /// # Safety
    /// Each text is NULL or zero-terminated.
    pub(crate) unsafe fn read(&self) -> Result<Request> {
        // SAFETY: by this function's own condition.
        let text = |name, text| unsafe { argument::text(name, text) };
        let prompt = text("prompt", self.prompt)?.unwrap_or_default();
        let mut request = Request::new(prompt, Size::new(self.width as usize, self.height as usize));
        request.compose = true;
        request.negative.extend(text("negative", self.negative)?.map(str::to_owned));
        (request.batch, request.schedule.steps) = (self.count as usize, self.steps as usize);
        (request.guidance.cfg, request.seed) = (self.cfg, self.seed);
        request.preview_every = self.preview_every as usize;
        request.guidance.set_sag(Sag { scale: self.sag_scale, blur_sigma: self.sag_blur, ..Sag::default() });
        if let Some(name) = text("sampler", self.sampler)? {
            request.solver.sampler = name.parse()?;
        }
        if let Some(name) = text("scheduler", self.scheduler)? {
            request.schedule.scheduler = name.parse()?;
        }
        request.check()?;
        Ok(request)
    }
}
