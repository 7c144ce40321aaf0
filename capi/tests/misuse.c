/* Misuse of the interface, and its proper use: every failed check is printed, and their number is the
 * exit code. */

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "sagittal.h"

static int wrong = 0;

#define HOLDS(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "line %d: %s (last error: %s)\n", __LINE__, #what, sagittal_last_error()); \
            wrong++;                                                             \
        }                                                                        \
    } while (0)

/* The call fails with this status, and its message contains this word. */
#define FAILS(call, status, word)                               \
    do {                                                        \
        HOLDS((call) == (status));                              \
        HOLDS(sagittal_last_status() == (status));              \
        HOLDS(strstr(sagittal_last_error(), word) != NULL);     \
    } while (0)

struct Heard {
    const SagittalModel *model;
    unsigned calls, last_step, previews;
    unsigned stop_at;    /* the callback returns non-zero at this step */
    unsigned cancel_at;  /* another thread calls sagittal_cancel() at this step */
};

static void *cancel(void *model) {
    sagittal_cancel(model);
    return NULL;
}

static int hear(void *user, const SagittalEvent *event) {
    struct Heard *heard = user;
    heard->calls++;
    if (event->phase != SAGITTAL_PHASE_SAMPLING) {
        HOLDS(event->preview == NULL);
        return 0;
    }
    heard->last_step = event->step;
    SagittalPictures small = SAGITTAL_PICTURES_INIT;
    if (event->step > 0 && sagittal_event_preview(event, &small) == SAGITTAL_STATUS_OK) {
        HOLDS(small.width == 8 && small.height == 8 && small.count == 1);
        heard->previews++;
        sagittal_pictures_free(&small);
    }
    if (heard->cancel_at && event->step == heard->cancel_at) {
        pthread_t other;
        pthread_create(&other, NULL, cancel, (void *)heard->model);
        pthread_join(other, NULL);
    }
    return heard->stop_at && event->step == heard->stop_at;
}

static void *other_thread(void *unused) {
    (void)unused;
    HOLDS(sagittal_last_status() == SAGITTAL_STATUS_OK && !*sagittal_last_error());
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return 100;
    const char *png = argv[1];
    const char bad_text[] = {'f', 'o', 'x', (char)0xff, 0};
    SagittalDevice *device = NULL;
    SagittalModel *model = NULL;
    SagittalRequest r;
    SagittalPictures made = SAGITTAL_PICTURES_INIT;
    HOLDS(strlen(sagittal_version()) >= 5);

    /* Devices. */
    FAILS(sagittal_device_open(NULL, NULL), SAGITTAL_STATUS_USAGE, "device");
    FAILS(sagittal_device_open("no such adapter", &device), SAGITTAL_STATUS_USAGE, "no such adapter");
    FAILS(sagittal_device_open(bad_text, &device), SAGITTAL_STATUS_USAGE, "UTF-8");
    HOLDS(device == NULL && sagittal_device_name(NULL) == NULL);
    FAILS(sagittal_model_open(NULL, NULL, &model), SAGITTAL_STATUS_USAGE, "device");
    HOLDS(sagittal_device_open(NULL, &device) == SAGITTAL_STATUS_OK && *sagittal_device_name(device));
    HOLDS(!*sagittal_last_error());

    /* Models. */
    FAILS(sagittal_model_open(device, NULL, NULL), SAGITTAL_STATUS_USAGE, "model");
    FAILS(sagittal_model_open(device, bad_text, &model), SAGITTAL_STATUS_USAGE, "UTF-8");
    FAILS(sagittal_model_open(device, "none.safetensors", &model), SAGITTAL_STATUS_FILE, "none.safetensors");
    pthread_t other;
    pthread_create(&other, NULL, other_thread, NULL);
    pthread_join(other, NULL);
    FAILS(sagittal_model_open(device, __FILE__, &model), SAGITTAL_STATUS_FILE, "misuse.c");
    HOLDS(model == NULL);
    HOLDS(sagittal_model_open(device, NULL, &model) == SAGITTAL_STATUS_OK);
    /* The model keeps what it needs of the device. */
    sagittal_device_free(device);

    /* Requests. */
    FAILS(sagittal_request_init(model, NULL, sizeof r), SAGITTAL_STATUS_USAGE, "request");
    HOLDS(sagittal_request_init(NULL, &r, sizeof r) == SAGITTAL_STATUS_OK && r.width == 512 && r.cfg == 7.0f);
    HOLDS(sagittal_request_init(model, &r, sizeof r) == SAGITTAL_STATUS_OK && r.width == 256 && r.cfg == 3.5f);
    HOLDS(r.steps == 20 && r.sag_scale == 0.5f && r.sag_blur == 2.0f && r.count == 1);
    r.width = r.height = 64;
    r.steps = 3;
    r.prompt = "fox, 3d style";
    HOLDS(r.struct_size == sizeof r && r.preview_every == 0);
    const SagittalRequest good = r;
    FAILS(sagittal_generate(NULL, &r, NULL, NULL, &made), SAGITTAL_STATUS_USAGE, "model");
    FAILS(sagittal_generate(model, NULL, NULL, NULL, &made), SAGITTAL_STATUS_USAGE, "request");
    FAILS(sagittal_generate(model, &r, NULL, NULL, NULL), SAGITTAL_STATUS_USAGE, "pictures");
#define BAD(change, status, word)                                        \
    do {                                                                 \
        r = good;                                                        \
        r.change;                                                        \
        FAILS(sagittal_generate(model, &r, NULL, NULL, &made), status, word); \
        HOLDS(made.rgb == NULL && made.count == 0);                      \
    } while (0)
    BAD(struct_size = 0, SAGITTAL_STATUS_USAGE, "struct_size");
    BAD(struct_size = 40, SAGITTAL_STATUS_USAGE, "struct_size");
    BAD(prompt = bad_text, SAGITTAL_STATUS_USAGE, "prompt");
    BAD(negative = bad_text, SAGITTAL_STATUS_USAGE, "negative");
    BAD(width = 60, SAGITTAL_STATUS_USAGE, "width");
    BAD(height = 0, SAGITTAL_STATUS_USAGE, "height");
    BAD(steps = 0, SAGITTAL_STATUS_USAGE, "steps");
    BAD(count = 5000, SAGITTAL_STATUS_USAGE, "pictures");
    BAD(sag_scale = 9, SAGITTAL_STATUS_USAGE, "9");
    BAD(sag_blur = -1, SAGITTAL_STATUS_USAGE, "-1");
    BAD(sampler = "dpmpp_2n", SAGITTAL_STATUS_USAGE, "dpmpp_2m");
    BAD(scheduler = "karas", SAGITTAL_STATUS_USAGE, "karras");
    BAD(cfg = 1e30f, SAGITTAL_STATUS_NON_FINITE, "step");

    /* Structs of other versions: one that ends earlier is left alone beyond its end, of one that ends
     * later the rest must be zeros. */
    struct { SagittalRequest known; char later[16]; } newer;
    memset(&newer, 7, sizeof newer);
    HOLDS(sagittal_request_init(model, &newer.known, sizeof newer.known) == SAGITTAL_STATUS_OK);
    HOLDS(newer.later[0] == 7 && newer.later[15] == 7);
    HOLDS(sagittal_request_init(model, &newer.known, sizeof newer) == SAGITTAL_STATUS_OK);
    HOLDS(newer.known.struct_size == sizeof newer && newer.later[0] == 0 && newer.later[15] == 0);
    newer.later[3] = 1;
    FAILS(sagittal_generate(model, &newer.known, NULL, NULL, &made), SAGITTAL_STATUS_USAGE, "does not know");
    FAILS(sagittal_request_init(model, &r, 8), SAGITTAL_STATUS_USAGE, "struct_size");
    SagittalPictures unset = {0};
    FAILS(sagittal_generate(model, &good, NULL, NULL, &unset), SAGITTAL_STATUS_USAGE, "SagittalPictures");

    /* Cancel: by the callback, and by another thread. */
    struct Heard heard = {.model = model, .stop_at = 4};
    r = good;
    r.steps = 40;
    FAILS(sagittal_generate(model, &r, hear, &heard, &made), SAGITTAL_STATUS_CANCELLED, "cancelled");
    HOLDS(heard.last_step == 4 && made.rgb == NULL);
    heard = (struct Heard){.model = model, .cancel_at = 3};
    FAILS(sagittal_generate(model, &r, hear, &heard, &made), SAGITTAL_STATUS_CANCELLED, "cancelled");
    HOLDS(heard.last_step >= 3 && heard.last_step <= 4);
    sagittal_cancel(model);
    sagittal_cancel(NULL);

    /* After all that the model draws, the same each time. */
    heard = (struct Heard){.model = model};
    r = good;
    r.count = 2;
    r.preview_every = 1;
    HOLDS(sagittal_generate(model, &r, hear, &heard, &made) == SAGITTAL_STATUS_OK);
    HOLDS(heard.last_step == 3 && heard.previews == 3 && heard.calls > 5);
    HOLDS(made.width == 64 && made.height == 64 && made.count == 2);
    SagittalPictures again = SAGITTAL_PICTURES_INIT;
    r.preview_every = 0;
    HOLDS(sagittal_generate(model, &r, NULL, NULL, &again) == SAGITTAL_STATUS_OK);
    HOLDS(made.rgb && again.rgb && memcmp(made.rgb, again.rgb, 64 * 64 * 3 * 2) == 0);

    /* Files. */
    FAILS(sagittal_write_png(NULL, 0, png, false), SAGITTAL_STATUS_USAGE, "pictures");
    FAILS(sagittal_write_png(&made, 0, NULL, false), SAGITTAL_STATUS_USAGE, "path");
    FAILS(sagittal_write_png(&made, 2, png, false), SAGITTAL_STATUS_USAGE, "below 2");
    HOLDS(sagittal_write_png(&made, 1, png, false) == SAGITTAL_STATUS_OK);
    FAILS(sagittal_write_png(&made, 1, png, false), SAGITTAL_STATUS_FILE, "exists");
    HOLDS(sagittal_write_png(&made, 1, png, true) == SAGITTAL_STATUS_OK);
    FAILS(sagittal_write_png(&made, 0, "no-such-folder/a.png", true), SAGITTAL_STATUS_FILE, "no-such-folder");

    /* Freed twice, and freed as nothing. */
    sagittal_pictures_free(&made);
    sagittal_pictures_free(&made);
    sagittal_pictures_free(&again);
    sagittal_pictures_free(NULL);
    FAILS(sagittal_write_png(&made, 0, png, true), SAGITTAL_STATUS_USAGE, "no such picture");
    sagittal_model_free(model);
    sagittal_model_free(NULL);
    sagittal_device_free(NULL);
    return wrong;
}
