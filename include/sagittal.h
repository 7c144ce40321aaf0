/* sagittal: Stable Diffusion with Self-Attention Guidance on any GPU, for C and languages that call C.
 * Written by cbindgen from capi/src; do not edit. `capi/examples/generate.c` is a complete example.
 *
 * Library:  cargo build --release -p sagittal-capi
 *           target/release/libsagittal_capi.a and libsagittal_capi.so (.dylib, .dll)
 *
 * Errors.   A function that can fail returns a SagittalStatus, and sagittal_last_error() describes
 *           the error of the last such call of the same thread. The library never aborts: NULL for a
 *           required argument and text that is not UTF-8 are errors, and a bug in the library is
 *           SAGITTAL_STATUS_INTERNAL.
 * Memory.   You own what a function returns through its last argument, until you pass it to the
 *           function that frees it; nothing is returned if the status is not SAGITTAL_STATUS_OK.
 *           Functions that free accept NULL. Texts that functions return belong to the library.
 * Versions. A struct begins with its own size, so that fields can be added at its end without
 *           breaking compiled programs: SAGITTAL_PICTURES_INIT and sagittal_request_init() set it.
 * Threads.  A SagittalDevice and a SagittalModel may be used by several threads at the same time,
 *           also for several generations at once, and be freed on any thread once no call uses
 *           them. A SagittalRequest and SagittalPictures are plain data: one thread at a time.
 *           The progress callback runs on the thread that called sagittal_generate().
 */

#ifndef SAGITTAL_H
#define SAGITTAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No pictures: `SagittalPictures pictures = SAGITTAL_PICTURES_INIT;` */
#define SAGITTAL_PICTURES_INIT {sizeof(SagittalPictures), 0, 0, 0, 0, 0}

// Outcome of a call.
typedef enum {
  // Success.
  SAGITTAL_STATUS_OK = 0,
  // An argument or a setting is invalid or outside its range.
  SAGITTAL_STATUS_USAGE = 1,
  // A file is missing, unreadable, damaged or of the wrong kind.
  SAGITTAL_STATUS_FILE = 2,
  // A file is valid, but its contents fit no supported model.
  SAGITTAL_STATUS_MODEL = 3,
  // The adapter, the device or a shader failed.
  SAGITTAL_STATUS_DEVICE = 4,
  // The work exceeds the memory or the limits of the device.
  SAGITTAL_STATUS_MEMORY = 5,
  // A result contains NaN or infinity.
  SAGITTAL_STATUS_NON_FINITE = 6,
  // The progress callback or sagittal_cancel() asked to stop.
  SAGITTAL_STATUS_CANCELLED = 7,
  // A bug in sagittal: please report it.
  SAGITTAL_STATUS_INTERNAL = 8,
} SagittalStatus;

// What is being done.
typedef enum {
  // Weights are uploaded to the device.
  SAGITTAL_PHASE_LOADING = 0,
  // Prompts go through the text encoder.
  SAGITTAL_PHASE_ENCODING = 1,
  // A step of the sampling is done: `step` of `total`, from 1; 0 is before the first.
  SAGITTAL_PHASE_SAMPLING = 2,
  // A picture goes through the VAE: `step` of `total`, from 1.
  SAGITTAL_PHASE_DECODING = 3,
} SagittalPhase;

// A GPU, or a driver that runs on the CPU.
typedef struct SagittalDevice SagittalDevice;

// A model on a device. Weights are uploaded when they are first needed.
typedef struct SagittalModel SagittalModel;

// Data that the library keeps for SagittalPictures.
typedef struct SagittalOwner SagittalOwner;

// A generation request: fill it with sagittal_request_init(), then change fields. Texts are read
// only during sagittal_generate().
typedef struct {
  // Size of the struct in bytes, which sagittal_request_init() sets. A later library with more
  // fields uses default values for them.
  size_t struct_size;
  // Prompt; NULL is an empty one. `(word:1.3)` gives words more weight, `AND` and `BREAK` mean the
  // same as in A1111.
  const char *prompt;
  // Negative prompt; NULL is an empty one.
  const char *negative;
  // Width in pixels, a multiple of 8.
  uint32_t width;
  // Height in pixels, a multiple of 8.
  uint32_t height;
  // Pictures made together, 1 to 4096.
  uint32_t count;
  // Number of sampling steps, 1 to 10000.
  uint32_t steps;
  // Scale of classifier-free guidance; 1 turns it off.
  float cfg;
  // Scale of Self-Attention Guidance, -2 to 5; 0 turns it off.
  float sag_scale;
  // Sigma of its blur in latent cells, 0 to 10; 0 turns it off, too.
  float sag_blur;
  // ComfyUI's name of a sampler, such as "dpmpp_2m"; NULL is "euler".
  const char *sampler;
  // ComfyUI's name of a scheduler, such as "karras"; NULL is "normal".
  const char *scheduler;
  // Seed of the noise.
  uint64_t seed;
  // Steps between previews, see sagittal_event_preview(); 0 for none. A step with a preview waits
  // for the device.
  uint32_t preview_every;
} SagittalRequest;

// An event of a generation.
typedef struct {
  // Size of the struct in the library, bytes; fields may be added at its end.
  size_t struct_size;
  // What is being done.
  SagittalPhase phase;
  // Steps or pictures done, in phases that count them.
  uint32_t step;
  // Number of steps or pictures; 0 in phases that do not count them.
  uint32_t total;
  // Noise level of a sampling step.
  float sigma;
  // For sagittal_event_preview(); NULL if there is no preview.
  const void *preview;
} SagittalEvent;

// Called on the thread of sagittal_generate(), with that call's `user`. Anything but 0 cancels. It
// must return: neither longjmp nor an exception may leave it.
typedef int (*SagittalProgress)(void *user, const SagittalEvent *event);

// Pictures of one size.
typedef struct {
  // Size of the struct in bytes: initialize it with SAGITTAL_PICTURES_INIT.
  size_t struct_size;
  // `count` pictures one after the other, each `height` rows of `width` pixels of three bytes: red,
  // green, blue.
  const uint8_t *rgb;
  // Width of each picture in pixels.
  size_t width;
  // Height of each picture in pixels.
  size_t height;
  // Number of pictures.
  size_t count;
  // Internal; do not change it.
  SagittalOwner *owner;
} SagittalPictures;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.2.0". Use the header of the same version.
const char *sagittal_version(void);

// Opens a device. `choice` is its number or a part of its name, as `sagittal devices` lists them;
// NULL is the first that is not a CPU, or the first if there is none.
//
// Needed:
// `choice` is NULL or a zero-terminated text; `device` is NULL or points to a pointer to write to.
SagittalStatus sagittal_device_open(const char *choice, SagittalDevice **device);

// The device's name as its driver gives it, valid until the device is freed; NULL for NULL.
//
// Needed:
// `device` is NULL or came from sagittal_device_open() and is not freed yet.
const char *sagittal_device_name(const SagittalDevice *device);

// Frees a device. Models that were opened on it stay valid: they keep what they need.
//
// Needed:
// `device` is NULL or came from sagittal_device_open(), and nothing uses it from now on.
void sagittal_device_free(SagittalDevice *device);

// The error of the last call of this thread that returned a SagittalStatus: what was expected, what
// was found, where, and what to do, in UTF-8. "" if it succeeded. The text is valid until the
// thread's next such call.
const char *sagittal_last_error(void);

// The status of the last call of this thread that returned one.
SagittalStatus sagittal_last_status(void);

// Opens a model on a device: a .safetensors file or a folder in the diffusers layout; NULL is the
// small model inside the library (256×256 pictures of emoji).
//
// Needed:
// `device` is NULL or a device that is not freed yet; `path` is NULL or a zero-terminated text;
// `model` is NULL or points to a pointer to write to.
SagittalStatus sagittal_model_open(const SagittalDevice *device,
                                   const char *path,
                                   SagittalModel **model);

// Frees a model.
//
// Needed:
// `model` is NULL or came from sagittal_model_open(), and nothing uses it from now on.
void sagittal_model_free(SagittalModel *model);

// Makes pictures, and returns when they are done. `progress` may be NULL; it is called with `user`,
// which the library does not use itself, and stops the work by returning anything but 0. After
// SAGITTAL_STATUS_CANCELLED, as after every error, the model can be used again.
//
// Needed:
// `model` is NULL or a model that is not freed yet; `request` is NULL or a request whose texts are
// NULL or zero-terminated; `progress` may be called with `user`; `pictures` is NULL or points to
// pictures initialized with SAGITTAL_PICTURES_INIT (earlier ones are overwritten: free them first).
SagittalStatus sagittal_generate(const SagittalModel *model,
                                 const SagittalRequest *request,
                                 SagittalProgress progress,
                                 void *user,
                                 SagittalPictures *pictures);

// Stops the generations that are running on `model`, from any thread: their sagittal_generate()
// returns SAGITTAL_STATUS_CANCELLED within one submission to the device. Later ones are not affected.
//
// Needed:
// `model` is NULL or a model that is not freed yet.
void sagittal_cancel(const SagittalModel *model);

// Writes picture `index`, from 0, as a PNG with its settings in A1111's format, atomically. An
// existing file is an error unless `replace` is true.
//
// Needed:
// `pictures` is NULL or came from the library and is not freed yet; `path` is NULL or a
// zero-terminated text.
SagittalStatus sagittal_write_png(const SagittalPictures *pictures,
                                  size_t index,
                                  const char *path,
                                  bool replace);

// Frees pictures and empties the struct, so that freeing it again does nothing.
//
// Needed:
// `pictures` is NULL or came from the library, and nothing uses its bytes from now on. Of copies of
// the struct only one may be freed.
void sagittal_pictures_free(SagittalPictures *pictures);

// A small picture of what a step predicts, one pixel per latent cell (8×8 pixels of the result), for
// the first picture of the request, if preview_every is set in it. To be called in the progress
// callback, with its event.
//
// Needed:
// `event` is NULL or the event of the progress callback, which has not returned yet; `pictures` is
// NULL or points to pictures initialized with SAGITTAL_PICTURES_INIT.
SagittalStatus sagittal_event_preview(const SagittalEvent *event,
                                      SagittalPictures *pictures);

// Fills a request with default settings: the picture size and the CFG scale of `model` (512×512 and
// 7 for NULL), 20 steps of euler, one picture, seed 0, SAG with the defaults of ComfyUI's node (scale
// 0.5, blur 2), empty prompts, no previews. `size` is sizeof(SagittalRequest): a later library with
// more fields writes no more than that.
//
// Needed:
// `model` is NULL or a model that is not freed yet; `request` is NULL or points to `size` bytes to
// write to.
SagittalStatus sagittal_request_init(const SagittalModel *model,
                                     SagittalRequest *request,
                                     size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAGITTAL_H */
