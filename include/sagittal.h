/* sagittal: Stable Diffusion with Self-Attention Guidance on any GPU, for C and whatever calls C.
 * Written by cbindgen from capi/src; do not edit. `capi/examples/generate.c` is a complete example.
 *
 * Library:  cargo build --release -p sagittal-capi
 *           target/release/libsagittal_capi.a and libsagittal_capi.so (.dylib, .dll)
 *
 * Errors.   A function that can fail returns a SagittalStatus, and sagittal_last_error() says in
 *           words what the last such call of the same thread met. No argument makes the library
 *           abort: NULL where something is needed and text that is not UTF-8 are errors, and what
 *           goes wrong inside comes back as SAGITTAL_STATUS_INTERNAL.
 * Memory.   What a function gives through its last argument is yours until you pass it to the
 *           function that frees it; nothing is given where the status is not SAGITTAL_STATUS_OK.
 *           Every such function takes NULL. Texts that functions return belong to the library.
 * Versions. A struct begins with its own size, so that fields may be added at its end without
 *           breaking programs that are compiled already: SAGITTAL_PICTURES_INIT and
 *           sagittal_request_init() set it.
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

// What became of a call.
typedef enum {
  // It did what it should.
  SAGITTAL_STATUS_OK = 0,
  // An argument or a setting is outside what is allowed.
  SAGITTAL_STATUS_USAGE = 1,
  // A file is missing, unreadable, damaged or not what it should be.
  SAGITTAL_STATUS_FILE = 2,
  // A file is sound, but its contents fit no network known here.
  SAGITTAL_STATUS_MODEL = 3,
  // The adapter, the device or a shader failed.
  SAGITTAL_STATUS_DEVICE = 4,
  // The work does not fit the memory or the limits of the device.
  SAGITTAL_STATUS_MEMORY = 5,
  // A result holds NaN or infinity.
  SAGITTAL_STATUS_NON_FINITE = 6,
  // The progress callback or sagittal_cancel() asked to stop.
  SAGITTAL_STATUS_CANCELLED = 7,
  // A fault in sagittal itself: please report it.
  SAGITTAL_STATUS_INTERNAL = 8,
} SagittalStatus;

// What is being done.
typedef enum {
  // Weights are brought to the device.
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

// A model on a device. Weights are brought over when they are first needed.
typedef struct SagittalModel SagittalModel;

// What the library keeps for SagittalPictures.
typedef struct SagittalOwner SagittalOwner;

// A generation request: fill it by sagittal_request_init(), then change what you like. Texts are
// read during sagittal_generate() alone.
typedef struct {
  // Bytes of the struct as your program knows it: sagittal_request_init() sets it. A library that
  // knows more fields takes the usual values for them.
  size_t struct_size;
  // What the pictures show; NULL is no text. `(word:1.3)` weighs words, `AND` and `BREAK` are read
  // as A1111 reads them.
  const char *prompt;
  // Negative prompt: what the pictures are led away from; NULL is no text.
  const char *negative;
  // Width in pixels, a multiple of 8.
  uint32_t width;
  // Height in pixels, a multiple of 8.
  uint32_t height;
  // Pictures made together, 1 to 4096.
  uint32_t count;
  // Number of sampling steps, 1 to 10000.
  uint32_t steps;
  // Scale of classifier-free guidance; 1 is none.
  float cfg;
  // Scale of Self-Attention Guidance, -2 to 5; 0 is none.
  float sag_scale;
  // Standard deviation of its blur in latent cells, 0 to 10; 0 turns it off as well.
  float sag_blur;
  // ComfyUI's name of a sampler, such as "dpmpp_2m"; NULL is "euler".
  const char *sampler;
  // ComfyUI's name of a scheduler, such as "karras"; NULL is "normal".
  const char *scheduler;
  // Seed of the noise.
  uint64_t seed;
  // Steps between previews, which sagittal_event_preview() gives; 0 is no preview. A step with one
  // waits for the device.
  uint32_t preview_every;
} SagittalRequest;

// An event of a generation.
typedef struct {
  // Bytes of the struct as the library knows it; fields may be added at its end.
  size_t struct_size;
  // What is being done.
  SagittalPhase phase;
  // How far, where the phase counts.
  uint32_t step;
  // How far it goes; 0 where the phase does not count.
  uint32_t total;
  // Noise level of a step of sampling.
  float sigma;
  // For sagittal_event_preview(); NULL where there is nothing to be seen.
  const void *preview;
} SagittalEvent;

// Called on the thread of sagittal_generate(), with that call's `user`. Anything but 0 cancels. It
// must return: neither longjmp nor an exception may leave it.
typedef int (*SagittalProgress)(void *user, const SagittalEvent *event);

// Pictures of one size.
typedef struct {
  // Bytes of the struct as your program knows it: begin with SAGITTAL_PICTURES_INIT.
  size_t struct_size;
  // `count` pictures one after the other, each `height` rows of `width` pixels of three bytes: red,
  // green, blue.
  const uint8_t *rgb;
  // Columns.
  size_t width;
  // Rows.
  size_t height;
  // Number of pictures.
  size_t count;
  // The library's; leave it alone.
  SagittalOwner *owner;
} SagittalPictures;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0". It and the header belong together.
const char *sagittal_version(void);

// Opens a device. `choice` is its number or a part of its name, as `sagittal devices` lists them;
// NULL is the first that is not a CPU, else the first.
//
// Needed:
// `choice` is NULL or a text that ends with a zero; `device` is NULL or a place for a pointer.
SagittalStatus sagittal_device_open(const char *choice, SagittalDevice **device);

// The device's name as its driver gives it, valid until the device is freed; NULL for NULL.
//
// Needed:
// `device` is NULL or came from sagittal_device_open() and is not freed yet.
const char *sagittal_device_name(const SagittalDevice *device);

// Gives a device back. Models that were opened on it may go on: they keep what they need.
//
// Needed:
// `device` is NULL or came from sagittal_device_open(), and nothing uses it from now on.
void sagittal_device_free(SagittalDevice *device);

// What went wrong in the last call of this thread that returned a SagittalStatus: what was
// expected, what was found, where, and what to do, in UTF-8. "" if it succeeded. The text is valid
// until the thread's next such call.
const char *sagittal_last_error(void);

// The status that the last call of this thread that returns one has returned.
SagittalStatus sagittal_last_status(void);

// Opens a model on a device: a .safetensors file or a folder in the diffusers layout; NULL is the
// small model inside the library (256×256 pictures of emoji).
//
// Needed:
// `device` is NULL or a device that is not freed yet; `path` is NULL or a text that ends with a
// zero; `model` is NULL or a place for a pointer.
SagittalStatus sagittal_model_open(const SagittalDevice *device,
                                   const char *path,
                                   SagittalModel **model);

// Gives a model back.
//
// Needed:
// `model` is NULL or came from sagittal_model_open(), and nothing uses it from now on.
void sagittal_model_free(SagittalModel *model);

// Makes pictures, and returns when they are done. `progress` may be NULL; it hears of the work with
// `user`, which the library does not look at, and stops it by returning anything but 0. After
// SAGITTAL_STATUS_CANCELLED, as after every error, the model is as usable as before.
//
// Needed:
// `model` is NULL or a model that is not freed yet; `request` is NULL or a request whose texts are
// NULL or end with a zero; `progress` may be called with `user`; `pictures` is NULL or a place for
// pictures that begins with SAGITTAL_PICTURES_INIT (earlier ones are overwritten: free them first).
SagittalStatus sagittal_generate(const SagittalModel *model,
                                 const SagittalRequest *request,
                                 SagittalProgress progress,
                                 void *user,
                                 SagittalPictures *pictures);

// Stops the generations that run on `model` now, from any thread: their sagittal_generate() returns
// SAGITTAL_STATUS_CANCELLED within one submission to the device. Later ones are not touched.
//
// Needed:
// `model` is NULL or a model that is not freed yet.
void sagittal_cancel(const SagittalModel *model);

// Writes a picture, counted from 0, as a PNG, with the settings it was made by as A1111 writes them:
// whole or not at all. An existing file is left alone unless `replace` is true.
//
// Needed:
// `pictures` is NULL or came from the library and is not freed yet; `path` is NULL or a text that
// ends with a zero.
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

// A small picture of what a step predicts, one pixel a latent cell (8×8 pixels of the result), for
// the first picture of the request, where its preview_every asks for one. To be called in the
// progress callback, with its event.
//
// Needed:
// `event` is NULL or the one that the progress callback, which has not returned yet, was given;
// `pictures` is NULL or a place for pictures that begins with SAGITTAL_PICTURES_INIT.
SagittalStatus sagittal_event_preview(const SagittalEvent *event, SagittalPictures *pictures);

// Fills a request with the usual settings, and with the picture's size and the CFG scale that suit
// `model`; NULL is 512×512 and 7. 20 steps of euler, one picture, seed 0, SAG as ComfyUI's node has
// it (scale 0.5, blur 2), no texts, no previews. `size` is sizeof(SagittalRequest): fields that a
// later library adds are not written where your program has no room for them.
//
// Needed:
// `model` is NULL or a model that is not freed yet; `request` is NULL or a place of `size` bytes.
SagittalStatus sagittal_request_init(const SagittalModel *model,
                                     SagittalRequest *request,
                                     size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAGITTAL_H */
